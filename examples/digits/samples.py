"""Notes as one would photograph them: a number on paper or a board, on a table.

Those of `samples/` are written down here; random ones measure the detector on what it is for.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from glyphs import Handwriting, Pen, smooth_noise
from numpy.typing import NDArray
from synth import Ink, Page, Picture, before, light, photograph, put, rule, see

__all__ = ["random_notes", "write_samples"]

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """A note: what is written, with which pen, on which paper, seen from where."""

    digits: str
    size: tuple[int, int]
    """Height and width in pixels."""
    paper: Colour
    ink: Colour
    place: tuple[float, float]
    """Where the first digit starts, as shares of width and height."""
    height: float
    """Of a digit, as a share of the picture's."""
    pen: float
    """Half the width of the line in heights of a digit."""
    gap: float
    """Between digits, in heights of a digit."""
    corners: tuple[float, ...]
    """How far each corner of the paper is from the picture's corner: x, y of the upper left, upper
    right, lower right and lower left, as shares of width and height."""
    seed: int
    ruled: bool = False
    chalk: bool = False


PAPERS: list[Colour] = [
    (246, 244, 238),
    (240, 243, 246),
    (250, 226, 110),
    (205, 178, 140),
]
BOARDS: list[Colour] = [(48, 66, 58), (40, 40, 44)]
INKS: list[Colour] = [
    (28, 28, 34),
    (30, 50, 150),
    (170, 30, 40),
    (20, 110, 60),
    (80, 80, 86),
]

SCENES = {
    "three-digits.jpg": Scene(
        "375", (960, 1280), (246, 244, 238), (28, 28, 34), (0.13, 0.52), 0.34, 0.045, 0.15,
        (0.05, 0.06, -0.04, 0.03, -0.02, -0.05, 0.02, -0.09), seed=3,
    ),
    "squared-paper.jpg": Scene(
        "20481", (960, 1280), (240, 243, 246), (30, 50, 150), (0.1, 0.45), 0.19, 0.035, 0.25,
        (0.02, -0.05, 0.03, -0.02, 0.05, 0.04, -0.03, 0.03), seed=5, ruled=True,
    ),
    "blackboard.jpg": Scene(
        "1969", (900, 1200), (48, 66, 58), (232, 232, 224), (0.1, 0.5), 0.27, 0.04, 0.2,
        (-0.04, -0.03, -0.05, -0.02, -0.03, -0.04, -0.02, -0.05), seed=8, chalk=True,
    ),
    "sticky-note.jpg": Scene(
        "64", (1200, 900), (250, 226, 110), (170, 30, 40), (0.24, 0.48), 0.24, 0.04, 0.2,
        (0.1, 0.16, -0.12, 0.12, -0.1, -0.2, 0.14, -0.16), seed=13,
    ),
    "small-digits.jpg": Scene(
        "30527186", (960, 1280), (244, 240, 228), (28, 30, 48), (0.12, 0.4), 0.1, 0.04, 0.25,
        (0.03, 0.02, -0.02, 0.03, 0.02, 0.04, -0.03, 0.02), seed=30, ruled=True,
    ),
}  # fmt: skip


def write_samples(handwriting: Handwriting, folder: Path) -> None:
    """Write every scene as a JPEG, and `samples.json` with its digits from left to right."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in SCENES.items():
        picture = _draw(handwriting, scene)
        if len(picture.digits) < len(scene.digits):
            raise ValueError(f"{scene.digits} does not fit")
        cv2.imwrite(
            str(folder / name),
            picture.pixels[..., ::-1],
            (cv2.IMWRITE_JPEG_QUALITY, 72),
        )
    expected = {name: scene.digits for name, scene in SCENES.items()}
    (folder / "samples.json").write_text(json.dumps(expected, indent=2) + "\n")


def random_notes(handwriting: Handwriting, count: int, seed: int) -> list[Picture]:
    """Notes of up to seven digits, as many as fit, on light paper or a dark board."""
    return [
        _draw(handwriting, _random_scene(np.random.default_rng((seed, i)))) for i in range(count)
    ]


def _random_scene(rng: np.random.Generator) -> Scene:
    on_board = rng.random() < 0.15
    papers = BOARDS if on_board else PAPERS
    return Scene(
        digits="".join(map(str, rng.integers(10, size=rng.integers(1, 8)))),
        size=((960, 1280), (1280, 960), (1000, 1000))[rng.integers(3)],
        paper=papers[rng.integers(len(papers))],
        ink=(230, 230, 224) if on_board else INKS[rng.integers(len(INKS))],
        place=(rng.uniform(0.08, 0.3), rng.uniform(0.3, 0.7)),
        height=float(np.exp(rng.uniform(np.log(0.08), np.log(0.4)))),
        pen=rng.uniform(0.025, 0.06),
        gap=rng.uniform(0.12, 0.4),
        corners=tuple(rng.uniform(-0.06, 0.06, 8).tolist()),
        seed=int(rng.integers(2**32)),
        ruled=not on_board and rng.random() < 0.5,
        chalk=on_board,
    )


def _draw(handwriting: Handwriting, scene: Scene) -> Picture:
    """The picture of a scene, with those of its digits that fit."""
    rng = np.random.default_rng(scene.seed)
    height, width = scene.size
    unit = max(scene.size) / 320
    paper = np.ones((height, width, 3), np.float32) * np.array(scene.paper, np.float32)
    paper += 5 * (smooth_noise(rng, height, width, 60)[..., None] - 0.5)
    if scene.ruled:
        rule(rng, paper, unit)
    page = Page(light(rng, paper), unit, _view(scene))
    ink = Ink(
        colour=np.array(scene.ink, np.float32),
        opacity=0.92,
        grain=0.6 if scene.chalk else 0.0,
        radius=scene.pen,
        silhouette=False,
        rotation=0.0,
        shear=0.0,
        aspect=1.0,
    )
    size = scene.height * height
    x, y = scene.place[0] * width, scene.place[1] * height
    for digit in scene.digits:
        pen = Pen(
            scene.pen,
            0.8 * unit,
            False,
            rng.normal(0, 4),
            rng.normal(0, 0.05),
            1.0,
            0.04,
        )
        glyph = handwriting.draw(rng, handwriting.pick(rng, int(digit)), size, pen)
        advance = put(rng, page, glyph, (x, y + rng.normal(0, 0.03) * size), ink)
        if advance is None:
            break
        x += advance + scene.gap * size
    desk = light(rng, _wood(rng, height, width))
    pixels = photograph(rng, before(see(page), page, desk), unit / 2)
    return Picture(
        pixels,
        np.array(page.boxes, np.float32).reshape(-1, 4),
        np.array(page.digits, np.int32),
    )


def _view(scene: Scene) -> NDArray[np.float64]:
    height, width = scene.size
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    seen = corners + np.array(scene.corners, np.float32).reshape(4, 2)
    scale = np.array((width, height), np.float32)
    return cv2.getPerspectiveTransform(corners * scale, seen * scale)


def _wood(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """A brown table top, its grain along the width."""
    grain = rng.random((height // 3, 6), np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 1.5)
    grain = cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    dark, pale = (
        np.array((84, 54, 34), np.float32),
        np.array((176, 128, 84), np.float32),
    )
    return dark + grain * (pale - dark)
