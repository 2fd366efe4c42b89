"""A device that makes one call of those that wait."""

import asyncio
import math
from collections import deque
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

from batching.simulation.devices.common import SimulatedDevice

__all__ = ["Merging"]


class _Waiting(NamedTuple):
    size: int
    deviation: float
    end: asyncio.Future[None]


@dataclass
class Merging(SimulatedDevice):
    """What waits when it falls idle is run as one, up to ``max_merged`` items: TensorFlow Serving's
    own batching, with one batch thread and no timeout.

    What a call costs is settled when it begins.
    """

    _: KW_ONLY
    max_merged: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._waiting: deque[_Waiting] = deque()
        self._busy = False

    async def _call(self, size: int, deviation: float) -> None:
        await asyncio.sleep(self.there)
        end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(size, deviation, end))
        self._begin()
        await end
        await asyncio.sleep(self.back)

    def _begin(self) -> None:
        if self._busy or not self._waiting:
            return
        calls = [self._waiting.popleft()]
        size = calls[0].size
        while self._waiting and size + self._waiting[0].size <= self.max_merged:
            calls.append(self._waiting.popleft())
            size += calls[-1].size
        deviation = sum(call.deviation * math.sqrt(call.size) for call in calls) / math.sqrt(size)
        self._busy = True
        loop = asyncio.get_running_loop()
        loop.call_later(self._work(size, deviation), self._finish, calls)

    def _finish(self, calls: list[_Waiting]) -> None:
        for call in calls:
            if not call.end.done():  # else its caller has been cancelled
                call.end.set_result(None)
        self._busy = False
        self._begin()
