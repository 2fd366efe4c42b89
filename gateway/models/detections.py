"""From the outputs of a detector to detections, row by row."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gateway.errors import BackendAnswerInvalidError
from gateway.models.signature import NUM_DETECTIONS, REQUIRED_OUTPUTS

__all__ = ["Detection", "DetectionRow", "split_rows"]


class Detection(NamedTuple):
    """One object. Coordinates are 0..1 of the upright picture; (x1, y1) is its top left corner."""

    class_id: int
    score: float
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class DetectionRow:
    """One picture's share of an answer: ``boxes`` [M, 4] as (ymin, xmin, ymax, xmax), the rest [M].

    Views of the whole answer; nothing is copied before it is known to be wanted.
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    classes: NDArray[Any]

    def above(self, threshold: float) -> list[Detection]:
        """The detections that score more than ``threshold``, best first, clipped to the picture.

        Raises
        ------
        BackendAnswerInvalidError
            A score, or a box or class that is wanted, is not a finite number.
        """
        if not math.isfinite(self.scores.sum(dtype=np.float64)):
            raise BackendAnswerInvalidError(
                "TensorFlow Serving answered scores that are no numbers"
            )
        wanted = np.flatnonzero(self.scores > threshold)
        if not wanted.size:
            return []
        wanted = wanted[np.argsort(-self.scores[wanted], kind="stable")]
        boxes = self.boxes[wanted].astype(np.float64)
        classes = self.classes[wanted]
        if not math.isfinite(boxes.sum() + classes.sum(dtype=np.float64)):
            raise BackendAnswerInvalidError("TensorFlow Serving answered boxes that are no numbers")
        # Six decimals are a fortieth of a pixel at 40,000 pixels; more is noise of the float32.
        scores = self.scores[wanted].astype(np.float64).round(6)
        return [
            Detection(int(class_id), score, x1, y1, x2, y2)
            for score, class_id, (y1, x1, y2, x2) in zip(
                scores.tolist(),
                classes.tolist(),
                boxes.clip(0.0, 1.0).round(6).tolist(),
                strict=True,
            )
        ]


def split_rows(outputs: Mapping[str, NDArray[Any]], count: int) -> list[DetectionRow]:
    """Cut an answer into the rows of the ``count`` pictures that were sent, in their order.

    ``outputs`` are those of the TensorFlow Object Detection API: boxes [N, M, 4], scores and
    classes [N, M], and, where the model has it, the number [N] of rows that are meant.

    Raises
    ------
    BackendAnswerInvalidError
        An output is missing, is not numeric, or does not have ``count`` rows of that shape.
    """
    try:
        boxes, scores, classes = (outputs[name] for name in REQUIRED_OUTPUTS)
    except KeyError as missing:
        raise BackendAnswerInvalidError(
            f"TensorFlow Serving's answer lacks the output {missing.args[0]!r}"
        ) from None
    numbers = outputs.get(NUM_DETECTIONS)
    shape = scores.shape
    if len(shape) != 2 or shape[0] != count:
        raise BackendAnswerInvalidError(
            f"TensorFlow Serving answered scores of shape {list(shape)} for {count} pictures"
        )
    if boxes.shape != (*shape, 4) or classes.shape != shape:
        raise BackendAnswerInvalidError(
            f"TensorFlow Serving answered boxes of shape {list(boxes.shape)} and classes of shape"
            f" {list(classes.shape)} for scores of shape {list(shape)}"
        )
    if numbers is not None and numbers.size != count:
        raise BackendAnswerInvalidError(
            f"TensorFlow Serving answered {numbers.size} numbers of detections for {count} pictures"
        )
    kinds = {array.dtype.kind for array in (boxes, scores, classes)}
    if numbers is not None:
        kinds.add(numbers.dtype.kind)
    if not kinds <= set("fiu"):
        raise BackendAnswerInvalidError("TensorFlow Serving answered detections of no numeric type")
    ends = np.full(count, shape[1]) if numbers is None else _ends(numbers.reshape(count), shape[1])
    return [
        DetectionRow(boxes[row, :end], scores[row, :end], classes[row, :end])
        for row, end in enumerate(ends.tolist())
    ]


def _ends(numbers: NDArray[Any], most: int) -> NDArray[Any]:
    """How many detections of each picture are meant; a number that makes no sense means all."""
    sane = np.where(np.isfinite(numbers), numbers, most)
    return np.clip(sane, 0, most).astype(np.int64)
