"""What cannot be answered in time is refused at once; what is admitted is answered in time."""

import asyncio

import pytest

from gateway.forecast import kind_of
from gateway.keys import DETECTOR


@pytest.fixture
def learnt(ask, believe, monkeypatch):
    """Let a gateway learn of its backend, then have it believe in another cost of a call."""
    monkeypatch.setattr("gateway.forecast.TRIAL_SECONDS", 1e9)

    async def teach(gateway, seconds: float, **request) -> None:
        for _ in range(3):
            assert (await ask(gateway, **request))[0] == 200
        believe(gateway, seconds)

    return teach


async def test_an_answer_that_would_be_late_is_refused_before_decoding(start, learnt, ask):
    """503 with the reason and the time after which to ask again, and not a look at the picture."""
    gateway = await start(request_timeout=10)
    assert (await ask(gateway, model_name="missing"))[0] == 404
    await learnt(gateway, 30.0)
    assert (await ask(gateway, model_name="missing"))[0] == 404
    response = await gateway.post(
        "/imageDetection", json={"model_name": "colors", "image": "no picture at all"}
    )
    answer = await response.json()
    assert (response.status, answer["code"]) == (503, "overloaded")
    assert "30.0 s" in answer["message"]
    assert response.headers["Retry-After"] == "22"  # 30 s less nine tenths of 9.5 s
    text = await (await gateway.get("/metrics")).text()
    assert 'gateway_rejected_total{reason="deadline"} 1.0' in text


async def test_refused_before_the_body_is_read(start, learnt, ask):
    """While requests are refused, others are before their bodies have come, if late anyway."""
    gateway = await start(request_timeout=10)
    await learnt(gateway, 30.0)
    assert (await ask(gateway))[0] == 503
    address = gateway.server.host, gateway.server.port
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"POST /imageDetection HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 503 ")
    assert "Retry-After: 22" in head
    writer.close()


@pytest.mark.parametrize(("step", "fewest", "most"), [(0, 20, 20), (1, 6, 14)])
async def test_pictures_that_share_no_call(
    start, serving, photo, ask, learnt, believe, step, fewest, most
):
    """Where each has a size of its own, calls of a second carry one each, and fewer are let in."""
    gateway = await start(request_timeout=10)
    await learnt(gateway, 1.0, image=photo(size=(30, 24)))
    believe(gateway, 1.0, noise=0.01)
    forecast = gateway.app[DETECTOR].forecast
    seen = forecast._kinds[kind_of(forecast.usual("colors"))]._last
    serving.gate = asyncio.Event()
    inside = []
    for n in range(20):
        before = len(seen)
        inside.append(asyncio.ensure_future(ask(gateway, image=photo(size=(30, 24 + n * step)))))
        while len(seen) == before and not inside[-1].done():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)
    serving.gate.set()
    statuses = [status for status, _ in await asyncio.gather(*inside)]
    assert fewest <= statuses.count(200) <= most
    assert set(statuses) <= {200, 503}


async def test_a_model_that_is_fast_is_let_in_among_slow_ones(start, serving, learnt, ask):
    """A request is not refused before its model is known, if that may be one with time enough."""
    gateway = await start(request_timeout=10)
    serving.models["fast"] = serving.models["colors"]
    assert (await ask(gateway, model_name="fast"))[0] == 200
    await learnt(gateway, 30.0)
    assert (await ask(gateway))[0] == 503
    assert (await ask(gateway, model_name="fast"))[0] == 200


async def test_a_few_large_pictures_do_not_price_the_others(start, learnt, believe, ask, photo):
    """A model of open size: what a large picture costs is asked of the large ones alone."""
    gateway = await start(request_timeout=10)
    large = photo(size=(640, 480))
    for image in (large, large, large):
        assert (await ask(gateway, image=image))[0] == 200
    await learnt(gateway, 0.0)
    detector = gateway.app[DETECTOR]
    for _ in range(6):
        assert (await ask(gateway))[0] == 200
    small = detector.forecast.usual("colors")
    assert small.shape == (48, 64, 3)
    assert (await ask(gateway, image=large))[0] == 200
    assert detector.forecast.usual("colors") == small
    believe(gateway, 99.0, lane=small._replace(shape=(480, 640, 3)))
    assert (await ask(gateway))[0] == 200


