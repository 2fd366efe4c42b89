"""The kinds of simulated devices: when calls end that meet there."""

import asyncio
import itertools
import random

import pytest

from batching.simulation import (
    Amdahl,
    Bent,
    Cores,
    Device,
    Foreign,
    Merging,
    Servers,
    Sharing,
    Sliced,
    Stepped,
    run_virtually,
)

AT_ONCE = {"there": 0.0, "back": 0.0}
SERIAL = {
    "slots": Device,
    "steps": Stepped,
    "bent": lambda *args, **more: Bent(*args, quadratic=0.0, **more),
    "sliced": lambda *args, **more: Sliced(*args, quota=1.0, period=1.0, **more),
    "foreign": lambda *args, **more: Foreign(*args, share=0.0, **more),
}
KINDS = SERIAL | {"sharing": Sharing, "cores": Cores, "amdahl": Amdahl, "merging": Merging}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def ends(device, *calls):
    """When calls end, each given as when it is sent, how many items it has, and its server."""

    async def call(at, size, server=None):
        await asyncio.sleep(at)
        assert await device.process("", list(range(size)), server) == list(range(size))
        return asyncio.get_running_loop().time()

    async def main():
        return await asyncio.gather(*(call(*one) for one in calls))

    return pytest.approx(run_virtually(main()), abs=1e-9)


def test_serial():
    """A call waits for those that were sent before."""
    assert ends(Device(1.0, 0.5, 0.25, 0.125), (0, 2), (1, 4), (10, 2)) == [2.375, 5.375, 12.375]


def test_serial_with_slots():
    """Calls wait for the slot that is free first."""
    device = Device(1.0, 0.5, **AT_ONCE, slots=2)
    assert ends(device, (0, 2), (0.5, 4), (1, 2)) == [2.0, 3.5, 4.0]


def test_sharing():
    """Each is as much slower as there are others, from when they come to when they go."""
    # From 1 to 3 two share; then one is alone until the third comes, with half a second left.
    assert ends(Sharing(1.0, 1.0, **AT_ONCE), (0, 1), (1, 1), (3.5, 3)) == [3.0, 4.5, 8.0]


def test_sharing_is_of_the_device_not_of_the_way():
    """Calls do not slow each other down while they travel."""
    assert ends(Sharing(1.0, 1.0, 0.5, 0.25), (0, 1), (2.25, 1)) == [2.75, 5.0]


def test_cores():
    """As many calls as there are cores do not notice each other; one more slows all down."""
    device = Cores(1.0, 1.0, **AT_ONCE, cores=2)
    assert ends(device, (0, 1), (0, 1), (1, 1)) == [2.5, 2.5, 3.5]


def test_amdahl():
    """Two together get 1.25 times as much done as one, three 3 / 2.2 times."""
    assert ends(Amdahl(1.0, 1.0, **AT_ONCE), (0, 1), (1, 1)) == [2.6, 3.6]
    assert ends(Amdahl(1.0, 1.0, **AT_ONCE), (0, 1), (0, 1), (0, 1)) == [4.4] * 3


def test_merging():
    """What waits is one call, as large as it may be, in the order in which it came."""
    calls = (0, 1), (0.5, 2), (1, 3), (1.5, 1)
    assert ends(Merging(1.0, 1.0, **AT_ONCE), *calls) == [2.0, 9.0, 9.0, 9.0]
    assert ends(Merging(1.0, 1.0, **AT_ONCE, max_merged=4), *calls) == [2.0, 5.0, 10.0, 10.0]


def test_merging_cuts_no_call():
    """One that is larger than what may be merged runs alone."""
    device = Merging(1.0, 1.0, **AT_ONCE, max_merged=2)
    assert ends(device, (0, 1), (0.5, 5), (1, 1)) == [2.0, 8.0, 10.0]


def test_steps():
    """A call costs what the next larger size does, and what it is itself beyond the largest."""
    for size, padded in (1, 1), (2, 8), (8, 8), (9, 32), (32, 32), (33, 33):
        assert ends(Stepped(1.0, 0.5, 0.25, 0.125), (0, size)) == [1.375 + 0.5 * padded]
    assert ends(Stepped(1.0, 0.5, **AT_ONCE), (0, 2), (1, 1)) == [5.0, 6.5]


