"""Which server a batch goes to, and what a server that changes or is new means."""

import asyncio
import math

import pytest

from batching import Batcher, CostModel, JustInTime
from batching.simulation import (
    Device,
    Servers,
    run_virtually,
    simulate,
)
from tests.batching.adaptive.worlds import USUAL, Queue, changing, mean, run

spawn = asyncio.ensure_future


def test_equal_servers_share_the_load():
    """Each has about half of the calls."""
    servers = Servers({name: Device(**USUAL) for name in "xy"})
    run(servers, JustInTime(), 0.6)
    x, y = (device.started for device in servers.devices.values())
    assert 0.7 < x / y < 1.4


def test_a_slow_server_does_no_harm():
    """At half the load of the two, it is not worse than without the one that is thrice as slow."""
    both = Servers({"fast": Device(**USUAL), "slow": Device(0.06, 0.006, 0.004)})
    rate = 0.5 * Device(**USUAL).capacity(32)
    with_it = mean(simulate(both, rate, 12), 5.0)
    without = mean(simulate(Device(**USUAL), rate, 12), 5.0)
    assert with_it < 1.05 * without


@pytest.mark.parametrize(
    "factor",
    [pytest.param(3.0, id="slower"), pytest.param(1 / 3, id="faster")],
)
def test_a_server_that_changes_is_followed(factor):
    """Five seconds later it is given as much as if it had always been so."""
    slow = {"a": 0.06, "b": 0.006, "there": 0.004}
    before, after = (USUAL, slow) if factor > 1 else (slow, USUAL)
    change = {name: after[name] for name in ("a", "b")}
    always = Servers({"x": Device(**USUAL), "y": Device(**after)})
    rate = 0.5 * Servers({"x": Device(**USUAL), "y": Device(**slow)}).capacity(32)
    changed = Servers({"x": Device(**USUAL), "y": changing(change, **before)})
    ours = mean(simulate(changed, rate, 16), 10.0)
    assert ours < 1.08 * mean(simulate(always, rate, 16), 10.0)


def test_a_new_server_begins_with_what_its_kin_are_like():
    """Before its first call it is expected to be as those that are known are on average."""
    dispatch = JustInTime()
    for name, fixed in (("x", 0.01), ("y", 0.03)):
        known = CostModel(fixed, 0.002, 0.004, 0.05)
        dispatch.server(name)._kind("k").estimator.restart(known)
    new = dispatch.cost("k", "new")
    assert (new.fixed_s, new.per_item_s, new.transport_s) == pytest.approx((0.02, 0.002, 0.004))
    assert new.known
    assert not dispatch.cost("unheard-of", "new").known


def test_a_server_that_is_forgotten_is_a_new_one():
    """Nothing is left of what was learnt of it; that it was never known is no error."""
    dispatch = JustInTime()
    cost = CostModel(1.0, 0.0, 0.0, 0.1)
    dispatch.server("x")._kind("k").estimator.restart(cost)
    assert dispatch.cost("k", "x").known
    dispatch.forget("x")
    dispatch.forget("never")
    assert not dispatch.cost("k", "x").known


def test_a_server_that_was_idle_for_long_is_tried_with_one_item():
    """So that it is seen when it has become faster; a whole batch might have to wait for it."""
    servers = Servers({"fast": Device(0.01, 0.001), "slow": Device(0.3, 0.0)})
    sizes = []

    async def process(key, items, server):
        if server == "slow":
            sizes.append((asyncio.get_running_loop().time(), len(items)))
        return await servers.process(key, items, server)

    async def main():
        batcher = Batcher(process, servers=lambda _: servers.names)
        for n in range(1000):
            await asyncio.gather(*(batcher.submit("k", n) for n in range(2)))
            await asyncio.sleep(0.02)
        await batcher.aclose()

    run_virtually(main())
    late = [(at, size) for at, size in sizes if at > 5]
    assert 3 <= len(late) <= 15
    assert all(size == 1 for _, size in late)


class Pair:
    """Two keys, each with a place to go, and how long their items take."""

    def __init__(self, servers, places, costs=None):
        self.backend, self.costs, self.seconds = servers, costs or {}, {}
        self.batcher = Batcher(
            self.process, servers=places.__getitem__, max_queue_size=1 << 30, max_batch_size=8
        )
        self.busy = dict.fromkeys(places, 0.0)

    async def process(self, key, items, server):
        began = asyncio.get_running_loop().time()
        await self.backend.process(key, items * self.costs.get(key, 1), server)
        self.busy[key] += asyncio.get_running_loop().time() - began
        return items

    async def flood(self, key, until):
        async def one():
            loop = asyncio.get_running_loop()
            while loop.time() < until:
                await self.batcher.submit(key, None)
                self.seconds.setdefault(key, []).append(loop.time())

        await asyncio.gather(*(one() for _ in range(64)))


def test_keys_on_different_servers_do_not_wait_for_each_other():
    """A flood on one server takes nothing from the key on another."""

    async def main():
        servers = Servers({name: Device(0.02, 0.002) for name in "xy"})
        pair = Pair(servers, {"flood": ("x",), "rare": ("y",)})
        flood = spawn(pair.flood("flood", 10.0))
        loop, times = asyncio.get_running_loop(), []
        while loop.time() < 9.0:
            await asyncio.sleep(0.1)
            began = loop.time()
            await pair.batcher.submit("rare", None)
            times.append(loop.time() - began)
        await flood
        await pair.batcher.aclose()
        assert max(times) < 0.024

    run_virtually(main())


