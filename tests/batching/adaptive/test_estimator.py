"""What is learnt, call by call, from calls whose true cost is known."""

import itertools
import random

import pytest

from batching.adaptive.cost import UNKNOWN, CallRecord, CostModel
from batching.adaptive.estimator import CostEstimator
from batching.adaptive.tuning import TUNING

A, B, THERE = 0.02, 0.002, 0.005


def teach(estimator, sizes, *, gap=None, factor=lambda: 1.0, start=0.0):
    """Let a serial device of A + B·n and THERE run calls, each ``gap`` seconds after the last one.

    Without a gap, each leaves when the one before has ended. Returns the end of the last, and how
    often costs were said to have changed.
    """
    free = sent = start
    changes = 0
    for number, size in enumerate(sizes):
        ready_s = max(0.0, free - sent)
        free = max(sent + THERE, free) + (A + B * size) * factor()
        changes += estimator.learn(CallRecord(size, free - sent, ready_s), free)
        sent = start + (number + 1) * gap if gap else free
    return free, changes


def teach_waiting(estimator):
    """Calls that meet at various distances, so that the transport can be seen."""
    end, _ = teach(estimator, mixed(12))
    for seed in range(4):
        end, _ = teach(estimator, mixed(6, seed), gap=0.045, start=end + 1)
        end, _ = teach(estimator, mixed(6, seed), start=end + 1)
    return end


def mixed(count, seed=1):
    numbers = random.Random(seed)
    return [numbers.randint(1, 32) for _ in range(count)]


def noisy(seed, sigma=0.3):
    numbers = random.Random(seed)
    return lambda: numbers.lognormvariate(-sigma * sigma / 2, sigma)


def whole_s(estimator, size=16):
    return estimator.model.transport_s + estimator.model.service_s(size)


def test_a_cost_is_known_after_three_calls():
    """A line needs two points, and one to check."""
    estimator, known = CostEstimator(), []
    for number in range(4):
        known.append(estimator.model.known)
        estimator.learn(CallRecord(number + 1, THERE + A + B * (number + 1), 0.0), float(number))
    assert known == [False, False, False, True]


def test_what_a_prior_knows_is_known_from_the_start():
    """Kin of a kind that was learnt is relied upon before its first call and after."""
    prior = CostModel(A, B, THERE, 0.1)
    estimator = CostEstimator(prior)
    assert estimator.model == prior
    estimator.learn(CallRecord(4, THERE + A + 4 * B, 0.0), 0.0)
    assert estimator.model.known


def test_calls_that_never_meet_tell_their_whole_time():
    """Without a call that waited nobody can tell what is transport; the sum is right."""
    estimator = CostEstimator()
    teach(estimator, mixed(20))
    for size in (1, 10, 32):
        assert whole_s(estimator, size) == pytest.approx(THERE + A + B * size, rel=0.02)


def test_calls_that_wait_tell_the_transport():
    """Calls at various distances: all three parts, to a few percent."""
    estimator = CostEstimator()
    teach_waiting(estimator)
    assert estimator.model.fixed_s == pytest.approx(A, rel=0.1)
    assert estimator.model.per_item_s == pytest.approx(B, rel=0.05)
    assert estimator.model.transport_s == pytest.approx(THERE, abs=0.001)
    assert estimator.model.noise < 0.15


def test_noise_is_measured_and_averaged_out():
    """A deviation of a fifth is seen as such; the cost stays right to a tenth or so."""
    estimator = CostEstimator()
    teach(estimator, mixed(60), factor=noisy(3, 0.2))
    assert 0.1 < estimator.model.noise < 0.3
    assert whole_s(estimator) == pytest.approx(THERE + A + 16 * B, rel=0.15)


def test_calls_that_happen_to_be_short_count_no_more_than_others():
    """In noise the cost is neither under- nor overestimated: right to a few percent over many."""
    costs = []
    for seed in range(5):
        estimator = CostEstimator()
        teach(estimator, mixed(700, seed), factor=noisy(seed))
        costs.append(whole_s(estimator))
    assert sum(costs) / len(costs) == pytest.approx(THERE + A + 16 * B, rel=0.03)


def test_the_noisier_calls_are_the_more_of_them_are_looked_at():
    """The transport is seen in few calls of a busy device; it is averaged over enough of them."""
    missed = []
    for seed in range(4):
        estimator, factor, numbers = CostEstimator(), noisy(seed), random.Random(seed)
        for n in range(1500):
            size, ready = numbers.randint(20, 32), numbers.uniform(0, 0.08)
            took = max(THERE, ready) + (A + B * size) * factor()
            estimator.learn(CallRecord(size, took, ready), n / 12)
            if n > 300 and n % 20 == 0:
                missed.append(abs(estimator.model.transport_s - THERE))
    assert sum(missed) / len(missed) < 0.006  # of 96 calls it would be 0.0086


