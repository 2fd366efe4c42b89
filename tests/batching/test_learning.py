"""What is learnt from calls whose true cost is known."""

import itertools
import random

import pytest
from batching.learning import CallCost, Sample

A, B, OVERLAP = 0.02, 0.002, 0.005


def teach(cost, sizes, *, gap=None, slots=1, factor=lambda: 1.0, start=0.0):
    """Let a device of A + B·n and OVERLAP run calls, each ``gap`` seconds after the one before.

    Without a gap, each leaves when the one before has ended. Returns the end of the last.
    """
    ends, sent = [], start
    free = [start] * slots
    for number, size in enumerate(sizes):
        slot = free.index(min(free))
        free[slot] = max(sent + OVERLAP, free[slot]) + (A + B * size) * factor()
        ends.append((free[slot], sent, size))
        sent = start + (number + 1) * gap if gap else free[slot]
    for end, sent, size in sorted(ends):
        ahead = sorted(e for e, s, _ in ends if s < sent and e > sent)
        waits = tuple(e - sent for e in ahead if e <= end)
        cost.learn(Sample(size, end - sent, len(ahead), waits), end)
    return max(end for end, _, _ in ends)


def teach_waiting(cost):
    """Calls that meet at various distances, so that the overlap can be seen."""
    end = teach(cost, mixed(12))
    for seed in range(4):
        end = teach(cost, mixed(6, seed), gap=0.045, start=end + 1)
        end = teach(cost, mixed(6, seed), start=end + 1)
    return end


def mixed(count, seed=1):
    numbers = random.Random(seed)
    return [numbers.randint(1, 32) for _ in range(count)]


def test_calls_that_never_meet_tell_their_whole_time():
    """Without a call that waited nobody can tell what overlaps; the sum is right."""
    cost = CallCost()
    assert not cost.known
    teach(cost, mixed(20))
    assert cost.known
    for size in (1, 10, 32):
        assert cost.overlap + cost.service(size) == pytest.approx(OVERLAP + A + B * size, rel=0.02)


def test_calls_that_wait_tell_what_overlaps():
    """Calls at various distances: a, b and the overlap, to a few percent."""
    cost = CallCost()
    teach_waiting(cost)
    assert (cost.slots, cost.noise) == (1, pytest.approx(0.01, abs=0.01))
    assert cost.a == pytest.approx(A, rel=0.1)
    assert cost.b == pytest.approx(B, rel=0.05)
    assert cost.overlap == pytest.approx(OVERLAP, abs=0.001)


def test_a_second_slot_is_noticed_and_its_loss_as_well():
    """Two calls that run side by side show two slots; when they take turns, one."""
    cost = CallCost()
    end = teach(cost, mixed(30), gap=0.03, slots=2)
    assert cost.slots == 2
    teach(cost, mixed(40, 2), gap=0.05, slots=1, start=end + 1)
    assert cost.slots == 1


def test_noise_is_measured_and_averaged_out():
    """A deviation of a fifth is seen as such; the cost stays right to a tenth or so."""
    numbers = random.Random(3)
    cost = CallCost()
    teach(cost, mixed(60), factor=lambda: numbers.lognormvariate(-0.02, 0.2))
    assert 0.1 < cost.noise < 0.3
    assert cost.overlap + cost.service(16) == pytest.approx(OVERLAP + A + 16 * B, rel=0.15)


def noisy(seed, sigma=0.3):
    numbers = random.Random(seed)
    return lambda: numbers.lognormvariate(-sigma * sigma / 2, sigma)


def test_calls_that_happen_to_be_short_count_no_more_than_others():
    """In noise the cost is neither under- nor overestimated: right to a few percent over many."""
    costs = []
    for seed in range(5):
        cost = CallCost()
        teach(cost, mixed(700, seed), factor=noisy(seed))
        costs.append(cost.overlap + cost.service(16))
    assert sum(costs) / len(costs) == pytest.approx(OVERLAP + A + 16 * B, rel=0.03)


