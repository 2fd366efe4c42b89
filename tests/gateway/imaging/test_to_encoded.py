"""Pictures for models that decode them themselves, held against TensorFlow's decoder."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gateway.errors import ImageTooLargeError, InvalidImageError
from gateway.imaging import open_picture

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def open_(data):
    return open_picture(data, max_pixels=5_000_000)


def by_tensorflow(data):
    return tf.io.decode_image(data, channels=3).numpy()


def assert_reads_equal(data, tolerance=0):
    picture = open_(data)
    rgb = picture.to_rgb()
    read = by_tensorflow(picture.to_encoded())
    assert read.shape == rgb.shape
    assert np.abs(rgb.astype(int) - read).max() <= tolerance


def with_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("format_", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "RGB", {"exif": with_orientation(1)}),
        ("JPEG", "RGB", {"keep_rgb": True}),
        ("JPEG", "L", {}),
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("PNG", "RGB", {"exif": with_orientation(1), "dpi": (72, 72)}),
    ],
)
def test_upright_plain_file_goes_as_it_came(photograph, encode, format_, mode, options):
    """Gray and colour JPEG and opaque 8-bit PNG are not touched, and TensorFlow reads them so."""
    data = encode(Image.fromarray(photograph(40, 61)).convert(mode), format_, **options)
    assert open_(data).to_encoded() is data
    if format_ == "PNG":
        assert_reads_equal(data)
    else:  # decode_image takes the fast inverse transform, which is off by a few levels
        assert_reads_equal(data, tolerance=4)
        exact = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE").numpy()
        np.testing.assert_array_equal(open_(data).to_rgb(), exact)


@pytest.mark.parametrize(
    ("format_", "mode", "options"),
    [
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"exif": with_orientation(6)}),
        ("JPEG", "L", {"exif": with_orientation(3)}),
        ("PNG", "RGB", {"exif": with_orientation(8)}),
        ("PNG", "RGBA", {}),
        ("PNG", "LA", {}),
        ("PNG", "P", {}),
        ("PNG", "1", {}),
        ("PNG", "RGB", {"transparency": (1, 2, 3)}),
        ("PNG", "L", {"transparency": 7}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGBA", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
    ],
)
def test_any_other_file_becomes_a_png_of_the_upright_picture(
    photograph, encode, format_, mode, options
):
    """TensorFlow reads from it exactly the upright RGB picture."""
    image = Image.fromarray(photograph(40, 61)).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 250)
    data = encode(image, format_, **options)
    assert open_(data).to_encoded().startswith(PNG_SIGNATURE)
    assert open_(data).to_encoded() != data
    assert_reads_equal(data)


@pytest.mark.parametrize("cut", [0.5, 0.9, -1])
@pytest.mark.parametrize(
    "name", ["baseline.jpg", "turned.jpg", "cmyk.jpg", "rgb.png", "lossy.webp"]
)
def test_truncated_picture_never_leaves(samples, name, cut):
    """Its pixels are decoded here first, though they are not what is sent."""
    data = samples[name]
    part = data[: int(len(data) * cut) if cut > 0 else cut]
    with pytest.raises(InvalidImageError, match="truncated"):
        open_(part).to_encoded()


def chunk(kind, content=b""):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


SIZE = struct.pack(">II", 4, 2)
HEADER = chunk(b"IHDR", SIZE + b"\x08\x02\0\0\0")
PIXELS = zlib.compress((b"\0" + bytes(range(12))) * 2)


@pytest.mark.parametrize(
    "chunks",
    [
        [HEADER, HEADER, chunk(b"IDAT", PIXELS)],
        [HEADER, chunk(b"PLTE", bytes(6)), chunk(b"IDAT", PIXELS)],
        [HEADER, chunk(b"ABCD", b"critical"), chunk(b"IDAT", PIXELS)],
        [HEADER, chunk(b"IDAT", PIXELS), chunk(b"ABCD")],
        [HEADER, chunk(b"IDAT", PIXELS), chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", PIXELS)],
        [HEADER, chunk(b"IDAT", zlib.compress(b"\0" + bytes(range(12))))],
        [chunk(b"IHDR", SIZE + b"\x08\x02\x01\0\0"), chunk(b"IDAT", PIXELS)],
    ],
    ids=[
        "two headers",
        "palette",
        "unknown critical",
        "critical behind",
        "pixels in two places",
        "a row too few",
        "unknown compression",
    ],
)
def test_png_that_decoders_disagree_on_is_written_anew(chunks):
    """Pillow reads these; libpng, by which TensorFlow reads, refuses some of them."""
    data = PNG_SIGNATURE + b"".join(chunks) + chunk(b"IEND")
    assert open_(data).to_encoded() != data
    assert_reads_equal(data)


def test_side_that_no_png_decoder_accepts_is_refused(encode):
    """libpng reads at most a million pixels a side: longer pictures are named, not sent."""
    data = encode(Image.new("1", (1_000_001, 1)), "PNG")
    assert open_(data).to_rgb().shape == (1, 1_000_001, 3)
    with pytest.raises(ImageTooLargeError, match=r"1000001x1; .* than 1000000 pixels"):
        open_(data).to_encoded()
    assert_reads_equal(encode(Image.new("RGB", (1_000_000, 1), "teal"), "PNG"))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg", "gray.jpg", "rgb.png"])
@settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(draw=st.data())
def test_what_leaves_is_always_readable(samples, name, draw):
    """A damaged file that is let through does not fail TensorFlow, and with it a whole batch."""
    data = bytearray(samples[name])
    for _ in range(draw.draw(st.integers(1, 3))):
        data[draw.draw(st.integers(2, len(data) - 1))] = draw.draw(st.integers(0, 255))
    if name.endswith(".png"):  # a right checksum, so that the damage gets as far as it can
        data = bytearray(with_right_checksums(bytes(data)))
    with contextlib.suppress(InvalidImageError, ImageTooLargeError):
        picture = open_(bytes(data))
        encoded = picture.to_encoded()
        assert by_tensorflow(encoded).shape == (picture.height, picture.width, 3)


def with_right_checksums(data):
    fixed, position = data[:8], 8
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        fixed += chunk(
            data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        )
        position += 12 + length
    return fixed
