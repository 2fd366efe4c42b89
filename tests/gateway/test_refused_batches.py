"""A batch that TensorFlow Serving refuses costs those who shared it nothing but time."""

import asyncio

import grpc
import numpy as np
import pytest

from gateway.keys import DETECTOR


@pytest.fixture
def refuse(serving):
    """Have the fake refuse calls for their size or for a colour among the pictures."""
    rules = {
        "most": 1 << 30,
        "color": None,
        "status": (grpc.StatusCode.INVALID_ARGUMENT, "batch size is larger than max_batch_size"),
    }

    def refuse(images: np.ndarray):
        guilty = rules["color"] is not None and rules["color"] in images[:, 0, 0, 0]
        return rules["status"] if guilty or len(images) > rules["most"] else None

    serving.refuse = refuse
    return rules


@pytest.fixture
def together(serving, photo, ask, shows):
    """Ask for pictures of the colours 0, 10, 20, ... that wait for one call."""

    async def post(gateway, count: int):
        serving.gate = asyncio.Event()
        while not serving.arrived.locked():
            await serving.arrived.acquire()
        posts = [asyncio.ensure_future(ask(gateway, image=photo((200, 0, 0))))]
        await serving.arrived.acquire()
        for n in range(count):
            posts.append(asyncio.ensure_future(ask(gateway, image=photo((10 * n, 0, 0)))))
            await shows(gateway, "gateway_requests_inside", n + 2)
        await shows(gateway, "gateway_queue_depth", count)
        serving.batches.clear()
        serving.gate.set()
        return (await asyncio.gather(*posts))[1:]

    return post


def sizes(serving) -> list[int]:
    return [shape[0] for _, shape in serving.batches[1:]]


async def test_only_the_culprit_is_refused(start, serving, refuse, together):
    """Its mates get their own answers; how large batches may be is not concluded from it."""
    gateway = await start(max_in_flight=1)
    refuse["color"] = 30
    answers = await together(gateway, 7)
    assert [status for status, _ in answers] == [200, 200, 200, 502, 200, 200, 200]
    assert [answer["detections"][0]["class_id"] for _, answer in answers if "code" not in answer]
    assert answers[3][1]["code"] == "backend_refused"
    assert sizes(serving) == [7, 4, 2, 2, 1, 1, 3]
    refuse["color"] = None
    assert [status for status, _ in await together(gateway, 7)] == [200] * 7
    assert sizes(serving) == [7]


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "Task size 8 is larger than maximum input batch size 3"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OOM when allocating tensor with shape[8,64,48,3]"),
    ],
)
async def test_a_ceiling_is_learnt_and_probed(
    start, serving, refuse, together, monkeypatch, code, details
):
    """Batches are cut to what was accepted, and twice as much is tried again later."""
    gateway = await start(max_in_flight=1)
    refuse["most"], refuse["status"] = 3, (code, details)
    assert [status for status, _ in await together(gateway, 8)] == [200] * 8
    assert sizes(serving) == [8, 4, 2, 2, 4, 2, 2]
    assert [status for status, _ in await together(gateway, 6)] == [200] * 6
    assert sizes(serving) == [2, 2, 2]
    described = (await (await gateway.get("/models?name=colors")).json())["models"][0]
    assert [one["max_batch_size"] for one in described["learnt"]["servers"]] == [2]
    line = f'gateway_learnt_max_batch_size{{model="colors",server="{serving.address}"}} 2.0'
    assert line in await (await gateway.get("/metrics")).text()
    monkeypatch.setattr("gateway.predict.PROBE_SECONDS", -1.0)
    assert [status for status, _ in await together(gateway, 4)] == [200] * 4
    assert sizes(serving) == [4, 2, 2]
    refuse["most"] = 99
    for asked, wanted in ((8, [4, 4]), (8, [8]), (20, [16, 4]), (20, [20])):
        assert [status for status, _ in await together(gateway, asked)] == [200] * asked
        assert sizes(serving) == wanted
    predictor = gateway.app[DETECTOR]._predictor
    assert [ceiling.size for ceiling in predictor._ceilings.values()] == [20]


async def test_when_all_are_refused_nothing_is_learnt(start, serving, refuse, together):
    """A batch of which each picture is refused alone fails as a whole, with the reason."""
    gateway = await start(max_in_flight=1)
    assert (await together(gateway, 1))[0][0] == 200
    refuse["most"] = 0
    answers = await together(gateway, 3)
    assert {status for status, _ in answers} == {502}
    assert "larger than max_batch_size" in answers[0][1]["message"]
    assert not gateway.app[DETECTOR]._predictor._ceilings


async def test_the_server_going_away_between_halves_is_told(
    start, serving, refuse, together, monkeypatch
):
    """Those who had their answer keep it, the rest are told what happened."""
    gateway = await start(max_in_flight=1)
    refuse["most"] = 3
    calls = []
    predictor = gateway.app[DETECTOR]._predictor
    call = predictor._call

    async def counted(lane, pictures, server):
        calls.append(len(pictures))
        if len(calls) == 4:
            serving.abort = (grpc.StatusCode.UNAVAILABLE, "gone")
        return await call(lane, pictures, server)

    monkeypatch.setattr(predictor, "_call", counted)
    answers = await together(gateway, 6)
    assert calls == [1, 6, 3, 3]
    assert [status for status, _ in answers] == [200, 200, 200, 503, 503, 503]


