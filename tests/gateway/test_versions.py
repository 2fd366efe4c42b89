"""Models that change while the gateway runs."""

import asyncio

import grpc
import numpy as np
import pytest
from tensorflow.core.framework import types_pb2


async def test_signature_is_read_once(gateway, serving, ask):
    """However many ask at once, one GetModelMetadata serves them all, and those after them."""
    answers = await asyncio.gather(*(ask(gateway) for _ in range(20)))
    await ask(gateway)
    assert {status for status, _ in answers} == {200}
    assert serving.metadata_calls == 1


async def test_signature_is_read_again_after_a_version_change(gateway, serving, ask, fake_model):
    """An answer from another version makes the next request look at the signature anew."""
    await ask(gateway)
    serving.models["colors"] = fake_model(version=2)
    await ask(gateway)
    assert serving.metadata_calls == 1
    await ask(gateway)
    await ask(gateway)
    assert serving.metadata_calls == 2


@pytest.mark.parametrize(
    "change",
    [
        {"input_name": "input_tensor", "shape": (1, -1, -1, 3)},
        {"signature": "detection_signature"},
        {"shape": (-1, 30, 20, 3)},
    ],
    ids=str,
)
async def test_a_new_version_that_is_asked_differently(gateway, serving, ask, fake_model, change):
    """When a new version wants other inputs, no request fails: it is prepared anew and sent."""
    await ask(gateway)
    serving.models["colors"] = fake_model(version=2, **change)
    answers = await asyncio.gather(*(ask(gateway) for _ in range(5)))
    assert {status for status, _ in answers} == {200}


async def test_refused_twice_is_refused(gateway, serving, ask):
    """If the signature is still the same, a refusal is passed on and not tried again."""
    await ask(gateway)
    serving.requests.clear()

    def refuse(images):
        raise ValueError

    serving.models["colors"].detect = refuse
    status, _ = await ask(gateway)
    assert status == 502
    assert len(serving.requests) == 1


async def test_a_model_that_appears_later(gateway, serving, ask, fake_model):
    """A model that was not there is asked for again each time, and found once it is."""
    assert (await ask(gateway, model_name="late"))[0] == 404
    serving.models["late"] = fake_model()
    assert (await ask(gateway, model_name="late"))[0] == 200
    del serving.models["late"]
    assert (await ask(gateway, model_name="late"))[0] == 404


async def test_outage_and_return(gateway, serving, ask):
    """While TensorFlow Serving is away requests fail at once with 503; then they succeed again."""
    await ask(gateway)
    address = serving.address
    await serving.stop()
    status, answer = await ask(gateway)
    assert (status, answer["code"]) == (503, "backend_unavailable")
    await serving.start(address)
    while (await ask(gateway))[0] != 200:
        pass


async def test_first_asker_leaves(gateway, serving, ask, shows):
    """When the first who asks for a model leaves, those who wait with it are not harmed."""
    serving.metadata_gate = asyncio.Event()
    first = asyncio.ensure_future(ask(gateway))
    await serving.metadata_asked.acquire()
    second = asyncio.ensure_future(ask(gateway))
    await shows(gateway, "gateway_requests_inside", 2)
    first.cancel()
    await shows(gateway, "gateway_requests_inside", 1)
    serving.metadata_gate.set()
    assert (await second)[0] == 200
    assert serving.metadata_calls == 1


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
async def test_encoded_input(gateway, serving, ask, photo, fake_model, decode_strings, fmt):
    """A model that takes encoded pictures gets bytes that TensorFlow reads, in whole batches."""
    serving.models["text"] = fake_model(
        detect=decode_strings,
        dtype=types_pb2.DT_STRING,
        shape=(-1,),
        tensor_name="encoded_image_string_tensor:0",
    )
    image = photo((70, 128, 64), file_format=fmt)
    answers = await asyncio.gather(*(ask(gateway, model_name="text", image=image) for _ in "abc"))
    for status, answer in answers:
        assert status == 200
        assert answer["detections"][0]["class_id"] == 7
    assert {name for name, _ in serving.batches} == {"text"}
    assert sum(shape[0] for _, shape in serving.batches) == 3


async def test_tensor_content_answers(gateway, serving, ask):
    """A server that answers in tensor_content is read as well."""
    serving.models["colors"].as_content = True
    status, answer = await ask(gateway)
    assert (status, answer["detections"][0]["score"]) == (200, 0.9)


async def test_full_picture_reaches_a_model_of_any_size(gateway, serving, ask, photo):
    """With a dynamic height and width the picture is sent as it is, pixel for pixel."""
    seen = []
    detect = serving.models["colors"].detect
    serving.models["colors"].detect = lambda images: seen.append(images) or detect(images)
    await ask(gateway, image=photo((1, 2, 3), size=(37, 21)))
    (images,) = seen
    assert images.shape == (1, 21, 37, 3)
    assert np.all(images == (1, 2, 3))


async def test_status_of_grpc_is_not_lost_with_its_mates(gateway, serving, ask):
    """Each caller of a failed batch gets an answer of its own."""
    await ask(gateway)
    serving.abort = (grpc.StatusCode.INVALID_ARGUMENT, "no")
    answers = await asyncio.gather(*(ask(gateway) for _ in range(6)))
    assert {status for status, _ in answers} == {502}
    assert len({answer["request_id"] for _, answer in answers}) == 6


async def test_a_version_may_be_asked_for(gateway, serving, ask, fake_model):
    """By number or by label, each asked in its own way; the answer says which one served it."""
    serving.models["colors"] = fake_model(version=3)
    serving.models["colors:2"] = fake_model(version=2, input_name="input_tensor")
    serving.models["colors@canary"] = fake_model(version=4, signature="detection_signature")
    for body, version in [
        ({}, 3),
        ({"model_version": 2}, 2),
        ({"version_label": "canary"}, 4),
        ({"model_version": 3}, 3),
        ({}, 3),
    ]:
        status, answer = await ask(gateway, **body)
        assert (status, answer["model_version"]) == (200, version)
    answers = await asyncio.gather(
        *(ask(gateway, model_version=version) for version in [2, 3] * 10)
    )
    assert [answer["model_version"] for _, answer in answers] == [2, 3] * 10


async def test_a_version_that_is_not_there(gateway, ask):
    """404 names the version, whether it was asked for by number or by label."""
    for body, named in [
        ({"model_version": 9}, "version 9 of model 'colors'"),
        ({"version_label": "canary"}, "version 'canary' of model 'colors'"),
    ]:
        status, answer = await ask(gateway, **body)
        assert (status, answer["code"]) == (404, "model_not_found")
        assert named in answer["message"]
    assert (await ask(gateway))[0] == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"model_version": -1}, "model_version"),
        ({"model_version": True}, "model_version"),
        ({"model_version": 1 << 63}, "model_version"),
        ({"model_version": 1.5}, "model_version"),
        ({"version_label": ""}, "version_label"),
        ({"model_version": 1, "version_label": "canary"}, "version_label"),
    ],
)
async def test_a_version_that_is_none(gateway, ask, body, field):
    """422 names the field."""
    status, answer = await ask(gateway, **body)
    assert status == 422
    assert list(answer["errors"]) == [field]
