"""Devices that run all calls at once."""

import asyncio
import heapq
import itertools
from dataclasses import KW_ONLY, dataclass

from batching.simulation.devices.common import SimulatedDevice

__all__ = ["Amdahl", "Cores", "Sharing"]


@dataclass
class Sharing(SimulatedDevice):
    """All calls run at once and share the device equally.

    What a call costs is settled when it arrives.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        # All calls are as fast, so that one clock is enough: `_done` is the work of a call that
        # has been there all along. A call ends when it has gone on by as much as its work.
        self._done = self._pace = self._at = 0.0
        self._running: list[tuple[float, int, asyncio.Future[None]]] = []
        self._number = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def speed(self, calls: int) -> float:
        """Seconds of work that so many calls together get done in a second."""
        return 1.0

    async def _call(self, size: int, deviation: float) -> None:
        await asyncio.sleep(self.there)
        loop = asyncio.get_running_loop()
        self._done += self._pace * (loop.time() - self._at)
        end: asyncio.Future[None] = loop.create_future()
        until = self._done + self._work(size, deviation)
        heapq.heappush(self._running, (until, next(self._number), end))
        self._go_on(loop)
        await end
        await asyncio.sleep(self.back)

    def _next_ends(self) -> None:
        self._done = self._running[0][0]  # which is what the timer was set for
        while self._running and self._running[0][0] <= self._done:
            end = heapq.heappop(self._running)[2]
            if not end.done():  # else its caller has been cancelled
                end.set_result(None)
        self._go_on(asyncio.get_running_loop())

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer anew: other calls are running from now on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._at = loop.time()
        calls = len(self._running)
        if calls:
            self._pace = self.speed(calls) / calls
            left = (self._running[0][0] - self._done) / self._pace
            self._timer = loop.call_at(self._at + left, self._next_ends)
        else:
            self._done = self._pace = 0.0  # so that rounding does not add up


@dataclass
class Cores(Sharing):
    """So many calls run at full speed; more of them share the cores."""

    _: KW_ONLY
    cores: int = 4

    def speed(self, calls: int) -> float:
        """See :meth:`Sharing.speed`."""
        return min(calls, self.cores)

    def _speed_up(self) -> float:
        return self.cores


@dataclass
class Amdahl(Sharing):
    """Each call slows the others down by ``contention``: with 0.6, two together get 1.25 times as
    much done as one, and many 1.67 times."""

    _: KW_ONLY
    contention: float = 0.6

    def speed(self, calls: int) -> float:
        """See :meth:`Sharing.speed`."""
        return calls / (1 + self.contention * (calls - 1))

    def _speed_up(self) -> float:
        return 1 / self.contention
