"""The simulation itself: its clock and its device."""

import asyncio
import itertools
import math

import pytest

from batching import FreeSlot
from batching.simulation import Device, run_virtually, simulate


def test_a_deadlock_is_an_error():
    """Waiting for what never comes ends at once, where a real clock would wait for ever."""

    async def main():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="deadlock"):
        run_virtually(main())


def test_a_device_takes_its_time():
    """Calls queue for the slots, and travel there and back."""

    async def main():
        device = Device(a=1.0, b=0.1, there=0.25, back=0.125, slots=2)
        loop = asyncio.get_running_loop()
        ends = []

        async def call(size):
            await device.process(None, [None] * size)
            ends.append(loop.time())

        await asyncio.gather(call(10), call(5), call(1))
        return ends

    assert run_virtually(main()) == pytest.approx([0.25 + 1.5 + 0.125, 2.375, 1.75 + 1.1 + 0.125])


def test_noise_has_mean_one():
    """Random times are right on average, and the same for the same seed."""

    async def main(seed):
        device = Device(a=1.0, b=0.0, sigma=0.3, seed=seed)
        for _ in range(2000):
            await device.process(None, [None])
        return asyncio.get_running_loop().time() / 2000

    assert run_virtually(main(1)) == run_virtually(main(1)) == pytest.approx(1.001, rel=0.02)
    assert run_virtually(main(2)) != run_virtually(main(1))


def test_traffic_comes_at_the_rate_that_was_asked_for():
    """Every item is answered, and about as many come as were asked for."""
    answers = simulate(Device(0.01, 0.0), 200, 10, dispatch=FreeSlot(1))
    assert len(answers) == pytest.approx(2000, rel=0.1)
    assert min(answer.seconds for answer in answers) == pytest.approx(0.011)
    assert max(answer.at for answer in answers) <= 10


def test_noise_is_of_the_items_however_they_were_batched():
    """Each call deviates by as much, whatever its size; and the same items by the same, so that two
    ways to batch can be compared."""

    def durations(*sizes):
        device = Device(a=1.0, b=0.0, there=0.0, back=0.0, sigma=0.3, seed=3)

        async def main():
            loop = asyncio.get_running_loop()
            times = []
            for size in sizes:
                began = loop.time()
                await device.process(None, [None] * size)
                times.append(loop.time() - began)
            return times

        return run_virtually(main())

    assert durations(8, 4)[1] == pytest.approx(durations(2, 5, 1, 4)[3])
    for size in (1, 16):
        logs = [math.log(one) for one in durations(*[size] * 3000)]
        mean = sum(logs) / len(logs)
        assert mean == pytest.approx(-0.045, abs=0.02)
        deviation = math.sqrt(sum((one - mean) ** 2 for one in logs) / len(logs))
        assert deviation == pytest.approx(0.3, rel=0.05)
        lagged = sum((x - mean) * (y - mean) for x, y in itertools.pairwise(logs)) / len(logs)
        assert abs(lagged) < 0.05 * 0.09
