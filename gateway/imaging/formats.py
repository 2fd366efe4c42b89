"""What a picture's first bytes say: its format, its size and where its EXIF block is.

Read here, not with Pillow, because Pillow allocates while it opens: a canvas for WebP, a filled
frame for GIF. So a header that claims 60000x60000 pixels costs nothing.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

from gateway.errors import InvalidImageError

Format = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP"]  # the names that Pillow knows them by

# Chunk types in order. A small first letter: of no matter to the pixels, but for tRNS.
_PLAIN_PNG_LAYOUT = re.compile(
    rb"IHDR(?:(?!tRNS)[a-z][A-Za-z]{3})*(?:IDAT)+(?:[a-z][A-Za-z]{3})*IEND"
)
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
DAMAGED = "is truncated or damaged"
_SCAN = 0xDA
_MAX_SEGMENTS = 1000  # before the first scan; a camera's thumbnails and profiles take some dozens
_MAX_BLOCKS = 10_000  # of a PNG or WebP, or before the frame of a GIF; 80 MB need no more
_MAX_EXIF_BYTES = 1 << 16  # what a JPEG segment holds; a longer block is no camera's


def identify(data: bytes) -> Format | None:
    """The format whose signature ``data`` starts with."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    return None


def read_size(data: bytes, format_: Format) -> tuple[int, int]:
    """Height and width of the picture, as stored, of any format but JPEG.

    Raises:
        InvalidImageError: the header is cut or makes no sense.
    """
    try:
        height, width = _read_size(data, format_)
    except (struct.error, IndexError):
        raise InvalidImageError(DAMAGED) from None
    return height, width


def _read_size(data: bytes, format_: Format) -> tuple[int, int]:
    if format_ == "PNG":  # its first chunk, IHDR
        width, height = struct.unpack_from(">II", data, 16)
    elif format_ == "WEBP":
        width, height = _webp_size(data)
    elif format_ == "GIF":  # the canvas, grown where the first frame does not fit
        width, height = struct.unpack_from("<HH", data, 6)
        left, top, frame_width, frame_height = struct.unpack_from(
            "<HHHH", data, _gif_frame(data) + 1
        )
        width, height = max(width, left + frame_width), max(height, top + frame_height)
    else:
        (header_size,) = struct.unpack_from("<I", data, 14)
        width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
        height = abs(height)  # negative where the rows run from the top
    return height, width


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas (RFC 9649, section 2)."""
    kind = data[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def gif_first_frame(data: bytes) -> bytes:
    """The same GIF without the extensions before its first frame.

    They say when a frame goes and which colour is transparent. Pillow would fill a canvas with the
    former as it opens the file; and of the latter we want the colour.
    """
    return data[: _gif_blocks(data)] + data[_gif_frame(data) :]


def _gif_blocks(data: bytes) -> int:
    flags = data[10]
    global_colours = 2 << (flags & 7) if flags & 0x80 else 0
    return 13 + 3 * global_colours


def _gif_frame(data: bytes) -> int:
    """Where the descriptor of the first frame starts (GIF89a, sections 15, 20 and 23 to 26)."""
    position, blocks = _gif_blocks(data), 0
    while data[position] == 0x21:  # an extension: label, then sub-blocks up to an empty one
        position += 2
        while size := data[position]:
            position += 1 + size
            blocks += 1
        position += 1
        blocks += 1
        if blocks > _MAX_BLOCKS:
            raise InvalidImageError(DAMAGED)
    if data[position] != 0x2C:
        raise InvalidImageError(DAMAGED)
    return position


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of each chunk's content up to IEND.

    Raises:
        struct.error: one is cut, or there are more than ``_MAX_BLOCKS``.
    """
    position = 8
    for _ in range(_MAX_BLOCKS):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        yield kind, start, end
        if kind == b"IEND":
            return
        position = end + 4
    raise struct.error


