"""Which cost explains calls whose true cost is known."""

import random

import pytest

from batching.adaptive.cost import UNKNOWN, CallRecord, CostModel
from batching.adaptive.fit import fit, window_factor
from batching.adaptive.tuning import TUNING

A, B, THERE = 0.02, 0.002, 0.005
TRUE = CostModel(A, B, THERE, 0.05)


def call(size, ready_s=0.0, factor=1.0):
    return CallRecord(size, max(THERE, ready_s) + (A + B * size) * factor, ready_s)


def calls(count, *, sizes=(1, 32), ready_s=(0.0, 0.03), sigma=0.0, seed=1):
    """Calls of various sizes, for which the device was ready at various times."""
    luck = random.Random(seed)
    return [
        call(
            luck.randint(*sizes),
            luck.uniform(*ready_s),
            luck.lognormvariate(-sigma * sigma / 2, sigma),
        )
        for _ in range(count)
    ]


def test_calls_that_wait_tell_the_transport():
    """From calls for which the device was ready sooner and later all three parts are found."""
    model = fit(calls(40), UNKNOWN, settled=False)
    assert model.fixed_s == pytest.approx(A, rel=0.05)
    assert model.per_item_s == pytest.approx(B, rel=0.05)
    assert model.transport_s == pytest.approx(THERE, abs=0.0005)


def test_calls_that_never_wait_tell_their_whole_time():
    """How it is parted into transport and fixed time cannot be seen; the sum is right."""
    model = fit(calls(40, ready_s=(0.0, 0.0)), UNKNOWN, settled=False)
    assert model.per_item_s == pytest.approx(B, rel=0.05)
    assert model.transport_s + model.fixed_s == pytest.approx(THERE + A, rel=0.02)


@pytest.mark.parametrize("transport_s", [0.0, 0.0123])
def test_a_settled_transport_stays_where_nothing_speaks_against_it(transport_s):
    """If all transports explain the calls, it is the one that was believed."""
    prior = CostModel(A, B, transport_s, 0.05)
    model = fit(calls(40, ready_s=(0.0, 0.0)), prior, settled=True)
    assert model.transport_s == transport_s
    assert model.transport_s + model.fixed_s == pytest.approx(THERE + A, rel=0.02)


def test_a_settled_transport_moves_where_calls_speak_against_it():
    """What explains the calls far better is taken, whatever was believed."""
    model = fit(calls(60), CostModel(A, B, 0.018, 0.05), settled=True)
    assert model.transport_s == pytest.approx(THERE, abs=0.001)


def test_at_first_the_shortest_transport_that_explains_the_calls_is_taken():
    """Before it is settled, what was believed of the transport counts for nothing."""
    model = fit(calls(40, ready_s=(0.0, 0.0)), CostModel(A, B, 0.0123, 0.05), settled=False)
    assert model.transport_s < 0.002


def test_recent_calls_count_for_more():
    """Twice the time in the latter half of many calls is nearly all that counts."""
    old, new = [call(16)] * 200, [call(16, factor=2.0)] * 200
    prior = CostModel(A, B, THERE, 0.05, known=False)
    whole = [fit(some, prior, settled=False) for some in (old + new, new + old)]
    late, early = (model.transport_s + model.service_s(16) for model in whole)
    assert late > THERE + 1.7 * (A + 16 * B)
    assert early < THERE + 1.3 * (A + 16 * B)


def test_sizes_that_are_alike_keep_the_ratio_of_the_parts():
    """Twice as slow at one size: both parts have doubled, as far as can be seen."""
    model = fit([call(32, factor=2.0)] * 40, TRUE, settled=True)
    assert model.per_item_s == pytest.approx(2 * B, rel=0.05)
    assert model.fixed_s == pytest.approx(2 * A, rel=0.05)


def test_sizes_that_are_alike_are_all_fixed_time_if_nothing_was_known():
    """Without a ratio to keep, nothing is said of a single item."""
    model = fit([call(32)] * 40, UNKNOWN, settled=False)
    assert model.per_item_s == 0.0
    assert model.transport_s + model.fixed_s == pytest.approx(THERE + A + 32 * B, rel=0.02)


