"""Test photographs, made from nothing but a seed, each carrying its code (bench/marks.py).

    python -m bench.photos DIRECTORY     # writes them as files, to look at

They have what costs a JPEG decoder its time: the 1/f spectrum of natural pictures, correlated
colour channels, lit shapes with hard edges, and sensor noise; quality 85, 4:2:0. A 640x480 one has
about 75 kB.
"""

import sys
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bench import marks

__all__ = ["SIZES", "load", "photo"]

SIZES = {"640x480": (640, 480), "1280x720": (1280, 720), "1920x1080": (1920, 1080)}
QUALITY = 85
CACHE = Path(__file__).parent / ".photos"

Pixels = npt.NDArray[np.uint8]


@lru_cache(maxsize=8)
def _spectrum(width: int, height: int, exponent: float) -> npt.NDArray[np.float32]:
    fx, fy = np.fft.rfftfreq(width) * width, np.fft.fftfreq(height) * height
    radius = np.hypot(fx[None, :], fy[:, None])
    radius[0, 0] = 1
    spectrum: npt.NDArray[np.float32] = (1 / radius**exponent).astype(np.float32)
    return spectrum


def _clouds(
    rng: np.random.Generator, width: int, height: int, exponent: float
) -> npt.NDArray[np.float32]:
    """Return noise with a power-law spectrum, mean 0 and deviation 1."""
    phases = rng.random((height, width // 2 + 1), dtype=np.float32) * np.float32(2 * np.pi)
    waves = np.fft.irfft2(_spectrum(width, height, exponent) * np.exp(1j * phases), (height, width))
    clouds: npt.NDArray[np.float32] = ((waves - waves.mean()) / waves.std()).astype(np.float32)
    return clouds


def _shapes(rng: np.random.Generator, picture: Pixels) -> None:
    """Paint things with edges: ellipses and quadrilaterals, large ones first."""
    height, width = picture.shape[:2]
    for size in (0.35, 0.25, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05, 0.04, 0.04, 0.03, 0.03):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        colour = [int(c) for c in rng.integers(20, 235, 3)]
        axes = (int(width * size * rng.uniform(0.4, 1)), int(width * size * rng.uniform(0.3, 0.8)))
        tilt = float(rng.uniform(0, 180))
        if rng.random() < 0.5:
            cv2.ellipse(picture, centre, axes, tilt, 0, 360, colour, -1, cv2.LINE_AA)
        else:
            corners = cv2.boxPoints((centre, axes, tilt)).astype(np.int32)
            cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA)


def pixels(width: int, height: int, code: int) -> Pixels:
    """Return the RGB picture of ``code``, shape (height, width, 3)."""
    rng = np.random.default_rng((width, height, code))
    light = _clouds(rng, width, height, 1.5) * 40
    picture = np.full((height, width, 3), rng.integers(80, 170, 3), np.uint8)
    _shapes(rng, picture)
    texture = _clouds(rng, width, height, 0.8) * np.clip(_clouds(rng, width, height, 1.6), 0, 2)
    scene = picture + (light + texture * 17)[..., None]
    for channel in range(3):
        scene[..., channel] += _clouds(rng, width, height, 1.8) * 12
    scene += rng.normal(0, 1.5, scene.shape)
    picture = np.clip(scene, 0, 255).astype(np.uint8)
    step = marks.SHARE * marks.GRID
    for i, colour in enumerate(marks.colours(code)):
        row, column = divmod(i, marks.GRID)
        top, bottom = row * height // step, (row + 1) * height // step
        picture[top:bottom, column * width // step : (column + 1) * width // step] = colour
    return picture


def photo(size: str, code: int) -> bytes:
    """Return the JPEG of ``code``, ``size`` as in SIZES; kept on disk, for making it takes long."""
    file = CACHE / f"{size}-{code}.jpg"
    if not file.exists():
        width, height = map(int, size.split("x"))
        bgr = cv2.cvtColor(pixels(width, height, code), cv2.COLOR_RGB2BGR)
        encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        CACHE.mkdir(exist_ok=True)
        file.write_bytes(encoded.tobytes())
    return file.read_bytes()


def load(sizes: list[str], each: int = 16) -> list[tuple[int, bytes]]:
    """Return (code, JPEG) of ``each`` pictures of each size, sizes taking turns."""
    codes = [1 + (37 * i) % (marks.CODES - 1) for i in range(each * len(sizes))]
    return [(code, photo(sizes[i % len(sizes)], code)) for i, code in enumerate(codes)]


def main() -> None:
    """Write four pictures of each size into the directory that is named."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        for code, jpeg in load([size], each=4):
            (target / f"{size}-{code}.jpg").write_bytes(jpeg)
            sys.stdout.write(f"{size} code {code}: {len(jpeg) / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