def png_is_whole(data: bytes) -> bool:
    """Whether every chunk is there up to IEND, and as its checksum says.

    Pillow reads only as much as it needs and does not look at the checksum of pixels.
    """
    view = memoryview(data)
    try:
        return all(
            zlib.crc32(view[start - 4 : end]) == struct.unpack_from(">I", data, end)[0]
            for _, start, end in png_chunks(data)
        )
    except struct.error:
        return False


def png_without_text(data: bytes) -> bytes:
    """A whole PNG without texts and colour profiles, which say nothing of the pixels.

    Pillow would unpack them, and refuse the picture for more than a megabyte of them.
    """
    chunks = list(png_chunks(data))
    if not any(kind in _PNG_TEXTS for kind, _, _ in chunks):
        return data
    kept = [data[start - 8 : end + 4] for kind, start, end in chunks if kind not in _PNG_TEXTS]
    return data[:8] + b"".join(kept)


def png_is_plain(data: bytes) -> bool:
    """Whether a whole PNG holds opaque 8-bit gray or RGB, not interlaced, in the standard's order.

    Such a file every decoder reads the same way. libpng refuses some that Pillow reads: with chunks
    in an order of their own, unknown methods, or too few rows.
    """
    width, height, depth, colour_type, *methods = struct.unpack_from(">II5B", data, 16)
    channels = {0: 1, 2: 3}.get(colour_type)
    if depth != 8 or channels is None or methods != [0, 0, 0]:
        return False
    chunks = list(png_chunks(data))
    if not _PLAIN_PNG_LAYOUT.fullmatch(b"".join(kind for kind, _, _ in chunks)):
        return False
    packed = b"".join(data[start:end] for kind, start, end in chunks if kind == b"IDAT")
    size: int = height * (1 + width * channels)
    try:
        return len(zlib.decompressobj().decompress(packed, size + 1)) == size
    except zlib.error:
        return False


def swaps_sides(orientation: int) -> bool:
    """Whether a picture of this EXIF orientation is stored with its height for its width."""
    return orientation >= 5  # 5 to 8 lie on their side


def find_exif(data: bytes, format_: Format) -> bytes | None:
    """The EXIF block, a TIFF file in small, if there is one; never an error."""
    try:
        if format_ == "JPEG":
            exif = _jpeg_exif(data)
        elif format_ == "PNG":
            exif = next((data[a:b] for kind, a, b in png_chunks(data) if kind == b"eXIf"), None)
        elif format_ == "WEBP":
            exif = _webp_exif(data)
        else:
            exif = None
    except (struct.error, IndexError):
        return None
    return exif if exif and len(exif) <= _MAX_EXIF_BYTES else None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the content of each segment up to the first scan, which is the last.

    The second byte of a marker stands for it. Where a segment is not followed by another, or after
    ``_MAX_SEGMENTS`` of them, there is no more to come.

    Raises:
        struct.error, IndexError: the file is cut.
    """
    position, marker = 2, 0
    for _ in range(_MAX_SEGMENTS):
        if data[position] != 0xFF or marker == _SCAN:
            return
        marker = data[position + 1]
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield marker, position + 4, position + 2 + length
        position += 2 + length


def jpeg_has_one_scan(data: bytes) -> bool:
    """Whether it is sequential and its first scan holds all components: then there is no other."""
    components = 0
    try:
        for marker, start, _ in jpeg_segments(data):
            if marker in (0xC0, 0xC1):  # the frame: baseline, extended sequential
                components = data[start + 5]
            elif marker == _SCAN:
                return components == data[start]
    except (struct.error, IndexError):
        pass
    return False


def _jpeg_exif(data: bytes) -> bytes | None:
    for marker, start, end in jpeg_segments(data):
        if marker == 0xE1 and data.startswith(b"Exif\0\0", start):
            return data[start + 6 : end]
    return None


def _webp_exif(data: bytes) -> bytes | None:
    if data[12:16] != b"VP8X":
        return None  # the simple file formats hold pixels and nothing else
    position = 12
    for _ in range(_MAX_BLOCKS):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            return data[position + 8 : position + 8 + length]
        position += 8 + length + (length & 1)
    return None
