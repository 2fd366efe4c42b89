"""Pictures that look like photographs of handwritten digits, with a box around every digit.

A page (paper, board, textile, photograph) is lit, ruled and written on, then seen in perspective,
and last photographed: blur, noise, colour cast, JPEG. Every length scales with `unit`, the number
of pixels that make one pixel of a picture whose longer side is 320; so a picture of 192 pixels
with unit 1 looks like a part of a larger one.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from glyphs import Glyph, Handwriting, Pen, smooth_noise
from numpy.typing import NDArray
from sklearn.datasets import load_sample_images

__all__ = [
    "Ink",
    "Page",
    "Picture",
    "Synthesis",
    "before",
    "light",
    "photograph",
    "put",
    "rule",
    "see",
    "texture",
]

LETTERS = "ACEFHJKLMNPRTUVWXYacdefhkmnprtuvwxy"  # none that is written like a digit
PEN_RADIUS = np.log((0.016, 0.085))  # in heights of a digit
SMALLEST = 18  # pixels of a digit's height, times the unit
Image = NDArray[np.float32]
Box = tuple[float, float, float, float]


@dataclass
class Picture:
    """An RGB picture and its digits: boxes [n, 4] of (ymin, xmin, ymax, xmax) in pixels."""

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    digits: NDArray[np.int32]


@dataclass
class Page:
    """A flat page while it is written on, and how it will be seen."""

    pixels: Image
    unit: float
    view: NDArray[np.float64]
    """The homography from the page to the picture."""
    taken: list[Box] = field(default_factory=list)
    """What is written already, as (x0, y0, x1, y1) of the page."""
    boxes: list[Box] = field(default_factory=list)
    digits: list[int] = field(default_factory=list)

    @property
    def is_dark(self) -> bool:
        return float(self.pixels[::4, ::4].mean()) < 105

    def is_free(self, box: Box) -> bool:
        """Whether nothing is written within the box."""
        x0, y0, x1, y1 = box
        return not any(x0 < c and a < x1 and y0 < d and b < y1 for a, b, c, d in self.taken)

    def fills_picture(self) -> bool:
        """Whether nothing is seen beside the page."""
        height, width = self.pixels.shape[:2]
        corners = np.array([[(0, 0), (width, 0), (width, height), (0, height)]], np.float64)
        x, y = cv2.perspectiveTransform(corners, np.linalg.inv(self.view))[0].T
        return min(*x, *y) >= -1 and max(x) <= width + 1 and max(y) <= height + 1

    def has_room(self, start: tuple[float, float], size: float) -> bool:
        """Whether even a narrow digit of this height could stand to the right of `start`."""
        x, y = start
        height, width = self.pixels.shape[:2]
        box = (x, y - 0.4 * size, x + 0.2 * size, y + 0.4 * size)
        in_page = x >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
        return in_page and self.is_free(box)


class Synthesis:
    """Draws random pictures from one part of the handwriting and of the background photographs.

    The two photographs that scikit-learn ships (CC BY) are background only; `held_out` takes their
    right quarters, training the rest.
    """

    def __init__(self, handwriting: Handwriting, held_out: bool) -> None:
        self._handwriting = handwriting
        photographs = load_sample_images().images
        cut = photographs[0].shape[1] * 3 // 4
        self._photographs = [p[:, cut:] if held_out else p[:, :cut] for p in photographs]

    def picture(
        self, rng: np.random.Generator, height: int, width: int, unit: float, most: int = 8
    ) -> Picture:
        """A random picture of `height` x `width` pixels with at most `most` digits."""
        page = Page(self._background(rng, height, width, unit), unit, _view(rng, height, width))
        ink = Ink.random(rng, page.is_dark)
        if rng.random() < 0.5:
            for _ in range(rng.integers(1, 4)):
                _distract(rng, page, ink)
        if rng.random() > 0.08:
            self._write(rng, page, ink, most)
        pixels = see(page)
        if not page.fills_picture():
            pixels = before(pixels, page, self._background(rng, height, width, unit))
        return Picture(
            photograph(rng, pixels, unit),
            np.array(page.boxes, np.float32).reshape(-1, 4),
            np.array(page.digits, np.int32),
        )

    def _background(self, rng: np.random.Generator, height: int, width: int, unit: float) -> Image:
        kind = rng.random()
        if kind < 0.16:
            return self._photo(rng, height, width)
        if kind < 0.3:
            return texture(rng, height, width)
        dark = rng.random() < 0.12
        tone = rng.uniform(10, 80) if dark else rng.uniform(130, 255)
        page = np.full((height, width, 3), tone, np.float32) + rng.uniform(-14, 14, 3)
        page += rng.uniform(0, 8) * (smooth_noise(rng, height, width, 40)[..., None] - 0.5)
        if rng.random() < 0.6:
            rule(rng, page, unit)
        return light(rng, page)

    def _photo(self, rng: np.random.Generator, height: int, width: int) -> Image:
        photo = self._photographs[rng.integers(len(self._photographs))]
        rows, columns = photo.shape[:2]
        share = rng.uniform(0.3, 1)
        high = min(rows, int(share * columns * height / width)) or 1
        wide = min(columns, int(high * width / height)) or 1
        top, left = rng.integers(rows - high + 1), rng.integers(columns - wide + 1)
        crop = photo[top : top + high, left : left + wide, rng.permutation(3)]
        crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_CUBIC)
        crop = crop[:: rng.choice((-1, 1)), :: rng.choice((-1, 1))].astype(np.float32)
        # Washed out, as behind a digit that someone is meant to read.
        contrast, base = rng.uniform(0.2, 1), rng.uniform(0, 255)
        return crop * contrast + base * (1 - contrast)

    def _write(self, rng: np.random.Generator, page: Page, ink: "Ink", most: int) -> None:
        """Write up to `most` digits: in rows, as numbers are written, or anywhere."""
        height, width = page.pixels.shape[:2]
        smallest, tallest = SMALLEST * page.unit, min(0.8 * min(height, width), 215 * page.unit)
        size = float(np.exp(rng.uniform(np.log(smallest), np.log(tallest))))
        in_rows = rng.random() < 0.65
        left = int(rng.integers(1, most + 1))
        for _ in range(30):
            x, y = rng.uniform(0, width - 0.4 * size), rng.uniform(0.5 * size, height - 0.4 * size)
            tilt, gap = rng.normal(0, 0.06), rng.uniform(0.02, 0.7) * size
            x = rng.uniform(0, 0.35 * width) if in_rows else x
            for _ in range(min(left, rng.integers(1, 6)) if in_rows else 1):
                high = size * (rng.uniform(0.8, 1.2) if in_rows else rng.uniform(0.5, 1.6))
                high = float(np.clip(high, smallest, tallest))
                start = (x, y + rng.normal(0, 0.07) * size)
                advance = None
                if page.has_room(start, high):
                    advance = put(rng, page, self._glyph(rng, ink, high), start, ink)
                x += (advance or 0.3 * size) + gap * rng.uniform(0.5, 1.2)
                y += tilt * size
                left -= advance is not None
            if left == 0:
                return
            size = max(0.9 * size, smallest)  # there may be room for something smaller

    def _glyph(self, rng: np.random.Generator, ink: "Ink", height: float) -> Glyph:
        radius = max(ink.radius * rng.uniform(0.85, 1.15), 0.5 / height)
        pen = Pen(
            radius=radius,
            soft=rng.uniform(0.8, 1.6),
            silhouette=ink.silhouette,
            rotation=ink.rotation + rng.normal(0, 5),
            shear=ink.shear + rng.normal(0, 0.05),
            aspect=ink.aspect * rng.uniform(0.88, 1.14),
            wobble=rng.uniform(0, 0.16),
        )
        return self._handwriting.draw(rng, self._handwriting.pick(rng), height, pen)


@dataclass
class Ink:
    """What one picture is written with, and by which hand."""

    colour: NDArray[np.float32]
    opacity: float
    grain: float
    radius: float
    silhouette: bool
    rotation: float
    shear: float
    aspect: float

    @classmethod
    def random(cls, rng: np.random.Generator, on_dark: bool) -> "Ink":
        """A pen that can be seen on a dark or a light page."""
        if on_dark:
            colour = rng.uniform(170, 255) + rng.uniform(-40, 20, 3)
        elif rng.random() < 0.5:
            colour = rng.uniform(5, 70) + rng.uniform(-12, 12, 3)
        else:
            colour = rng.uniform(0, 60, 3)
            colour[rng.integers(3)] = rng.uniform(70, 210)
        silhouette = rng.random() < 0.25
        return cls(
            colour=np.clip(colour, 0, 255).astype(np.float32),
            opacity=rng.uniform(0.7, 1),
            grain=rng.uniform(0.2, 0.7) if rng.random() < 0.25 else 0,
            radius=float(
                rng.uniform(0.04, 0.065) if silhouette else np.exp(rng.uniform(*PEN_RADIUS))
            ),
            silhouette=silhouette,
            rotation=rng.uniform(-12, 12) if rng.random() < 0.7 else rng.uniform(-20, 20),
            shear=rng.normal(0, 0.1),
            aspect=rng.uniform(0.75, 1.25),
        )

    def cover(self, rng: np.random.Generator, pixels: Image, alpha: Image) -> None:
        """Draw on the pixels in place, with ink where alpha is 1."""
        if self.grain:
            noise = rng.random(alpha.shape, np.float32)
            alpha = alpha * (1 - self.grain * cv2.GaussianBlur(noise, (0, 0), 0.7))
        alpha = (alpha * self.opacity)[..., None]
        pixels += alpha * (self.colour - pixels)


def put(
    rng: np.random.Generator,
    page: Page,
    glyph: Glyph,
    start: tuple[float, float],
    ink: Ink,
) -> float | None:
    """Draw a glyph with the middle of its left side at `start` if that place is free and in view.

    Returns its width, or None if it was not drawn.
    """
    outline = glyph.outline()
    if len(outline) < 3:
        return None
    x0, y0 = outline.min(axis=0)
    x1, y1 = outline.max(axis=0) + 1
    left = round(start[0] - x0)
    top = round(start[1] - (y0 + y1) / 2)
    height, width = page.pixels.shape[:2]
    where = (x0 + left, y0 + top, x1 + left, y1 + top)
    origin = np.array((left + 0.5, top + 0.5))
    seen = cv2.perspectiveTransform((outline + origin)[None], page.view)[0]
    low, high = seen.min(axis=0) - 0.5, seen.max(axis=0) + 0.5
    lowest, highest = np.minimum(low, where[:2]), np.maximum(high, where[2:])
    inside = (lowest >= 0).all() and (highest <= (width, height)).all()
    if not inside or not page.is_free(where):
        return None
    rows = slice(max(top, 0), min(top + glyph.alpha.shape[0], height))
    columns = slice(max(left, 0), min(left + glyph.alpha.shape[1], width))
    alpha = glyph.alpha[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    ink.cover(rng, page.pixels[rows, columns], alpha)
    page.taken.append(where)
    page.boxes.append((low[1], low[0], high[1], high[0]))
    page.digits.append(glyph.digit)
    return float(x1 - x0)


def _distract(rng: np.random.Generator, page: Page, ink: Ink) -> None:
    """Draw something that is not a digit: a word, a sign, a line or a scribble."""
    height, width = page.pixels.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    size = float(np.exp(rng.uniform(np.log(12), np.log(90)))) * page.unit
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    line = max(1, round(size * ink.radius * 2))
    kind = rng.random()
    if kind < 0.45:
        word = "".join(rng.choice(list(LETTERS), rng.integers(1, 7)))
        font = int(rng.choice((cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_SCRIPT_SIMPLEX)))
        at = (round(x - size), round(y))
        cv2.putText(mask, word, at, font, size / 25, (255,), line, cv2.LINE_AA)
    elif kind < 0.7:
        for stroke in _sign(rng):
            points = (stroke * size + (x, y)).round().astype(np.int32)
            cv2.polylines(mask, [points], False, (255,), line, cv2.LINE_AA)
    elif kind < 0.85:
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)
        ends[:, 1] = ends[0, 1] + (0, rng.uniform(-0.5, 0.5) * (ends[1, 0] - ends[0, 0]))
        cv2.polylines(mask, [ends.round().astype(np.int32)], False, (255,), line, cv2.LINE_AA)
    else:
        walk = np.cumsum(rng.normal(0, 0.4, (int(rng.integers(8, 20)), 2)), axis=0)
        points = (walk * size + (x, y)).round().astype(np.int32)
        cv2.polylines(mask, [points], False, (255,), line, cv2.LINE_AA)
    left, top, wide, high = cv2.boundingRect(mask)
    ink.cover(rng, page.pixels, mask.astype(np.float32) / 255)
    page.taken.append((left, top, left + wide, top + high))


def _sign(rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """The strokes of plus, minus, times, equals, a tick or an arrow, about 1 wide."""
    across, down = np.array([(-0.5, 0), (0.5, 0)]), np.array([(0, -0.5), (0, 0.5)])
    signs = (
        [across, down],
        [across],
        [np.array([(-0.4, -0.4), (0.4, 0.4)]), np.array([(-0.4, 0.4), (0.4, -0.4)])],
        [np.array([(-0.5, y), (0.5, y)]) for y in (-0.15, 0.15)],
        [np.array([(-0.4, 0), (-0.1, 0.4), (0.5, -0.5)])],
        [across, np.array([(0.2, -0.25), (0.5, 0), (0.2, 0.25)])],
    )
    strokes = signs[rng.integers(len(signs))]
    return [stroke + rng.normal(0, 0.04, stroke.shape) for stroke in strokes]


def rule(rng: np.random.Generator, page: Image, unit: float) -> None:
    """Rule a page in place: lines, or squares, and sometimes a margin."""
    height, width = page.shape[:2]
    step = rng.uniform(8, 60) * unit
    colour = rng.uniform((60, 90, 120), (190, 200, 230))
    mask = np.zeros((height, width), np.uint8)
    line = max(1, round(rng.uniform(0.4, 1.4) * unit))
    rows = np.arange(rng.uniform(0, step), height, step)
    for row in rows.round().astype(int).tolist():
        cv2.line(mask, (0, row), (width, row), (255,), line)
    if rng.random() < 0.45:
        for column in np.arange(rng.uniform(0, step), width, step).round().astype(int).tolist():
            cv2.line(mask, (column, 0), (column, height), (255,), line)
    alpha = mask[..., None] * np.float32(rng.uniform(0.15, 0.8) / 255)
    page += alpha * (colour.astype(np.float32) - page)
    if rng.random() < 0.25:
        column = int(rng.uniform(0.05, 0.3) * width)
        cv2.line(page, (column, 0), (column, height), (190, 80, 90), line)


def texture(rng: np.random.Generator, height: int, width: int) -> Image:
    """Hills of several sizes: cloth, stone, or stretched to wood."""
    stretch = int(rng.choice((1, 1, 8)))
    hills = np.zeros((height, width), np.float32)
    for octave in range(1, 6):
        cells = 2**octave * 2
        layer = smooth_noise(rng, max(2, height // stretch), width, cells)
        hills += cv2.resize(layer, (width, height)) / octave ** rng.uniform(0.6, 1.6)
    hills = (hills - hills.min()) / (np.ptp(hills) + 1e-6)
    if stretch > 1 and rng.random() < 0.5:
        hills = np.ascontiguousarray(cv2.resize(hills.T, (width, height)))
    dark, light = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    share = hills[..., None] * np.float32(rng.uniform(0.15, 0.7))
    return (dark * (1 - share) + light * share).astype(np.float32)


def light(rng: np.random.Generator, page: Image) -> Image:
    """Light a page unevenly, sometimes with the shadow of something straight."""
    height, width = page.shape[:2]
    strength = rng.uniform(0, 0.5)
    light = 1 - strength * smooth_noise(rng, height, width, int(rng.integers(2, 4)))
    if rng.random() < 0.3:
        corners = rng.uniform(-0.3, 1.3, (4, 2)) * (width, height)
        shade = np.zeros((height, width), np.float32)
        cv2.fillConvexPoly(shade, cv2.convexHull(corners.astype(np.int32)), (1,))
        shade = cv2.blur(shade, (int(rng.uniform(1, 0.15 * width)),) * 2)
        light *= 1 - rng.uniform(0.15, 0.55) * shade
    return page * light[..., None]


def _view(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """A homography that shows the page filling the picture, or from further away."""
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    inwards = np.sign(corners.mean(axis=0) - corners) * (width, height)
    away = rng.uniform(0, 0.1) if rng.random() < 0.3 else rng.uniform(-0.08, -0.04)
    shift = away + rng.uniform(-0.04, 0.04, (4, 2))
    return cv2.getPerspectiveTransform(corners, (corners + inwards * shift).astype(np.float32))


def see(page: Page) -> Image:
    """The page in perspective, its edges extended to fill the picture."""
    height, width = page.pixels.shape[:2]
    return cv2.warpPerspective(
        page.pixels, page.view, (width, height), borderMode=cv2.BORDER_REPLICATE
    )


def before(seen: Image, page: Page, behind: Image) -> Image:
    """The page before whatever it lies on."""
    height, width = seen.shape[:2]
    cover = cv2.warpPerspective(np.ones((height, width), np.float32), page.view, (width, height))
    cover = cv2.GaussianBlur(cover, (0, 0), 0.6 * page.unit)
    return seen + (1 - cover[..., None]) * (behind - seen)


def photograph(rng: np.random.Generator, pixels: Image, unit: float) -> NDArray[np.uint8]:
    """What a camera makes of it: blur, noise, exposure, a colour cast and JPEG."""
    blur = rng.gamma(1.2, 0.35) * unit
    if blur > 0.3:
        pixels = cv2.GaussianBlur(pixels, (0, 0), min(blur, 1.6 * unit))
    contrast, cast = rng.uniform(0.55, 1.1), rng.uniform(0.88, 1.1, 3)
    pixels = (pixels - 128) * contrast * cast + 128 + rng.uniform(-25, 25)
    if rng.random() < 0.6:
        noise = rng.standard_normal(pixels.shape[:2], np.float32)
        pixels = pixels + rng.uniform(1, 12) * noise[..., None]
    out = np.clip(pixels, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = int(rng.integers(35, 95))
        _, data = cv2.imencode(".jpg", out, (cv2.IMWRITE_JPEG_QUALITY, quality))
        out = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return out
