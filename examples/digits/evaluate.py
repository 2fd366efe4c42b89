"""Average precision of detections, as the PASCAL VOC challenge of 2010 defines it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from synth import Picture

__all__ = ["Scores", "evaluate"]

Detect = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Scores:
    """What a detector achieves on a set of pictures."""

    mean_average_precision: float
    """At IoU 0.5, the mean over the ten digits."""
    average_precision: list[float]
    """At IoU 0.5, of each digit from 0 to 9."""
    pictures_all_right: float
    """The share of pictures whose detections above 0.4 are exactly the digits that are there."""


def evaluate(detect: Detect, pictures: list[Picture]) -> Scores:
    """Run a detector (a batch of one picture in, a TensorFlow Object Detection answer out)."""
    scores: list[list[float]] = [[] for _ in range(10)]
    hits: list[list[bool]] = [[] for _ in range(10)]
    there = np.zeros(10)
    all_right = 0
    for picture in pictures:
        answer = detect(picture.pixels[None])
        count = int(answer["num_detections"][0])
        score = answer["detection_scores"][0, :count]
        digit = answer["detection_classes"][0, :count].astype(int) - 1
        hit = _hits(picture, answer["detection_boxes"][0, :count], digit)
        for each in range(10):
            scores[each] += score[digit == each].tolist()
            hits[each] += hit[digit == each].tolist()
        there += np.bincount(picture.digits, minlength=10)
        sure = score >= 0.4
        all_right += int(hit[sure].all() and hit[sure].sum() == len(picture.digits))
    precision = [_average_precision(*each) for each in zip(scores, hits, there, strict=True)]
    return Scores(float(np.mean(precision)), precision, all_right / len(pictures))


def _hits(
    picture: Picture, boxes: NDArray[np.float32], digits: NDArray[np.int_]
) -> NDArray[np.bool_]:
    """Whether each detection, best first, is the first to find a digit that is there."""
    height, width = picture.pixels.shape[:2]
    free = np.ones(len(picture.digits), bool)
    hits = np.zeros(len(boxes), bool)
    for i, box in enumerate(boxes * (height, width, height, width)):
        overlap = _iou(box, picture.boxes) * free * (picture.digits == digits[i])
        if len(overlap) and overlap.max() >= 0.5:
            hits[i] = True
            free[overlap.argmax()] = False
    return hits


def _iou(box: NDArray[np.float64], others: NDArray[np.float32]) -> NDArray[np.float64]:
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    return common / (np.prod(box[2:] - box[:2]) + areas - common)


def _average_precision(scores: list[float], hits: list[bool], there: float) -> float:
    """The area under the precision-recall curve, precision made monotonic."""
    order = np.argsort(scores)[::-1]
    found = np.cumsum(np.array(hits, float)[order])
    precision = found / np.arange(1, len(found) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall_steps = np.diff(found, prepend=0) / max(there, 1)
    return float((precision * recall_steps).sum())
