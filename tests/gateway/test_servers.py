"""The gateway's replicas as the batcher's servers: each gets the calls that it is best for."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import numpy as np
import pytest

from batching import CostModel, Learnt
from bench.simulated_serving import Behaviour, SimulatedServing
from gateway.keys import ADMISSION, CLIENT, DETECTOR
from gateway.predict import Picture
from gateway.tfserving import ModelChoice

PATIENCE = 20  # seconds, so that no test waits without end


@pytest.fixture
async def two(servings, start, shows):
    """Two fakes, and a gateway in front of them that has found both."""
    fakes = await servings(2)
    gateway = await start(tfserving=",".join(fake.address for fake in fakes))
    await shows(gateway, "gateway_replicas_left_out", 0)
    return fakes, gateway


@pytest.fixture
async def simulated() -> AsyncIterator[Callable[..., Awaitable[tuple[str, SimulatedServing]]]]:
    """Start a simulated server with a cost of ``a + b * n`` ms; where it listens, and itself."""
    servers = []

    async def run(a: float, b: float) -> tuple[str, SimulatedServing]:
        serving, server = SimulatedServing(Behaviour(cost=(a, b))), grpc.aio.server()
        serving.add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return f"127.0.0.1:{port}", serving

    yield run
    for server in servers:
        await server.stop(None)


async def several(gateway, ask, count: int, **request) -> list[int]:
    """The statuses of some requests, one after the other."""
    return [(await ask(gateway, **request))[0] for _ in range(count)]


async def test_a_slow_replica_gets_few_calls(start, shows, simulated, ask):
    """One that is thirty times slower than the other is tried, and then left to what it is worth:
    fast answers do not wait for it."""
    (near, fast), (far, slow) = await simulated(5, 0.5), await simulated(150, 15)
    gateway = await start(tfserving=f"{near},{far}")
    await shows(gateway, "gateway_replicas_left_out", 0)
    clients = (several(gateway, ask, 120, model_name="tiny") for _ in range(4))
    for statuses in await asyncio.gather(*clients):
        assert set(statuses) == {200}
    assert slow.counts.calls >= 1
    assert fast.counts.images >= 12 * slow.counts.images


async def test_models_on_different_servers_never_wait_for_each_other(two, ask):
    """While all calls of one model hang, however many, the other is answered at once; and no batch
    is sent to a server that lacks its model."""
    (first, second), gateway = two
    first.models["other"] = first.models.pop("colors")
    for name in ("colors", "other"):
        while len(gateway.app[CLIENT].servers(ModelChoice(name))) > 1:
            answers = await asyncio.gather(*(ask(gateway, model_name=name) for _ in range(4)))
            assert {status for status, _ in answers} == {200}
    first.gate = asyncio.Event()
    for fake in (first, second):
        fake.requests.clear()
    hanging = [asyncio.ensure_future(ask(gateway, model_name="other")) for _ in range(12)]
    await first.arrived.acquire()
    assert set(await several(gateway, ask, 12)) == {200}
    assert not any(one.done() for one in hanging)
    first.gate.set()
    assert {status for status, _ in await asyncio.gather(*hanging)} == {200}
    assert {one.model_spec.name for one in first.requests} == {"other"}
    assert {one.model_spec.name for one in second.requests} == {"colors"}


async def test_who_waits_is_sent_to_one_that_comes_back(servings, start, shows, ask):
    """A batch that waits for a server leaves at once for another that is let in meanwhile."""
    hangs, comes = await servings(2)
    await comes.stop()
    gateway = await start(tfserving=f"{hangs.address},{comes.address}")
    await shows(gateway, "gateway_replicas_left_out", 1)
    hangs.gate = asyncio.Event()
    stuck = asyncio.ensure_future(ask(gateway))
    await hangs.arrived.acquire()
    waits = asyncio.ensure_future(ask(gateway))  # of calls of unknown cost one runs at a time
    await shows(gateway, "gateway_queue_depth", 1)
    await comes.start(comes.address)
    async with asyncio.timeout(PATIENCE):
        assert (await waits)[0] == 200
    assert not stuck.done()
    assert len(comes.requests) == 1
    hangs.gate.set()
    assert (await stuck)[0] == 200


async def test_one_that_is_ejected_and_returns(two, shows, ask):
    """No request fails when a server goes away; back, it is one of those that may be asked."""
    (stays, goes), gateway = two
    detector = gateway.app[DETECTOR]
    assert set(await several(gateway, ask, 8)) == {200}
    lane = detector.forecast.usual("colors")
    await goes.stop()
    while gateway.app[CLIENT].left_out == 0:
        answers = await asyncio.gather(*(ask(gateway) for _ in range(4)))
        assert {status for status, _ in answers} == {200}
    assert detector._servers(lane) == [stays.address]
    assert set(await several(gateway, ask, 8)) == {200}
    await goes.start(goes.address)
    await shows(gateway, "gateway_replicas_left_out", 0)
    assert detector._servers(lane) == [stays.address, goes.address]
    assert set(await several(gateway, ask, 8)) == {200}


async def test_what_is_learnt_is_shown_for_each_server(two, believe, ask):
    """/models has the figures of each, without addresses, which are not for clients; the metrics
    have them with the address."""
    (first, second), gateway = two
    assert set(await several(gateway, ask, 4)) == {200}
    believe(gateway, 0.02, per_item_s=0.002, transport_s=0.004, noise=0.1)
    text = await (await gateway.get("/models?name=colors")).text()
    learnt = json.loads(text)["models"][0]["learnt"]
    server = {
        "fixed_s": 0.02,
        "per_item_s": 0.002,
        "transport_s": 0.004,
        "noise": 0.1,
        "parallelism": 1,
        "device": "serial",
        "max_batch_size": 32,
    }
    assert learnt["servers"] == [server, server]
    assert learnt["expected_s"] >= 0.026
    assert first.address not in text
    lines = (await (await gateway.get("/metrics")).text()).splitlines()
    for fake in (first, second):
        labels = f'model="colors",server="{fake.address}"'
        for line in (
            f"gateway_learnt_fixed_seconds{{{labels}}} 0.02",
            f"gateway_learnt_per_item_seconds{{{labels}}} 0.002",
            f"gateway_learnt_transport_seconds{{{labels}}} 0.004",
            f"gateway_learnt_noise{{{labels}}} 0.1",
            f"gateway_learnt_parallelism{{{labels}}} 1.0",
            f"gateway_learnt_max_batch_size{{{labels}}} 32.0",
            f'gateway_learnt_device{{device="serial",{labels}}} 1.0',
        ):
            assert line in lines
    [expected] = [line for line in lines if line.startswith("gateway_learnt_expected_seconds{")]
    assert float(expected.removeprefix('gateway_learnt_expected_seconds{model="colors"} ')) >= 0.026


async def test_the_forecast_reckons_with_each_server(two, believe, ask):
    """Two servers are done with what waits in half the time; one that lacks the model is none of
    them."""
    (_, second), gateway = two
    assert set(await several(gateway, ask, 4)) == {200}
    believe(gateway, 1.0, noise=0.01)
    detector, admission = gateway.app[DETECTOR], gateway.app[ADMISSION]
    lane = detector.forecast.usual("colors")

    def expected() -> float:
        return detector.learnt()["colors"].expected_s

    assert expected() == pytest.approx(1, abs=0.1)
    with admission.enter(0) as place:
        place.waits_for("colors")
        admission.waiting_for["colors"] += 4 * 32
        assert expected() == pytest.approx(3, abs=0.1)
        del second.models["colors"]
        second_asked = len(second.requests)
        await detector._predictor(lane, [Picture(np.zeros(lane.shape, np.uint8), 1e9, place)],
                                  second.address)  # fmt: skip
        assert len(second.requests) == second_asked + 1
        assert expected() == pytest.approx(5, abs=0.1)
        admission.waiting_for["colors"] -= 4 * 32


async def test_a_ceiling_is_that_of_one_server(two, ask):
    """What one of them refuses as too large, another may take; one that is gone is forgotten."""
    (small, large), gateway = two
    assert (await ask(gateway))[0] == 200
    detector, admission = gateway.app[DETECTOR], gateway.app[ADMISSION]
    lane, predictor = detector.forecast.usual("colors"), detector._predictor
    small.refuse = lambda images: (
        (grpc.StatusCode.INVALID_ARGUMENT, "too many") if len(images) > 2 else None
    )
    with admission.enter(0) as place:
        pictures = [Picture(np.zeros(lane.shape, np.uint8), 1e9, place)] * 4
        for fake in (small, large):
            shares = await predictor(lane, pictures, fake.address)
            assert not any(isinstance(share, Exception) for share in shares)
    assert predictor.max_batch_size(lane, small.address) == 2
    assert predictor.max_batch_size(lane, large.address) == 32
    assert large.batches[-1][1][0] == 4
    detector.servers_changed(small.address)
    assert predictor.max_batch_size(lane, small.address) == 32


async def test_a_device_that_seems_to_be_another_is_told_once(
    gateway, serving, ask, caplog, monkeypatch
):
    """One line when a server is seen to be of another kind, and none while it stays so."""
    caplog.set_level("INFO", "gateway")
    dispatch = gateway.app[DETECTOR]._dispatch
    cost = CostModel(0.02, 0.002, 0.001, 0.1)
    for device, parallelism in (("serial", 1), ("4 at a time", 4), ("merges calls that wait", 0)):
        seen = Learnt(cost, device, parallelism)
        monkeypatch.setattr(dispatch, "learnt", lambda *_, seen=seen: seen)
        assert set(await several(gateway, ask, 3)) == {200}
    assert [line for line in caplog.messages if "its calls show" in line] == [
        f"TensorFlow Serving at {serving.address}, as its calls show: {text} at a time"
        for text in (
            "4 at a time; best with 4",
            "merges calls that wait; best with any number",
        )
    ]


async def test_a_server_that_is_gone_is_forgotten(servings, start, shows, ask, monkeypatch):
    """An address that the DNS does not know any more is shown no more; nothing of it is kept."""
    monkeypatch.setattr("gateway.tfserving.replicas.RESOLVE_SECONDS", 0.01)
    monkeypatch.setattr("gateway.tfserving.names.LOOKS", 2)
    machines = ["127.0.0.1", "127.0.0.2"]

    async def look_up(host, port, **_):
        return [(socket.AF_INET, 0, 0, "", (ip, port)) for ip in machines]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
    stays, goes = await servings(2)
    port = stays.address.rpartition(":")[2]
    await goes.stop()
    await goes.start(f"127.0.0.2:{port}")
    gateway = await start(tfserving=f"pool:{port}")
    await shows(gateway, "gateway_replicas_left_out", 0)
    while not goes.requests or "127.0.0.2" not in await metrics(gateway):
        assert (await ask(gateway))[0] == 200
    dispatch = gateway.app[DETECTOR]._dispatch
    assert f"127.0.0.2:{port}" in dispatch._servers
    machines.remove("127.0.0.2")
    await shows(gateway, "gateway_replicas", 1)
    assert "127.0.0.2" not in await metrics(gateway)
    assert list(dispatch._servers) == [stays.address]
    assert (await ask(gateway))[0] == 200


async def metrics(gateway) -> str:
    return await (await gateway.get("/metrics")).text()
