"""Devices that run calls one after the other."""

import asyncio
import math
import random
from dataclasses import KW_ONLY, dataclass

from batching.simulation.devices.common import SimulatedDevice

__all__ = ["Bent", "Device", "Foreign", "Sliced", "Stepped"]


@dataclass
class Device(SimulatedDevice):
    """Serial: calls run first come, first served, ``slots`` of them at once, each at full speed.

    What a call costs is settled when it is sent.
    """

    _: KW_ONLY
    slots: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._free = [0.0] * self.slots

    @property
    def free(self) -> float:
        """When the first slot will be free; what no client of a real device knows."""
        return min(self._free)

    async def _call(self, size: int, deviation: float) -> None:
        loop = asyncio.get_running_loop()
        end = self._occupy(loop.time() + self.there, self._work(size, deviation))
        await asyncio.sleep(end + self.back - loop.time())

    def _speed_up(self) -> float:
        return self.slots

    def _occupy(self, arrives: float, work: float) -> float:
        """Give ``work`` that arrives then the slot that is free first; return its end."""
        self._free = (self._free + [0.0] * self.slots)[: self.slots]
        slot = self._free.index(min(self._free))
        self._free[slot] = self._end(max(arrives, self._free[slot]), work)
        return self._free[slot]

    def _end(self, start: float, work: float) -> float:
        return start + work


@dataclass
class Foreign(Device):
    """Serial, and somebody else sends it calls too, at random (Poisson).

    They are only made up when a call of ours is sent: what was changed between two calls of ours
    counts for all theirs in between.

    Parameters
    ----------
    share
        Of the device's time, what the others' calls take.
    foreign_size
        Items of each of them.
    """

    _: KW_ONLY
    share: float = 0.33
    foreign_size: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._others = random.Random(self.seed + 9)
        self._next: float | None = None

    @property
    def free(self) -> float:
        """See :attr:`Device.free`; those that come later are not known yet."""
        self._catch_up(asyncio.get_running_loop().time() + self.there)
        return super().free

    def _speed_up(self) -> float:
        return self.slots - self.share

    def _occupy(self, arrives: float, work: float) -> float:
        self._catch_up(arrives)
        return super()._occupy(arrives, work)

    def _catch_up(self, until: float) -> None:
        if not self.share:
            self._next = until
            return
        pause = self.service_s(self.foreign_size) / self.share
        if self._next is None:
            self._next = self._others.expovariate(1 / pause)
        while self._next <= until:
            deviation = self._deviation(self._others, self.foreign_size)
            super()._occupy(self._next, self._work(self.foreign_size, deviation))
            self._next += self._others.expovariate(1 / pause)


@dataclass
class Stepped(Device):
    """Serial, with calls padded to the next of some sizes, as for a model compiled for these.

    A call of more than the largest is not padded.
    """

    _: KW_ONLY
    steps: tuple[int, ...] = (1, 8, 32)

    def service_s(self, size: int) -> float:
        """See :meth:`SimulatedDevice.service_s`."""
        return super().service_s(min((step for step in self.steps if step >= size), default=size))


@dataclass
class Bent(Device):
    """Serial, with ``quadratic * n * n`` seconds more for a call of n items."""

    _: KW_ONLY
    quadratic: float = 0.0001

    def service_s(self, size: int) -> float:
        """See :meth:`SimulatedDevice.service_s`."""
        return super().service_s(size) + self.quadratic * size * size


@dataclass
class Sliced(Device):
    """Serial, and works only for the first ``quota`` of each ``period`` seconds, as a container
    does that has used up its share of the CPU."""

    _: KW_ONLY
    quota: float = 0.05
    period: float = 0.1

    def _speed_up(self) -> float:
        return self.slots * self.quota / self.period

    def _end(self, start: float, work: float) -> float:
        number, gone = divmod(start, self.period)
        if gone >= self.quota:
            number, gone = number + 1, 0.0
            start = number * self.period
        if work <= self.quota - gone:
            return start + work
        work -= self.quota - gone
        full = math.ceil(work / self.quota) - 1  # slices that it needs whole, before the last
        return (number + 1 + full) * self.period + work - full * self.quota
