"""What a server knows of its calls: when it will be free, what they show, what it then believes."""

import asyncio
import math
from dataclasses import replace

import pytest

from batching import Batcher, CostModel, JustInTime
from batching.adaptive.device import SERIAL, DeviceKind
from batching.adaptive.server import Server, _Mix
from batching.adaptive.tuning import TUNING
from batching.simulation import Cores, Device, simulate


def knowing(**cost):
    server = Server()
    known = {"fixed_s": 1.0, "per_item_s": 0.1, "transport_s": 0.5, "noise": 0.1} | cost
    server._kind("k").estimator.restart(CostModel(**known))
    return server


def send(server, now, size=0):
    return server.send("k", "k", size, 32, now)


def test_an_idle_server_is_free():
    """Nothing has to be waited for where nothing runs."""
    assert knowing().free_at() == (-math.inf, 0.0)


def test_calls_queue_at_a_serial_server():
    """It is free when the last of them has had its time; each adds its own doubt."""
    server = knowing()
    send(server, 0.0)
    at, deviation = server.free_at()
    assert (at, deviation) == pytest.approx((1.5, 0.1))
    send(server, 0.2)
    at, deviation = server.free_at()
    assert (at, deviation) == pytest.approx((2.5, 0.1 * math.sqrt(2)))


def test_what_ended_is_better_than_what_was_expected():
    """A call that waited for one before it has begun when that one has ended."""
    server = knowing()
    first = send(server, 0.0)
    send(server, 0.2)
    server.end(first, 2.0, failed=True)
    assert server.free_at()[0] == pytest.approx(3.0)


def test_a_server_with_places_is_free_until_all_are_taken():
    """And then when the first of those that run has ended."""
    server = knowing()
    server.parallelism, server.device = 2, DeviceKind(2, queues=True)
    send(server, 0.0)
    assert server.free_at()[0] == -math.inf
    send(server, 0.3)
    assert server.free_at()[0] == pytest.approx(1.5)
    send(server, 0.4)
    assert server.free_at()[0] == pytest.approx(1.8)


def test_calls_that_share_are_stretched():
    """Where calls slow each other down, so many of them take as much longer."""
    server = knowing()
    assert server.stretch == 1.0
    server.parallelism, server.device = 3, DeviceKind(32, queues=False, contention=0.6)
    assert server.stretch == pytest.approx(2.2)


def test_a_call_tells_what_it_met():
    """The ends of those before it, those that outlasted it counted as its own, and the times of
    those that left after it."""
    server = knowing()
    first, second = send(server, 0.0), send(server, 0.5)
    third, fourth = send(server, 1.0), send(server, 2.0)
    server.end(first, 3.0, failed=True)
    server.end(third, 4.0, failed=True)
    server.end(fourth, 5.0, failed=True)
    server.end(second, 6.0, failed=True)
    record = third.record()
    assert record.seconds == 3.0
    assert record.ends_before == (2.0, 3.0)
    assert record.others_after == ((1.0, 3.0),)
    assert first.record().ready_s == 0.0
    assert second.record().others_after == ((0.5, 3.5), (1.5, 4.5))


def test_a_call_that_failed_teaches_nothing():
    """The time of a failure is not the time of a call."""
    server = Server()
    for n in range(9):
        server.end(send(server, n), n + 0.5, failed=True)
    assert not server.cost("k").known
    assert server._kind("k").estimator.fits == 0
    assert not server.calls


def test_costs_are_known_after_some_calls():
    """And only those of a server itself are its own."""
    server = Server(lambda _: CostModel(9.0, 0.0, 0.0, 0.1))
    assert server.cost("k").fixed_s == 9.0
    assert server.own_cost("k") is None
    for n in range(40):
        server.end(send(server, 2 * n, 1 + n % 3), 2 * n + 0.5, failed=False)
    assert server.own_cost("k").known
    assert server.cost("k").service_s(1) + server.cost("k").transport_s == pytest.approx(0.5)
    assert server.cost("other").fixed_s == 9.0


def test_kinds_unused_for_longest_are_forgotten(monkeypatch):
    """What is remembered of a server is bounded, and what is used all along is remembered."""
    monkeypatch.setattr("batching.adaptive.server.TUNING", replace(TUNING, kinds=3))
    server = Server()
    for n in range(9):
        for kind in (n, "used"):
            server.end(server.send(kind, kind, 1, 32, 1.0 * n), n + 0.5, failed=False)
    assert len(server._kinds) == 3
    assert server.cost("used").known
    assert server.own_cost(0) is None
    assert server.own_cost(8) is not None


def test_nothing_is_demanded_before_the_first_call():
    """Without calls there is nothing on average."""
    assert _Mix().demand(1.0) is None


def test_the_demand_is_the_average_of_all_kinds():
    """Fixed time by call, time per item by item, with the size that the last may have."""
    mix = _Mix()
    mix.add(1, CostModel(1.0, 0.1, 0.0, 0.0), 32)
    mix.add(1, CostModel(3.0, 0.3, 0.0, 0.0), 16)
    demand = mix.demand(5.0)
    assert (demand.rate, demand.max_batch_size) == (5.0, 16)
    assert (demand.fixed_s, demand.per_item_s) == pytest.approx((2.015, 0.2015), rel=0.01)


def test_a_serial_device_stays_serial():
    """However many calls wait there, it does not seem to run several."""
    dispatch = JustInTime()
    device = Device(0.02, 0.002, 0.004)
    simulate(device, 0.9 * device.capacity(32), 5, dispatch=dispatch)
    assert dispatch.server(None).device == SERIAL
    assert dispatch.server(None).parallelism == 1


def test_places_are_found():
    """A device that runs four calls at a time is given about as many."""
    dispatch = JustInTime()
    device = Cores(0.02, 0.002, 0.004, cores=4)
    simulate(device, 0.8 * device.capacity(32), 8, dispatch=dispatch)
    assert dispatch.server(None).parallelism in {3, 4, 6}
    assert "4" in dispatch.learnt("").device


def test_a_change_of_cost_makes_all_due_again(virtual):
    """What was tried at the device as it was tells nothing of it as it is."""
    device, dispatch = Device(0.02, 0.002), JustInTime()

    async def main():
        batcher = Batcher(device.process, dispatch=dispatch)
        for n in range(60):
            await batcher.submit("k", n)
        assert dispatch.cost("k").service_s(1) == pytest.approx(0.022, rel=0.1)
        device.a, device.b = 0.2, 0.02
        for n in range(60):
            await batcher.submit("k", n)
        assert dispatch.cost("k").service_s(1) == pytest.approx(0.22, rel=0.1)
        await batcher.aclose()
        await asyncio.sleep(0)

    virtual(main())
