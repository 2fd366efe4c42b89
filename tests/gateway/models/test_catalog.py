"""How callers share what is being asked for a model."""

import asyncio

import pytest

from gateway.errors import DeadlineExceededError, ShuttingDownError
from gateway.models import Catalog
from gateway.tfserving import ModelChoice

COLORS = ModelChoice("colors")


class Fetch:
    """Fails when it is let go on; counts."""

    def __init__(self) -> None:
        self.gates = [asyncio.Event(), asyncio.Event()]
        self.count = 0

    async def __call__(self, _):
        gate = self.gates[self.count]
        self.count += 1
        await gate.wait()
        raise DeadlineExceededError("TensorFlow Serving did not answer in time")


async def test_time_that_began_before_ours():
    """Whoever joins a fetch that runs out of time starts one of its own."""
    fetch = Fetch()
    catalog = Catalog(fetch)
    first, second = (asyncio.ensure_future(catalog.get(COLORS)) for _ in range(2))
    await asyncio.sleep(0)
    fetch.gates[0].set()
    with pytest.raises(DeadlineExceededError):
        await first
    assert not second.done()
    fetch.gates[1].set()
    with pytest.raises(DeadlineExceededError):
        await second
    assert fetch.count == 2


async def test_the_end():
    """Who waits is told; who has left is not told anything else than that it has left."""
    fetch = Fetch()
    catalog = Catalog(fetch)
    told, left = (asyncio.ensure_future(catalog.get(COLORS)) for _ in range(2))
    await asyncio.sleep(0)
    left.cancel()
    await catalog.aclose()
    with pytest.raises(ShuttingDownError):
        await told
    with pytest.raises(asyncio.CancelledError):
        await left
