"""A batch waits for company while the machine that prepares its items is the bottleneck."""

import asyncio

import pytest

from batching import Batcher, JustInTime, Upcoming
from batching.simulation import Device

spawn = asyncio.ensure_future


@pytest.mark.parametrize(
    ("items", "interval", "company"),
    [(0, 0.001, 1), (1, 0.01, 1), (5, 0.0, 1), (12, 0.001, 6), (48, 0.001, 12), (48, 0.004, 6)],
)
def test_the_square_root_of_what_comes(items, interval, company):
    """Four times as many upcoming, or four times as fast, make a batch twice as large."""
    assert Upcoming(items, interval).company() == company


class Machine:
    """Prepares one item every ``interval`` seconds and submits it."""

    def __init__(self, dispatch=None, interval=0.001):
        self.left, self.interval, self.sizes = 0, interval, []
        self.device = Device(0.002, 0.0, there=0.0, back=0.0)
        upcoming = JustInTime(upcoming=lambda: Upcoming(self.left, interval))
        self.batcher = Batcher(self.process, dispatch=dispatch or upcoming)

    async def process(self, key, items):
        self.sizes.append(len(items))
        return await self.device.process(key, items)

    async def run(self, count):
        self.left, tasks = count, []
        for n in range(count):
            await asyncio.sleep(self.interval)
            self.left -= 1
            tasks.append(spawn(self.batcher.submit("k", n)))
        return await asyncio.gather(*tasks)


def test_many_upcoming_make_larger_batches(virtual):
    """The device is idle half of the time, but calls are fewer by far; nothing is left behind."""

    async def main():
        alone, company = Machine(JustInTime()), Machine()
        assert await alone.run(100) == list(range(100))
        assert await company.run(100) == list(range(100))
        assert max(alone.sizes) <= 3
        assert len(company.sizes) < len(alone.sizes) / 3
        assert company.sizes[-1] < 5  # towards the end there is nobody to wait for

    virtual(main())


def test_patience_ends(virtual):
    """Company that does not come is waited for no longer than it should have taken."""

    async def main():
        loop = asyncio.get_running_loop()
        machine = Machine()
        machine.left = 48  # 12 are waited for, and they should come within 12 ms
        await machine.batcher.submit("k", 0)
        assert loop.time() == pytest.approx(0.012 + 0.002)
        machine.left = 0
        await machine.batcher.submit("k", 0)
        assert loop.time() == pytest.approx(0.014 + 0.002)

    virtual(main())


def test_who_has_company_goes_first(virtual):
    """A key that still waits for company does not keep another from leaving."""

    async def main():
        machine, loop = Machine(), asyncio.get_running_loop()
        machine.left = 48
        rare = spawn(machine.batcher.submit("rare", 0))
        await asyncio.sleep(0)
        await asyncio.gather(*(machine.batcher.submit("many", n) for n in range(12)))
        assert loop.time() == pytest.approx(0.002)
        assert machine.sizes == [12]
        await rare

    virtual(main())


def test_closing_ends_the_wait(virtual):
    """aclose() sends what is there at once."""

    async def main():
        machine = Machine()
        machine.left = 48
        task = spawn(machine.batcher.submit("k", 7))
        await asyncio.sleep(0)
        await machine.batcher.aclose()
        assert await task == 7
        assert asyncio.get_running_loop().time() == pytest.approx(0.002)

    virtual(main())


class Lane:
    in_flight, max_batch_size = 0, 32

    def __init__(self, key, depth, oldest):
        self.key, self.depth, self.oldest = key, depth, oldest


def test_patience_ends_beside_a_crowd():
    """A key whose patience is over has its fair turn, however many others have company."""
    dispatch = JustInTime(upcoming=lambda: Upcoming(48, 0.001))
    crowd, rare = Lane("many", 32, 9.99), Lane("rare", 1, 0.0)
    chosen = []
    for _ in range(4):
        lane, at = dispatch.next([crowd, rare], 10.0)
        assert at <= 10.0
        chosen.append(lane.key)
        dispatch.ended(dispatch.sent(lane, lane.depth, 10.0), 10.01, failed=False)
    assert "rare" in chosen
