"""Bursts and closed loops: what they are held against is right."""

import itertools

import pytest

from batching import FreeSlot
from bench import bursts, closed_loop


def cut(comes, sizes, a, b, transport):
    """The mean time of items that leave in calls of such sizes, each as early as it can."""
    free = total = 0.0
    done = 0
    for size in sizes:
        done += size
        free = max(free, comes[done - 1] + transport / 2) + a + b * size
        total += size * (free + transport / 2)
    return total / len(comes)


@pytest.mark.parametrize(("a", "b", "transport"), bursts.BACKENDS)
@pytest.mark.parametrize("largest", [3, 32])
def test_the_best_cut_is_the_best_of_all(a, b, transport, largest):
    """No other way to cut seven items is better."""
    comes = [1.3, 1.3, 2.6, 4.0, 9.0, 9.5, 30.0]
    ways = (
        [end - begin for begin, end in itertools.pairwise((0, *marks, 7))]
        for count in range(7)
        for marks in itertools.combinations(range(1, 7), count)
    )
    expected = min(cut(comes, way, a, b, transport) for way in ways if max(way) <= largest)
    assert bursts.best(comes, a, b, transport, largest) == pytest.approx(expected)


def test_a_burst_takes_what_it_must():
    """One in flight: the first two at once, the rest when they are back."""
    mean, last = bursts.Case(20.0, 2.0, 4.0, 4).run(FreeSlot(1))
    first = 1.3 + 4 + 20 + 2 * 2
    assert (mean, last) == (
        pytest.approx(first + 28 / 2, abs=1e-3),
        pytest.approx(first + 28, abs=1e-3),
    )


def test_one_call_for_all_is_what_a_patient_batch_gives():
    """A dispatch that waits for all clients comes to the answers a second that the formula says."""
    full = closed_loop.Case(20.0, 2.0, 4.0, 32, 0.0)
    assert full.run(FreeSlot(1, max_queue_delay=0.1))[0] == pytest.approx(full.for_all, rel=0.02)
    thinking = closed_loop.Case(20.0, 2.0, 4.0, 32, 2.0)
    assert thinking.run(FreeSlot(1, max_queue_delay=1.0))[0] == pytest.approx(
        thinking.for_all, rel=0.03
    )
