"""Batches that wait for items that are known to come soon."""

import asyncio

import pytest

from batching import Batcher, Inbound, JustInTime
from batching.simulation import (
    Device,
    bursts,
    closed_loop,
    run_virtually,
    simulate,
)
from tests.batching.adaptive.worlds import USUAL, Queue

spawn = asyncio.ensure_future


def test_clients_that_come_back_share_one_call():
    """Eight that wait for their answers have nearly what one call a round for all would give."""
    answers = closed_loop(Device(**USUAL), 8, 0.001, 12.0)
    late = [answer for answer in answers if answer.at > 5.0]
    last = sum(1 / n for n in range(1, 9)) * 0.001  # the mean of the longest of eight pauses
    round_s = 0.02 + 8 * 0.002 + 0.004 + 0.0005 + last
    assert len(late) / 7.0 > 0.9 * 8 / round_s


def test_a_burst_that_is_inbound_is_one_call_or_two():
    """Sixteen items that a machine prepares one after the other are waited for."""
    left = 0
    sizes = []

    async def main():
        nonlocal left
        device = Device(**USUAL)

        async def process(key, items, server):
            sizes.append(len(items))
            return await device.process(key, items, server)

        dispatch = JustInTime(inbound=lambda: Inbound(left, 0.0006))
        batcher = Batcher(process, dispatch=dispatch)
        for n in range(20):  # what calls cost is learnt
            await asyncio.gather(*(batcher.submit("k", n) for n in range(1 + n % 4)))
        for _ in range(10):
            sizes.clear()
            left, tasks = 16, []
            for n in range(16):
                await asyncio.sleep(0.0006)
                left -= 1
                tasks.append(spawn(batcher.submit("k", n)))
            await asyncio.gather(*tasks)
            assert len(sizes) <= 2
            await asyncio.sleep(0.5)
        await batcher.aclose()

    run_virtually(main())


def test_traffic_at_random_is_not_held_back():
    """Where nobody is known to come, an item that finds an idle device leaves at once."""
    answers = simulate(Device(**USUAL), 2.0, 60)
    idle = [answer.seconds for answer in answers if answer.at > 5]
    assert sorted(idle)[len(idle) // 2] == pytest.approx(0.0265, abs=1e-4)


def test_a_burst_of_one_tick_is_one_call():
    """With nothing inbound, those who came together leave together."""
    device = Device(**USUAL)
    bursts(device, [0.0] * 8, 10)
    assert device.started == 10


class Machine:
    """Prepares one item every ``interval`` seconds and submits it."""

    def __init__(self, dispatch=None, interval=0.001):
        self.left, self.interval, self.sizes = 0, interval, []
        self.device = Device(0.002, 0.0, there=0.0, back=0.0)
        inbound = JustInTime(inbound=lambda: Inbound(self.left, interval))
        self.batcher = Batcher(self.process, dispatch=dispatch or inbound)

    async def process(self, key, items, server):
        self.sizes.append(len(items))
        return await self.device.process(key, items)

    async def run(self, count):
        self.left, tasks = count, []
        for n in range(count):
            await asyncio.sleep(self.interval)
            self.left -= 1
            tasks.append(spawn(self.batcher.submit("k", n)))
        return await asyncio.gather(*tasks)


def test_many_inbound_make_larger_batches(virtual):
    """The device is idle half of the time, but calls are fewer by far; nothing is left behind."""

    async def main():
        alone, company = Machine(JustInTime()), Machine()
        assert await alone.run(100) == list(range(100))
        assert await company.run(100) == list(range(100))
        assert max(alone.sizes) <= 4
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


def test_patience_ends_beside_a_crowd():
    """A key whose patience is over has its fair turn, however many others have company."""
    dispatch = JustInTime(inbound=lambda: Inbound(48, 0.001))
    crowd, rare = Queue("many", 32, 9.99), Queue("rare", 1)
    chosen = []
    for _ in range(4):
        queue, server, at, _ = dispatch.next([crowd, rare], 10.0)
        assert at <= 10.0
        chosen.append(queue.key)
        dispatch.ended(dispatch.sent(queue, server, queue.depth, 10.0), 10.01, failed=False)
    assert "rare" in chosen
