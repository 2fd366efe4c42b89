"""When one more item would have its result."""

import asyncio
import math

import pytest

from batching import Backlog, Batcher, CostModel, JustInTime
from batching.simulation import Device, Servers, run_virtually

spawn = asyncio.ensure_future
MIXED = (1, 5, 32, 64, 17, 3, 96, 20, 50)


def knowing(*names, **seconds):
    """A dispatch that knows calls of a second (or as told by kind) after half one of transport."""
    dispatch = JustInTime()
    for name in names or (None,):
        for kind, fixed in ({"k": 1.0} | seconds).items():
            cost = CostModel(fixed, 0.0, 0.5, 0.0)
            dispatch.server(name)._kind(kind).estimator.restart(cost)
    return dispatch


def test_nothing_is_expected_before_something_is_known():
    """Without a cost there is no reason to refuse anybody."""
    assert JustInTime().expected(Backlog("k", 500, 32), [], 0.0, 0.0) == -math.inf


@pytest.mark.parametrize("queued", [0, 7, 40, 320])
def test_what_is_expected_comes_true(queued):
    """After some traffic, the time at which one more item would be done is told to a tenth."""

    async def main():
        device, dispatch = Device(0.02, 0.002, 0.004), JustInTime()
        batcher = Batcher(device.process, dispatch=dispatch)
        loop = asyncio.get_running_loop()
        for n in 2 * MIXED:
            await asyncio.gather(*(batcher.submit("k", n) for n in range(n)))
        began = loop.time()
        crowd = [spawn(batcher.submit("k", n)) for n in range(queued)]
        await asyncio.sleep(0)
        expected = dispatch.expected(Backlog("k", queued, 32), [], began, began) - began
        await batcher.submit("k", 0)
        took = loop.time() - began
        await asyncio.gather(*crowd)
        await batcher.aclose()
        assert took <= expected * 1.02
        assert expected < 1.1 * took + 0.05  # those behind it may fill its batch

    run_virtually(main())


@pytest.mark.parametrize(("queued", "keys"), [(5, 5), (40, 40), (60, 3), (300, 4)])
def test_items_that_share_no_call_are_expected_to_take_their_own(queued, keys):
    """Spread over several keys of one kind, they fill fewer calls, and that is told."""

    async def main():
        device, dispatch = Device(0.02, 0.002, 0.004), JustInTime(kind=lambda _: "kind")
        batcher = Batcher(device.process, dispatch=dispatch)
        loop = asyncio.get_running_loop()
        for n in 2 * MIXED:
            await asyncio.gather(*(batcher.submit(0, n) for n in range(n)))
        began = loop.time()
        crowd = [spawn(batcher.submit(n % keys, n)) for n in range(queued)]
        await asyncio.sleep(0)
        expected = dispatch.expected(Backlog(0, queued, 32, keys), [], began, began) - began
        alone = dispatch.expected(Backlog(0, queued, 32), [], began, began) - began
        await batcher.submit(keys - 1, 0)
        took = loop.time() - began
        await asyncio.gather(*crowd)
        await batcher.aclose()
        assert took <= expected * 1.02
        assert expected < 1.25 * took + 0.05
        assert expected > 1.1 * alone

    run_virtually(main())


def test_it_comes_true_on_several_servers():
    """A crowd that two servers share is done in about half of the time, and that is told."""

    async def main():
        servers = Servers({name: Device(0.02, 0.002, 0.004) for name in "xy"})
        dispatch = JustInTime()
        batcher = Batcher(servers.process, servers=lambda _: servers.names, dispatch=dispatch)
        loop = asyncio.get_running_loop()
        for n in 4 * MIXED:
            await asyncio.gather(*(batcher.submit("k", n) for n in range(n)))
        began = loop.time()
        crowd = [spawn(batcher.submit("k", n)) for n in range(640)]
        await asyncio.sleep(0)
        own = Backlog("k", 640, 32, servers=servers.names)
        expected = dispatch.expected(own, [], began, began) - began
        await batcher.submit("k", 0)
        took = loop.time() - began
        await asyncio.gather(*crowd)
        await batcher.aclose()
        assert expected == pytest.approx(took, rel=0.1)

    run_virtually(main())


def test_a_flood_of_another_key_is_not_all_ahead():
    """Others count with their fair turns: as much as the own, and a batch."""
    dispatch = knowing(flood=2.0)
    own = Backlog("k", 40, 32)
    alone = dispatch.expected(own, [], 0.0, 0.0)
    few = dispatch.expected(own, [Backlog("flood", 1, 32)], 0.0, 0.0)
    flood = dispatch.expected(own, [Backlog("flood", 9999, 32)], 0.0, 0.0)
    new = dispatch.expected(own, [Backlog("unknown", 9999, 32)], 0.0, 0.0)
    assert few - alone == pytest.approx(2.0)
    assert flood - alone == pytest.approx(1.0 + 2.0)
    assert new == alone


def test_a_flood_elsewhere_is_not_ahead():
    """Who waits for other servers does not count."""
    dispatch = knowing("x", "y")
    own = Backlog("k", 40, 32, servers=("x",))
    alone = dispatch.expected(own, [], 0.0, 0.0)
    assert dispatch.expected(own, [Backlog("k", 99, 32, servers=("y",))], 0.0, 0.0) == alone
    assert dispatch.expected(own, [Backlog("k", 99, 32, servers=("y", "x"))], 0.0, 0.0) > alone


def test_what_is_expected_counts_calls_in_flight_and_preparation():
    """The device is busy until the calls before have ended; the item itself may be later still."""
    dispatch = knowing()
    dispatch.server(None).send("k", "k", 1, 32, 0.0)
    own = Backlog("k", 0, 32)
    assert dispatch.expected(own, [], 0.1, 0.1) == pytest.approx(2.5)
    assert dispatch.expected(own, [], 7.0, 0.1) == pytest.approx(8.5)


def test_a_server_that_is_not_known_yet_is_not_counted_on():
    """What is known of the others is what is expected, until its kin tell what it is like."""
    dispatch = knowing("x")
    own = Backlog("k", 640, 32, servers=("x",))
    alone = dispatch.expected(own, [], 0.0, 0.0)
    both = dispatch.expected(own._replace(servers=("x", "y")), [], 0.0, 0.0)
    assert alone == pytest.approx(21.0)
    assert both == pytest.approx(11.0)  # y is taken to be as x is
