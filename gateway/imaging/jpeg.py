"""The fast path for JPEG: libjpeg-turbo, straight into the array that is wanted.

What it refuses is not yet damaged: CMYK, rare subsampling and harmless irregularities are for
Pillow to judge. The global interpreter lock is free while it decodes.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from gateway.errors import InvalidImageError
from gateway.imaging.formats import DAMAGED, jpeg_has_one_scan

# A progressive file may hold any number of scans, and each costs a pass over all pixels: 70 bytes
# for 40 ms at 48 megapixels. Encoders write about 10.
MAX_SCANS = 100


def read_size(data: bytes) -> tuple[int, int]:
    """Height and width of the picture, as stored; ValueError if it is not for this decoder."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    return int(height), int(width)


def working_bytes(data: bytes) -> int | None:
    """Bytes a pixel that this decoder holds at most; None if it is not for this decoder."""
    try:
        _read_header(data)
    except ValueError:
        return None
    return 4 if jpeg_has_one_scan(data) else 10  # which keeps all coefficients until the last scan


def decode(data: bytes) -> NDArray[np.uint8]:
    """The pixels in RGB, as stored.

    Raises:
        InvalidImageError: it is truncated.
        ValueError: it is not for this decoder, or the decoder had something to complain of.
    """
    pixels = np.empty((*_read_header(data), 3), np.uint8)
    try:
        simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=pixels, strict=True)
    except ValueError as error:
        # libjpeg's words, for a file as for a scan that ends too soon. Pillow would take some.
        if "premature end" in str(error).lower():
            raise InvalidImageError(DAMAGED) from None
        raise
    return pixels


def _read_header(data: bytes) -> tuple[int, int]:
    """Height and width of a file whose pixels are for this decoder; ValueError for any other."""
    height, width, colour_space, _ = simplejpeg.decode_jpeg_header(data)
    if colour_space in ("CMYK", "YCCK"):
        raise ValueError
    return int(height), int(width)


def blank(height: int, width: int) -> bytes:
    """A black picture as a file."""
    return bytes(simplejpeg.encode_jpeg(np.zeros((height, width, 3), np.uint8)))


def check_scans(data: bytes) -> None:
    """Refuse a file whose decoding would cost far more than its size and its pixels say.

    Raises:
        InvalidImageError: it has more than ``MAX_SCANS`` scans.
    """
    if jpeg_has_one_scan(data):  # libjpeg takes a second one for an error
        return
    # The marker and the upper byte of its length. In pixels FF is escaped; in whatever else a file
    # holds, such as the film behind a phone's photograph, chance makes one in 16 MB.
    stored = np.frombuffer(data, np.uint8)
    middles = np.flatnonzero(stored[1:-1] == 0xDA)
    starts = (stored[middles] == 0xFF) & (stored[middles + 2] == 0)
    if np.count_nonzero(starts) > MAX_SCANS:
        raise InvalidImageError(f"has more than {MAX_SCANS} scans")
