"""A picture as a client sent it, and as models want it."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.errors import ImageTooLargeError, InvalidImageError
from gateway.imaging import formats, jpeg
from gateway.imaging.formats import Format

# OpenCV and Pillow are imported by the first picture that needs them: they are a fifth of the
# memory of an idle process, and a model that takes JPEGs as they are needs neither.

# The limit of libpng unless it is told otherwise, and TensorFlow does not tell it.
_PNG_MAX_SIDE = 1_000_000

# Bytes a pixel that are held at most while a picture is decoded, all copies counted, as measured
# (tests/gateway/imaging/test_memory.py).
_WEBP_BYTES, _OTHER_JPEG_BYTES, _PILLOW_BYTES, _TURNED_BYTES, _PACKED_BYTES = 17, 13, 9, 10, 17


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture whose header has been read; :func:`open_picture` makes it.

    Immutable: its methods may be called from any thread and more than once, and each call decodes
    anew. ``height`` and ``width`` are those of the upright picture.
    """

    height: int
    width: int
    _data: bytes = field(repr=False)
    _format: Format
    _orientation: int

    def working_bytes(self, size: tuple[int, int] | None = None, *, encoded: bool = False) -> int:
        """How much memory ``to_rgb(size)``, or with ``encoded`` ``to_encoded()``, takes at most.

        The file is not counted, nor some 10 MB whatever the size. A JPEG that its decoder complains
        of, and Pillow does not, may take up to 9 bytes a pixel more.
        """
        if self._format == "JPEG":
            each = jpeg.working_bytes(self._data) or _OTHER_JPEG_BYTES
        else:
            each = _WEBP_BYTES if self._format == "WEBP" else _PILLOW_BYTES
        turned = self._orientation != 1
        if encoded and (turned or self._format != "JPEG"):
            each = max(each, _PACKED_BYTES)
        elif turned and size is None:
            each = max(each, _TURNED_BYTES)
        return self.height * self.width * each

    def to_rgb(self, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """The upright picture, C-contiguous uint8 [height, width, 3] in RGB, maybe read-only.

        The first frame; EXIF orientation applied; alpha dropped, not blended; 16 bits scaled to 8
        by their upper byte. ``size`` is (height, width): as ``tf.image.resize(method="bilinear",
        antialias=False)`` does it, within 1 of 255; by default the picture is left as large as it
        is.

        Raises:
            InvalidImageError: the picture is truncated or damaged.
        """
        stored, _ = self._decode()
        if size is None and self._orientation == 1:
            return stored
        from gateway.imaging import pixels  # noqa: PLC0415 - see above

        if size is not None:  # before it is turned: fewer pixels to move
            stored = pixels.resize(stored, self._as_stored(size))
        return pixels.upright(stored, self._orientation)

    def to_encoded(self) -> bytes:
        """The upright picture in a file, for a model that decodes it itself.

        ``tf.io.decode_image(channels=3)`` reads it to what :meth:`to_rgb` returns; of a JPEG, to
        that but for the few levels by which its faster inverse transform is off. The client's own
        bytes where they will do, else a PNG. All pixels have been decoded once, so a picture that
        cannot be read never gets into a batch with others.

        Raises:
            InvalidImageError: the picture is truncated or damaged.
            ImageTooLargeError: a side is longer than a decoder of PNG accepts.
        """
        if max(self.height, self.width) > _PNG_MAX_SIDE:
            raise ImageTooLargeError(
                f"the picture is {self.width}x{self.height}; for this model no side may be longer "
                f"than {_PNG_MAX_SIDE} pixels"
            )
        stored, is_plain = self._decode()
        if self._format == "PNG":
            is_plain = formats.png_is_plain(self._data)
        if is_plain and self._orientation == 1:
            return self._data
        from gateway.imaging import pixels  # noqa: PLC0415 - see above

        return pixels.encode_png(pixels.upright(stored, self._orientation))

    def _decode(self) -> tuple[NDArray[np.uint8], bool]:
        """The pixels as stored, and whether it is a JPEG that no decoder could trip over."""
        if self._format == "JPEG":
            jpeg.check_scans(self._data)
            try:
                return jpeg.decode(self._data), True
            except ValueError:
                pass  # Pillow decides
        from gateway.imaging import pillow  # noqa: PLC0415 - see above

        size = self._as_stored((self.height, self.width))
        return pillow.decode(self._data, self._format, size), False

    def _as_stored(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[::-1] if formats.swaps_sides(self._orientation) else size


def open_picture(data: bytes, *, max_pixels: int) -> Picture:
    """Read the header of a JPEG, PNG, WebP, GIF or BMP file; no pixel is decoded or made room for.

    Raises:
        InvalidImageError: it is none of these, or its header is truncated or damaged.
        ImageTooLargeError: it has more than ``max_pixels`` pixels.
    """
    format_ = formats.identify(data)
    if format_ is None:
        raise InvalidImageError("is not a JPEG, PNG, WebP, GIF or BMP picture")
    height, width = _read_size(data, format_)
    if height < 1 or width < 1:
        raise InvalidImageError(formats.DAMAGED)
    if height * width > max_pixels:
        raise ImageTooLargeError(
            f"the picture has {height * width} pixels ({width}x{height}); the limit is {max_pixels}"
        )
    exif = formats.find_exif(data, format_)
    orientation = _read_orientation(exif) if exif else 1
    if formats.swaps_sides(orientation):
        height, width = width, height
    return Picture(height, width, data, format_, orientation)


def _read_size(data: bytes, format_: Format) -> tuple[int, int]:
    if format_ == "JPEG":
        try:
            return jpeg.read_size(data)
        except ValueError:
            from gateway.imaging import pillow  # noqa: PLC0415 - see above

            return pillow.read_jpeg_size(data)
    return formats.read_size(data, format_)


def _read_orientation(exif: bytes) -> int:
    from gateway.imaging import pillow  # noqa: PLC0415 - see above

    return pillow.read_orientation(exif)
