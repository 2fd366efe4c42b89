"""Rows of an answer: whose they are, what is kept of them, what is refused."""

import numpy as np
import pytest

from gateway.errors import BackendAnswerInvalidError
from gateway.models import Detection, split_rows


def outputs(count=2, most=3, **change):
    whole = {
        "detection_boxes": np.arange(count * most * 4, dtype=np.float32).reshape(count, most, 4)
        / 100,
        "detection_scores": np.tile(np.float32([0.5, 0.9, 0.5]), (count, 1)),
        "detection_classes": np.tile(np.float32([1, 2, 3]), (count, 1)),
        "num_detections": np.full(count, most, np.float32),
    }
    whole |= change
    return {name: value for name, value in whole.items() if value is not None}


def test_rows_in_order_best_first():
    """Row n is picture n's; equal scores keep the model's order; corners are x then y."""
    first, second = split_rows(outputs(), 2)
    assert first.above(0.4) == [
        Detection(2, 0.9, 0.05, 0.04, 0.07, 0.06),
        Detection(1, 0.5, 0.01, 0.0, 0.03, 0.02),
        Detection(3, 0.5, 0.09, 0.08, 0.11, 0.1),
    ]
    assert second.above(0.5)[0].x1 == pytest.approx(0.17)
    assert second.above(0.9) == []


@pytest.mark.parametrize(
    ("number", "kept"), [(0, 0), (1, 1), (2.0, 2), (99, 3), (-1, 0), (np.nan, 3), (np.inf, 3)]
)
def test_num_detections(number, kept):
    """Rows beyond num_detections are not meant; a number that makes no sense hides none."""
    for shape in ((2,), (2, 1)):
        rows = split_rows(outputs(num_detections=np.full(shape, number, np.float32)), 2)
        assert [len(row.scores) for row in rows] == [kept, kept]


def test_without_num_detections_all_rows_are_meant():
    """A model that does not count its detections means all of them."""
    assert len(split_rows(outputs(num_detections=None), 2)[0].above(0)) == 3


def test_classes_may_be_integers():
    """Some exports answer classes as integers."""
    rows = split_rows(outputs(detection_classes=np.full((2, 3), 7, np.int64)), 2)
    assert {found.class_id for found in rows[0].above(0)} == {7}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"detection_boxes": None}, "lacks the output 'detection_boxes'"),
        ({"detection_scores": np.zeros((3, 3), np.float32)}, "for 2 pictures"),
        ({"detection_classes": np.zeros((2, 4), np.float32)}, "classes of shape [2, 4]"),
        ({"num_detections": np.zeros(1, np.float32)}, "1 numbers of detections"),
        ({"detection_classes": np.full((2, 3), b"cat", object)}, "no numeric type"),
        ({"num_detections": np.full(2, b"3", object)}, "no numeric type"),
    ],
    ids=str,
)
def test_answers_that_contradict_themselves(change, reason):
    """What cannot be cut into rows without a guess is refused, with the shapes that do not fit."""
    with pytest.raises(BackendAnswerInvalidError) as caught:
        split_rows(outputs(**change), 2)
    assert reason in str(caught.value)
