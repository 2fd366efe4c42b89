"""Truncated and damaged files: refused as such, and never anything but an error of ours."""

import contextlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from gateway.errors import ImageTooLargeError, InvalidImageError
from gateway.imaging import open_picture

# Hostile bytes make Pillow warn; in production those warnings are filtered out by the package.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

NAMES = [
    "baseline.jpg",
    "progressive.jpg",
    "gray.jpg",
    "cmyk.jpg",
    "turned.jpg",
    "rgb.png",
    "palette.png",
    "turned.png",
    "lossy.webp",
    "lossless.webp",
    "still.gif",
    "moving.gif",
    "rgb.bmp",
    "palette.bmp",
]
# Of these a reader needs no end mark: nothing after the last pixel is missed.
ENDLESS = (".gif", ".bmp")


def read(data):
    return open_picture(data, max_pixels=100_000).to_rgb()


@pytest.mark.parametrize("name", NAMES)
def test_no_part_of_a_file_is_taken_for_the_whole(samples, name):
    """Cut anywhere a file is refused, or, where the cut is behind its pixels, is all there."""
    data = samples[name]
    whole = read(data)
    for length in range(len(data)):
        try:
            rgb = read(data[:length])
        except InvalidImageError:
            continue
        assert name.endswith(ENDLESS), f"{length} of {len(data)} bytes were enough"
        np.testing.assert_array_equal(rgb, whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_in_the_pixels_is_called_truncated(samples, name):
    """The client is told what is wrong with the picture."""
    data = samples[name]
    with pytest.raises(InvalidImageError, match=r"^image: is truncated or damaged$"):
        read(data[: len(data) * 3 // 5 if name != "moving.gif" else len(data) * 2 // 5])


@pytest.mark.parametrize("name", NAMES)
def test_what_follows_the_picture_is_of_no_matter(samples, name):
    """Cameras append previews and films, and some servers zeros."""
    whole = read(samples[name])
    for trailer in (b"\0" * 64, b"trailer", samples["baseline.jpg"], samples["rgb.png"]):
        np.testing.assert_array_equal(read(samples[name] + trailer), whole)


def test_jpeg_without_its_end_mark_is_truncated(photograph, encode):
    """Whether more was to come cannot be told; and it does not hang on how the last bits lie."""
    for width in range(8, 60):
        data = encode(photograph(8, width)[..., 0], "JPEG")
        assert data.endswith(b"\xff\xd9")
        with pytest.raises(InvalidImageError, match="truncated"):
            read(data[:-2])


@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg", "gray.jpg"])
def test_jpeg_with_an_end_mark_too_soon_is_truncated(samples, name):
    """An end mark behind half of the pixels, as a careless copy leaves it, does not hide that."""
    data = samples[name]
    half = (data.index(b"\xff\xda") + len(data)) // 2
    with pytest.raises(InvalidImageError, match="truncated"):
        read(data[:half] + b"\0\xff\xd9")


def test_harmless_irregularity_of_a_jpeg_is_overlooked(samples):
    """Stray bytes before a marker, as some cameras write them, do not make a picture unusable."""
    data = samples["baseline.jpg"]
    irregular = data[:-2] + b"\0\0\0" + data[-2:]
    expected = np.asarray(Image.open(BytesIO(data))).astype(int)
    assert np.abs(read(irregular) - expected).max() <= 1


def test_png_with_a_wrong_checksum_is_damaged(samples):
    """A flipped bit in the pixels of a PNG is noticed."""
    data = bytearray(samples["rgb.png"])
    data[data.index(b"IDAT") + 40] ^= 1
    with pytest.raises(InvalidImageError, match="damaged"):
        read(bytes(data))


def test_gif_with_stray_bytes_before_its_frame_is_damaged(samples):
    """Its size is not guessed from whatever stands where the frame should."""
    data = samples["still.gif"]
    at = data.index(b"\x2c\0\0\0\0")
    with pytest.raises(InvalidImageError, match="damaged"):
        open_picture(data[:at] + b"\0" + data[at:], max_pixels=100_000)


def test_pillow_is_left_strict():
    """Nothing has switched off its refusal of truncated files."""
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("name", ["cmyk.jpg", "rgb.png", "still.gif", "rgb.bmp"])
def test_lack_of_memory_is_not_blamed_on_the_picture(samples, monkeypatch, name):
    """A MemoryError is this process's trouble: it is not answered as a damaged picture."""

    def fail(*_, **__):
        raise MemoryError

    picture = open_picture(samples[name], max_pixels=1000)
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(MemoryError):
        picture.to_rgb()


@pytest.mark.parametrize("name", NAMES)
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(draw=st.data())
def test_mutated_file_is_read_or_refused(samples, name, draw):
    """Whatever bytes are changed, cut or put in: an array of the announced size or our error."""
    data = bytearray(samples[name])
    for _ in range(draw.draw(st.integers(1, 6))):
        position = draw.draw(st.integers(0, len(data) - 1))
        change = draw.draw(st.sampled_from(["set", "cut", "insert", "repeat"]))
        if change == "set":
            data[position] = draw.draw(st.integers(0, 255))
        elif change == "cut":
            del data[position : position + draw.draw(st.integers(1, 40))]
        elif change == "insert":
            data[position:position] = draw.draw(st.binary(max_size=20))
        else:
            data[position:position] = data[position : position + draw.draw(st.integers(1, 200))]
        if not data:
            break
    with contextlib.suppress(InvalidImageError, ImageTooLargeError):
        picture = open_picture(bytes(data), max_pixels=100_000)
        rgb = picture.to_rgb()
        assert rgb.shape == (picture.height, picture.width, 3)
        assert picture.to_rgb((5, 7)).shape == (5, 7, 3)
        assert picture.to_encoded()


@settings(deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF1234WEBPVP8X"]),
)
def test_garbage_behind_a_signature_is_refused(data, signature):
    """No header is trusted further than it reaches."""
    with contextlib.suppress(InvalidImageError, ImageTooLargeError):
        read(signature + data)
