"""Every format and mode to upright RGB, undistorted."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gateway.errors import InvalidImageError
from gateway.imaging import open_picture

Pixels = NDArray[np.uint8]
HEIGHT, WIDTH = 37, 53


def to_rgb(data: bytes) -> Pixels:
    picture = open_picture(data, max_pixels=1_000_000)
    rgb = picture.to_rgb()
    assert rgb.dtype == np.uint8
    assert rgb.shape == (picture.height, picture.width, 3)
    assert rgb.flags.c_contiguous
    return rgb


def near(rgb: Pixels, expected: Pixels, tolerance: int) -> None:
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected).max() <= tolerance


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    """A PNG of any depth; ``rows`` with their filter bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("format_", "options"), [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})]
)
def test_lossless_file_gives_its_pixels(photograph, encode, format_, options):
    """What went into the file comes out, bit for bit and in its place."""
    pixels = photograph(HEIGHT, WIDTH)
    np.testing.assert_array_equal(to_rgb(encode(pixels, format_, **options)), pixels)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_is_decoded_as_pillow_decodes_it(photograph, encode, progressive, subsampling):
    """The fast path gives what libjpeg gives: the colours in order, nothing traded for speed."""
    pixels = photograph(HEIGHT, WIDTH)
    data = encode(pixels, "JPEG", progressive=progressive, subsampling=subsampling)
    near(to_rgb(data), np.asarray(Image.open(BytesIO(data))), 1)


def test_jpeg_that_stores_rgb_is_not_taken_for_ycbcr(photograph, encode):
    """The file's own colour space counts."""
    pixels = photograph(HEIGHT, WIDTH)
    near(to_rgb(encode(pixels, "JPEG", quality=100, keep_rgb=True)), pixels, 3)


def test_lossy_webp_is_near_to_its_pixels(encode):
    """A colour of lossy WebP comes out as that colour."""
    pixels = np.full((HEIGHT, WIDTH, 3), (200, 90, 30), np.uint8)
    near(to_rgb(encode(pixels, "WEBP", quality=95)), pixels, 3)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_gray_picture_has_three_equal_channels(photograph, encode, format_):
    """Gray becomes RGB with its value in each channel, in every format."""
    gray = photograph(HEIGHT, WIDTH)[..., 0] & 0xF0
    rgb = to_rgb(encode(gray, format_, quality=100, lossless=True))
    near(rgb, np.repeat(gray[..., None], 3, axis=2), 2 if format_ == "JPEG" else 0)


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_alpha_is_dropped_and_not_blended(photograph, encode, format_):
    """Half-transparent pixels keep the colour that is stored with them."""
    pixels = photograph(HEIGHT, WIDTH)
    alpha = np.linspace(1, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1).astype(np.uint8)
    data = encode(np.concatenate([pixels, alpha], axis=2), format_, lossless=True, exact=True)
    np.testing.assert_array_equal(to_rgb(data), pixels)


def test_alpha_of_gray_is_dropped(photograph, encode):
    """Gray with alpha is gray."""
    gray_alpha = photograph(HEIGHT, WIDTH)[..., :2]
    rgb = to_rgb(encode(Image.fromarray(gray_alpha, "LA"), "PNG"))
    np.testing.assert_array_equal(rgb, np.repeat(gray_alpha[..., :1], 3, axis=2))


