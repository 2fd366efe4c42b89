"""What all simulated devices have in common."""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, TypeVar

__all__ = ["SimulatedDevice"]

T = TypeVar("T")


@dataclass
class SimulatedDevice(ABC):
    """What all kinds have in common.

    All attributes may be changed while it runs; what has begun is not affected. The device does its
    work whatever becomes of the caller, as real ones do.

    Parameters
    ----------
    a, b
        A call of n items is ``a + b * n`` seconds of work.
    there, back
        Seconds of a call on its way, in which the device can run others.
    sigma
        The work varies by a log-normal factor of mean 1 whose logarithm deviates by so much, for
        each call anew. Every item brings its part of a call's deviation, so ways to batch that are
        compared with the same ``seed`` meet the same luck.
    """

    a: float
    b: float
    there: float = 0.0005
    back: float = 0.0005
    _: KW_ONLY
    sigma: float = 0.0
    seed: int = 1

    names: ClassVar[tuple[Hashable, ...]] = (None,)
    """The servers that a batcher is to be told of."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.started = 0
        """Calls that it has been told of."""

    async def process(self, key: object, items: list[T], server: Hashable = None) -> list[T]:
        """Give the items back when the device has run them; to be a batcher's ``process``."""
        self.started += 1
        await self._call(len(items), self._deviation(self._random, len(items)))
        return items

    def service_s(self, size: int) -> float:
        """Seconds of work that a call of ``size`` items is, on average."""
        return self.a + self.b * size

    def capacity(self, max_batch_size: int) -> float:
        """Items a second, in calls of ``max_batch_size``, as many of them at once as help."""
        return self._speed_up() * max_batch_size / self.service_s(max_batch_size)

    @abstractmethod
    async def _call(self, size: int, deviation: float) -> None:
        """Wait until a call that is sent now is answered."""

    def _speed_up(self) -> float:
        """Seconds of work that are done in a second, at most."""
        return 1.0

    def _deviation(self, luck: random.Random, size: int) -> float:
        # The sum of independent normal deviations over its root is one more.
        if not self.sigma:
            return 0.0
        return sum(luck.gauss(0.0, 1.0) for _ in range(size)) / math.sqrt(size)

    def _work(self, size: int, deviation: float) -> float:
        return self.service_s(size) * math.exp(self.sigma * deviation - self.sigma**2 / 2)