def test_keys_on_one_server_share_it_by_cost():
    """Each has half of the time, so that the one whose items cost more has fewer."""

    async def main():
        pair = Pair(Device(0.0, 0.002), {"cheap": (None,), "dear": (None,)}, {"dear": 4})
        await asyncio.gather(pair.flood("cheap", 20.0), pair.flood("dear", 20.0))
        await pair.batcher.aclose()
        cheap, dear = (sum(at > 5 for at in pair.seconds[key]) for key in ("cheap", "dear"))
        assert cheap / dear == pytest.approx(4.0, rel=0.25)

    run_virtually(main())


def test_a_flood_of_one_key_does_not_hold_up_another():
    """Keys take turns by cost: a rare one waits for a batch or so, not for the flood's queue."""
    waits = []

    async def main():
        device = Device(0.02, 0.002)
        batcher = Batcher(device.process, max_queue_size=100_000)
        flood = {spawn(batcher.submit("flood", n)) for n in range(6000)}
        loop = asyncio.get_running_loop()
        for n in range(40):
            await asyncio.sleep(0.37)
            at = loop.time()
            await batcher.submit("rare", n)
            waits.append(loop.time() - at)
        await asyncio.gather(*flood)
        await batcher.aclose()

    run_virtually(main())
    batch, own = 0.02 + 32 * 0.002, 0.02 + 0.002
    assert max(waits[5:]) < 2 * batch + own + 0.005
    assert sum(waits[5:]) / len(waits[5:]) < 1.2 * batch + own


def fleet(**fixed):
    """A dispatch that knows servers by the fixed time of their calls, all used just now."""
    dispatch = JustInTime()
    for name, seconds in fixed.items():
        server = dispatch.server(name)
        server._kind("k").estimator.restart(CostModel(seconds, 0.0, 0.0, 0.01))
        server._kind("k").met_more = 99
        server.used_at = 0.0
    return dispatch


def test_the_server_that_is_done_first_gets_the_batch():
    """Not the one that is first named."""
    queue = Queue("k", 1, servers=("slow", "fast"))
    departure = fleet(slow=3.0, fast=1.0).next([queue], 0.0)
    assert (departure.server, departure.at) == ("fast", 0.0)


def test_a_fast_server_is_worth_waiting_for():
    """A single batch waits for the end of a call there, if it is done sooner by that."""
    dispatch, queue = fleet(slow=9.0, fast=1.0), Queue("k", 1, servers=("slow", "fast"))
    dispatch.sent(queue, "fast", 1, 0.0)
    departure = dispatch.next([queue], 0.1)
    assert departure.server == "fast"
    assert departure.at > 0.1


def test_a_crowd_uses_the_slow_server_too():
    """A batch that it takes spares all who wait behind its time at the fast one."""
    dispatch, queue = fleet(slow=3.0, fast=1.0), Queue("k", 640, servers=("slow", "fast"))
    dispatch.sent(queue, "fast", 32, 0.0)
    departure = dispatch.next([queue], 0.1)
    assert (departure.server, departure.at) == ("slow", 0.1)


def test_a_small_crowd_does_not_use_it():
    """What it spares the few behind is less than what those in it lose."""
    dispatch, queue = fleet(slow=9.0, fast=1.0), Queue("k", 40, servers=("slow", "fast"))
    dispatch.sent(queue, "fast", 32, 0.0)
    assert dispatch.next([queue], 0.1).server == "fast"


def test_who_comes_later_does_not_take_the_server_of_who_waits():
    """A server for which a queue waits is not given to another, but others are."""
    dispatch = fleet(x=1.0, y=9.0)
    one, two = Queue("k", 1, 0.0, ("x", "y")), Queue("k", 1, 0.1, ("x",))
    dispatch.sent(one, "x", 1, 0.0)
    departure = dispatch.next([one, two], 0.2)
    assert departure.queue is one
    three = Queue("k", 1, 0.1, ("x", "y"))
    departure = dispatch.next([one, three], 0.2)
    assert (departure.queue, departure.server, departure.at) == (three, "y", 0.2)


def test_an_unknown_server_gets_one_call_at_a_time():
    """Calls that meet no other tell most; a server that is idle is tried, whatever is known."""
    dispatch, queue = JustInTime(), Queue("k", 99, servers=("x", "y"))
    assert dispatch.next([queue], 0.0).server == "x"
    dispatch.sent(queue, "x", 32, 0.0)
    assert dispatch.next([queue], 0.0).server == "y"
    dispatch.sent(queue, "y", 32, 0.0)
    assert dispatch.next([queue], 0.0).at == math.inf


def test_a_server_that_is_only_farther_away_takes_no_crowd():
    """If none is faster at the device itself, nobody behind is spared anything by the detour."""
    dispatch, queue = fleet(near=1.0), Queue("k", 640, servers=("near", "far"))
    far = dispatch.server("far")
    far._kind("k").estimator.restart(CostModel(1.0, 0.0, 9.0, 0.01))
    far.used_at = 0.0
    dispatch.sent(queue, "near", 32, 0.0)
    assert dispatch.next([queue], 0.1).server == "near"


def test_of_those_who_wait_the_first_to_leave_is_told():
    """Whichever of them is asked about first."""
    dispatch = fleet(x=1.0, y=2.0)
    one, two = Queue("k", 1, 0.0, ("x",)), Queue("k", 1, 0.1, ("y",))
    dispatch.sent(one, "x", 1, 0.0)
    dispatch.sent(two, "y", 1, 0.0)
    assert dispatch.next([one, two], 0.1).server == "x"
