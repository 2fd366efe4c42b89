"""When a batch leaves, and what is expected of it, by costs that the test has made up."""

import asyncio
import math

import pytest

from batching import Ahead, Batcher, JustInTime
from batching.simulation import Device, run_virtually

spawn = asyncio.ensure_future


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
        for n in 2 * (1, 5, 32, 64, 17, 3, 96, 20, 50):
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
        assert expected > 1.1 * alone

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
