"""The simulation itself: its clock, its noise and its traffic."""

import asyncio
import gc
import itertools
import math

import pytest

from batching import BatchFailedError, FreeSlot
from batching.simulation import (
    CollapsedError,
    Cores,
    Device,
    Oracle,
    Servers,
    bursts,
    closed_loop,
    run_virtually,
    simulate,
)


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


def test_several_batchers_share_what_comes():
    """The same items come at the same times; each batcher gets its part, and pays for its calls."""
    runs = {}
    for count in (1, 2, 4):
        device = Device(0.02, 0.002)
        answers = simulate(device, 100, 5, dispatch=[FreeSlot(1) for _ in range(count)])
        runs[count] = sorted(answer.at for answer in answers), device.started
    assert runs[1][0] == runs[2][0] == runs[4][0]
    assert runs[1][1] < runs[2][1] < runs[4][1]


def test_one_dispatch_is_a_list_of_one():
    """Nothing depends on which way it is said."""
    one, listed = (
        simulate(Device(0.02, 0.002, sigma=0.3), 100, 5, dispatch=dispatch)
        for dispatch in (FreeSlot(2), [FreeSlot(2)])
    )
    assert one == listed


class Alternating(FreeSlot):
    """Sends to each server in turn, whatever is in flight."""

    calls = 0

    def sent(self, queue, server, size, now):
        type(self).calls += 1

    def next(self, queues, now):
        departure = super().next(queues, now)
        servers = departure.queue.servers
        return departure._replace(server=servers[self.calls % len(servers)])


def test_several_servers_are_told_apart():
    """The batcher knows them by name, and each runs what it is sent."""
    devices = {name: Device(0.01, 0.0) for name in "xyz"}
    answers = simulate(Servers(devices), 100, 3, max_batch_size=1, dispatch=Alternating(64))
    counts = [device.started for device in devices.values()]
    assert sum(counts) == len(answers) > 200
    assert max(counts) - min(counts) <= 1


def test_what_goes_wrong_is_raised():
    """A simulation in which items got no answer has no result."""

    class Broken(Device):
        async def process(self, key, items, server=None):
            if self.started == 5:
                raise OSError("broken")
            return await super().process(key, items, server)

    with pytest.raises(BatchFailedError, match="broken"):
        simulate(Broken(0.01, 0.0), 100, 3, dispatch=FreeSlot(1))


def test_a_collapse_ends_it_at_once(caplog):
    """More inside than was allowed is an error, and nothing is left running."""
    device = Device(0.1, 0.0)
    with pytest.raises(CollapsedError, match="more than 50 items inside at 0"):
        simulate(device, 100, 1e9, max_batch_size=1, dispatch=FreeSlot(1), max_inside=50)
    gc.collect()
    assert not caplog.records  # of tasks that were destroyed while they ran
    assert len(simulate(Device(0.01, 0.0), 50, 2, dispatch=FreeSlot(1), max_inside=50)) > 50


def test_an_oracle_is_never_late_nor_early():
    """A batch arrives as the device falls idle: always busy, and the batch as large as can be."""
    rate = 0.8 * Device(0.02, 0.002).capacity(8)

    def total(device, dispatch):
        answers = simulate(device, rate, 5, max_batch_size=8, dispatch=dispatch)
        return sum(answer.seconds for answer in answers)

    best = total(device := Device(0.02, 0.002, there=0.004), Oracle(device))
    assert all(best < 0.95 * total(Device(0.02, 0.002, 0.004), FreeSlot(k)) for k in (1, 2, 3))


def test_clients_that_wait_for_their_answers():
    """Each has one item inside at most: two at a serial device take turns, three in a call."""
    answers = closed_loop(Device(0.1, 0.0), 2, 0.0, 10.0, max_batch_size=1, dispatch=FreeSlot(8))
    assert len(answers) == pytest.approx(100, abs=2)
    assert all(answer.seconds == pytest.approx(0.2, abs=2e-3) for answer in answers[4:-2])
    answers = closed_loop(Device(0.1, 0.0), 3, 0.0, 10.0, dispatch=FreeSlot(1))
    assert len(answers) == pytest.approx(3 * 100 / 2, abs=3)  # one and two take turns
    assert max(answer.at for answer in answers) < 10
    answers = closed_loop(
        Cores(0.1, 0.0, cores=2), 2, 0.0, 10.0, max_batch_size=1, dispatch=[FreeSlot(1)] * 2
    )
    assert len(answers) == pytest.approx(2 * 100, abs=3)  # each has a batcher of its own


def test_clients_think():
    """A pause of their own is between an answer and the next item, whoever else there is."""
    seconds = 2000.0
    alone = closed_loop(Cores(1.0, 0.0, cores=9), 1, 3.0, seconds, dispatch=FreeSlot(9))
    several = closed_loop(
        Cores(1.0, 0.0, cores=9), 4, 3.0, seconds, max_batch_size=1, dispatch=[FreeSlot(9)] * 2
    )
    assert len(alone) == pytest.approx(seconds / 4.001, rel=0.1)
    assert len(several) == pytest.approx(4 * seconds / 4.001, rel=0.1)
    assert all(answer.seconds == pytest.approx(1.001) for answer in alone + several)


def test_a_burst_finds_an_idle_device():
    """Times count from its beginning, whenever an item comes; the next finds it idle again."""
    device = Device(1.0, 0.25, 0.0, 0.0)
    answers = bursts(device, [0.0, 0.5, 0.75], 2, pause_s=10.0, dispatch=FreeSlot(1))
    assert [answer.seconds for answer in answers] == pytest.approx([1.25, 2.75, 2.75] * 2)
    assert [answer.at for answer in answers] == pytest.approx([0.0] * 3 + [12.75] * 3)
    split = bursts(Device(1.0, 0.25, 0.0, 0.0), [0.0, 0.25], 1, dispatch=[FreeSlot(1), FreeSlot(1)])
    assert [answer.seconds for answer in split] == pytest.approx([1.25, 2.5])
