"""One client cannot starve the others: rate and share, each with its own limit."""

import asyncio

import pytest

from gateway.clients import Clients
from gateway.errors import ClientLimitError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_rate(clock):
    """A second's worth may come at once; then they trickle; others are not concerned."""
    clients = Clients(rate=2.0, places=None, clock=clock)
    for _ in range(2):
        with clients.enter("a"):
            pass
    with pytest.raises(ClientLimitError) as caught, clients.enter("a"):
        pass
    assert caught.value.reason == "client_rate"
    assert caught.value.retry_after == pytest.approx(0.5)
    with clients.enter("b"):
        clock.now = 0.5
    with clients.enter("a"), pytest.raises(ClientLimitError), clients.enter("a"):
        pass
    clock.now = 100.0
    for _ in range(2):
        with clients.enter("a"):
            pass
    with pytest.raises(ClientLimitError), clients.enter("a"):
        pass


def test_a_rate_below_one(clock):
    """One request every ten seconds is one at the start."""
    clients = Clients(rate=0.1, places=None, clock=clock)
    with clients.enter("a"), pytest.raises(ClientLimitError) as caught, clients.enter("a"):
        pass
    assert caught.value.retry_after == pytest.approx(10.0)


def test_share(clock):
    """Requests inside are counted and given back, also after an error."""
    clients = Clients(rate=None, places=1, clock=clock)
    with clients.enter("a"), clients.enter("b"):
        with pytest.raises(ClientLimitError) as caught, clients.enter("a"):
            pass
        assert caught.value.reason == "client_share"
    with pytest.raises(ZeroDivisionError), clients.enter("a"):
        raise ZeroDivisionError
    with clients.enter("a"):
        pass


def test_they_are_forgotten_but_for_those_inside(clock, monkeypatch):
    """However many clients there are, memory is bounded, and who is inside stays counted."""
    monkeypatch.setattr("gateway.clients.REMEMBERED", 2)
    clients = Clients(rate=None, places=1, clock=clock)
    with clients.enter("a"):
        for name in "bcd":
            with clients.enter(name):
                pass
        assert list(clients._clients) == ["a", "d"]
        with pytest.raises(ClientLimitError), clients.enter("a"):
            pass
        with clients.enter("e"), clients.enter("f"):
            assert list(clients._clients) == ["a", "e", "f"]


async def test_over_http(start, serving, ask, shows):
    """429 with Retry-After and the limit's name; by header, each name has limits of its own."""
    gateway = await start(client_share=0.002, max_queue_size=1000, client_header="X-API-Key")
    serving.gate = asyncio.Event()
    posts = [asyncio.ensure_future(ask(gateway, headers={"X-API-Key": "a"})) for _ in range(2)]
    await shows(gateway, "gateway_requests_inside", 2)
    response = await gateway.post("/imageDetection", data=b"{}", headers={"X-API-Key": "a"})
    assert (response.status, (await response.json())["code"]) == (429, "client_limit")
    assert response.headers["Retry-After"] == "1"
    others = [asyncio.ensure_future(ask(gateway, headers={"X-API-Key": "b"})) for _ in range(2)]
    others += [asyncio.ensure_future(ask(gateway)) for _ in range(2)]  # by its address
    await shows(gateway, "gateway_requests_inside", 6)
    serving.gate.set()
    assert [status for status, _ in await asyncio.gather(*posts, *others)] == [200] * 6
    text = await (await gateway.get("/metrics")).text()
    assert 'gateway_rejected_total{reason="client_share"} 1.0' in text


async def test_rate_over_http(start, ask):
    """The second request within the second is one too many."""
    gateway = await start(client_rate=0.001)
    assert (await ask(gateway))[0] == 200
    status, answer = await ask(gateway)
    assert (status, answer["code"]) == (429, "client_limit")
    assert "0.001 requests a second" in answer["message"]
    assert (await gateway.get("/models")).status == 429


async def test_asking_for_the_state_of_many_models(start, serving):
    """One model is asked for once, however often it is named, and a hundred at most."""
    gateway = await start()
    response = await gateway.get("/models?" + "&".join(["name=colors"] * 300))
    assert [one["name"] for one in (await response.json())["models"]] == ["colors"]
    assert serving.metadata_calls == 1
    response = await gateway.get("/models?" + "&".join(f"name=m{n}" for n in range(101)))
    assert (response.status, (await response.json())["code"]) == (422, "invalid_request")
