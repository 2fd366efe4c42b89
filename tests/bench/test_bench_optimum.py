"""The best policy that does not see the future, against what is known of it."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from batching import FreeSlot, JustInTime
from batching.simulation import Device, Oracle, simulate
from bench.optimum import Optimum, Setting, applies, leave_times

A, B, THERE, BATCH = 0.008, 0.001, 0.004, 6
CAPACITY = BATCH / (A + B * BATCH)


def setting(load, sigma):
    return Setting(A, B, THERE + 0.0005, sigma, load * CAPACITY, BATCH)


def mean(device, load, dispatch, seconds=30.0):
    answers = simulate(device, load * CAPACITY, seconds, max_batch_size=BATCH, dispatch=dispatch)
    return float(np.mean([answer.seconds for answer in answers]))


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_what_it_promises_comes_true(load):
    """In the simulation the mean is what dynamic programming says, and simple ways do worse."""
    optimum = Optimum(setting(load, 0.3))
    ours = mean(Device(A, B, THERE, sigma=0.3), load, optimum)
    assert ours == pytest.approx(optimum.mean, rel=0.05)
    for other in (FreeSlot(1), FreeSlot(2)):
        assert ours < 1.02 * mean(Device(A, B, THERE, sigma=0.3), load, other)


@pytest.mark.parametrize("load", [0.3, 0.8])
def test_what_is_learnt_comes_near_it(load):
    """Just-in-time dispatch, which is told nothing, within a tenth of it; and never below it."""
    best, ours = (
        mean(Device(A, B, THERE, sigma=0.3), load, dispatch)
        for dispatch in (Optimum(setting(load, 0.3)), JustInTime())
    )
    assert 0.98 * best < ours < 1.1 * best


def test_without_noise_it_is_the_oracle():
    """Where nothing is left to chance but the arrivals, it does what who sees all does."""
    best = mean(device := Device(A, B, THERE), 0.7, Oracle(device))
    assert mean(Device(A, B, THERE), 0.7, Optimum(setting(0.7, 0.02))) == pytest.approx(
        best, rel=0.03
    )


def test_the_more_wait_the_earlier_they_leave():
    """And a full batch at once; none leaves when there is none."""
    leave, _ = leave_times(setting(0.7, 0.3))
    assert all(leave[:, 0] == math.inf)
    assert all(leave[:, BATCH] == 0)
    for row in leave:
        assert all(later <= sooner for sooner, later in itertools.pairwise(row[: BATCH + 1]))


def test_it_is_found_where_items_are_rare():
    """At a twentieth of the capacity most calls are of one item, and the mean is hardly more."""
    _, best = leave_times(setting(0.05, 0.3))
    assert THERE + A + B < best < 1.3 * (THERE + A + B)


@pytest.mark.parametrize("missing", ["overlap", "sigma", "rate"])
def test_it_needs_something_to_decide(missing):
    """Without a way, noise or items there is no such problem."""
    with pytest.raises(ValueError, match="more than 0"):
        leave_times(dataclasses.replace(setting(0.5, 0.3), **{missing: 0.0}))


def test_it_says_where_it_does_not_apply():
    """Calls shorter than their way need more than two in flight."""
    assert applies(setting(0.5, 0.3))
    assert not applies(Setting(0.001, 0.0001, 0.015, 0.3, 100.0, BATCH))