def test_the_noisier_calls_are_the_more_of_them_are_looked_at():
    """What overlaps is seen in few calls of a busy device; it is averaged over enough of them."""
    missed = []
    for seed in range(4):
        cost, factor, numbers = CallCost(), noisy(seed), random.Random(seed)
        for n in range(1500):
            size, ready = numbers.randint(20, 32), numbers.uniform(0, 0.08)
            took = max(OVERLAP, ready) + (A + B * size) * factor()
            cost.learn(Sample(size, took, 1, (ready,)), n / 12)
            if n > 300 and n % 20 == 0:
                missed.append(abs(cost.overlap - OVERLAP))
    assert sum(missed) / len(missed) < 0.006  # of 96 calls it would be 0.0086


@pytest.mark.parametrize(
    ("times", "calls", "sigma"), [(2.0, 12, 0.3), (0.5, 30, 0.3), (0.4, 60, 0.6)]
)
def test_a_change_is_seen_through_noise(times, calls, sigma):
    """Twice as slow, or half, is no outlier where times vary by a third; it is learnt at once."""
    cost = CallCost()
    factor = noisy(2, sigma)
    end = teach(cost, mixed(400), factor=factor)
    teach(cost, [16] * calls, factor=lambda: times * factor(), start=end)
    assert cost.overlap + cost.service(16) == pytest.approx(
        OVERLAP + times * (A + 16 * B), rel=0.25
    )


@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_a_first_call_that_compiles_is_soon_forgotten(sigma):
    """Ten seconds once: some calls later cost and noise are those of the others."""
    cost, factor = CallCost(), noisy(1, sigma)
    end = teach(cost, [16], factor=lambda: 200.0)
    teach(cost, [16] * 30, factor=factor, start=end)
    assert cost.overlap + cost.service(16) == pytest.approx(OVERLAP + A + 16 * B, rel=0.15)
    assert cost.noise * cost.service(16) < 1.6 * sigma * (A + 16 * B)


@pytest.mark.parametrize(("sigma", "share"), [(0.01, 0.1), (0.3, 0.1)])
def test_slow_calls_now_and_then_are_no_change(sigma, share):
    """Whatever a few of the calls do, three times as slow, the others tell the cost."""
    cost, factor, odd, costs = CallCost(), noisy(5, sigma), random.Random(5), []
    for seed in range(80):
        teach(
            cost,
            mixed(5, seed),
            factor=lambda: factor() * (3.0 if odd.random() < share else 1.0),
            start=seed * 10.0,
        )
        costs.append(cost.overlap + cost.service(16))
    assert costs[40:] == pytest.approx(40 * [OVERLAP + A + 16 * B], rel=0.1 + sigma / 2)


def test_noise_is_no_change():
    """In thousands of calls that vary by a third, chance alone is never taken for a new truth."""
    cost, factor = CallCost(), noisy(6)
    for seed in range(10):
        teach(cost, mixed(300, seed), factor=factor, start=seed * 100.0)
        assert len(cost._samples) >= min(768, 290 * (seed + 1))


def test_an_outlier_is_passed_over_and_a_change_is_not():
    """One call ten times as long changes nothing; three calls twice as long are the new truth."""
    cost = CallCost()
    end = teach(cost, mixed(20))
    before = (cost.a, cost.b, cost.overlap)
    end = teach(cost, [16], factor=lambda: 10.0, start=end)
    end = teach(cost, [16], factor=lambda: 0.1, start=end)
    assert (cost.a, cost.b, cost.overlap) == before
    end = teach(cost, mixed(3), start=end)
    teach(cost, [8, 16, 32], factor=lambda: 2.0, start=end)
    assert cost.overlap + cost.service(16) == pytest.approx(OVERLAP + 2 * (A + 16 * B), rel=0.1)


def test_calls_of_one_size_keep_the_ratio_of_a_and_b():
    """After a change that is seen at one size only, all other sizes are taken to have changed."""
    cost = CallCost()
    end = teach_waiting(cost)
    teach(cost, [32] * 60, factor=lambda: 2.0, start=end)
    assert cost.service(32) == pytest.approx(2 * (A + 32 * B), rel=0.05)
    assert cost.service(1) == pytest.approx(2 * (A + B), rel=0.25)


