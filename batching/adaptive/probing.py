"""Departures at another time, or to another number of calls, than what is believed best.

A cost is seen only where it varies: from calls that always leave just in time neither the transport
nor a second place at the device can be seen. So now and then a batch leaves a little early or late,
while more calls run than are believed best, or only after all have ended.
"""

import math
from collections.abc import Hashable
from enum import Enum, auto

from batching.adaptive.tuning import TUNING

__all__ = ["Probe", "Probes"]


class Probe(Enum):
    """What is tried."""

    EARLY = auto()
    """Would less waiting at the device show? Then there is less transport than believed."""
    LATE = auto()
    """Does less lead do?"""
    MORE = auto()
    """More calls at a time: are they slowed down?"""
    FEWER = auto()
    """Are fewer calls at a time faster?"""


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


def pause_of_lead_s(noise: float) -> float:
    """From one early or late departure to the next: rare where costs vary by themselves."""
    return TUNING.probe_interval_s * (1 + (noise / TUNING.probe_noise) ** 2)


_ = Hashable