@pytest.mark.parametrize("format_", ["PNG", "GIF", "BMP"])
@pytest.mark.parametrize("colours", [2, 4, 16, 200])
def test_palette_is_looked_up(photograph, encode, format_, colours):
    """An index becomes its colour, at 1, 2, 4 and 8 bits a pixel."""
    palette = Image.fromarray(photograph(HEIGHT, WIDTH)).quantize(colours)
    rgb = to_rgb(encode(palette, format_))
    np.testing.assert_array_equal(rgb, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    ("format_", "transparency"),
    [("GIF", 3), ("PNG", 3), ("PNG", bytes([255, 128, 0, 7] * 4))],
    ids=["index of GIF", "index of PNG", "table of PNG"],
)
def test_transparent_palette_colour_is_the_colour_it_is(photograph, encode, format_, transparency):
    """Transparency in a palette, of one index or of all, changes no colour."""
    palette = Image.fromarray(photograph(HEIGHT, WIDTH)).quantize(16)
    rgb = to_rgb(encode(palette, format_, transparency=transparency))
    np.testing.assert_array_equal(rgb, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_transparent_colour_of_png_is_the_colour_it_is(photograph, encode, mode):
    """A PNG without palette may name a transparent colour as well (tRNS); it stays that colour."""
    image = Image.fromarray(photograph(HEIGHT, WIDTH)).convert(mode)
    data = encode(image, "PNG", transparency=image.getpixel((5, 5)))
    np.testing.assert_array_equal(to_rgb(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format_", ["PNG", "BMP", "GIF"])
def test_one_bit_is_black_and_white(photograph, encode, format_):
    """A bilevel picture holds 0 and 255."""
    bits = photograph(HEIGHT, WIDTH)[..., 0] > 128
    rgb = to_rgb(encode(Image.fromarray(bits), format_))
    np.testing.assert_array_equal(rgb, np.repeat(bits[..., None], 3, axis=2) * np.uint8(255))


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_are_scaled_by_their_upper_byte(colour_type, channels):
    """Gray, RGB and both with alpha: 0..65535 becomes 0..255, not clipped at 255."""
    rng = np.random.default_rng(colour_type)
    values = rng.integers(0, 1 << 16, (HEIGHT, WIDTH * channels)).astype(">u2")
    values[0, :3] = 0, 256, 65535
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    rgb = to_rgb(png(WIDTH, HEIGHT, 16, colour_type, rows))
    stored = (values >> 8).astype(np.uint8).reshape(HEIGHT, WIDTH, channels)
    expected = stored[..., :3] if channels > 2 else np.repeat(stored[..., :1], 3, axis=2)
    np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize("bit_depth", [2, 4])
def test_few_bits_of_gray_span_the_whole_range(bit_depth):
    """The largest value of 2 or 4 bits is white."""
    levels = 1 << bit_depth
    packed = bytes([0b00011011, 0b00011011] if bit_depth == 2 else [0x01, 0xEF])
    stored = [0, 1, 2, 3] * 2 if bit_depth == 2 else [0, 1, 14, 15]
    rgb = to_rgb(png(len(stored), 1, bit_depth, 0, b"\0" + packed))
    assert rgb[0, :, 0].tolist() == [value * 255 // (levels - 1) for value in stored]


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 160, 40), (20, 30, 200), (0, 0, 0), (255,) * 3]
)
def test_cmyk_jpeg_is_not_inverted(encode, colour):
    """CMYK as Adobe stores it, upside down, comes out in the right colours."""
    image = Image.new("RGB", (WIDTH, HEIGHT), colour).convert("CMYK")
    rgb = to_rgb(encode(image, "JPEG", quality=100))
    near(rgb, np.broadcast_to(np.uint8(colour), rgb.shape), 3)


@pytest.mark.parametrize(
    "colour", [(255, 0, 0), (0, 160, 40), (20, 30, 200), (0, 0, 0), (255,) * 3]
)
def test_ycck_jpeg_is_not_inverted(colour):
    """YCCK, the other form of CMYK in JPEG, comes out in the right colours."""
    inverted = 255 - np.asarray(Image.new("RGB", (WIDTH, HEIGHT), colour).convert("CMYK"))
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(inverted), 100, "CMYK")
    assert simplejpeg.decode_jpeg_header(data)[2] == "YCCK"
    rgb = to_rgb(data)
    near(rgb, np.broadcast_to(np.uint8(colour), rgb.shape), 3)


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_moving_picture_gives_its_first_frame(photograph, encode, format_):
    """Of GIF, WebP and APNG the first frame counts."""
    first = Image.fromarray(photograph(HEIGHT, WIDTH)).quantize(64)
    second = Image.fromarray(photograph(HEIGHT, WIDTH, seed=1)).quantize(64)
    if format_ != "GIF":
        first, second = first.convert("RGB"), second.convert("RGB")
    data = encode(first, format_, save_all=True, append_images=[second], lossless=True, duration=50)
    assert Image.open(BytesIO(data)).n_frames == 2
    np.testing.assert_array_equal(to_rgb(data), np.asarray(first.convert("RGB")))


def test_default_image_of_apng_counts_though_it_is_not_a_frame(photograph, encode):
    """What a reader without animation shows is what is detected on."""
    still, *frames = (Image.fromarray(photograph(HEIGHT, WIDTH, seed=seed)) for seed in range(3))
    data = encode(still, "PNG", save_all=True, append_images=frames, default_image=True)
    np.testing.assert_array_equal(to_rgb(data), np.asarray(still))


