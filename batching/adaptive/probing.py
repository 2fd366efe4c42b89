"""Departures at another time, or to another number of calls, than what is believed best.

A cost is seen only where it varies: from calls that always leave just in time neither the transport
nor a second place at the device can be seen. So now and then a batch leaves a little early or late,
while more calls run than are believed best, or only after all have ended.
"""

import math
from enum import Enum, auto

from batching.adaptive.tuning import TUNING

__all__ = ["Probe", "Probes", "pause_s"]


class Probe(Enum):
    """What is tried."""

    EARLY = auto()
    """A little early: does the call wait at the device, or is there more transport than believed?
    """
    LATE = auto()
    """A little late: does less lead do?"""
    MORE = auto()
    """Beside more calls than are believed best: are they slowed down?"""
    MERGING = auto()
    """Beside a call that waits already: do they end together?"""
    ALONE = auto()
    """After all have ended: how fast is a call that meets no other?"""


class Probes:
    """When what is due; asking changes nothing, only :meth:`done` does."""

    def __init__(self) -> None:
        self._due: dict[Probe, float] = dict.fromkeys(Probe, -math.inf)

    def due(self, probe: Probe, now: float) -> bool:
        """Whether it is time to try."""
        return now >= self._due[probe]

    def done(self, probe: Probe, pause_s: float, now: float) -> None:
        """It was tried; not again before ``pause_s`` seconds are over."""
        self._due[probe] = now + pause_s

    def renew(self) -> None:
        """All is due: the device has become another."""
        self._due = dict.fromkeys(Probe, -math.inf)


def pause_s(probe: Probe, service_s: float, noise: float, *, crowded: bool) -> float:
    """Seconds from a probe to the next of its kind, if a call takes ``service_s``; ``crowded``
    while a full batch waits."""
    if probe is Probe.MORE and crowded:
        return TUNING.probe_more_crowded_calls * service_s
    if probe is Probe.MORE:
        return _within(TUNING.probe_more_calls * service_s, TUNING.probe_more_s)
    if probe is Probe.MERGING:
        return _within(TUNING.probe_merging_calls * service_s, TUNING.probe_merging_s)
    if probe is Probe.ALONE:
        return _within(TUNING.probe_alone_calls * service_s, TUNING.probe_alone_s)
    if probe is Probe.EARLY:
        pause = _within(TUNING.probe_early_calls * service_s, TUNING.probe_early_s)
    else:
        pause = _within(TUNING.probe_late_calls * service_s, TUNING.probe_late_s)
    # Where costs vary by themselves, they need not be made to.
    return pause * (1 + (noise / TUNING.probe_noise) ** 2)


def _within(value: float, limits: tuple[float, float]) -> float:
    return min(max(value, limits[0]), limits[1])
