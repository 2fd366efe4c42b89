"""What a picture may cost: refused by its header, before there is room made for a pixel."""

import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from PIL import Image

from gateway.errors import ImageTooLargeError, InvalidImageError
from gateway.imaging import open_picture
from gateway.imaging.jpeg import MAX_SCANS

SIDE = 60_000


def png_bomb():
    header = b"IHDR" + struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunks + struct.pack(">I", 1 << 20) + b"IDAT" + b"\0" * 99


def jpeg_bomb(encode):
    data = bytearray(encode(Image.new("RGB", (16, 16)), "JPEG"))
    start_of_frame = data.index(b"\xff\xc0")
    data[start_of_frame + 5 : start_of_frame + 9] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data)


def gif_bomb(encode, on):
    """Huge by its canvas, or by a first frame to be cleared, for which Pillow makes room."""
    data = bytearray(encode(Image.new("P", (16, 16)), "GIF"))
    if on == "canvas":
        data[6:10] = struct.pack("<HH", SIDE, SIDE)
        return bytes(data)
    at = data.index(b"\x2c\0\0\0\0")
    data[at + 5 : at + 9] = struct.pack("<HH", SIDE, SIDE)
    data[at:at] = b"\x21\xf9\x04\x08\0\0\0\0"
    return bytes(data)


def webp_bomb(kind):
    if kind == b"VP8X":
        size = struct.pack("<HBHB", SIDE - 1, 0, SIDE - 1, 0)
        content = b"\x10\0\0\0" + size
    elif kind == b"VP8L":
        content = b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + b"\0" * 20
    else:
        content = b"\x30\1\0\x9d\1\x2a" + struct.pack("<HH", 16_383, 16_383) + b"\0" * 20
    chunk = kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def bmp_bomb(height):
    header = struct.pack("<IiiHHIIiiII", 40, SIDE, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<III", 54, 0, 54) + header + b"\0" * 99


BOMBS = {
    "png": lambda _: png_bomb(),
    "jpeg": jpeg_bomb,
    "gif canvas": lambda encode: gif_bomb(encode, "canvas"),
    "gif frame": lambda encode: gif_bomb(encode, "frame"),
    "webp extended": lambda _: webp_bomb(b"VP8X"),
    "webp lossless": lambda _: webp_bomb(b"VP8L"),
    "webp lossy": lambda _: webp_bomb(b"VP8 "),
    "bmp": lambda _: bmp_bomb(SIDE),
    "bmp top down": lambda _: bmp_bomb(-SIDE),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_header_that_claims_a_huge_picture_costs_nothing(encode, bomb):
    """60000x60000 pixels, or as many as the format can say, are refused with no room made."""
    data = BOMBS[bomb](encode)
    tracemalloc.start()
    try:
        with pytest.raises(
            ImageTooLargeError, match=r"pixels \(\d{5}x\d{5}\); the limit is 50000000"
        ):
            open_picture(data, max_pixels=50_000_000)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_limit_is_exact(encode, format_):
    """As many pixels as the limit pass, one more is refused, and both numbers are named."""
    data = encode(Image.new("RGB", (41, 10)), format_)
    assert open_picture(data, max_pixels=410).to_rgb().shape == (10, 41, 3)
    with pytest.raises(ImageTooLargeError, match=r"^the picture has 410 pixels .* limit is 409$"):
        open_picture(data, max_pixels=409)


def test_our_limit_is_the_only_one(encode, monkeypatch):
    """Pillow neither warns nor refuses above a limit of its own, and nobody has to catch it."""
    assert Image.MAX_IMAGE_PIXELS is None
    size = 1 << 15, 1 << 13  # over 256 million pixels, which Pillow would refuse by default
    data = encode(Image.new("1", size), "PNG", compress_level=1)
    assert open_picture(data, max_pixels=1 << 28).height == size[1]


def test_pillow_and_the_header_must_agree_on_the_size(encode):
    """A second header, which Pillow would believe, cannot smuggle a larger picture in."""
    small = encode(Image.new("RGB", (4, 4)), "PNG")
    large = encode(Image.new("RGB", (500, 500)), "PNG")
    picture = open_picture(small[:33] + large[8:], max_pixels=16)
    with pytest.raises(InvalidImageError, match="truncated or damaged"):
        picture.to_rgb()


def test_gif_frame_that_grows_its_canvas_counts(encode):
    """The canvas of a GIF is as large as its first frame needs it."""
    data = bytearray(encode(Image.new("P", (16, 16)), "GIF"))
    data[6:10] = struct.pack("<HH", 4, 4)
    assert open_picture(bytes(data), max_pixels=256).to_rgb().shape == (16, 16, 3)
    with pytest.raises(ImageTooLargeError):
        open_picture(bytes(data), max_pixels=255)


def test_gif_is_opened_without_room_for_what_it_clears(photograph, encode, monkeypatch):
    """A frame to be cleared afterwards is read without the canvas that Pillow would fill."""
    first, second = (Image.fromarray(photograph(9, 9, seed)).quantize(8) for seed in (0, 1))
    data = encode(first, "GIF", save_all=True, append_images=[second], disposal=2, transparency=3)

    def fill(*_):
        raise AssertionError("filled")

    monkeypatch.setattr(Image.core, "fill", fill)
    with pytest.raises(AssertionError, match="filled"):
        Image.open(BytesIO(data))
    assert open_picture(data, max_pixels=81).to_rgb().shape == (9, 9, 3)


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "GIF", "BMP"])
def test_picture_of_no_pixels_is_refused(encode, format_, size):
    """A height or width of nought is no picture; it is refused by the header already."""
    where, order = {
        "JPEG": (b"\xff\xc0\0\x0b\x08", ">HH"),
        "PNG": (b"IHDR", ">II"),
        "GIF": (b"GIF87a", "<HH"),
        "BMP": (b"\x28\0\0\0", "<ii"),
    }[format_]
    data = bytearray(encode(Image.new("L", (4, 4)), format_))
    at = data.index(where) + len(where)
    data[at : at + struct.calcsize(order)] = struct.pack(order, *size)
    if format_ == "GIF":  # nor does its frame hold any
        at = data.index(b"\x2c\0\0\0\0") + 5
        data[at : at + 4] = struct.pack("<HH", *size)
    with pytest.raises(InvalidImageError, match="truncated or damaged"):
        open_picture(bytes(data), max_pixels=1000)