def test_noise_does_not_wear_the_ratio_of_the_parts_away():
    """In noise, sizes that are nearly alike overrule the ratio no more than they can tell."""
    prior = CostModel(A, B, THERE, 0.3)
    missed = [
        fit(calls(96, sizes=(28, 32), sigma=0.3, seed=seed), prior, settled=True).per_item_s / B - 1
        for seed in range(10)
    ]
    assert all(abs(each) < 0.4 for each in missed)


@pytest.mark.parametrize(
    "times",
    [
        {1: 0.03, 32: 0.01},  # more items, less time: no negative time of an item
        {1: 0.001, 16: 0.01, 32: 0.09},  # steeper than proportional: no negative fixed time
        {1: 0.001, 32: 0.09},
    ],
)
def test_no_part_of_the_cost_is_negative(times):
    """Whatever calls take, no size has a negative time."""
    records = [CallRecord(size, seconds, 0.0) for size, seconds in times.items()] * 6
    model = fit(records, UNKNOWN, settled=False)
    assert min(model.fixed_s, model.per_item_s, model.transport_s) >= 0
    assert model.service_s(1) > 0


def test_one_call_is_enough():
    """From the first call on there is a cost: that the next one takes as long."""
    model = fit([call(8)], UNKNOWN, settled=False)
    assert model.transport_s + model.service_s(8) == pytest.approx(THERE + A + 8 * B)


def test_errors_are_relative_to_what_was_expected():
    """In noise, calls that happened to be short count no more than others: the cost is right to a
    few percent over many, where errors relative to what was seen would underestimate it."""
    found = []
    for seed in range(8):
        model = fit(calls(400, sigma=0.4, seed=seed), TRUE, settled=True)
        found.append(model.transport_s + model.service_s(16))
    assert sum(found) / len(found) == pytest.approx(THERE + A + 16 * B, rel=0.04)


def test_a_call_that_took_many_times_as_long_moves_little():
    """The first call compiles for 200 times as long: it counts relative to its own time."""
    model = fit([call(16, factor=200.0)] + [call(16)] * 20, TRUE, settled=True)
    assert model.transport_s + model.service_s(16) < 1.5 * (THERE + A + 16 * B)


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.4])
def test_noise_is_measured(sigma):
    """The deviation of the device's time, however long calls waited before."""
    model = fit(calls(400, ready_s=(0.0, 0.5), sigma=sigma), TRUE, settled=True)
    assert model.noise == pytest.approx(sigma, rel=0.25)


def test_a_few_calls_that_are_not_understood_are_no_noise():
    """A tenth of the calls takes twice as long: the others count as about as exact as they are."""
    records = [call(16, factor=2.0 if number % 10 == 9 else 1.0) for number in range(80)]
    assert fit(records, TRUE, settled=True).noise < 0.2


def test_a_handful_of_calls_does_not_tell_that_there_is_less_noise():
    """Three calls always fit well; noise stays near what it was, and falls with many."""
    prior = CostModel(A, B, THERE, 0.4)
    few, many = (fit([call(16)] * count, prior, settled=True).noise for count in (3, 400))
    assert few > 0.3
    assert many < 0.1


def test_noise_is_never_none_and_never_more_than_all():
    """It lies within the least error that needs no explanation, and one."""
    prior = CostModel(A, B, THERE, TUNING.exact)
    assert fit([call(16)] * 20, prior, settled=True).noise == TUNING.exact
    wild = [CallRecord(1, seconds, 0.0) for seconds in (0.001, 100.0) * 20]
    assert fit(wild, CostModel(1e-6, 0.0, 0.0, 1.0), settled=True).noise <= 1.0


@pytest.mark.parametrize(("noise", "factor"), [(0.0, 1.0), (0.1, 1.0), (0.2, 4.0), (1.0, 8.0)])
def test_the_noisier_the_more_calls_are_looked_at(noise, factor):
    """By the square of the noise, as a mean needs, within limits."""
    assert window_factor(noise) == pytest.approx(factor)


def test_whether_a_cost_is_known_is_not_for_the_fit_to_say():
    """Neither what is not known, nor what is, makes a difference to what comes out but for
    the errors' scale: exact calls are fitted alike."""
    unknown = CostModel(A, B, THERE, 0.05, known=False)
    one, other = (fit(calls(40), prior, settled=True) for prior in (unknown, TRUE))
    assert one.service_s(16) == pytest.approx(other.service_s(16), rel=0.01)
