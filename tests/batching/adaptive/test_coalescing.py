"""Waiting for what is known to come: items that are being prepared, and callers that come back."""

import math
import random

import pytest

from batching.adaptive.coalescing import Inbound, Returning, worth_waiting_for
from batching.adaptive.cost import CostModel
from batching.adaptive.tuning import TUNING

COST = CostModel(fixed_s=0.020, per_item_s=0.002, transport_s=0.001, noise=0.01)
WINDOW_S = TUNING.returning_window * COST.fixed_s


@pytest.mark.parametrize(
    ("items", "interval_s", "size"),
    [
        (0, 0.001, 1),  # nothing is inbound
        (8, 0.0, 1),  # something else is the bottleneck
        (1, 0.1, 1),  # slow ones: each on its own
        (16, 0.003, 4),  # the root of 2 * 16 * 1.5 / 3
        (64, 0.003, 8),
    ],
)
def test_target_batch_size(items, interval_s, size):
    """Four times as much inbound is twice the batch; no batch is less than one."""
    assert Inbound(items, interval_s).target_batch_size() == size


def test_what_comes_at_once_is_waited_for():
    """A burst that is all but there makes one call."""
    assert worth_waiting_for(1, Inbound(7, 0.0001), COST, 32) == 7


def test_what_comes_late_is_not_waited_for():
    """Who would hold up many for long takes the next call."""
    assert worth_waiting_for(30, Inbound(2, 0.020), COST, 32) == 0


def test_no_more_are_waited_for_than_there_is_room():
    """A batch that is full, or nearly, waits for none, or few."""
    assert worth_waiting_for(32, Inbound(7, 0.0001), COST, 32) == 0
    assert worth_waiting_for(1, Inbound(7, 0.0001), COST, 4) == 3


@pytest.mark.parametrize("inbound", [Inbound(0, 0.001), Inbound(5, 0.0)])
def test_nothing_inbound_is_nothing_to_wait_for(inbound):
    """None are inbound, or nobody knows when."""
    assert worth_waiting_for(1, inbound, COST, 32) == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_number_is_the_best_of_those_tried(seed):
    """The sum of all latencies with it is no more than without waiting, and than with all."""
    luck = random.Random(seed)
    waiting, inbound = luck.randint(1, 20), Inbound(luck.randint(1, 12), luck.uniform(1e-4, 0.02))

    def total(count):
        done = count * inbound.interval_s + COST.service_s(waiting + count)
        rest = inbound.items - count
        after = max(done, inbound.items * inbound.interval_s) + COST.service_s(rest)
        return (waiting + count) * done + rest * after

    count = worth_waiting_for(waiting, inbound, COST, 32)
    assert total(count) == pytest.approx(min(total(0), total(count), total(inbound.items)))


def rounds(returning, *, callers=8, count=30, delay_s=0.001, start=0.0, seed=1):
    """Callers that ask again after an exponential delay, all in one call a round; the end."""
    luck, now = random.Random(seed), start
    for _ in range(count):
        returning.answered(callers, WINDOW_S, now)
        for delay in sorted(luck.expovariate(1 / delay_s) for _ in range(callers)):
            last = now + delay
            returning.arrived(last)
        now = last + COST.transport_s + COST.service_s(callers)
    return now


def poisson(returning, *, rate, seconds=20.0, seed=1):
    """Arrivals at random; all that wait are answered together, one call after the other."""
    luck, now, call_ends, waiting, running = random.Random(seed), 0.0, math.inf, 0, 0
    while now < seconds:
        arrival = now + luck.expovariate(rate)
        while call_ends <= arrival:
            returning.answered(running, WINDOW_S, call_ends)
            running, waiting = waiting, 0
            call_ends = call_ends + COST.service_s(running) if running else math.inf
        now = arrival
        returning.arrived(now)
        waiting += 1
        if call_ends == math.inf:
            running, waiting = waiting, 0
            call_ends = now + COST.service_s(running)


@pytest.mark.parametrize("callers", [2, 8, 32])
def test_closed_loops_are_recognised(callers):
    """Callers that each ask again at once after their answer come back, nearly all."""
    returning = Returning()
    rounds(returning, callers=callers)
    assert returning.share > TUNING.returning_share


@pytest.mark.parametrize("rate", [5.0, 50.0, 200.0])
@pytest.mark.parametrize("seed", range(3))
def test_arrivals_at_random_are_not_taken_for_returns(rate, seed):
    """However much of the time is after an answer, no more than chance would have it come then."""
    returning = Returning()
    poisson(returning, rate=rate, seed=seed)
    assert returning.share < TUNING.returning_share / 2


def test_nothing_is_known_before_the_first_arrivals():
    """No arrival, or no time in which it could have come, is no share."""
    returning = Returning()
    assert returning.share == 0.0
    returning.arrived(1.0)
    assert returning.share == 0.0


