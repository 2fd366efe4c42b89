"""A batcher in front of a simulated device, in virtual time: hours of traffic in seconds.

The batcher and its dispatch are the real ones; only the clock and the device are not.
"""

import asyncio
import math
import random
import selectors
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from batching.batcher import Batcher
from batching.dispatch import Dispatch, L, Lane

__all__ = ["Answer", "Device", "Oracle", "VirtualLoop", "run_virtually", "simulate"]

T = TypeVar("T")

TICK = 1e-9  # seconds; as good as none


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waiting takes no time: when nothing is ready, the clock jumps to the next timer.

    Raises ``RuntimeError`` when nothing is ready and no timer is set, since that would be for ever.
    """

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """The virtual clock, in seconds from 0."""
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("deadlock: every task waits and no timer is set")
        self._loop.now += timeout
        return super().select(0)


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a ``VirtualLoop``."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@dataclass
class Device:
    """Runs a call of n items in ``a + b * n`` seconds, first come, first served, ``slots`` at once.

    A call arrives ``there`` seconds after it left, and its answer ``back`` seconds after its end.
    The time varies by a log-normal factor of mean 1 whose logarithm deviates by ``sigma``, for each
    call anew. All may be changed while it runs. Every item brings its part of a call's deviation,
    so ways to batch that are compared with the same ``seed`` meet the same luck.
    """

    a: float
    b: float
    there: float = 0.0005
    back: float = 0.0005
    slots: int = 1
    sigma: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._free = [0.0] * self.slots
        self.started = 0
        """Calls that it has been told of."""

    def capacity(self, max_batch_size: int) -> float:
        """Items a second, at full batches."""
        return self.slots * max_batch_size / (self.a + self.b * max_batch_size)

    @property
    def free(self) -> float:
        """When the first slot will be free; what no client of a real device knows."""
        return min(self._free)

    async def process(self, key: object, items: list[T]) -> list[T]:
        """Give the items back when the device has run them; to be a batcher's ``process``."""
        loop = asyncio.get_running_loop()
        self._free = (self._free + [0.0] * self.slots)[: self.slots]
        self.started += 1
        slot = self._free.index(min(self._free))
        factor = self._noise(len(items)) if self.sigma else 1.0
        start = max(loop.time() + self.there, self._free[slot])
        self._free[slot] = start + (self.a + self.b * len(items)) * factor
        await asyncio.sleep(self._free[slot] + self.back - loop.time())
        return items

    def _noise(self, size: int) -> float:
        # The sum of independent normal deviations over its root is one more.
        deviation = sum(self._random.gauss(0.0, 1.0) for _ in range(size)) / math.sqrt(size)
        return math.exp(self.sigma * deviation - self.sigma**2 / 2)


class Oracle:
    """A dispatch that knows when its device will be free, noise and all, and so is never wrong."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._sent = 0

    def next(self, lanes: Sequence[L], now: float) -> tuple[L, float]:
        """See :meth:`Dispatch.next`."""
        if self._sent > self._device.started:  # the device is to hear of it in this very tick
            return lanes[0], now + TICK
        return lanes[0], self._device.free - self._device.there

    def sent(self, lane: Lane, size: int, now: float) -> None:
        """See :meth:`Dispatch.sent`."""
        self._sent += 1

    def ended(self, call: Any, now: float, *, failed: bool) -> None:
        """See :meth:`Dispatch.ended`."""


class Answer(NamedTuple):
    """When an item came, and after how many seconds it had its result."""

    at: float
    seconds: float


def simulate(
    device: Device,
    rate: float,
    seconds: float,
    *,
    max_batch_size: int = 32,
    dispatch: Dispatch | None = None,
) -> list[Answer]:
    """Submit ``rate`` items a second at random (Poisson) for ``seconds``; return all answers."""

    async def main() -> list[Answer]:
        loop = asyncio.get_running_loop()
        batcher: Batcher[str, None, None] = Batcher(
            device.process,
            max_batch_size=max_batch_size,
            max_queue_size=1 << 30,
            dispatch=dispatch,
        )
        answers: list[Answer] = []

        async def submit() -> None:
            at = loop.time()
            await batcher.submit("", None)
            answers.append(Answer(at, loop.time() - at))

        arrivals = random.Random(device.seed + 1)
        tasks = set()
        while (wait := arrivals.expovariate(rate)) <= seconds - loop.time():
            await asyncio.sleep(wait)
            task = loop.create_task(submit())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.sleep(0)  # the last of them has yet to submit
        await batcher.aclose()
        await asyncio.gather(*tasks)
        return answers

    return run_virtually(main())