def test_bent():
    """Large calls cost more than in proportion."""
    assert ends(Bent(1.0, 0.5, **AT_ONCE, quadratic=0.01), (0, 10), (0, 2)) == [7.0, 9.04]


@pytest.mark.parametrize(
    ("sent", "work", "end"),
    [
        (0.0, 0.5, 0.5),  # within its slice
        (0.25, 0.5, 1.25),  # the rest in the next
        (0.75, 0.5, 1.5),  # comes while nothing runs
        (0.0, 1.5, 2.5),  # whole slices, and no pause after the last
        (0.25, 1.0, 2.25),
    ],
)
def test_sliced(sent, work, end):
    """Half of each second it does not work."""
    device = Sliced(work, 0.0, **AT_ONCE, quota=0.5, period=1.0)
    assert ends(device, (sent, 1)) == [end]


def test_sliced_calls_follow_each_other():
    """The next begins where the one before ended, and is interrupted as well."""
    device = Sliced(0.25, 0.0625, **AT_ONCE, quota=0.5, period=1.0)
    assert ends(device, (0, 1), (0.125, 1), (2.9, 4)) == [0.3125, 1.125, 3.5]


def test_foreign():
    """Calls of others are served in the order in which they come between ours."""
    device = Foreign(0.5, 0.125, 0.25, 0.125, share=0.5, foreign_size=4, seed=3)
    theirs = random.Random(3 + 9)
    free, comes = 0.0, theirs.expovariate(0.5)
    expected = []
    for sent in (1.0, 9.0, 9.5):
        while comes <= sent + 0.25:
            free = max(free, comes) + 1.0
            comes += theirs.expovariate(0.5)
        free = max(free, sent + 0.25) + 0.75
        expected.append(free + 0.125)
    assert ends(device, (1.0, 2), (9.0, 2), (9.5, 2)) == expected
    assert any(end - sent > 1.125 for end, sent in zip(expected, (1.0, 9.0), strict=True))


def test_foreign_calls_take_their_share():
    """Ours wait as long as queueing theory says (Pollaczek and Khinchine) for so much traffic."""
    device = Foreign(1.0, 0.0, **AT_ONCE, share=0.4)

    async def main():
        loop, chance, waited = asyncio.get_running_loop(), random.Random(1), 0.0
        for _ in range(4000):
            await asyncio.sleep(chance.expovariate(1 / 50))
            before = loop.time()
            assert device.free >= 0
            await device.process("", [None])
            waited += loop.time() - before - 1.0
        return waited / 4000

    assert run_virtually(main()) == pytest.approx(0.4 / (2 * 0.6), rel=0.05)


def test_foreign_calls_may_begin_later():
    """Before there was a share, nobody else came."""
    device = Foreign(1.0, 0.0, **AT_ONCE, share=0.0)

    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(10):
            await device.process("", [None])
        quiet = loop.time()
        await asyncio.sleep(1000.0)
        await device.process("", [None])
        device.share, begun = 0.5, loop.time()
        for _ in range(200):
            await device.process("", [None])
        return quiet, loop.time() - begun

    quiet, busy = run_virtually(main())
    assert quiet == pytest.approx(10.0)
    assert busy == pytest.approx(400.0, rel=0.1)


def test_servers():
    """Each is a device of its own, and they do not wait for each other."""
    servers = Servers({"fast": Device(1.0, 0.0, **AT_ONCE), "slow": Sharing(3.0, 0.0, **AT_ONCE)})
    calls = (0, 1, "fast"), (0, 1, "slow"), (0.5, 1, "fast"), (1.5, 1, "slow")
    assert ends(servers, *calls) == [1.0, 4.5, 2.0, 6.0]
    assert servers.names == ("fast", "slow")
    assert servers.started == 4
    assert servers.capacity(6) == pytest.approx(6 + 2)
    with pytest.raises(ValueError, match="at least one"):
        Servers({})


@kinds
def test_a_call_alone(kind):
    """Takes its way there, its work and its way back, on every kind."""
    device = kind(1.0, 0.5, 0.25, 0.125)
    assert ends(device, (0, 8), (10, 1), (20, 8)) == [5.375, 11.875, 25.375]
    assert device.started == 3
    assert device.names == (None,)


