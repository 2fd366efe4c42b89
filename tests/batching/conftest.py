"""Virtual time, and a process whose calls the test ends."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

import pytest

from batching.simulation import VirtualLoop


class Gate:
    """A ``process`` for a batcher: records its calls; each ends when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.servers: list[Hashable] = []
        self.open: list[asyncio.Future[Any]] = []

    async def process(self, key: str, items: list[int], server: Hashable) -> Any:
        self.calls.append((key, list(items)))
        self.servers.append(server)
        future = asyncio.get_running_loop().create_future()
        self.open.append(future)
        return await future

    def finish(self, call: int, outcome: Any = None) -> None:
        """End call number ``call``: with ten times each item, or as told."""
        if isinstance(outcome, BaseException):
            self.open[call].set_exception(outcome)
        else:
            answer = [10 * item for item in self.calls[call][1]] if outcome is None else outcome
            self.open[call].set_result(answer)


@pytest.fixture
def virtual() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine in virtual time, and see that it leaves no task and no timer behind."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        loop = VirtualLoop()
        problems: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        try:
            result = loop.run_until_complete(main)
            loop.run_until_complete(ticks())
            assert not asyncio.all_tasks(loop)
            assert not [timer for timer in loop._scheduled if not timer.cancelled()]
            assert not problems
            return result
        finally:
            loop.close()

    return run


async def ticks(n: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(n):
        await asyncio.sleep(0)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture(name="ticks")
def _ticks() -> Callable[..., Coroutine[Any, Any, None]]:
    return ticks