def test_jpeg_of_many_scans_is_refused(encode):
    """A scan of a few bytes costs a pass over all pixels, so their number is limited."""
    data = encode(Image.new("L", (64, 64), 99), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    scans = data.count(b"\xff\xda")
    few = data[:start] + scan * (MAX_SCANS - scans) + data[start:]
    assert open_picture(few, max_pixels=4096).to_rgb().shape == (64, 64, 3)
    many = data[:start] + scan * (MAX_SCANS - scans + 1) + data[start:]
    for read in ("to_rgb", "to_encoded"):
        with pytest.raises(InvalidImageError, match="has more than 100 scans"):
            getattr(open_picture(many, max_pixels=4096), read)()


def test_film_behind_a_photograph_is_not_taken_for_scans(encode):
    """Bytes that happen to look like the marker, as in megabytes of film, do not count."""
    data = encode(Image.new("L", (64, 64), 99), "JPEG")
    film = b"\xff\xda\x17\x00" * 1000
    assert open_picture(data + film, max_pixels=4096).to_rgb().shape == (64, 64, 3)


def many_blocks(encode, format_, count):
    """A sound picture with ``count`` blocks of nothing before its end."""
    data = encode(Image.new("RGB", (8, 8)), format_)
    if format_ == "PNG":
        end = data.index(b"IDAT") - 4
        empty = struct.pack(">I", 0) + b"teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    else:
        end = 13 + 3 * (2 << (data[10] & 7)) if data[10] & 0x80 else 13
        empty = b"\x21\xfe\x01a\x00"
    return data[:end] + empty * count + data[end:]


@pytest.mark.parametrize("format_", ["PNG", "GIF"])
def test_countless_empty_blocks_are_refused(encode, format_):
    """Megabytes of empty chunks would take a thread for seconds; some are harmless."""
    picture = open_picture(many_blocks(encode, format_, 100), max_pixels=100)
    assert picture.to_rgb().shape == (8, 8, 3)
    with pytest.raises(InvalidImageError):
        open_picture(many_blocks(encode, format_, 20_000), max_pixels=100).to_rgb()