@pytest.mark.parametrize(
    ("times", "a", "b"),
    [
        ({1: 0.03, 32: 0.01}, 0.0, 0.0),  # more items, less time: no negative b
        ({1: 0.001, 16: 0.01, 32: 0.09}, 0.0, 0.0),  # steeper than proportional: no negative a
    ],
)
def test_no_part_of_the_cost_is_negative(times, a, b):
    """Whatever calls take, a and b are never below zero, so that no size has a negative time."""
    cost = CallCost()
    for number in range(12):
        for size, seconds in times.items():
            cost.learn(Sample(size, seconds, 0, ()), float(number))
    assert cost.a >= a
    assert cost.b >= b
    assert cost.service(1) > 0


def test_calls_that_take_no_time_are_no_error():
    """A device that answers within the clock's tick is learnt as very fast."""
    cost = CallCost()
    for number in range(20):
        cost.learn(Sample(4, 0.0, 1, (0.0,)), float(number))
    assert 0 < cost.service(32) < 1e-3


def test_a_call_that_overtakes_waited_for_nobody():
    """A sample whose predecessor had not ended counts as ready only at its own end."""
    sample = Sample(1, 0.5, ahead=2, waits=(0.2,))
    assert [sample.ready(slots) for slots in (1, 2, 3)] == [0.5, 0.2, 0.0]


def test_refits_are_rare_when_calls_are_many():
    """A fit costs the event loop time: at most one in a tenth of a second, once it is known."""
    cost = CallCost()
    for number in range(1000):
        cost.learn(Sample(4, 0.002, 0, ()), number / 1000)
    assert cost.fits <= 8 + 10


def test_noise_does_not_wear_the_ratio_of_a_and_b_away():
    """What was seen of it while sizes varied stays, while calls are nearly alike and vary by more
    than their sizes explain."""
    numbers = random.Random(4)
    cost = CallCost()
    fixed, each, overlap = 0.002, 0.00005, 0.015

    def teach_one(size, ready, now):
        took = (fixed + each * size) * numbers.lognormvariate(-0.045, 0.3)
        cost.learn(Sample(size, max(overlap, ready) + took, 1, (ready,)), now)

    for n in range(200):
        teach_one(numbers.randint(1, 32), numbers.uniform(0, 0.03), n / 50)
    for n in range(1500):
        teach_one(numbers.randint(29, 32), numbers.uniform(0.01, 0.03), 4 + n / 50)
    assert cost.a / cost.service(32) == pytest.approx(fixed / (fixed + 32 * each), abs=0.15)


def test_a_few_calls_that_are_not_understood_are_no_noise():
    """A tenth of the calls takes a fifth longer: the others count as about as exact as they are."""
    cost = CallCost()
    slow = itertools.cycle([1.0] * 9 + [1.2])
    teach(cost, mixed(80), factor=lambda: next(slow))
    assert cost.noise < 0.06


def test_calls_that_always_wait_do_not_stretch_the_overlap_far():
    """In noise, while the device is never idle, little is seen of it: it stays about where calls
    find the device ready at the earliest."""
    numbers = random.Random(6)
    cost = CallCost()

    def teach_one(size, ready, now):
        took = (A + B * size) * numbers.lognormvariate(-0.045, 0.3)
        cost.learn(Sample(size, max(OVERLAP, ready) + took, 1, (ready,)), now)

    for n in range(300):
        teach_one(numbers.randint(1, 32), numbers.uniform(0, 0.08), n / 20)
    assert cost.overlap < 3 * OVERLAP
    highest = 0.0
    for n in range(4000):
        teach_one(numbers.randint(24, 32), numbers.uniform(0.02, 0.08), 15 + n / 20)
        highest = max(highest, cost.overlap)
    assert highest < 6 * OVERLAP
