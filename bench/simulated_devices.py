"""The kinds of device that stand behind a server in the field, for bench/simulated_serving.py.

They do not compute, they say when each call ends, by the clock of the event loop. A call that its
client cancels goes on on the device, as in TensorFlow Serving.

serial: calls run one after the other, on as many slots as there are.
sharing: all calls run at once and share the device.
cores:N: up to N calls run at full speed, and more of them share N.
amdahl: k calls together get k / (1 + 0.6 (k - 1)) times what one gets; many get 1.67 times.
merging: what waits when the device falls idle becomes one call, each model for itself.
sliced: serial, but the device works 50 ms of each 100 ms, as under a CPU quota.
"""

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

__all__ = ["Amdahl", "Cores", "Device", "Merging", "Serial", "Sharing", "Sliced", "make"]

Cost = Callable[[int], float]
"""Seconds that a call of so many items takes alone; asked once for each call of the device."""

Number = Callable[[], int]
"""A setting that may change while the device runs; asked whenever it matters."""


class Device(Protocol):
    """What runs the calls of a server."""

    async def call(self, model: str, n: int) -> None:
        """Return when the device has run a call.

        Parameters
        ----------
        model
            The name of the model that is called.
        n
            The number of items in the call.
        """


class Serial:
    """Calls run one after the other, on the slot that is free first.

    Parameters
    ----------
    cost
        Asked when a call comes, so one that waits keeps the cost it came with.
    slots
        How many calls run at once, each at full speed.
    """

    def __init__(self, cost: Cost, slots: Number = lambda: 1) -> None:
        self._cost = cost
        self._slots = slots
        self._free_at = [0.0]  # loop time at which each slot falls idle

    async def call(self, model: str, n: int) -> None:
        """Return when a slot has run a call; see :meth:`Device.call`."""
        now = asyncio.get_running_loop().time()
        slots = self._slots()
        free_at = sorted(self._free_at + [now] * (slots - len(self._free_at)))[-slots:]
        free_at[0] = end = self._end(max(now, free_at[0]), self._cost(n))
        self._free_at = free_at
        await asyncio.sleep(end - now)

    def _end(self, start: float, seconds: float) -> float:
        return start + seconds


class Sliced(Serial):
    """Serial, but works only in the first 50 ms of each 100 ms of the loop's clock."""

    PERIOD, ON = 0.1, 0.05  # seconds
    _ROUNDING = 1e-9  # seconds; a call that ends with a slice does not need the next one for this

    def _end(self, start: float, seconds: float) -> float:
        periods, into = divmod(start, self.PERIOD)
        worked = periods * self.ON + min(into, self.ON) + seconds
        whole = math.ceil((worked - self._ROUNDING) / self.ON) - 1  # slices before the last
        return max(start, whole * self.PERIOD + worked - whole * self.ON)


