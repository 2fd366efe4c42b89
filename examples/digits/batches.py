"""Training batches and held-out pictures, all made from seeds."""

import math
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache

import cv2
import glyphs
import numpy as np
from numpy.typing import NDArray
from synth import Picture, Synthesis

__all__ = ["SEED", "batches", "held_out_handwriting", "held_out_pictures"]

SEED = 7
HELD_OUT = 0.15  # of the handwriting
TILES = ((128, 40), (192, 20), (320, 8))  # side in pixels, pictures in a batch
MOST_DIGITS = 16
REPEATS = 4
PHOTOGRAPHS = ((480, 640), (640, 480), (600, 600), (540, 960), (900, 1200))  # height, width

Batch = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32]]


def batches(steps: int) -> Iterator[Batch]:
    """Make training batches in another process, ahead of their use; each comes `REPEATS` times.

    A batch is the pictures, their boxes [n, m, 4] in pixels, and their digits [n, m], -1 where
    there is none.
    """
    made = math.ceil(steps / REPEATS)
    context = multiprocessing.get_context("spawn")  # TensorFlow's threads don't survive a fork
    kept = []
    with ProcessPoolExecutor(1, context) as pool:
        for batch in pool.map(_batch, range(made)):
            kept.append(batch)
            yield batch
    for step in range(made, steps):
        yield kept[step % made]


def _batch(number: int) -> Batch:
    rng = np.random.default_rng((SEED, number))
    side, count = TILES[number % len(TILES)]
    pixels = np.zeros((count, side, side, 3), np.uint8)
    boxes = np.zeros((count, MOST_DIGITS, 4), np.float32)
    digits = np.full((count, MOST_DIGITS), -1, np.int32)
    for i in range(count):
        picture = _training_synthesis().picture(rng, side, side, 1.0, MOST_DIGITS)
        pixels[i] = picture.pixels
        boxes[i, : len(picture.boxes)] = picture.boxes
        digits[i, : len(picture.digits)] = picture.digits
    return pixels, boxes, digits


@cache
def _training_synthesis() -> Synthesis:
    cv2.setNumThreads(1)  # the other core is the network's
    return Synthesis(glyphs.load().split(HELD_OUT, SEED)[0], held_out=False)


def held_out_handwriting() -> glyphs.Handwriting:
    """The handwriting that training never sees."""
    return glyphs.load().split(HELD_OUT, SEED)[1]


def held_out_pictures(count: int) -> list[Picture]:
    """Pictures in photographs' shapes, of handwriting and backgrounds that training never sees."""
    synthesis = Synthesis(held_out_handwriting(), held_out=True)
    pictures = []
    for i in range(count):
        height, width = PHOTOGRAPHS[i % len(PHOTOGRAPHS)]
        rng = np.random.default_rng((SEED, 1, i))
        pictures.append(synthesis.picture(rng, height, width, max(height, width) / 320))
    return pictures
