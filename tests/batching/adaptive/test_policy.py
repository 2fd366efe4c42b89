"""Just-in-time dispatch against simulated devices whose truth the test knows."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from batching import Batcher, CostModel, FreeSlot, Inbound, JustInTime
from batching.adaptive.device import SERIAL, DeviceKind
from batching.adaptive.tuning import TUNING
from batching.simulation import (
    Amdahl,
    Bent,
    Cores,
    Device,
    Foreign,
    Merging,
    Oracle,
    Servers,
    Sharing,
    Sliced,
    Stepped,
    bursts,
    closed_loop,
    run_virtually,
    simulate,
)

spawn = asyncio.ensure_future
CROWDED = pytest.mark.xfail(reason="near capacity short noisy calls fall behind now and then")
UNUSUAL = pytest.mark.xfail(reason="once slower, all calls meet others, so no change is looked for")
USUAL = {"a": 0.02, "b": 0.002, "there": 0.004}


def mean(answers: Sequence, since=3.0, until=1e9):
    times = [answer.seconds for answer in answers if since <= answer.at < until]
    return sum(times) / len(times)


def run(device, dispatch, load, seconds=12.0):
    dispatch = Oracle(device) if dispatch is Oracle else dispatch
    return simulate(device, load * device.capacity(32), seconds, dispatch=dispatch)


def best_of(make, load, seconds=12.0, since=5.0):
    """What the best number of calls at a time, were it known, would make of the device."""
    return min(mean(run(make(), FreeSlot(n), load, seconds), since) for n in (1, 2, 4, 32))


# --- serial devices -----------------------------------------------------------------------------

BACKENDS = {
    "ssd": USUAL,
    "fast": {"a": 0.002, "b": 0.00005, "there": 0.015},
    "flat": {"a": 0.05, "b": 0.0002, "there": 0.0005},
}


@pytest.mark.parametrize("load", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nearly_as_good_as_knowing_everything(backend, load):
    """Within a tenth of the oracle on any serial device at any load, with nothing set."""
    rate = load * Device(**BACKENDS[backend]).capacity(32)
    seconds = min(20, max(1.6, 5000 / rate))
    best = run(Device(**BACKENDS[backend]), Oracle, load, seconds)
    ours = run(Device(**BACKENDS[backend]), JustInTime(), load, seconds)
    assert mean(ours, seconds / 2) < 1.1 * mean(best, seconds / 2)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_never_worse_than_one_or_two_in_flight(load, sigma):
    """Whatever it guesses, it costs no more than a tenth over the better of the simple ways."""
    one, two, ours = (
        mean(run(Device(**USUAL, sigma=sigma), dispatch, load, 15))
        for dispatch in (FreeSlot(1), FreeSlot(2), JustInTime())
    )
    assert ours < 1.1 * min(one, two)


@pytest.mark.parametrize(
    ("there", "load"), [(0.0005, 0.25), pytest.param(0.004, 0.9, marks=CROWDED)]
)
def test_short_noisy_calls_are_understood_at_once(there, load):
    """A bad first guess does not stand for long, nor are several calls under way at a time taken
    for several places."""
    device = {"a": 0.002, "b": 0.00005, "there": there, "sigma": 0.3, "seed": 7}
    best = run(Device(**device), Oracle, load, 2.0)
    dispatch = JustInTime()
    ours = run(Device(**device), dispatch, load, 2.0)
    assert dispatch.learnt("").parallelism == 1
    assert mean(ours, 0.5) < 1.2 * mean(best, 0.5)


class Changing(Device):
    """A device that becomes another after five seconds."""

    change: ClassVar[dict[str, float]] = {}

    async def process(self, key, items, server=None):
        if asyncio.get_running_loop().time() >= 5:
            for name, value in self.change.items():
                setattr(self, name, value)
        return await super().process(key, items, server)


def changing(change, **truth):
    device = Changing(**truth)
    device.change = change
    return device


@pytest.mark.parametrize(
    ("change", "load"),
    [
        ({"a": 0.04, "b": 0.004}, 0.4),
        ({"a": 0.01, "b": 0.001}, 0.9),
        ({"there": 0.0005}, 0.75),
        ({"slots": 2}, 0.9),
    ],
    ids=["twice-as-slow", "twice-as-fast", "no-transport", "one-more-place"],
)
def test_it_is_at_its_best_soon_after_a_change(change, load):
    """Five seconds of traffic after the backend has changed, it is as good as the oracle again."""
    truth = {"a": 0.02, "b": 0.002, "there": 0.015}
    rate = load * Device(**truth).capacity(32)
    ours = simulate(changing(change, **truth), rate, 15)
    best_device = Device(**{**truth, **change})
    best = simulate(best_device, rate, 15, dispatch=Oracle(best_device))
    assert mean(ours, 10) < 1.15 * mean(best, 10)


# --- devices of every kind ----------------------------------------------------------------------

ZOO = {
    "serial": lambda: Device(**USUAL),
    "sharing": lambda: Sharing(**USUAL),
    "cores": lambda: Cores(**USUAL, cores=4),
    "amdahl": lambda: Amdahl(**USUAL),
    "merging": lambda: Merging(**USUAL),
    "steps": lambda: Stepped(**USUAL),
    "bent": lambda: Bent(**USUAL),
    "sliced": lambda: Sliced(**USUAL),
    "foreign": lambda: Foreign(**USUAL),
    "unequal": lambda: Servers({"x": Device(**USUAL), "y": Device(0.04, 0.004, 0.004)}),
}


@pytest.mark.parametrize(
    ("kind", "load"),
    [*((kind, 0.5) for kind in ZOO), ("serial", 0.9), ("cores", 0.9), ("merging", 0.9)],
)
def test_as_good_as_the_best_number_of_calls_on_any_device(kind, load):
    """After five seconds, on a device of which it was told nothing."""
    ours = mean(run(ZOO[kind](), JustInTime(), load), 5.0)
    assert ours < 1.08 * best_of(ZOO[kind], load)


def believing(device=SERIAL, parallelism=1, cost=None):
    """A dispatch that believes what it is told of its server."""
    dispatch = JustInTime()
    server = dispatch.server(None)
    server.device, server.parallelism = device, parallelism
    if cost is not None:
        server._kind("").estimator.restart(cost)
    return dispatch


BELIEFS = {
    "many-places": lambda: believing(DeviceKind(32, queues=False), 32),
    "many-places-and-a-cost": lambda: believing(
        DeviceKind(32, queues=False), 32, CostModel(0.02, 0.002, 0.004, 0.05)
    ),
    "far-too-slow": lambda: believing(cost=CostModel(2.0, 0.2, 0.0, 0.05)),
    "far-too-fast": lambda: believing(cost=CostModel(0.0002, 0.00002, 0.0, 0.05)),
    "all-transport": lambda: believing(cost=CostModel(0.0, 0.002, 0.024, 0.05)),
}


@pytest.mark.parametrize("belief", BELIEFS)
def test_no_belief_is_for_ever(belief):
    """Whatever it took the device for, after five seconds of traffic it knows better."""
    ours = mean(run(Device(**USUAL), BELIEFS[belief](), 0.6), 5.0)
    assert ours < 1.1 * mean(run(Device(**USUAL), Oracle, 0.6), 5.0)


def test_that_a_server_has_but_one_place_is_not_for_ever():
    """Four that are there are found."""
    dispatch = believing(SERIAL, 1, CostModel(0.02, 0.002, 0.004, 0.05))
    ours = mean(run(Cores(**USUAL, cores=4), dispatch, 0.6), 5.0)
    assert ours < 1.1 * mean(run(Cores(**USUAL, cores=4), FreeSlot(4), 0.6), 5.0)


# --- several servers ----------------------------------------------------------------------------


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
    [pytest.param(3.0, marks=UNUSUAL, id="slower"), pytest.param(1 / 3, id="faster")],
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


# --- those who come soon ------------------------------------------------------------------------


def test_clients_that_come_back_share_one_call():
    """Eight that wait for their answers have nearly what one call a round for all would give."""
    answers = closed_loop(Device(**USUAL), 8, 0.001, 12.0)
    late = [answer for answer in answers if answer.at > 5.0]
    last = sum(1 / n for n in range(1, 9)) * 0.001  # the mean of the longest of eight pauses
    round_s = 0.02 + 8 * 0.002 + 0.004 + 0.0005 + last
    assert len(late) / 7.0 > 0.9 * 8 / round_s


def test_a_burst_that_is_inbound_is_one_call_or_two():
    """Sixteen items that a machine prepares one after the other are waited for."""
    left = 0
    sizes = []

    async def main():
        nonlocal left
        device = Device(**USUAL)

        async def process(key, items, server):
            sizes.append(len(items))
            return await device.process(key, items, server)

        dispatch = JustInTime(inbound=lambda: Inbound(left, 0.0006))
        batcher = Batcher(process, dispatch=dispatch)
        for n in range(20):  # what calls cost is learnt
            await asyncio.gather(*(batcher.submit("k", n) for n in range(1 + n % 4)))
        for _ in range(10):
            sizes.clear()
            left, tasks = 16, []
            for n in range(16):
                await asyncio.sleep(0.0006)
                left -= 1
                tasks.append(spawn(batcher.submit("k", n)))
            await asyncio.gather(*tasks)
            assert len(sizes) <= 2
            await asyncio.sleep(0.5)
        await batcher.aclose()

    run_virtually(main())


def test_traffic_at_random_is_not_held_back():
    """Where nobody is known to come, an item that finds an idle device leaves at once."""
    answers = simulate(Device(**USUAL), 2.0, 60)
    idle = [answer.seconds for answer in answers if answer.at > 5]
    assert sorted(idle)[len(idle) // 2] == pytest.approx(0.0265, abs=1e-4)


def test_a_burst_of_one_tick_is_one_call():
    """With nothing inbound, those who came together leave together."""
    device = Device(**USUAL)
    bursts(device, [0.0] * 8, 10)
    assert device.started == 10


# --- limits -------------------------------------------------------------------------------------


def test_a_device_that_hangs_is_not_flooded(virtual, gate, ticks):
    """When calls stop ending, calls stop leaving: the queue waits, not the network."""

    async def main():
        batcher = Batcher(gate.process, max_batch_size=4)
        tasks = []
        for call in range(12):
            tasks.append(spawn(batcher.submit("k", call)))
            await ticks()
            await asyncio.sleep(0.05)
            gate.finish(call)
            await ticks()
        tasks += [spawn(batcher.submit("k", 100 + n)) for n in range(200)]
        await asyncio.sleep(60)
        assert batcher.in_flight <= 4
        await batcher.aclose(timeout=0)
        await asyncio.gather(*tasks, return_exceptions=True)

    virtual(main())


def test_max_in_flight_is_a_limit(virtual, gate, ticks):
    """Whatever was learnt, no more calls than that run at a time."""

    async def main():
        batcher = Batcher(gate.process, max_batch_size=1, dispatch=JustInTime(1))
        tasks = [spawn(batcher.submit(key, n)) for n, key in enumerate("aabb")]
        for call in range(4):
            await ticks()
            assert batcher.in_flight == 1
            gate.finish(call)
        await asyncio.gather(*tasks)

    virtual(main())
    with pytest.raises(ValueError, match="max_in_flight"):
        JustInTime(0)


def test_kinds_share_what_is_learnt(virtual):
    """Keys of one kind have one cost."""

    async def main():
        dispatch = JustInTime(kind=lambda key: key[0])
        batcher = Batcher(Device(0.01, 0.001).process, dispatch=dispatch)
        for n in range(5):
            await batcher.submit(("a", n), n)
        assert dispatch.cost(("a", 99)).known
        assert not dispatch.cost(("b", 0)).known
        await batcher.aclose()

    virtual(main())


def test_many_keys_cost_no_memory(virtual, monkeypatch):
    """What is known of a key is forgotten when many others were used since; of the one that was
    used all along it is not."""
    for module in ("policy", "server", "turns"):
        monkeypatch.setattr(f"batching.adaptive.{module}.TUNING", replace(TUNING, kinds=4))

    async def main():
        dispatch = JustInTime()
        batcher = Batcher(Device(0.001, 0.0).process, dispatch=dispatch)
        for n in range(20):
            await batcher.submit(n, n)
            await batcher.submit(-1, n)
        remembered = dispatch.server(None)._kinds, dispatch._turns._flows, dispatch._returning
        assert [len(each) for each in remembered] == [4, 4, 4]
        assert dispatch.cost(-1).known
        assert dispatch._turns.rate(-1) is not None
        await batcher.aclose()

    virtual(main())


def test_the_end_of_a_call_whose_key_was_forgotten(virtual, gate, ticks, monkeypatch):
    """It is taken in as any other, even if many other keys came while it ran."""
    monkeypatch.setattr("batching.adaptive.policy.TUNING", replace(TUNING, kinds=2))

    async def main():
        batcher = Batcher(gate.process)
        tasks = [spawn(batcher.submit(key, 1)) for key in "abcd"]
        for call in range(4):
            await ticks()
            gate.finish(call)
        assert await asyncio.gather(*tasks) == [10] * 4

    virtual(main())


def test_a_call_that_fails_teaches_nothing(virtual):
    """The time of a failure is not the time of a call."""

    async def fail(key, items, server):
        await asyncio.sleep(1)
        raise OSError

    async def main():
        dispatch = JustInTime()
        batcher = Batcher(fail, dispatch=dispatch)
        await asyncio.gather(*(batcher.submit("k", n) for n in range(99)), return_exceptions=True)
        assert not dispatch.cost("k").known
        await batcher.aclose()

    virtual(main())


def test_what_was_learnt_is_told_in_words():
    """Of a device that merges calls, that as many as there are may be sent."""
    told = {}
    for kind in ("serial", "merging"):
        dispatch = JustInTime()
        run(ZOO[kind](), dispatch, 0.9, 8.0)
        told[kind] = dispatch.learnt("")
    assert (told["serial"].device, told["serial"].parallelism) == ("serial", 1)
    assert (told["merging"].device, told["merging"].parallelism) == ("merges calls that wait", 0)


# --- company: what is inbound -------------------------------------------------------------------


class Machine:
    """Prepares one item every ``interval`` seconds and submits it."""

    def __init__(self, dispatch=None, interval=0.001):
        self.left, self.interval, self.sizes = 0, interval, []
        self.device = Device(0.002, 0.0, there=0.0, back=0.0)
        inbound = JustInTime(inbound=lambda: Inbound(self.left, interval))
        self.batcher = Batcher(self.process, dispatch=dispatch or inbound)

    async def process(self, key, items, server):
        self.sizes.append(len(items))
        return await self.device.process(key, items)

    async def run(self, count):
        self.left, tasks = count, []
        for n in range(count):
            await asyncio.sleep(self.interval)
            self.left -= 1
            tasks.append(spawn(self.batcher.submit("k", n)))
        return await asyncio.gather(*tasks)


def test_many_inbound_make_larger_batches(virtual):
    """The device is idle half of the time, but calls are fewer by far; nothing is left behind."""

    async def main():
        alone, company = Machine(JustInTime()), Machine()
        assert await alone.run(100) == list(range(100))
        assert await company.run(100) == list(range(100))
        assert max(alone.sizes) <= 4
        assert len(company.sizes) < len(alone.sizes) / 3
        assert company.sizes[-1] < 5  # towards the end there is nobody to wait for

    virtual(main())


def test_patience_ends(virtual):
    """Company that does not come is waited for no longer than it should have taken."""

    async def main():
        loop = asyncio.get_running_loop()
        machine = Machine()
        machine.left = 48  # 12 are waited for, and they should come within 12 ms
        await machine.batcher.submit("k", 0)
        assert loop.time() == pytest.approx(0.012 + 0.002)
        machine.left = 0
        await machine.batcher.submit("k", 0)
        assert loop.time() == pytest.approx(0.014 + 0.002)

    virtual(main())


def test_who_has_company_goes_first(virtual):
    """A key that still waits for company does not keep another from leaving."""

    async def main():
        machine, loop = Machine(), asyncio.get_running_loop()
        machine.left = 48
        rare = spawn(machine.batcher.submit("rare", 0))
        await asyncio.sleep(0)
        await asyncio.gather(*(machine.batcher.submit("many", n) for n in range(12)))
        assert loop.time() == pytest.approx(0.002)
        assert machine.sizes == [12]
        await rare

    virtual(main())


def test_closing_ends_the_wait(virtual):
    """aclose() sends what is there at once."""

    async def main():
        machine = Machine()
        machine.left = 48
        task = spawn(machine.batcher.submit("k", 7))
        await asyncio.sleep(0)
        await machine.batcher.aclose()
        assert await task == 7
        assert asyncio.get_running_loop().time() == pytest.approx(0.002)

    virtual(main())


class Queue:
    """A queue that looks as a test wants it to."""

    in_flight = 0

    def __init__(self, key, depth, oldest=0.0, servers=(None,)):
        self.key, self.depth, self.oldest, self.servers = key, depth, oldest, servers

    def max_batch_size(self, server):
        return 32


def test_patience_ends_beside_a_crowd():
    """A key whose patience is over has its fair turn, however many others have company."""
    dispatch = JustInTime(inbound=lambda: Inbound(48, 0.001))
    crowd, rare = Queue("many", 32, 9.99), Queue("rare", 1)
    chosen = []
    for _ in range(4):
        queue, server, at, _ = dispatch.next([crowd, rare], 10.0)
        assert at <= 10.0
        chosen.append(queue.key)
        dispatch.ended(dispatch.sent(queue, server, queue.depth, 10.0), 10.01, failed=False)
    assert "rare" in chosen


# --- the choice of a server ---------------------------------------------------------------------


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