class Sharing:
    """All calls run at once, and each gets an equal share of the device's speed.

    Parameters
    ----------
    cost
        Asked when a call comes, which is when it starts.
    """

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._count = itertools.count()
        # All calls advance alike, so what each has still to get is told by one sum of all that a
        # call would have got since the device was idle. Each ends at its own height of that sum.
        self._got, self._at = 0.0, 0.0  # seconds of work, at this loop time
        self._running: list[tuple[float, int, asyncio.Future[None]]] = []  # a heap
        self._timer: asyncio.TimerHandle | None = None

    def speed(self, k: int) -> float:
        """Return what ``k`` calls get together, as a multiple of what one gets alone."""
        return 1.0

    async def call(self, model: str, n: int) -> None:
        """Return when the call has got its time; see :meth:`Device.call`."""
        loop = asyncio.get_running_loop()
        self._advance(loop.time())
        ended = loop.create_future()
        height = self._got + self._cost(n)
        heapq.heappush(self._running, (height, next(self._count), ended))
        self._watch()
        await ended

    def _next_end(self) -> float:
        k = len(self._running)
        return self._at + (self._running[0][0] - self._got) * k / self.speed(k)

    def _advance(self, now: float) -> None:
        """Give the calls what they get until ``now``, and end those that have all of it."""
        while self._running and (end := self._next_end()) <= now:
            self._got, _, ended = heapq.heappop(self._running)
            self._at = end
            _release([ended])
        if self._running:
            k = len(self._running)
            self._got += (now - self._at) * self.speed(k) / k
        else:
            self._got = 0.0
        self._at = now

    def _watch(self) -> None:
        """Set the timer to when the next call ends if no other comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running:
            end = self._next_end()
            self._timer = asyncio.get_running_loop().call_at(end, self._ring, end)

    def _ring(self, now: float) -> None:
        self._advance(now)
        self._watch()


class Cores(Sharing):
    """Up to so many calls run at full speed, and more of them share the cores.

    Parameters
    ----------
    cost
        As for :class:`Sharing`.
    cores
        How many there are.
    """

    def __init__(self, cost: Cost, cores: int) -> None:
        super().__init__(cost)
        self._cores = cores

    def speed(self, k: int) -> float:
        """See :meth:`Sharing.speed`."""
        return min(k, self._cores)


class Amdahl(Sharing):
    """Six tenths of each call cannot run beside others, as in Amdahl's law."""

    def speed(self, k: int) -> float:
        """See :meth:`Sharing.speed`."""
        return k / (1 + 0.6 * (k - 1))


class Merging:
    """TensorFlow Serving's own batching, with one batch thread and without a timeout.

    What waits for a model when the device falls idle becomes one call of all their items, and all
    of them end with it. The models take turns.

    Parameters
    ----------
    cost
        Asked when the device starts, for the items of all the calls that it has made one.
    most
        Items in what was made one; a call that has more of them runs by itself.
    """

    def __init__(self, cost: Cost, most: Number = lambda: 32) -> None:
        self._cost = cost
        self._most = most
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}  # by model, in turn
        self._busy = False

    async def call(self, model: str, n: int) -> None:
        """Return when the call that it became part of has ended; see :meth:`Device.call`."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        self._waiting.setdefault(model, deque()).append((n, ended))
        if not self._busy:
            self._start(loop.time())
        await ended

    def _start(self, now: float) -> None:
        """Make one call of what waits for the model whose turn it is."""
        model = next(iter(self._waiting))
        queue = self._waiting.pop(model)
        items, ended = queue.popleft()
        merged, most = [ended], self._most()
        while queue and items + queue[0][0] <= most:
            n, ended = queue.popleft()
            items += n
            merged.append(ended)
        if queue:
            self._waiting[model] = queue  # behind the others
        self._busy = True
        end = now + self._cost(items)
        asyncio.get_running_loop().call_at(end, self._end, end, merged)

    def _end(self, now: float, merged: list[asyncio.Future[None]]) -> None:
        self._busy = False
        _release(merged)
        if self._waiting:
            self._start(now)


def _release(calls: Iterable[asyncio.Future[None]]) -> None:
    """Have the clients go on that have not cancelled their calls."""
    for ended in calls:
        if not ended.done():
            ended.set_result(None)


def make(kind: str, cost: Cost, slots: Number = lambda: 1, most: Number = lambda: 32) -> Device:
    """Return a device that is idle.

    Parameters
    ----------
    kind
        One of those above: serial, sharing, cores:N, amdahl, merging or sliced.
    cost
        Seconds that a call of so many items takes alone.
    slots
        How many calls a serial or a sliced device runs at once.
    most
        How many items a merging device makes one call of.

    Raises
    ------
    ValueError
        There is no such kind.
    """
    match kind.split(":"):
        case ["serial"]:
            return Serial(cost, slots)
        case ["sliced"]:
            return Sliced(cost, slots)
        case ["sharing"]:
            return Sharing(cost)
        case ["cores", number] if number.isdecimal() and int(number) > 0:
            return Cores(cost, int(number))
        case ["amdahl"]:
            return Amdahl(cost)
        case ["merging"]:
            return Merging(cost, most)
    raise ValueError(f"no such kind of device: {kind}")