async def test_each_is_told_its_own_failure(start, serving, together):
    """Where all parts of a batch fail, one for what it is and one for what happened to it."""
    gateway = await start(max_in_flight=1)
    await together(gateway, 1)

    def refuse(images):
        if 0 in images[:, 0, 0, 0]:
            return (grpc.StatusCode.INVALID_ARGUMENT, "bad picture")
        return (grpc.StatusCode.UNAVAILABLE, "gone") if len(images) == 1 else None

    first = iter([True])
    serving.refuse = lambda images: None if next(first, False) else refuse(images)
    answers = await together(gateway, 2)
    assert [(status, answer["code"]) for status, answer in answers] == [
        (502, "backend_refused"),
        (503, "backend_unavailable"),
    ]


async def test_batch_sizes_of_a_model_that_takes_one(start, serving, together, fake_model):
    """They are for models that batch: one that does not is asked for one picture."""
    serving.models["colors"] = fake_model(shape=(1, -1, -1, 3))
    gateway = await start(max_in_flight=1, models={"colors": {"batch_sizes": [4]}})
    assert [status for status, _ in await together(gateway, 2)] == [200, 200]
    assert set(sizes(serving)) == {1}


async def test_batch_sizes_of_a_compiled_model(start, serving, together, shows):
    """Only the sizes that it was compiled for are sent; rows of padding are nobody's answer."""
    gateway = await start(
        max_in_flight=1, max_batch_size=8, models={"colors": {"batch_sizes": [16, 4, 2]}}
    )
    await shows(gateway, "gateway_replicas_left_out", 0)
    answers = await together(gateway, 7)
    assert sizes(serving) == [4, 4]
    assert [answer["detections"][0]["class_id"] for _, answer in answers] == [
        answer["detections"][0]["class_id"] for _, answer in await together(gateway, 7)
    ]
    assert {shape[0] for _, shape in serving.batches} == {2, 4}


async def test_a_compiled_model_is_asked_in_its_own_sizes(start, serving, refuse, together, shows):
    """Parts are as large as the next smaller size that it knows; what is learnt is one of them."""
    gateway = await start(max_in_flight=1, models={"colors": {"batch_sizes": [1, 4, 16]}})
    await shows(gateway, "gateway_replicas_left_out", 0)
    refuse["most"] = 4
    assert [status for status, _ in await together(gateway, 7)] == [200] * 7
    assert sizes(serving) == [16, 4, 4]
    assert [status for status, _ in await together(gateway, 7)] == [200] * 7
    assert sizes(serving) == [4, 4]
    ceilings = gateway.app[DETECTOR]._predictor._ceilings
    assert [ceiling.size for ceiling in ceilings.values()] == [4]


async def test_a_model_that_changed_is_asked_anew(start, serving, refuse, together, fake_model):
    """A batch that was refused because the model's input has a new name is not taken apart."""
    gateway = await start(max_in_flight=1)
    assert (await together(gateway, 1))[0][0] == 200

    def replace(images):
        if serving.models["colors"].version == 1 and len(images) == 4:
            serving.models["colors"] = fake_model(version=2, input_name="image")
            return (grpc.StatusCode.INVALID_ARGUMENT, "input does not match signature")
        return None

    serving.refuse = replace
    answers = await together(gateway, 4)
    assert [status for status, _ in answers] == [200] * 4
    assert {answer["model_version"] for _, answer in answers} == {2}
    assert (sizes(serving)[0], sum(sizes(serving))) == (4, 8)


async def test_nobody_is_asked_for_who_is_late(start, serving, refuse, together, monkeypatch):
    """Of a batch that is refused, the parts for which nobody waits any more are not asked."""
    gateway = await start(max_in_flight=1)
    refuse["color"] = 0
    predictor = gateway.app[DETECTOR]._predictor
    call = predictor._call

    async def late(lane, pictures, server):
        try:
            return await call(lane, pictures, server)
        finally:
            if len(pictures) == 4:
                pictures[:] = [one._replace(deadline=0.0) for one in pictures]

    monkeypatch.setattr(predictor, "_call", late)
    assert {status for status, _ in await together(gateway, 4)} == {504}
    assert sizes(serving) == [4]


async def test_what_taking_apart_costs_is_not_learnt(start, refuse, together, monkeypatch):
    """The time of a batch that was asked in parts is not the time of a call."""
    gateway = await start(max_in_flight=1)
    refuse["color"] = 30
    dispatch = gateway.app[DETECTOR]._dispatch
    ended, told = dispatch.ended, []

    def note(call, now, *, failed):
        told.append((call.size, failed))
        ended(call, now, failed=failed)

    monkeypatch.setattr(dispatch, "ended", note)
    await together(gateway, 7)
    assert told == [(1, False), (7, True)]
