"""What makes every answer checkable: a code that a picture carries and the model's answer to it.

The top left sixteenth of a test picture is a grid of 4 x 4 plain blocks: white, black, red and
blue as a check of place and channel order, then twelve bits of the code, black for 0 and white for
1. The blocks are so large that JPEG and resizing to 300 x 300 leave their centres as they were.
Standard library only: the simulated server and every peer's environment import it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

GRID = 4
SHARE = 4  # the grid's width is the picture's width divided by this, and its height likewise
CODES = 1 << (GRID * GRID - 4)
ROWS = 100  # detections a picture in the model's answer, as TF Object Detection pads them

WHITE, BLACK, RED, BLUE = (255, 255, 255), (0, 0, 0), (230, 20, 20), (20, 20, 230)


class Detection(NamedTuple):
    """One row of the model's answer: box in 0..1 of the picture, origin top left."""

    class_id: int
    score: float
    y1: float
    x1: float
    y2: float
    x2: float


def colours(code: int) -> list[tuple[int, int, int]]:
    """Return the 16 RGB block colours for ``code``, row by row."""
    bits = GRID * GRID - 4
    return [WHITE, BLACK, RED, BLUE] + [
        WHITE if code >> bit & 1 else BLACK for bit in reversed(range(bits))
    ]


def read(pixels: Sequence[int], start: int, height: int, width: int) -> int | None:
    """Return the code of the RGB uint8 picture whose bytes begin at ``pixels[start]``.

    None when the four check blocks are not where and what they should be.
    """
    step = SHARE * GRID * 2
    columns = [(2 * i + 1) * width // step * 3 for i in range(GRID)]
    rows = [start + (2 * i + 1) * height // step * width * 3 for i in range(GRID)]
    white, black, red, blue = (rows[0] + column for column in columns)
    checks = (
        pixels[white + 1] > 128 > pixels[black + 1]
        and pixels[red] > 128 > pixels[red + 2]
        and pixels[blue + 2] > 128 > pixels[blue]
    )
    if not checks:
        return None
    code = 0
    for row in rows[1:]:
        for column in columns:
            code = code << 1 | (pixels[row + column + 1] > 128)
    return code


@lru_cache(maxsize=CODES)
def detections(code: int) -> tuple[Detection, ...]:
    """Return what the model sees in a picture with ``code``: one to four rows, best first.

    The first score alone tells all codes apart; all scores are above 0.5.
    """
    seen = []
    for k in range(1 + code % 4):
        y1, x1 = (code * 3 + k * 11) % 50 / 100, (code * 7 + k * 17) % 50 / 100
        score = (0.9 + 0.09 * code / CODES) if k == 0 else 0.88 - 0.1 * k
        y2, x2 = y1 + 0.1 + (code + k) % 30 / 100, x1 + 0.15 + (code + 2 * k) % 30 / 100
        seen.append(Detection(1 + (code * 7 + k * 13) % 90, score, y1, x1, y2, x2))
    return tuple(seen)