@pytest.mark.parametrize(
    ("times", "calls", "sigma"), [(2.0, 12, 0.3), (0.5, 30, 0.3), (0.4, 60, 0.6)]
)
def test_a_change_is_seen_through_noise(times, calls, sigma):
    """Twice as slow, or half, is no outlier where times vary by a third; it is learnt at once."""
    estimator, factor = CostEstimator(), noisy(2, sigma)
    end, _ = teach(estimator, mixed(400), factor=factor)
    _, changes = teach(estimator, [16] * calls, factor=lambda: times * factor(), start=end)
    assert changes >= 1
    assert whole_s(estimator) == pytest.approx(THERE + times * (A + 16 * B), rel=0.25)


@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_a_first_call_that_compiles_is_soon_forgotten(sigma):
    """Ten seconds once: some calls later cost and noise are those of the others."""
    estimator = CostEstimator()
    end, _ = teach(estimator, [16], factor=lambda: 200.0)
    teach(estimator, [16] * 30, factor=noisy(1, sigma), start=end)
    assert whole_s(estimator) == pytest.approx(THERE + A + 16 * B, rel=0.15)
    deviation = estimator.model.noise * estimator.model.service_s(16)
    assert deviation < (1.6 * sigma + 0.1) * (A + 16 * B)


@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_slow_calls_now_and_then_are_no_change(sigma):
    """Whatever a tenth of the calls do, three times as slow, the others tell the cost, but
    for once, where three of them follow each other in noise."""
    estimator, factor, odd, costs = CostEstimator(), noisy(5, sigma), random.Random(5), []
    for seed in range(80):
        teach(
            estimator,
            mixed(5, seed),
            factor=lambda: factor() * (3.0 if odd.random() < 0.1 else 1.0),
            start=seed * 10.0,
        )
        costs.append(whole_s(estimator))
    true = pytest.approx(THERE + A + 16 * B, rel=0.1 + sigma / 2)
    assert sum(cost == true for cost in costs[40:]) >= 39


def test_noise_is_no_change():
    """In thousands of calls that vary by a third, chance alone is never taken for a new truth."""
    estimator, factor, changes = CostEstimator(), noisy(6), 0
    for seed in range(10):
        changes += teach(estimator, mixed(300, seed), factor=factor, start=seed * 100.0)[1]
    assert changes == 0


def test_an_outlier_is_passed_over_and_a_change_is_not():
    """One call ten times as long changes nothing; three calls twice as long are the new truth."""
    estimator = CostEstimator()
    end, _ = teach(estimator, mixed(20))
    before = estimator.model
    end, _ = teach(estimator, [16], factor=lambda: 10.0, start=end)
    assert estimator.model == before
    end, _ = teach(estimator, mixed(3), start=end)
    _, changes = teach(estimator, [8, 16, 32], factor=lambda: 2.0, start=end)
    assert changes == 1
    assert whole_s(estimator) == pytest.approx(THERE + 2 * (A + 16 * B), rel=0.1)


def test_a_call_that_is_far_too_short_is_passed_over():
    """A tenth of the time, once, is an outlier as well: by the logarithm, the noise being small."""
    estimator = CostEstimator()
    end, _ = teach(estimator, mixed(60))
    before = estimator.model
    teach(estimator, [16], factor=lambda: 0.1, start=end)
    assert estimator.model == before


def test_of_calls_that_met_more_than_was_meant_no_change_is_told():
    """However long they take, those that are not usual raise no alarm, but what fits is learnt."""
    estimator = CostEstimator()
    end, _ = teach(estimator, mixed(60))
    slow = CallRecord(16, THERE + 2 * (A + 16 * B), 0.0)
    assert not any(estimator.learn(slow, end + n, usual=False) for n in range(20))
    assert whole_s(estimator) == pytest.approx(THERE + A + 16 * B, rel=0.1)
    assert any(estimator.learn(slow, end + 20 + n) for n in range(5))


def test_calls_of_one_size_keep_the_ratio_of_the_parts():
    """After a change that is seen at one size only, all other sizes are taken to have changed."""
    estimator = CostEstimator()
    end = teach_waiting(estimator)
    teach(estimator, [32] * 60, factor=lambda: 2.0, start=end)
    assert estimator.model.service_s(32) == pytest.approx(2 * (A + 32 * B), rel=0.05)
    assert estimator.model.service_s(1) == pytest.approx(2 * (A + B), rel=0.25)


