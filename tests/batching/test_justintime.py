"""Just-in-time dispatch against a simulated device whose truth the test knows."""

import asyncio
import math
from collections.abc import Sequence

import pytest

from batching import Ahead, Batcher, FreeSlot, JustInTime
from batching.simulation import Device, Oracle, run_virtually, simulate

spawn = asyncio.ensure_future


def mean(answers: Sequence, since=3.0, until=1e9):
    times = [answer.seconds for answer in answers if since <= answer.at < until]
    return sum(times) / len(times)


def run(device, dispatch, load, seconds=12.0):
    dispatch = Oracle(device) if dispatch is Oracle else dispatch
    return simulate(device, load * device.capacity(32), seconds, dispatch=dispatch)


BACKENDS = {
    "ssd": {"a": 0.02, "b": 0.002, "there": 0.004},
    "fast": {"a": 0.002, "b": 0.00005, "there": 0.015},
    "flat": {"a": 0.05, "b": 0.0002, "there": 0.0005},
}


@pytest.mark.parametrize("load", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nearly_as_good_as_knowing_everything(backend, load):
    """Within a tenth of the oracle on any backend at any load, with nothing set."""
    seconds = min(20, 5000 / load / Device(**BACKENDS[backend]).capacity(32))
    best = run(Device(**BACKENDS[backend]), Oracle, load, seconds)
    ours = run(Device(**BACKENDS[backend]), JustInTime(), load, seconds)
    assert mean(ours, seconds / 2) < 1.1 * mean(best, seconds / 2)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_never_worse_than_one_or_two_in_flight(load, sigma):
    """Whatever it guesses, it costs no more than a tenth over the better of the simple ways."""
    results = {
        name: mean(run(Device(0.02, 0.002, 0.004, sigma=sigma), dispatch, load, 15))
        for name, dispatch in (
            ("one", FreeSlot(1)),
            ("two", FreeSlot(2)),
            ("ours", JustInTime()),
        )
    }
    assert results["ours"] < 1.1 * min(results["one"], results["two"])


@pytest.mark.parametrize(("there", "load"), [(0.0005, 0.25), (0.004, 0.9)])
def test_short_noisy_calls_are_understood_at_once(there, load):
    """A bad first guess does not stand for long, nor are several calls under way at a time taken
    for several devices."""
    device = {"a": 0.002, "b": 0.00005, "there": there, "sigma": 0.3, "seed": 7}
    best = run(Device(**device), Oracle, load, 2.0)
    dispatch = JustInTime()
    ours = run(Device(**device), dispatch, load, 2.0)
    assert dispatch.cost("").slots == 1
    assert mean(ours, 0.5) < 1.2 * mean(best, 0.5)


@pytest.mark.parametrize(
    ("change", "load"),
    [
        ({"a": 0.04, "b": 0.004}, 0.4),
        ({"a": 0.01, "b": 0.001}, 0.9),
        ({"there": 0.0005}, 0.75),
        ({"slots": 2}, 0.9),
    ],
    ids=["twice-as-slow", "twice-as-fast", "no-transport", "one-more-device"],
)
def test_it_is_at_its_best_soon_after_a_change(change, load):
    """Three seconds of traffic after the backend has changed, it is as good as the oracle again."""
    truth = {"a": 0.02, "b": 0.002, "there": 0.015}
    rate = load * Device(**truth).capacity(32)

    class Changing(Device):
        async def process(self, key, items):
            if asyncio.get_running_loop().time() >= 5:
                for name, value in change.items():
                    setattr(self, name, value)
            return await super().process(key, items)

    ours = simulate(Changing(**truth), rate, 12)
    best_device = Device(**{**truth, **change})
    best = simulate(best_device, rate, 12, dispatch=Oracle(best_device))
    assert mean(ours, 8) < 1.15 * mean(best, 8)


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


def test_kinds_share_what_is_learnt_and_are_forgotten(virtual, monkeypatch):
    """Keys of one kind have one cost; of too many kinds the one unused for longest goes."""
    monkeypatch.setattr("batching.justintime.KINDS", 2)

    async def main():
        dispatch = JustInTime(kind=lambda key: key[0])
        device = Device(0.01, 0.001)
        batcher = Batcher(device.process, dispatch=dispatch)
        for n in range(5):
            await batcher.submit(("a", n), n)
        assert dispatch.cost(("a", 99)).known
        for n in range(5):
            await batcher.submit(("b", n), n)
        await batcher.submit(("c", 0), 0)
        assert not dispatch.cost(("a", 0)).known
        await batcher.aclose()

    virtual(main())


def test_a_call_that_fails_teaches_nothing(virtual):
    """The time of a failure is not the time of a call."""

    async def fail(key, items):
        await asyncio.sleep(1)
        raise OSError

    async def main():
        dispatch = JustInTime()
        batcher = Batcher(fail, dispatch=dispatch)
        await asyncio.gather(*(batcher.submit("k", n) for n in range(9)), return_exceptions=True)
        assert dispatch.cost("k").fits == 0
        await batcher.aclose()

    virtual(main())


class Waiting:
    """A lane that looks as a test wants it to."""

    key = "k"
    in_flight = 0
    oldest = 0.0
    max_batch_size = 32

    def __init__(self, depth=1):
        self.depth = depth


def knowing(*, slots=1, deepest=9):
    """A dispatch that knows calls of one second, half of a second of which can overlap."""
    dispatch = JustInTime()
    cost = dispatch.cost("k")
    cost.fits, cost.slots, cost.deepest = 9, slots, deepest
    cost.a, cost.b, cost.overlap, cost.noise = 1.0, 0.0, 0.5, 0.01
    return dispatch


def test_the_next_batch_leaves_ahead_of_the_end():
    """It leaves so that it arrives, by what overlaps, about when the call before it ends."""
    dispatch, lane = knowing(), Waiting()
    dispatch.sent(lane, 1, 0.0)
    assert 0.8 < dispatch.next([lane], 0.1)[1] <= 1.0
    dispatch.sent(lane, 1, 1.0)  # to end a second after the first
    assert 1.8 < dispatch.next([lane], 1.1)[1] <= 2.1


def test_a_free_slot_is_used_at_once():
    """On a device of two slots a second call need not wait for the first, but a third must."""
    dispatch, lane = knowing(slots=2), Waiting()
    dispatch.sent(lane, 1, 0.0)
    assert dispatch.next([lane], 0.1)[1] == 0.1
    dispatch.sent(lane, 1, 0.1)
    assert 0.7 < dispatch.next([lane], 0.2)[1] <= 1.0


def test_a_call_that_is_overdue_holds_nobody_up():
    """Long after a call should have ended one more leaves, and then no more."""
    dispatch, lane = knowing(deepest=0), Waiting()
    dispatch.sent(lane, 1, 0.0)
    assert dispatch.next([lane], 5.0)[1] == 5.0
    dispatch.sent(lane, 1, 5.0)
    assert dispatch.next([lane], 50.0)[1] == float("inf")


def test_without_lead_it_waits_for_the_end():
    """A device that takes nothing in advance gets the next call when the last has ended."""
    dispatch, lane = knowing(), Waiting()
    dispatch.cost("k").overlap = 0.0
    call = dispatch.sent(lane, 1, 0.0)
    dispatch._early_from = 99.0
    assert dispatch.next([lane], 0.5)[1] == float("inf")  # its turn to be a little late
    dispatch.ended(call, 1.0, failed=False)
    assert dispatch.next([lane], 1.0)[1] == 1.0


@pytest.mark.parametrize(("noise", "pause"), [(0.01, 0.808), (0.3, 8.0)])
def test_trials_are_rare_where_costs_vary_by_themselves(noise, pause):
    """What calls show of their cost by chance need not be tried out."""
    dispatch, lane = knowing(), Waiting()
    dispatch.cost("k").noise = noise
    dispatch.sent(lane, 1, 0.0)
    dispatch.next([lane], 0.1)
    assert dispatch._trial == "early"
    dispatch.sent(lane, 1, 0.5)
    assert dispatch._early_from == pytest.approx(0.5 + pause)


def test_the_less_batching_saves_the_earlier_a_batch_leaves():
    """Where a call costs its fixed time, to miss it costs most; where each item costs its own,
    an idle device does. In between in between."""
    leaves = []
    for fixed in (1.0, 0.5, 0.0):
        dispatch, lane = knowing(), Waiting(depth=10)
        cost = dispatch.cost("k")
        cost.a, cost.b, cost.noise = fixed, (1 - fixed) / 10, 0.2
        dispatch.sent(lane, 10, 0.0)
        dispatch._early_from = dispatch._late_from = 99.0
        leaves.append(dispatch.next([lane], 0.1)[1])
    assert 1.3 > leaves[0] > 1.0 > leaves[1] > 0.8
    assert leaves[2] == 0.1


def leaves_at(depth, interval=1.0):
    """How long after a call one of ``depth`` items leaves, on a noisy device, if calls of ten
    followed each other at ``interval`` before."""
    dispatch, lane = knowing(), Waiting(depth)
    dispatch.cost("k").noise = 0.2
    for call in range(20):
        dispatch.ended(dispatch.sent(lane, 10, call * interval), 0.0, failed=True)
    now = 20 * interval
    dispatch.sent(lane, 10, now)
    dispatch._early_from = dispatch._late_from = math.inf
    return dispatch.next([lane], now + 0.2)[1] - now


def test_the_more_items_wait_the_earlier_they_leave():
    """Each of them would lose by an idle device, and only those to come by leaving early."""
    times = [leaves_at(depth) for depth in (5, 10, 20, 31)]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 4


def test_the_faster_items_come_the_later_a_batch_leaves():
    """More of them would miss it; how fast they come is seen in how they came before."""
    times = [leaves_at(10, interval) for interval in (1.0, 1.5, 3.0)]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 3


def test_a_pause_tells_nothing_of_the_rate():
    """After a minute without items they come as before, as far as anybody knows."""
    assert leaves_at(10, 60.0) == pytest.approx(leaves_at(10, 4.0))


def test_many_keys_cost_no_memory(virtual):
    """What is known of a key is forgotten when a thousand others were used since, the one that was
    used all along is not."""

    async def main():
        dispatch = JustInTime()
        batcher = Batcher(Device(0.001, 0.0).process, dispatch=dispatch)
        for n in range(1030):
            await batcher.submit(n, n)
            await batcher.submit(-1, n)
        assert len(dispatch._flows) == len(dispatch._costs) == 1024
        assert dispatch.cost(-1).known
        assert dispatch._flows[-1].items > 5
        await batcher.aclose()

    virtual(main())


def test_where_guessing_is_vain_it_waits_for_the_end():
    """Little to gain by a lead and a time that varies widely: the end of the call is waited for."""
    dispatch, lane = knowing(), Waiting()
    cost = dispatch.cost("k")
    cost.overlap, cost.noise = 0.001, 0.5
    dispatch.sent(lane, 1, 0.0)
    dispatch._early_from = dispatch._late_from = 99.0
    assert dispatch.next([lane], 0.5)[1] == float("inf")


def test_nothing_is_expected_before_something_is_known():
    """Without a cost there is no reason to refuse anybody."""
    assert JustInTime().expected(Ahead("k", 500, 32), [], 0.0, 0.0) == float("-inf")


@pytest.mark.parametrize("queued", [0, 7, 40, 320])
def test_what_is_expected_comes_true(queued):
    """After some traffic, the time at which one more item would be done is told to a tenth."""

    async def main():
        device, dispatch = Device(0.02, 0.002, 0.004), JustInTime()
        batcher = Batcher(device.process, dispatch=dispatch)
        loop = asyncio.get_running_loop()
        for n in (1, 5, 32, 64, 17, 3, 96, 20, 50):
            await asyncio.gather(*(batcher.submit("k", n) for n in range(n)))
        began = loop.time()
        crowd = [spawn(batcher.submit("k", n)) for n in range(queued)]
        await asyncio.sleep(0)
        expected = dispatch.expected(Ahead("k", queued, 32), [], began, began) - began
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
        for n in (1, 5, 32, 64, 17, 3, 96, 20, 50):
            await asyncio.gather(*(batcher.submit(0, n) for n in range(n)))
        began = loop.time()
        crowd = [spawn(batcher.submit(n % keys, n)) for n in range(queued)]
        await asyncio.sleep(0)
        expected = dispatch.expected(Ahead(0, queued, 32, keys), [], began, began) - began
        alone = dispatch.expected(Ahead(0, queued, 32), [], began, began) - began
        await batcher.submit(keys - 1, 0)
        took = loop.time() - began
        await asyncio.gather(*crowd)
        await batcher.aclose()
        assert took <= expected * 1.02
        assert expected < 1.25 * took + 0.05
        assert expected > 1.05 * alone

    run_virtually(main())


def test_a_flood_of_another_key_is_not_all_ahead():
    """Others count with their fair turns: as much as the own, and a batch."""
    dispatch = knowing()
    other = dispatch.cost("flood")
    other.fits, other.a, other.noise = 9, 2.0, 0.0
    alone = dispatch.expected(Ahead("k", 40, 32), [], 0.0, 0.0)
    few = dispatch.expected(Ahead("k", 40, 32), [Ahead("flood", 1, 32)], 0.0, 0.0)
    flood = dispatch.expected(Ahead("k", 40, 32), [Ahead("flood", 9999, 32)], 0.0, 0.0)
    new = dispatch.expected(Ahead("k", 40, 32), [Ahead("unknown", 9999, 32)], 0.0, 0.0)
    assert few - alone == pytest.approx(2.0)
    assert flood - alone == pytest.approx(1.0 + 2.0)
    assert new == alone


def test_what_is_expected_counts_calls_in_flight_and_preparation():
    """The device is busy until the calls before have ended; the item itself may be later still."""
    dispatch, lane = knowing(), Waiting()
    dispatch.sent(lane, 1, 0.0)
    assert dispatch.expected(Ahead("k", 0, 32), [], 0.1, 0.1) == pytest.approx(2.5, rel=0.05)
    assert dispatch.expected(Ahead("k", 0, 32), [], 7.0, 0.1) == pytest.approx(8.5, rel=0.05)
