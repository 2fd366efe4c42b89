"""How many calls at a time a device is best given."""

import math

import pytest

from batching.adaptive.concurrency import Demand, best_parallelism, mean_latency_s
from batching.adaptive.device import LEVELS, SERIAL, DeviceKind

SHARED = DeviceKind(1, queues=False)
AMDAHL = DeviceKind(LEVELS[-1], queues=False, contention=0.6)


def demand(rate):
    """Of a device whose full calls, one at a time, are 32 items in 84 ms: 381 a second."""
    return Demand(rate, fixed_s=0.02, per_item_s=0.002, max_batch_size=32)


def test_an_idle_device_takes_one_item_at_once():
    """Without load an item waits for half of a call of its own and takes its time."""
    assert mean_latency_s(1, 1.0, demand(0.0)) == pytest.approx(1.5 * 0.022)
    assert mean_latency_s(2, 1.0, demand(0.0)) == pytest.approx(1.25 * 2 * 0.022)


def test_latency_follows_from_the_batches_that_come_together():
    """T = a + b r T: at 200 a second, a call takes 20 / (1 - 0.4) ms."""
    load = 200 * 0.084 / 32
    left_over = load / (2 * (1 - load)) / 200
    assert mean_latency_s(1, 1.0, demand(200.0)) == pytest.approx(1.5 * 0.02 / 0.6 + left_over)


@pytest.mark.parametrize(("calls", "speed", "capacity"), [(1, 1.0, 381.0), (4, 2.0, 762.0)])
def test_beyond_capacity_items_wait_for_ever(calls, speed, capacity):
    """A device that is twice as fast has twice the capacity, however many calls that takes."""
    assert mean_latency_s(calls, speed, demand(0.98 * capacity)) < math.inf
    assert mean_latency_s(calls, speed, demand(capacity)) == math.inf


def test_latency_grows_with_load():
    """More items a second never wait for less."""
    latencies = [mean_latency_s(2, 1.25, demand(rate)) for rate in range(0, 470, 10)]
    assert latencies == sorted(latencies)


@pytest.mark.parametrize("kind", [SERIAL, SHARED], ids=str)
@pytest.mark.parametrize("rate", [1.0, 350.0, 1000.0])
def test_one_place_gets_one_call(kind, rate):
    """Where calls wait for each other or share one place, a second gains nothing at any load."""
    assert best_parallelism(kind, 4, 32, demand(rate)) == 1


@pytest.mark.parametrize("places", [2, 4, 8])
@pytest.mark.parametrize("queues", [False, True])
def test_all_places_are_used(places, queues):
    """Where so many run at full speed, so many are sent, whatever the load."""
    kind = DeviceKind(places, queues)
    assert best_parallelism(kind, 1, 32, demand(1.0)) == places
    assert best_parallelism(kind, 1, 32, None) == places


def test_no_more_than_one_level_beyond_what_was_seen():
    """A device that is believed to have 16 places is trusted with one level more at a time."""
    kind = DeviceKind(16, queues=True)
    grown = [best_parallelism(kind, 1, highest, None) for highest in (1, 2, 4, 8, 16)]
    assert grown == [2, 3, 6, 12, 16]


def test_contention_is_worth_it_under_load_only():
    """Where each call slows the others down by 60 %, more calls are sent the more items come."""
    best = [best_parallelism(AMDAHL, 0, 32, demand(rate)) for rate in (1.0, 300.0, 420.0, 540.0)]
    assert best == sorted(best)
    assert best[0] == 1
    assert best[1] < best[-1]


def test_what_is_too_slow_in_any_case_gets_what_is_fast_enough():
    """Beyond all capacity it is the fewest calls that are within 5 % of the highest speed."""
    best = best_parallelism(AMDAHL, 1, 32, demand(10_000.0))
    enough = 0.95 * AMDAHL.speed(32)
    assert AMDAHL.speed(best) >= enough
    assert AMDAHL.speed(LEVELS[LEVELS.index(best) - 1]) < enough


def test_a_small_gain_changes_nothing():
    """The current number stays while none is better by 3 %, and no longer."""
    rates = range(100, 460)
    latencies = {
        rate: [mean_latency_s(calls, AMDAHL.speed(calls), demand(rate)) for calls in (1, 2)]
        for rate in rates
    }
    near = [rate for rate, (one, two) in latencies.items() if 0.98 * one < two < one]
    far = [rate for rate, (one, two) in latencies.items() if two < 0.9 * one < math.inf]
    assert near
    assert far
    assert best_parallelism(AMDAHL, 1, 1, demand(near[0])) == 1
    assert best_parallelism(AMDAHL, 2, 1, demand(near[0])) == 2
    assert best_parallelism(AMDAHL, 1, 1, demand(far[0])) == 2


def test_without_demand_the_number_stays_as_far_as_it_is_allowed():
    """What is not known to be better changes nothing, but none is far above what was seen."""
    assert best_parallelism(AMDAHL, 2, 8, None) == 2
    assert best_parallelism(AMDAHL, 16, 2, None) == 3
