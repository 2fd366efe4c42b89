"""Pillow: for every format but JPEG, and for the JPEGs that the fast path would not decide.

The five readers are called by name: ``Image.open`` would import forty more.
"""

import warnings
from collections.abc import Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, _imaging
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from gateway.errors import InvalidImageError
from gateway.imaging.formats import (
    DAMAGED,
    Format,
    gif_first_frame,
    png_is_whole,
    png_without_text,
)

_READERS: Mapping[Format, type[ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
}

# Both belong to the process, and can be set for a single call only at the risk of other threads.
# The limit on pixels is ours: it is checked before Pillow sees a picture, and it refuses where
# Pillow's would warn. And what Pillow warns of are clients' pictures, not mistakes in this program.
Image.MAX_IMAGE_PIXELS = None
# Pillow cuts a large picture into blocks of 16 MB, which are so small that the C library keeps them
# when they are freed (gateway/memory.py): hundreds of megabytes after a few large pictures.
_imaging.set_block_size(1 << 30)
warnings.filterwarnings("ignore", module=r"PIL\.")

_BMP_RUN_LENGTHS = (1, 2)
_BAND_PIXELS = 1_000_000


def read_jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width of the picture, as stored.

    Raises:
        InvalidImageError: the header makes no sense.
    """
    try:
        with JpegImageFile(BytesIO(data)) as image:
            return image.height, image.width
    except Exception:  # as in decode
        raise InvalidImageError(DAMAGED) from None


def decode(data: bytes, format_: Format, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels in RGB, as stored: the first frame, alpha dropped, 16 bits scaled to 8.

    ``size`` is the height and width that were allowed; the array may be read-only.

    Raises:
        InvalidImageError: it is truncated or damaged, of another size, or of a kind that is
            not read.
    """
    if format_ == "GIF":
        data = gif_first_frame(data)
    if format_ == "PNG":
        if not png_is_whole(data):
            raise InvalidImageError(DAMAGED)
        data = png_without_text(data)
    try:
        with _READERS[format_](BytesIO(data)) as image:
            # Two headers in one file: Pillow may have believed another than we did.
            if (image.height, image.width) != size:
                raise InvalidImageError(DAMAGED)
            if format_ == "BMP" and image.info["compression"] in _BMP_RUN_LENGTHS:
                # Read by Pillow in Python: 1 kB can take seconds, with all other threads waiting.
                raise InvalidImageError("is a BMP with run-length compression, which is not read")
            image.load()
            return _to_rgb(image)
    except (InvalidImageError, MemoryError):  # the latter is our trouble, not the picture's
        raise
    except Exception:  # a parser of hostile bytes: no list of what it raises is ever complete
        raise InvalidImageError(DAMAGED) from None


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "I;16":  # Pillow's own conversion would clip at 255
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, np.newaxis], 3, axis=2)
    if image.mode != "RGB":
        # A transparent colour counts as the colour it is.
        image.info.pop("transparency", None)
        converted = image.convert("RGB")
        image.close()  # its pixels would stay beside the others
        image = converted
    width, height = image.size
    band = max(1, _BAND_PIXELS // width)
    if band >= height:
        return np.asarray(image)
    # To hand all of it over at once would take two copies more while it is done.
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, band):
        bottom = min(top + band, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


def read_orientation(exif: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where the block does not say, or is broken."""
    directory = Image.Exif()
    try:
        directory.load(exif)
        orientation = directory.get(ExifTags.Base.Orientation)
    except Exception:  # as in decode; a broken block is no reason to refuse the picture
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