def test_calls_that_take_no_time_are_no_error():
    """A device that answers within the clock's tick is learnt as very fast."""
    estimator = CostEstimator()
    for number in range(20):
        estimator.learn(CallRecord(4, 0.0, 0.0), float(number))
    assert 0 < estimator.model.service_s(32) < 1e-3


def test_refits_are_rare_when_calls_are_many():
    """A fit costs the event loop time: four a second, once the cost is known."""
    estimator = CostEstimator()
    for number in range(1000):
        estimator.learn(CallRecord(4, 0.002, 0.0), number / 1000)
    assert TUNING.first_fits < estimator.fits <= TUNING.first_fits + 4


def test_refits_are_rare_when_there_is_little_new():
    """However slow calls are, a full window is fitted again only when a part of it is new."""
    estimator, factor = CostEstimator(), noisy(1)
    teach(estimator, mixed(800), factor=factor)
    before = estimator.fits
    teach(estimator, mixed(100), gap=10.0, factor=factor, start=1000.0)
    assert estimator.fits - before <= 100 / 3


def test_without_noise_few_calls_are_looked_at():
    """Of a device that has become slower bit by bit, the last calls alone tell."""
    estimator = CostEstimator()
    for number in range(1500):
        slower = 1.0 + number / 1000
        estimator.learn(CallRecord(16, THERE + (A + 16 * B) * slower, 0.0), float(number))
    assert whole_s(estimator) == pytest.approx(THERE + (A + 16 * B) * 2.5, rel=0.05)


def test_noise_does_not_wear_the_ratio_of_the_parts_away():
    """What was seen of it while sizes varied stays, while calls are nearly alike and vary by more
    than their sizes explain."""
    numbers, estimator = random.Random(4), CostEstimator()
    fixed, each, there = 0.002, 0.00005, 0.015

    def teach_one(size, ready, now):
        took = (fixed + each * size) * numbers.lognormvariate(-0.045, 0.3)
        estimator.learn(CallRecord(size, max(there, ready) + took, ready), now)

    for n in range(200):
        teach_one(numbers.randint(1, 32), numbers.uniform(0, 0.03), n / 50)
    for n in range(1500):
        teach_one(numbers.randint(29, 32), numbers.uniform(0.01, 0.03), 4 + n / 50)
    share = estimator.model.fixed_s / estimator.model.service_s(32)
    assert share == pytest.approx(fixed / (fixed + 32 * each), abs=0.15)


def test_a_few_calls_that_are_not_understood_are_no_noise():
    """A tenth of the calls takes a fifth longer: the others count as about as exact as they are."""
    estimator, slow = CostEstimator(), itertools.cycle([1.0] * 9 + [1.2])
    teach(estimator, mixed(80), factor=lambda: next(slow))
    assert estimator.model.noise < 0.06


def test_calls_that_always_wait_do_not_stretch_the_transport_far():
    """In noise, while the device is never idle, little is seen of it: it stays about where calls
    find the device ready at the earliest."""
    numbers, estimator = random.Random(6), CostEstimator()

    def teach_one(size, ready, now):
        took = (A + B * size) * numbers.lognormvariate(-0.045, 0.3)
        estimator.learn(CallRecord(size, max(THERE, ready) + took, ready), now)

    for n in range(300):
        teach_one(numbers.randint(1, 32), numbers.uniform(0, 0.08), n / 20)
    assert estimator.model.transport_s < 3 * THERE
    highest = 0.0
    for n in range(4000):
        teach_one(numbers.randint(24, 32), numbers.uniform(0.02, 0.08), 15 + n / 20)
        highest = max(highest, estimator.model.transport_s)
    assert highest < 6 * THERE


def test_after_a_restart_what_was_said_is_believed():
    """The calls of before, and their errors, count for nothing any more."""
    estimator = CostEstimator()
    end, _ = teach(estimator, mixed(60))
    teach(estimator, [16, 16], factor=lambda: 3.0, start=end)  # on the way to an alarm
    told = CostModel(3 * A, 3 * B, THERE, 0.1)
    estimator.restart(told)
    assert estimator.model == told
    _, changes = teach(estimator, mixed(60), factor=lambda: 3.0, start=end + 10)
    assert changes == 0
    assert whole_s(estimator) == pytest.approx(THERE + 3 * (A + 16 * B), rel=0.02)


def test_nothing_is_an_outlier_at_first():
    """With hardly a call to compare with, each is learnt."""
    estimator = CostEstimator(UNKNOWN)
    for number, seconds in enumerate((1.0, 10.0, 0.1)):
        estimator.learn(CallRecord(4, seconds, 0.0), float(number))
    assert estimator.fits == 3
