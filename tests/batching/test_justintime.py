"""Just-in-time dispatch against a simulated device whose truth the test knows."""

import asyncio
from collections.abc import Sequence

import pytest

from batching import Batcher, FreeSlot, JustInTime
from batching.simulation import Device, Oracle, run_virtually, simulate

spawn = asyncio.ensure_future


def mean(answers: Sequence, since=3.0, until=1e9):
    times = [answer.seconds for answer in answers if since <= answer.at < until]
    return sum(times) / len(times)


def run(device, dispatch, load, seconds=12.0):
    dispatch = Oracle(device) if dispatch is Oracle else dispatch
    return simulate(device, load * device.capacity(32), seconds, dispatch=dispatch)


BACKENDS = {
    "ssd": {"a": 0.02, "b": 0.002, "there": 0.004},
    "fast": {"a": 0.002, "b": 0.00005, "there": 0.015},
    "flat": {"a": 0.05, "b": 0.0002, "there": 0.0005},
}


@pytest.mark.parametrize("load", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nearly_as_good_as_knowing_everything(backend, load):
    """Within a tenth of the oracle on any backend at any load, with nothing set."""
    seconds = min(20, 5000 / load / Device(**BACKENDS[backend]).capacity(32))
    best = run(Device(**BACKENDS[backend]), Oracle, load, seconds)
    ours = run(Device(**BACKENDS[backend]), JustInTime(), load, seconds)
    assert mean(ours, seconds / 2) < 1.1 * mean(best, seconds / 2)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_never_worse_than_one_or_two_in_flight(load, sigma):
    """Whatever it guesses, it costs no more than a tenth over the better of the simple ways."""
    results = {
        name: mean(run(Device(0.02, 0.002, 0.004, sigma=sigma), dispatch, load, 15))
        for name, dispatch in (
            ("one", FreeSlot(1)),
            ("two", FreeSlot(2)),
            ("ours", JustInTime()),
        )
    }
    assert results["ours"] < 1.1 * min(results["one"], results["two"])


@pytest.mark.parametrize(("there", "load"), [(0.0005, 0.25), (0.004, 0.9)])
def test_short_noisy_calls_are_understood_at_once(there, load):
    """A bad first guess does not stand for long, nor are several calls under way at a time taken
    for several devices."""
    device = {"a": 0.002, "b": 0.00005, "there": there, "sigma": 0.3, "seed": 7}
    best = run(Device(**device), Oracle, load, 2.0)
    dispatch = JustInTime()
    ours = run(Device(**device), dispatch, load, 2.0)
    assert dispatch.cost("").slots == 1
    assert mean(ours, 0.5) < 1.2 * mean(best, 0.5)


@pytest.mark.parametrize(
    ("change", "load"),
    [
        ({"a": 0.04, "b": 0.004}, 0.4),
        ({"a": 0.01, "b": 0.001}, 0.9),
        ({"there": 0.0005}, 0.75),
        ({"slots": 2}, 0.9),
    ],
    ids=["twice-as-slow", "twice-as-fast", "no-transport", "one-more-device"],
)
def test_it_is_at_its_best_soon_after_a_change(change, load):
    """Three seconds of traffic after the backend has changed, it is as good as the oracle again."""
    truth = {"a": 0.02, "b": 0.002, "there": 0.015}
    rate = load * Device(**truth).capacity(32)

    class Changing(Device):
        async def process(self, key, items):
            if asyncio.get_running_loop().time() >= 5:
                for name, value in change.items():
                    setattr(self, name, value)
            return await super().process(key, items)

    ours = simulate(Changing(**truth), rate, 12)
    best_device = Device(**{**truth, **change})
    best = simulate(best_device, rate, 12, dispatch=Oracle(best_device))
    assert mean(ours, 8) < 1.15 * mean(best, 8)


def test_a_device_that_hangs_is_not_flooded(virtual, gate, ticks):
    """When calls stop ending, calls stop leaving: the queue waits, not the network."""

    async def main():
        batcher = Batcher(gate.process, max_batch_size=4)
        tasks = []
        for call in range(12):
            tasks.append(spawn(batcher.submit("k", call)))
            await ticks()
            await asyncio.sleep(0.05)
            gate.finish(call)
            await ticks()
        tasks += [spawn(batcher.submit("k", 100 + n)) for n in range(200)]
        await asyncio.sleep(60)
        assert batcher.in_flight <= 4
        await batcher.aclose(timeout=0)
        await asyncio.gather(*tasks, return_exceptions=True)

    virtual(main())


def test_max_in_flight_is_a_limit(virtual, gate, ticks):
    """Whatever was learnt, no more calls than that run at a time."""

    async def main():
        batcher = Batcher(gate.process, max_batch_size=1, dispatch=JustInTime(1))
        tasks = [spawn(batcher.submit(key, n)) for n, key in enumerate("aabb")]
        for call in range(4):
            await ticks()
            assert batcher.in_flight == 1
            gate.finish(call)
        await asyncio.gather(*tasks)

    virtual(main())
    with pytest.raises(ValueError, match="max_in_flight"):
        JustInTime(0)


def test_a_flood_of_one_key_does_not_hold_up_another():
    """Keys take turns by cost: a rare one waits for a batch or so, not for the flood's queue."""
    waits = []

    async def main():
        device = Device(0.02, 0.002)
        batcher = Batcher(device.process, max_queue_size=100_000)
        flood = {spawn(batcher.submit("flood", n)) for n in range(6000)}
        loop = asyncio.get_running_loop()
        for n in range(40):
            await asyncio.sleep(0.37)
            at = loop.time()
            await batcher.submit("rare", n)
            waits.append(loop.time() - at)
        await asyncio.gather(*flood)
        await batcher.aclose()

    run_virtually(main())
    batch, own = 0.02 + 32 * 0.002, 0.02 + 0.002
    assert max(waits[5:]) < 2 * batch + own + 0.005
    assert sum(waits[5:]) / len(waits[5:]) < 1.2 * batch + own


def test_kinds_share_what_is_learnt_and_are_forgotten(virtual, monkeypatch):
    """Keys of one kind have one cost; of too many kinds the one unused for longest goes."""
    monkeypatch.setattr("batching.justintime.KINDS", 2)

    async def main():
        dispatch = JustInTime(kind=lambda key: key[0])
        device = Device(0.01, 0.001)
        batcher = Batcher(device.process, dispatch=dispatch)
        for n in range(5):
            await batcher.submit(("a", n), n)
        assert dispatch.cost(("a", 99)).known
        for n in range(5):
            await batcher.submit(("b", n), n)
        await batcher.submit(("c", 0), 0)
        assert not dispatch.cost(("a", 0)).known
        await batcher.aclose()

    virtual(main())


def test_a_call_that_fails_teaches_nothing(virtual):
    """The time of a failure is not the time of a call."""

    async def fail(key, items):
        await asyncio.sleep(1)
        raise OSError

    async def main():
        dispatch = JustInTime()
        batcher = Batcher(fail, dispatch=dispatch)
        await asyncio.gather(*(batcher.submit("k", n) for n in range(9)), return_exceptions=True)
        assert dispatch.cost("k").fits == 0
        await batcher.aclose()

    virtual(main())
