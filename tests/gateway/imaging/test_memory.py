"""What decoding takes of memory, which is reckoned before it is taken."""

import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

SIZE = 4000, 3000
SLACK = 16_000_000  # bytes: bands, tables, the allocator's rounding
PROGRAM = """
import re, sys
from pathlib import Path
from gateway.imaging import open_picture, picture, pillow, pixels
def highest():  # of this program alone; ru_maxrss begins with that of who started it
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
data, how = sys.stdin.buffer.read(), sys.argv[1]
picture = open_picture(data, max_pixels=10**8)
size = (300, 300) if how == "fixed" else None
before = highest()
taken = picture.to_encoded() if how == "encoded" else picture.to_rgb(size)
print(highest() - before, picture.working_bytes(size, encoded=how == "encoded"))
"""


def files() -> dict[str, tuple[str, dict]]:
    """A mode and how to save it, for each kind of file that is decoded in a way of its own."""
    turned = Image.Exif()
    turned[0x0112] = 7
    return {
        "jpeg": ("RGB", {"format": "JPEG"}),
        "jpeg progressive": ("RGB", {"format": "JPEG", "progressive": True, "subsampling": 0}),
        "jpeg cmyk": ("CMYK", {"format": "JPEG"}),
        "jpeg cmyk progressive": ("CMYK", {"format": "JPEG", "progressive": True}),
        "jpeg turned": ("RGB", {"format": "JPEG", "exif": turned}),
        "png": ("RGB", {"format": "PNG", "compress_level": 1}),
        "png alpha": ("RGBA", {"format": "PNG", "compress_level": 1}),
        "png 16 bit": ("I;16", {"format": "PNG", "compress_level": 1}),
        "png turned": ("RGB", {"format": "PNG", "compress_level": 1, "exif": turned}),
        "webp": ("RGB", {"format": "WEBP", "method": 0}),
        "webp lossless": ("RGB", {"format": "WEBP", "method": 0, "lossless": True}),
        "gif": ("P", {"format": "GIF"}),
        "bmp": ("RGB", {"format": "BMP"}),
    }


@pytest.mark.parametrize("how", ["fixed", "open", "encoded"])
@pytest.mark.parametrize("kind", files())
def test_no_more_is_taken_than_was_reckoned(kind, how):
    """Measured as the peak of a process that decodes one picture."""
    mode, options = files()[kind]
    rows = np.add.outer(np.arange(SIZE[1]), np.arange(SIZE[0])) % 251
    gray = Image.fromarray(rows.astype(np.uint8))
    image = Image.fromarray(rows.astype(np.uint16)) if mode == "I;16" else gray.convert(mode)
    file = BytesIO()
    image.save(file, **options)
    ran = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, how], input=file.getvalue(), capture_output=True, check=True
    )
    taken, reckoned = map(int, ran.stdout.split())
    assert taken <= reckoned + SLACK
    assert taken > SIZE[0] * SIZE[1]  # else it was not measured