async def test_the_client_may_be_in_a_hurry(start, learnt, ask):
    """X-Request-Timeout shortens the time that a request may wait, and never lengthens it."""
    gateway = await start(request_timeout=10)
    await learnt(gateway, 4.0)
    assert (await ask(gateway))[0] == 200
    assert (await ask(gateway, headers={"X-Request-Timeout": "99"}))[0] == 200
    await learnt(gateway, 4.0)  # again: the calls have taught it better
    status, answer = await ask(gateway, headers={"X-Request-Timeout": "3"})
    assert (status, answer["code"]) == (503, "overloaded")


async def test_a_short_timeout_ends_the_request(start, serving, ask):
    """An admitted request is answered 504 when its own time has passed."""
    gateway = await start()
    serving.gate = asyncio.Event()
    status, answer = await ask(gateway, headers={"X-Request-Timeout": "0.05"})
    assert (status, answer["code"]) == (504, "deadline_exceeded")
    assert "0.05 s" in answer["message"]
    serving.gate.set()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", ""])
async def test_a_timeout_that_is_none(gateway, ask, value):
    """422 names the header."""
    status, answer = await ask(gateway, headers={"X-Request-Timeout": value})
    assert (status, answer["code"]) == (422, "invalid_request")
    assert list(answer["errors"]) == ["X-Request-Timeout"]


async def test_priorities(start, learnt, ask):
    """Low may use half of the time and normal nine tenths, so that high finds room."""
    gateway = await start(request_timeout=10)
    dispatch = gateway.app[DETECTOR]._dispatch
    for cost, served in [
        (4.0, ["low", "normal", "high"]),
        (7.0, ["normal", "high"]),
        (9.0, ["high"]),
        (9.9, []),
    ]:
        await learnt(gateway, 0.0)
        await learnt(gateway, cost)
        found = [
            priority
            for priority in ("low", "normal", "high")
            if (await ask(gateway, headers={"X-Priority": priority}))[0] == 200
        ]
        assert found == served
        for server in list(dispatch._servers):
            dispatch.forget(server)
    status, answer = await ask(gateway, headers={"X-Priority": "urgent"})
    assert status == 422
    assert "high, normal, low" in answer["errors"]["X-Priority"][0]


async def test_nobody_waits_in_the_books_once_all_is_done(gateway, ask):
    """The backlog that is reckoned with falls back to nothing, after successes and failures."""
    await asyncio.gather(
        *(ask(gateway, model_name=name) for name in ["colors", "missing"] * 5),
        *(ask(gateway, image="%") for _ in range(5)),
    )
    assert not gateway.app[DETECTOR].forecast._admission.waiting_for


async def test_a_wrong_belief_does_not_last(start, learnt, ask, monkeypatch):
    """Now and then one request is let in whatever is expected, and shows that it was wrong."""
    gateway = await start(request_timeout=10)
    await learnt(gateway, 30.0)
    assert (await ask(gateway))[0] == 503
    monkeypatch.setattr("gateway.forecast.TRIAL_SECONDS", 0.0)
    while gateway.app[DETECTOR].learnt()["colors"].expected_s > 1:
        assert (await ask(gateway))[0] == 200
    monkeypatch.setattr("gateway.forecast.TRIAL_SECONDS", 1e9)
    assert (await ask(gateway))[0] == 200


async def test_a_picture_larger_than_a_message(start, photo, ask):
    """It goes alone, and what is reckoned for others stays sane."""
    gateway = await start(max_message_bytes=1 << 20)
    large = photo(size=(700, 600))  # 1.26 MB once decoded
    answers = await asyncio.gather(*(ask(gateway, image=large) for _ in range(6)))
    assert {status for status, _ in answers} == {200}
    assert (await ask(gateway))[0] == 200


async def test_a_damaged_picture_is_no_trial(start, learnt, ask, monkeypatch):
    """The one request that is let in on trial has to make a call; else the next one is."""
    gateway = await start(request_timeout=10)
    await learnt(gateway, 30.0)
    assert (await ask(gateway))[0] == 503
    gateway.app[DETECTOR].forecast._let_in.clear()
    for _ in range(3):
        assert (await ask(gateway, image="no picture"))[0] == 422
    assert (await ask(gateway))[0] == 200
