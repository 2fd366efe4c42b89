"""Pictures to test with: random ones that look like photographs, in any format."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="session")
def photograph() -> Callable[..., Pixels]:
    """Smooth shapes and some noise, RGB, different at every place: no flip of it equals it."""

    def make(height: int, width: int, seed: int = 0) -> Pixels:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        smooth = np.asarray(
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        )
        noisy = smooth + rng.normal(0, 4, smooth.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)

    return make


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """An image, or the pixels of one, as the bytes of a file; options are Pillow's."""

    def save(image: Image.Image | Pixels, format_: str, **options: Any) -> bytes:
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image)
        file = BytesIO()
        image.save(file, format_, **options)
        return file.getvalue()

    return save


@pytest.fixture(scope="session")
def samples(photograph: Callable[..., Pixels], encode: Callable[..., bytes]) -> dict[str, bytes]:
    """A small file of every kind whose damage matters, by name."""
    image = Image.fromarray(photograph(19, 27))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "baseline.jpg": encode(image, "JPEG", quality=80),
        "progressive.jpg": encode(image, "JPEG", progressive=True),
        "gray.jpg": encode(image.convert("L"), "JPEG"),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "turned.jpg": encode(image, "JPEG", exif=exif),
        "rgb.png": encode(image, "PNG"),
        "palette.png": encode(image.quantize(50), "PNG"),
        "turned.png": encode(image.convert("RGBA"), "PNG", exif=exif),
        "lossy.webp": encode(image, "WEBP"),
        "lossless.webp": encode(image.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        "still.gif": encode(image, "GIF"),
        "moving.gif": encode(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
        "rgb.bmp": encode(image, "BMP"),
        "palette.bmp": encode(image.quantize(50), "BMP"),
    }