def test_where_all_time_is_a_window_nobody_can_be_seen_to_return():
    """If windows never close, arrivals in them are what chance would have."""
    returning = Returning()
    for now in range(20):
        returning.answered(1, 5.0, float(now))
        returning.arrived(now + 0.5)
    assert returning.share == 0.0


def test_a_loop_that_ends_is_forgotten():
    """Once callers come at random, nobody is waited for any more."""
    returning = Returning()
    end = rounds(returning)
    luck = random.Random(2)
    for _ in range(200):
        end += luck.expovariate(20.0)
        returning.arrived(end)
    assert returning.share < TUNING.returning_share / 2


def test_who_comes_at_random_is_not_waited_for():
    """Without callers that come back a batch never waits."""
    returning = Returning()
    returning.answered(8, WINDOW_S, 1.0)
    assert returning.wait_until(1, 7, COST, 1.0) == 1.0


def test_callers_in_flight_are_waited_for():
    """One call a round for all: a batch waits for the end of the call that has the others."""
    returning = Returning()
    now = rounds(returning)
    assert returning.wait_until(3, 5, COST, now) == math.inf


def test_one_caller_alone_waits_for_nobody():
    """There is nobody else to come."""
    returning = Returning()
    now = rounds(returning) + 1.0
    assert returning.wait_until(1, 0, COST, now) == now


def test_a_call_that_costs_little_is_not_saved():
    """Where the fixed time is less than the callers' way and delay, two calls take turns."""
    returning = Returning()
    now = rounds(returning)
    cheap = CostModel(fixed_s=0.003, per_item_s=0.002, transport_s=0.001, noise=0.01)
    assert returning.wait_until(3, 5, cheap, now) == now
    far = CostModel(fixed_s=0.020, per_item_s=0.002, transport_s=0.019, noise=0.01)
    assert returning.wait_until(3, 5, far, now) == now


def test_those_that_are_missing_are_waited_for_but_not_for_ever():
    """Half of the callers are back: the others have about the time that the slowest take."""
    returning = Returning()
    now = rounds(returning)
    returning.answered(8, WINDOW_S, now)
    for number in range(1, 5):
        returning.arrived(now + number * 1e-4)
    until = returning.wait_until(4, 0, COST, now + 5e-4)
    assert now + 0.003 < until < now + 0.010


def test_whoever_is_missing_for_too_long_is_not_waited_for_at_all():
    """A wait whose time is over is no wait, though it is never in the past."""
    returning = Returning()
    now = rounds(returning)
    returning.answered(8, WINDOW_S, now)
    for number in range(1, 5):
        returning.arrived(now + number * 1e-4)
    late = now + WINDOW_S * 0.99
    assert returning.wait_until(4, 0, COST, late) == late


def test_when_all_are_back_nobody_is_waited_for():
    """Eight were answered and eight came: the batch leaves."""
    returning = Returning()
    now = rounds(returning)
    returning.answered(8, WINDOW_S, now)
    for number in range(1, 9):
        returning.arrived(now + number * 1e-4)
    assert returning.wait_until(8, 0, COST, now + 1e-3) == now + 1e-3


def test_more_arrivals_than_answers_leave_nobody_missing():
    """A caller who is new does not make up for one that is missing of the next round."""
    returning = Returning()
    now = rounds(returning)
    returning.answered(2, WINDOW_S, now)
    for number in range(1, 5):
        returning.arrived(now + number * 1e-4)
    assert returning.wait_until(4, 0, COST, now + 5e-4) == now + 5e-4
    returning.answered(1, WINDOW_S, now + 6e-4)
    assert returning.wait_until(4, 0, COST, now + 6e-4) > now + 6e-4


@pytest.mark.parametrize(("back", "waits"), [(4, True), (7, False)])
def test_the_last_of_many_is_not_waited_for_if_that_takes_longer_than_its_part(back, waits):
    """Half of eight callers are waited for; the last one would take more than an eighth of the
    round."""
    returning = Returning()
    now = rounds(returning, delay_s=0.002)
    short = CostModel(fixed_s=0.008, per_item_s=0.0, transport_s=0.0, noise=0.01)
    returning.answered(8, WINDOW_S, now)
    for _ in range(back):
        returning.arrived(now + 0.002)
    assert (returning.wait_until(back, 0, short, now + 0.002) > now + 0.002) == waits


def test_answers_add_up_while_the_window_is_open():
    """Two calls that end one soon after the other leave the callers of both missing; a call that
    ended long ago leaves none."""
    waits = []
    for pause in (WINDOW_S / 2, WINDOW_S * 2):
        returning = Returning()
        now = rounds(returning)
        returning.answered(3, WINDOW_S, now)
        returning.answered(1, WINDOW_S, now + pause)
        returning.arrived(now + pause + 1e-4)
        then = now + pause + 2e-4
        waits.append(returning.wait_until(1, 0, COST, then) > then)
    assert waits == [True, False]