@kinds
def test_the_same_luck_on_every_kind(kind):
    """Of calls one at a time, whatever their size: that of their items."""
    calls = [(10 * n, size) for n, size in enumerate((1, 8, 1, 32))]
    kind_of_device, serial = (make(0.1, 0.01, sigma=0.3, seed=5) for make in (kind, Device))
    assert ends(kind_of_device, *calls) == ends(serial, *calls).expected
    assert ends(kind(0.1, 0.01, seed=5), *calls) != ends(Device(0.1, 0.01, sigma=0.3), *calls)


def test_calls_that_are_merged_have_the_luck_of_one():
    """The one call of the items that waited deviates as if they had been sent together."""
    merged = ends(Merging(1.0, 0.1, **AT_ONCE, sigma=0.3), (0, 1), (0.01, 2), (0.02, 3)).expected
    together = ends(Device(1.0, 0.1, **AT_ONCE, sigma=0.3), (0, 1), (0.01, 5)).expected
    assert merged == pytest.approx([together[0], together[1], together[1]])


@kinds
def test_costs_change_while_it_runs(kind):
    """What has begun goes on as it did; what comes later costs what is said by then."""
    device = kind(1.0, 0.0, **AT_ONCE)

    async def main():
        loop = asyncio.get_running_loop()
        first = loop.create_task(device.process("", [None]))
        await asyncio.sleep(0.5)
        device.a, device.there = 2.0, 0.25
        await first
        ended = loop.time()
        await device.process("", [None])
        return ended, loop.time()

    assert run_virtually(main()) == pytest.approx((1.0, 3.25))


def test_slots_and_cores_change_while_they_run():
    """One more takes effect with the next call, and one less too."""
    device = Device(1.0, 0.0, **AT_ONCE)
    assert ends(device, (0, 1), (0, 1)) == [1.0, 2.0]
    device = Device(1.0, 0.0, **AT_ONCE)
    device.slots = 2
    assert ends(device, (0, 1), (0, 1), (0, 1)) == [1.0, 1.0, 2.0]
    cores = Cores(1.0, 0.0, **AT_ONCE, cores=2)
    cores.cores = 1
    assert ends(cores, (0, 1), (0, 1)) == [2.0, 2.0]


@kinds
def test_a_caller_that_leaves_takes_no_work_away(kind):
    """The device works on for nobody, and its next call meets that."""
    device = kind(1.0, 0.0, **AT_ONCE)

    async def main():
        loop = asyncio.get_running_loop()
        gone = loop.create_task(device.process("", [None]))
        waits = loop.create_task(device.process("", [None]))
        await asyncio.sleep(0.5)
        gone.cancel()
        await waits
        assert gone.cancelled()
        return loop.time()

    met = {Sharing: 2.0, Cores: 1.0, Amdahl: 1.6}
    assert run_virtually(main()) == pytest.approx(met.get(kind, 2.0))


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Device(0.02, 0.002, slots=3), 3 * 32 / 0.084),
        (Stepped(0.02, 0.002, steps=(1, 64)), 32 / 0.148),
        (Bent(0.02, 0.002), 32 / 0.1864),
        (Sliced(0.02, 0.002, quota=0.03), 0.3 * 32 / 0.084),
        (Foreign(0.02, 0.002, share=0.25), 0.75 * 32 / 0.084),
        (Sharing(0.02, 0.002), 32 / 0.084),
        (Cores(0.02, 0.002), 4 * 32 / 0.084),
        (Amdahl(0.02, 0.002), 32 / 0.084 / 0.6),
        (Merging(0.02, 0.002), 32 / 0.084),
    ],
    ids=lambda value: type(value).__name__,
)
def test_capacity(device, expected):
    """What it gets done in full batches."""
    assert device.capacity(32) == pytest.approx(expected)


@pytest.mark.parametrize("kind", [Sharing, Cores, Amdahl])
def test_a_device_that_is_shared_loses_no_work(kind):
    """Whatever meets there: what is done in the time that it is busy is all of it."""
    device, luck = kind(0.0, 1.0, **AT_ONCE), random.Random(4)
    calls = [(luck.uniform(0, 50), luck.randrange(1, 5)) for _ in range(40)]
    events = sorted(
        [(at, 1) for at, _ in calls] + [(end, -1) for end in ends(device, *calls).expected]
    )
    done, running = 0.0, 0
    for (at, change), (until, _) in itertools.pairwise(events):
        running += change
        done += (until - at) * (device.speed(running) if running else 0.0)
    assert done == pytest.approx(sum(size for _, size in calls))
