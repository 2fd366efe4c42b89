"""Threads for the work on pictures, with a cheap way back to the event loop."""

import asyncio
import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["Threads"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NICE = 5  # by which the threads stand behind the event loop where cores are short
LATELY = 0.05  # the weight of the last run in the mean time of one


@dataclass(eq=False, slots=True)
class _Job:
    future: asyncio.Future[Any]
    function: Callable[[], Any] | None
    """None once its caller has left: what it would have worked on is not kept for nobody."""


class Threads:
    """``count`` daemon threads that run functions for one event loop, first come, first served.

    ``loop.run_in_executor`` wakes the loop once a result, and each result passes two futures with
    their locks: 0.1 CPU ms. Here results that come together share one wake-up: 0.04 ms. Made and
    closed on the loop that uses it.
    """

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._waiting: set[_Job] = set()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._woken = False
        self._seconds = 0.0
        self._threads = [
            threading.Thread(target=self._work, name=f"decode-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Functions that wait for a thread."""
        return len(self._waiting)

    @property
    def interval(self) -> float:
        """Seconds from one result to the next while functions wait, as it was lately."""
        return self._seconds / len(self._threads)

    async def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """What ``function(*args)`` returns or raises, run in a thread.

        If the caller is cancelled while the function waits for a thread, it is never run; once it
        runs, it runs to its end, and what it returns is dropped.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        job = _Job(future, lambda: function(*args))
        self._waiting.add(job)
        self._jobs.put(job)
        try:
            return await future
        finally:
            self._waiting.discard(job)
            job.function = None

    def close(self) -> None:
        """Let the threads end after what waits; whoever waits must be cancelled by its caller."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        if sys.platform == "linux":  # elsewhere a niceness is the whole process's
            thread = threading.get_native_id()
            with contextlib.suppress(OSError):
                niceness = os.getpriority(os.PRIO_PROCESS, thread)
                os.setpriority(os.PRIO_PROCESS, thread, min(19, niceness + NICE))
        while (job := self._jobs.get()) is not None:
            self._waiting.discard(job)
            future, function = job.future, job.function
            try:
                if function is not None:
                    began = monotonic()
                    result = function()
                    self._seconds += LATELY * (monotonic() - began - self._seconds)
                    self._hand_over(future, result, None)
                    del result
            except BaseException as error:  # it is the caller's to judge
                self._hand_over(future, None, error)
            del job, future, function  # a picture must not live until the next one comes

    def _hand_over(
        self, future: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        self._done.append((future, result, error))
        if not self._woken:
            # Set before the loop is woken, and reset by it before it looks: nothing is left behind.
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed; nobody waits any more
                self._done.clear()

    def _deliver(self) -> None:
        self._woken = False
        while self._done:
            future, result, error = self._done.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
