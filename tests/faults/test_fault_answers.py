"""A TensorFlow Serving that answers, and should not have."""

import numpy as np
import pytest


@pytest.fixture
async def url(spawn, serving) -> str:
    gateway = await spawn(
        "serve", "--port", "0", "--tfserving", serving.address,
        "--max-message-bytes", str(1 << 20),
    )  # fmt: skip
    return await gateway.url()


def rows_missing(outputs):
    return {name: value[:0] for name, value in outputs.items()}


def rows_too_many(outputs):
    return {name: np.repeat(value, 3, axis=0) for name, value in outputs.items()}


def empty(outputs):
    return {}


def huge(outputs):
    return {**outputs, "detection_boxes": np.repeat(outputs["detection_boxes"], 1000, axis=1)}


@pytest.mark.parametrize("spoil", [rows_missing, rows_too_many, empty, huge])
async def test_an_answer_of_the_wrong_size(url, serving, ask, spoil):
    """502 for who shared the call; the next call is judged by its own answer."""
    model = serving.models["colors"]
    well = model.detect
    assert (await ask(url, "colors"))[0] == 200
    model.detect = lambda images: spoil(well(images))
    assert await ask(url, "colors") == (502, "backend_answer_invalid")
    model.detect = well
    assert (await ask(url, "colors"))[0] == 200


@pytest.mark.parametrize("name", ["detection_scores", "detection_boxes", "detection_classes"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
async def test_numbers_that_are_none(url, serving, ask, name, value):
    """No NaN and no infinity reaches a client, for JSON has neither: 502 for the call."""
    model = serving.models["colors"]
    well = model.detect
    model.detect = lambda images: {**well(images), name: np.full_like(well(images)[name], value)}
    status, found = await ask(url, "colors")
    assert (status, found) == (502, "backend_answer_invalid")
    model.detect = well
    assert (await ask(url, "colors"))[0] == 200
