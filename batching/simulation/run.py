"""Traffic for batchers in front of simulated devices, in virtual time.

The batchers and what decides for them are the real ones; only the clock and the devices are not.
"""

import asyncio
import random
from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from batching.batcher import Batcher
from batching.dispatch import Dispatch
from batching.simulation.clock import run_virtually

__all__ = ["Answer", "Backend", "CollapsedError", "bursts", "closed_loop", "simulate"]

T = TypeVar("T")

CLIENTS_BEGIN_S = (
    0.1  # within which the clients of a closed loop begin, so that they are not in step
)


class Answer(NamedTuple):
    """When an item came, and after how many seconds it had its result."""

    at: float
    seconds: float


class CollapsedError(Exception):
    """More items were inside than was allowed."""


class Backend(Protocol):
    """What batchers are put in front of: a device, or several as ``Servers``."""

    @property
    def names(self) -> tuple[Hashable, ...]:
        """The servers that a batcher is to be told of."""

    @property
    def seed(self) -> int:
        """Tells what is left to chance, the traffic too."""

    async def process(self, key: object, items: list[T], server: Hashable) -> list[T]:
        """See :data:`batching.Process`."""


def simulate(
    device: Backend,
    rate: float,
    seconds: float,
    *,
    max_batch_size: int = 32,
    dispatch: Dispatch | Sequence[Dispatch] | None = None,
    max_inside: int | None = None,
) -> list[Answer]:
    """Submit ``rate`` items a second at random (Poisson) for ``seconds``; return all answers.

    Parameters
    ----------
    dispatch
        What decides. Several make as many batchers, and each item goes to one of them at random; it
        comes at the same time, however many there are. By default one ``JustInTime``.
    max_inside
        Items that may be inside at a time.

    Raises
    ------
    CollapsedError
        More than ``max_inside`` were; raised at once.
    """

    async def main() -> list[Answer]:
        loop = asyncio.get_running_loop()
        batchers = _Batchers(device, max_batch_size, dispatch)
        arrivals, choice = random.Random(device.seed + 1), random.Random(device.seed + 2)
        inside: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is None:  # else it is raised in the end
                inside.discard(task)

        while (wait := arrivals.expovariate(rate)) <= seconds - loop.time():
            await asyncio.sleep(wait)
            task = loop.create_task(batchers.submit(choice.randrange(len(batchers))))
            inside.add(task)
            task.add_done_callback(ended)
            if max_inside is not None and len(inside) > max_inside:
                await batchers.give_up(inside)
                raise CollapsedError(f"more than {max_inside} items inside at {loop.time():.3f} s")
        await asyncio.sleep(0)  # the last of them has yet to submit
        await batchers.aclose()
        await asyncio.gather(*inside)
        return batchers.answers

    return run_virtually(main())


def closed_loop(
    device: Backend,
    clients: int,
    think_s: float,
    seconds: float,
    *,
    max_batch_size: int = 32,
    dispatch: Dispatch | Sequence[Dispatch] | None = None,
) -> list[Answer]:
    """Have each of ``clients`` submit its next item ``think_s`` after it had the last answer.

    The pauses are exponential with that mean, or 0; each client's are the same, however fast it is
    answered. None is begun after ``seconds``. Several batchers take turns in getting clients.
    """

    async def main() -> list[Answer]:
        loop = asyncio.get_running_loop()
        batchers = _Batchers(device, max_batch_size, dispatch)

        async def client(number: int) -> None:
            pauses = random.Random(f"{device.seed} {number}")
            await asyncio.sleep(CLIENTS_BEGIN_S * pauses.random())
            while loop.time() < seconds:
                await batchers.submit(number % len(batchers))
                await asyncio.sleep(pauses.expovariate(1 / think_s) if think_s else 0)

        await asyncio.gather(*(client(number) for number in range(clients)))
        await batchers.aclose()
        return batchers.answers

    return run_virtually(main())


def bursts(
    device: Backend,
    offsets: Sequence[float],
    count: int,
    *,
    pause_s: float = 1.0,
    max_batch_size: int = 32,
    dispatch: Dispatch | Sequence[Dispatch] | None = None,
) -> list[Answer]:
    """Submit one item at each of ``offsets`` seconds, ``count`` times, to a device that is idle.

    All times count from the beginning of a burst; the next one begins ``pause_s`` after the last
    answer of the one before. Several batchers take turns in getting items.
    """

    async def main() -> list[Answer]:
        loop = asyncio.get_running_loop()
        batchers = _Batchers(device, max_batch_size, dispatch)

        async def one(began: float, offset: float, batcher: int) -> None:
            await asyncio.sleep(offset)
            await batchers.submit(batcher, since=began)

        for _ in range(count):
            began = loop.time()
            await asyncio.gather(
                *(one(began, offset, n % len(batchers)) for n, offset in enumerate(offsets))
            )
            await asyncio.sleep(pause_s)
        await batchers.aclose()
        return batchers.answers

    return run_virtually(main())


class _Batchers:
    """Batchers in front of one device, and how long their answers took."""

    def __init__(
        self, device: Backend, max_batch_size: int, dispatch: Dispatch | Sequence[Dispatch] | None
    ) -> None:
        self._batchers: list[Batcher[str, None, None]] = [
            Batcher(
                device.process,
                servers=lambda _: device.names,
                max_batch_size=max_batch_size,
                max_queue_size=1 << 30,
                dispatch=each,
            )
            for each in (dispatch if isinstance(dispatch, Sequence) else (dispatch,))
        ]
        self.answers: list[Answer] = []

    def __len__(self) -> int:
        return len(self._batchers)

    async def submit(self, batcher: int, *, since: float | None = None) -> None:
        """Wait for an answer, and note its time: by default since now."""
        loop = asyncio.get_running_loop()
        at = loop.time() if since is None else since
        await self._batchers[batcher].submit("", None)
        self.answers.append(Answer(at, loop.time() - at))

    async def aclose(self) -> None:
        """Wait until all is answered."""
        for batcher in self._batchers:
            await batcher.aclose()

    async def give_up(self, inside: set[asyncio.Task[None]]) -> None:
        """Leave nothing behind, without waiting for any answer."""
        for task in inside:
            task.cancel()
        await asyncio.gather(*inside, return_exceptions=True)
        for batcher in self._batchers:
            await batcher.aclose(timeout=0)
