"""EXIF orientations, as stored by cameras, to upright."""

import struct
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from gateway.imaging import open_picture

HEIGHT, WIDTH = 40, 61


def read(data, size=None):
    picture = open_picture(data, max_pixels=HEIGHT * WIDTH)
    rgb = picture.to_rgb(size)
    assert rgb.flags.c_contiguous
    assert rgb.shape[:2] == (size or (picture.height, picture.width))
    return rgb


def with_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def upright(data):
    return ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_full_picture_is_turned_upright(photograph, encode, format_, orientation):
    """All eight orientations, of every format that has EXIF, in size and in pixels."""
    data = encode(
        photograph(HEIGHT, WIDTH), format_, exif=with_orientation(orientation), lossless=True
    )
    expected = np.asarray(upright(data)).astype(int)
    rgb = read(data)
    assert rgb.shape == expected.shape
    assert np.abs(rgb - expected).max() <= (1 if format_ == "JPEG" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(30, 20), (20, 30), (90, 150), (61, 40), (40, 61)])
def test_resized_picture_is_turned_upright(photograph, encode, orientation, size):
    """Resized and then turned is, within 1, turned and then resized; the size is that asked for."""
    pixels = photograph(HEIGHT, WIDTH)
    turned = read(encode(pixels, "PNG", exif=with_orientation(orientation)))
    expected = read(encode(turned, "PNG"), size).astype(int)
    rgb = read(encode(pixels, "PNG", exif=with_orientation(orientation)), size)
    assert np.abs(rgb - expected).max() <= 1


def test_cmyk_jpeg_is_turned_too(photograph, encode):
    """The path through Pillow applies the orientation as well."""
    image = Image.fromarray(photograph(HEIGHT, WIDTH)).convert("CMYK")
    data = encode(image, "JPEG", exif=with_orientation(6))
    np.testing.assert_array_equal(read(data), np.asarray(upright(data)))


def tiff(order, entries):
    head = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(struct.pack(f"{order}HHIHH", *entry) for entry in entries)
    return head + struct.pack(f"{order}IH", 8, len(entries)) + body + struct.pack(f"{order}I", 0)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(photograph, encode, order):
    """Cameras write either."""
    data = encode(
        photograph(HEIGHT, WIDTH), "JPEG", exif=b"Exif\0\0" + tiff(order, [(0x0112, 3, 1, 6, 0)])
    )
    assert read(data).shape == (WIDTH, HEIGHT, 3)


def test_exif_is_found_behind_other_segments(photograph, encode):
    """The EXIF segment need not be the first: a JFIF header and a comment may stand before it."""
    data = encode(photograph(HEIGHT, WIDTH), "JPEG", exif=with_orientation(6))
    comment = b"\xff\xfe" + struct.pack(">H", 30_002) + b"Exif" * 7500
    assert read(data[:2] + comment + data[2:]).shape == (WIDTH, HEIGHT, 3)


def test_exif_of_an_embedded_picture_is_not_taken(photograph, encode):
    """A thumbnail in another segment may lie on its side while the picture does not."""
    data = encode(photograph(HEIGHT, WIDTH), "JPEG")
    thumbnail = encode(photograph(8, 8), "JPEG", exif=with_orientation(6))
    segment = b"\xff\xed" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert read(data[:2] + segment + data[2:]).shape == (HEIGHT, WIDTH, 3)
    assert read(data + thumbnail).shape == (HEIGHT, WIDTH, 3)


def test_exif_behind_the_pixels_of_png_is_found(photograph, encode):
    """PNG allows the chunk after the pixels; the size is right before they are decoded."""
    data = encode(photograph(HEIGHT, WIDTH), "PNG", exif=with_orientation(6))
    start = data.index(b"eXIf") - 4
    end = data.index(b"IDAT") - 4
    moved = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    assert open_picture(moved, max_pixels=HEIGHT * WIDTH).height == WIDTH
    assert read(moved).shape == (WIDTH, HEIGHT, 3)


def test_exif_of_webp_is_found_behind_chunks_of_odd_length(photograph, encode):
    """RIFF pads its chunks to even lengths."""
    data = encode(photograph(8, 9), "WEBP", icc_profile=b"odd", exif=with_orientation(6))
    assert data.index(b"ICCP\x03") < data.index(b"EXIF")
    assert open_picture(data, max_pixels=72).height == 9


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "exif",
    [
        tiff("<", [(0x0112, 3, 1, 0, 0)]),
        tiff("<", [(0x0112, 3, 1, 9, 0)]),
        tiff("<", [(0x0112, 2, 4, 0x3636, 0x36)]),  # text
        tiff("<", [(0x0112, 11, 1, 0, 0x40C0)]),  # the float 6.0
        tiff("<", [(0x0112, 3, 1, 6, 0)])[:12],
        tiff("<", []),
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"garbage",
        b"\0" * 20,
    ],
)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_is_ignored(photograph, encode, format_, exif):
    """A picture with nonsense for EXIF is read as it is stored."""
    data = encode(photograph(HEIGHT, WIDTH), format_, exif=b"Exif\0\0" + exif)
    assert exif in data
    assert read(data).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_orientation_is_read_from_a_block_with_another_entry_broken(photograph, encode):
    """A maker's tag that points outside of the block does not hide the orientation."""
    exif = tiff("<", [(0x010F, 2, 5000, 60_000, 0), (0x0112, 3, 1, 6, 0)])
    data = encode(photograph(HEIGHT, WIDTH), "JPEG", exif=b"Exif\0\0" + exif)
    assert read(data).shape == (WIDTH, HEIGHT, 3)


def test_nothing_is_printed_of_broken_exif(photograph, encode):
    """What Pillow warns of is a client's picture: it does not end up among the logs."""
    exif = tiff("<", [(0x010F, 2, 5000, 60_000, 0), (0x0112, 3, 1, 6, 0)])
    data = encode(photograph(HEIGHT, WIDTH), "JPEG", exif=b"Exif\0\0" + exif)
    script = (
        "import sys; from gateway.imaging import open_picture; "
        "print(open_picture(sys.stdin.buffer.read(), max_pixels=10_000).height)"
    )
    done = subprocess.run(  # noqa: S603  # our own interpreter and script
        [sys.executable, "-c", script], input=data, capture_output=True, check=True
    )
    assert done.stdout.split() == [str(WIDTH).encode()]
    assert done.stderr == b""


def test_exif_block_of_no_camera_is_ignored(photograph, encode):
    """Above 64 kB, the most that a JPEG holds, a block is not parsed: its entries could be many."""
    exif = tiff("<", [(0x0112, 3, 1, 6, 0)])
    for size, expected in ((1 << 16, WIDTH), ((1 << 16) + 1, HEIGHT)):
        data = encode(photograph(HEIGHT, WIDTH), "PNG", exif=exif.ljust(size, b"\0"))
        assert open_picture(data, max_pixels=HEIGHT * WIDTH).height == expected
