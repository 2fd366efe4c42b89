"""An event loop on which waiting takes no time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["VirtualLoop", "run_virtually"]

T = TypeVar("T")


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
