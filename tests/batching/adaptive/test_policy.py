"""Just-in-time dispatch against simulated devices whose truth the test knows."""

import asyncio

import pytest

from batching import CostModel, FreeSlot, JustInTime
from batching.adaptive.device import SERIAL, DeviceKind
from batching.simulation import (
    Cores,
    Device,
    Oracle,
    simulate,
)
from tests.batching.adaptive.worlds import BACKENDS, USUAL, ZOO, best_of, changing, mean, run

spawn = asyncio.ensure_future


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


@pytest.mark.parametrize(("there", "load"), [(0.0005, 0.25), (0.004, 0.75)])
def test_short_noisy_calls_are_understood_at_once(there, load):
    """A bad first guess does not stand for long, nor are several calls under way at a time taken
    for several places."""
    device = {"a": 0.002, "b": 0.00005, "there": there, "sigma": 0.3, "seed": 7}
    best = run(Device(**device), Oracle, load, 2.0)
    dispatch = JustInTime()
    ours = run(Device(**device), dispatch, load, 2.0)
    assert dispatch.learnt("").parallelism == 1
    assert mean(ours, 0.5) < 1.2 * mean(best, 0.5)


@pytest.mark.parametrize(
    ("change", "load", "within"),
    [
        ({"a": 0.04, "b": 0.004}, 0.4, 4.0),
        ({"a": 0.01, "b": 0.001}, 0.9, 4.0),
        ({"there": 0.0005}, 0.75, 4.0),
        ({"slots": 2}, 0.9, 11.0),  # seen by probes alone, one every two seconds
    ],
    ids=["twice-as-slow", "twice-as-fast", "no-transport", "one-more-place"],
)
def test_it_is_at_its_best_soon_after_a_change(change, load, within):
    """So many seconds of traffic after a change, it is as good as the oracle again."""
    truth = {"a": 0.02, "b": 0.002, "there": 0.015}
    rate, since = load * Device(**truth).capacity(32), 5 + within
    ours = simulate(changing(change, **truth), rate, since + 5)
    best_device = Device(**{**truth, **change})
    best = simulate(best_device, rate, since + 5, dispatch=Oracle(best_device))
    assert mean(ours, since) < 1.15 * mean(best, since)


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