def test_first_frame_of_gif_may_be_smaller_than_its_canvas(encode):
    """The picture has the size of the canvas, with the frame at its place."""
    data = bytearray(
        encode(Image.new("P", (4, 3), 1), "GIF", palette=bytes([9, 8, 7, 200, 100, 50]))
    )
    data[6:10] = struct.pack("<HH", 10, 6)
    at = data.index(b"\x2c\0\0\0\0")
    data[at + 1 : at + 5] = struct.pack("<HH", 5, 2)
    rgb = to_rgb(bytes(data))
    assert rgb.shape == (6, 10, 3)
    assert (rgb[2:5, 5:9] == (200, 100, 50)).all()
    assert (rgb[0] == (9, 8, 7)).all()


@pytest.mark.parametrize("interlaced", [False, True])
def test_interlaced_gif_has_its_rows_in_order(photograph, encode, interlaced):
    """Rows stored in four passes come out from top to bottom."""
    palette = Image.fromarray(photograph(HEIGHT, WIDTH)).quantize(64)
    rgb = to_rgb(encode(palette, "GIF", interlace=interlaced))
    np.testing.assert_array_equal(rgb, np.asarray(palette.convert("RGB")))


def bmp(header: bytes, rows: bytes, palette: bytes = b"") -> bytes:
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<III", offset + len(rows), 0, offset) + header + palette + rows


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        (struct.pack("<IHHHH", 12, 2, 2, 1, 24), "bottom up"),
        (struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 24, 0, 0, 0, 0, 0, 0), "bottom up"),
        (struct.pack("<IiiHHIIiiII", 40, 2, -2, 1, 24, 0, 0, 0, 0, 0, 0), "top down"),
    ],
    ids=["OS/2", "Windows", "negative height"],
)
def test_bmp_rows_are_read_from_the_right_end(header, rows):
    """BMP stores its rows from the bottom, or from the top where the height is negative."""
    top = bytes([3, 2, 1, 6, 5, 4, 0, 0])
    bottom = bytes([9, 8, 7, 12, 11, 10, 0, 0])
    data = bmp(header, top + bottom if rows == "top down" else bottom + top)
    expected = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [10, 11, 12]]]
    assert to_rgb(data).tolist() == expected


def test_bmp_with_run_lengths_is_refused_by_name():
    """Pillow reads it in Python, so slowly that a small file would stop the service."""
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 8, 1, 0, 0, 0, 0, 0)
    data = bmp(header, b"\x02\x05\0\0" * 2 + b"\0\x01", palette=bytes(range(256)) * 4)
    with pytest.raises(InvalidImageError, match="run-length"):
        to_rgb(data)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3000), (3000, 1), (8, 17)])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_any_shape_is_read(encode, format_, height, width):
    """One pixel, one row and one column are pictures."""
    assert to_rgb(encode(Image.new("L", (width, height), 77), format_)).shape == (height, width, 3)


def test_a_picture_can_be_read_twice_and_shows_no_pixels_when_printed(samples):
    """Reading changes nothing, and a log line that names a picture stays short."""
    picture = open_picture(samples["rgb.png"], max_pixels=1000)
    np.testing.assert_array_equal(picture.to_rgb(), picture.to_rgb())
    assert len(repr(picture)) < 100


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"GIF",
        b"not a picture at all",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.7",
        b"II*\0\x08\0\0\0",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\0\0\0\x18ftypheic",
    ],
)
def test_other_files_are_refused_with_the_formats_that_are_read(data):
    """TIFF, SVG, PDF, HEIC and plain text: the client is told what would have done."""
    with pytest.raises(InvalidImageError, match=r"^image: is not a JPEG, PNG, WebP, GIF or BMP"):
        open_picture(data, max_pixels=1000)


@pytest.mark.parametrize("packed", [False, True])
def test_texts_of_png_do_not_matter(photograph, encode, packed):
    """Megabytes of them, packed or not, nor a colour profile: they are not read."""
    info = PngInfo()
    info.add_text("Comment", "a" * 3_000_000, zip=packed)
    pixels = photograph(HEIGHT, WIDTH)
    data = encode(Image.fromarray(pixels), "PNG", pnginfo=info, icc_profile=b"b" * 2_000_000)
    np.testing.assert_array_equal(to_rgb(data), pixels)
