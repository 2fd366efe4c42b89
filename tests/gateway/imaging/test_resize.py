"""Resizing, held against TensorFlow's own."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.imaging import open_picture
from gateway.imaging.pixels import resize


def by_tensorflow(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    resized: NDArray[np.float32] = tf.image.resize(
        pixels, size, method="bilinear", antialias=False
    ).numpy()
    return resized


def assert_as_tensorflow(pixels: NDArray[np.uint8], size: tuple[int, int]) -> None:
    ours = resize(pixels, size)
    assert ours.dtype == np.uint8
    assert ours.shape == (*size, 3)
    assert ours.flags.c_contiguous
    assert np.abs(ours - by_tensorflow(pixels, size)).max() <= 1


@pytest.mark.parametrize(
    ("stored", "size"),
    [
        ((480, 640), (300, 300)),
        ((1080, 1920), (300, 300)),
        ((1080, 1920), (640, 640)),
        ((100, 100), (300, 300)),
        ((97, 101), (301, 299)),
        ((301, 299), (97, 101)),
        ((600, 600), (300, 300)),  # exactly one half, which OpenCV does in another way
        ((900, 1200), (300, 300)),
        ((300, 300), (300, 300)),
        ((300, 300), (300, 150)),
        ((1, 1), (300, 300)),
        ((1, 5000), (300, 300)),
        ((5000, 1), (300, 300)),
        ((2, 3), (511, 513)),
        ((300, 300), (1, 1)),
        ((7, 40_000), (64, 64)),
        ((40_000, 7), (64, 64)),
    ],
)
def test_resize_is_tensorflows_bilinear(stored, size):
    """Noise, the hardest picture there is, up and down, odd, even and far from square."""
    rng = np.random.default_rng(0)
    assert_as_tensorflow(rng.integers(0, 256, (*stored, 3), dtype=np.uint8), size)


@settings(deadline=None, max_examples=200)
@given(
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
    st.integers(0, 1000),
)
def test_resize_is_tensorflows_bilinear_at_any_size(stored, size, seed):
    """No pair of sizes is off by more than one."""
    pixels = np.random.default_rng(seed).choice(np.uint8([0, 255]), (*stored, 3))
    assert_as_tensorflow(pixels, size)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(300, 300), (33, 47)])
def test_fixed_size_is_the_full_picture_resized(photograph, encode, format_, size):
    """``to_rgb(size)`` is what TensorFlow makes of ``to_rgb()``."""
    picture = open_picture(encode(photograph(120, 161), format_), max_pixels=120 * 161)
    resized = picture.to_rgb(size)
    assert resized.shape == (*size, 3)
    assert np.abs(resized - by_tensorflow(picture.to_rgb(), size)).max() <= 1


def test_an_antialiased_resize_would_not_pass(photograph):
    """The tolerance tells this method from the one that most libraries use."""
    pixels = photograph(400, 400)
    smooth = tf.image.resize(pixels, (100, 100), method="bilinear", antialias=True).numpy()
    assert np.abs(smooth - by_tensorflow(pixels, (100, 100))).max() > 5
