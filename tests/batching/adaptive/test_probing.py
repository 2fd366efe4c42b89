"""When something else than what is believed best is tried."""

import pytest

from batching.adaptive.probing import Probe, Probes, pause_s
from batching.adaptive.tuning import TUNING


def test_all_is_due_at_first():
    """Nothing was tried yet, so everything may be at once."""
    probes = Probes()
    assert all(probes.due(probe, 0.0) for probe in Probe)


def test_what_was_done_is_due_after_its_pause():
    """Asking does not count; one kind of probe does not put off another."""
    probes = Probes()
    probes.done(Probe.EARLY, 2.0, now=10.0)
    assert not probes.due(Probe.EARLY, 11.9)
    assert probes.due(Probe.EARLY, 12.0)
    assert probes.due(Probe.EARLY, 12.0)
    assert probes.due(Probe.LATE, 10.0)


def test_on_another_device_all_is_due_again():
    """What was found out before is worth nothing."""
    probes = Probes()
    for probe in Probe:
        probes.done(probe, 100.0, now=10.0)
    assert not any(probes.due(probe, 11.0) for probe in Probe)
    probes.renew()
    assert all(probes.due(probe, 11.0) for probe in Probe)


LIMITS = {
    Probe.EARLY: (TUNING.probe_early_calls, *TUNING.probe_early_s),
    Probe.LATE: (TUNING.probe_late_calls, *TUNING.probe_late_s),
    Probe.MORE: (TUNING.probe_more_calls, *TUNING.probe_more_s),
    Probe.MERGING: (TUNING.probe_merging_calls, *TUNING.probe_merging_s),
    Probe.ALONE: (TUNING.probe_alone_calls, *TUNING.probe_alone_s),
}


@pytest.mark.parametrize("probe", Probe)
def test_pauses_are_so_many_calls_within_limits(probe):
    """A pause is in proportion to a call's time, but neither very short nor very long."""
    calls, shortest, longest = LIMITS[probe]
    middle = (shortest + longest) / 2
    for service_s, pause in ((1e-6, shortest), (middle / calls, middle), (10.0, longest)):
        assert pause_s(probe, service_s, 0.0, crowded=False) == pytest.approx(pause)


def test_while_a_full_batch_waits_more_calls_are_tried_sooner():
    """What is full costs nothing more; of the other probes there are as many as ever."""
    for service_s in (0.001, 0.01, 1.0):
        pause = TUNING.probe_more_crowded_calls * service_s
        assert pause_s(Probe.MORE, service_s, 0.0, crowded=True) == pytest.approx(pause)
    assert TUNING.probe_more_crowded_calls < TUNING.probe_more_calls
    for probe in set(Probe) - {Probe.MORE}:
        crowded, not_crowded = (pause_s(probe, 0.01, 0.2, crowded=c) for c in (True, False))
        assert crowded == not_crowded


@pytest.mark.parametrize("probe", Probe)
def test_noise_shows_costs_by_itself(probe):
    """With three times the noise that is enough, early and late departures are ten times as rare;
    what other calls do cannot be seen without trying."""
    quiet, noisy = (pause_s(probe, 0.01, n * TUNING.probe_noise, crowded=False) for n in (0, 3))
    times = 10 if probe in {Probe.EARLY, Probe.LATE} else 1
    assert noisy == pytest.approx(times * quiet)
