"""What the dispatch keeps to, whatever it has learnt."""

import asyncio
from dataclasses import replace

import pytest

from batching import Batcher, JustInTime
from batching.adaptive.tuning import TUNING
from batching.simulation import (
    Device,
)
from tests.batching.adaptive.worlds import ZOO, run

spawn = asyncio.ensure_future


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


def test_kinds_share_what_is_learnt(virtual):
    """Keys of one kind have one cost."""

    async def main():
        dispatch = JustInTime(kind=lambda key: key[0])
        batcher = Batcher(Device(0.01, 0.001).process, dispatch=dispatch)
        for n in range(5):
            await batcher.submit(("a", n), n)
        assert dispatch.cost(("a", 99)).known
        assert not dispatch.cost(("b", 0)).known
        await batcher.aclose()

    virtual(main())


def test_many_keys_cost_no_memory(virtual, monkeypatch):
    """What is known of a key is forgotten when many others were used since; of the one that was
    used all along it is not."""
    for module in ("policy", "server", "turns"):
        monkeypatch.setattr(f"batching.adaptive.{module}.TUNING", replace(TUNING, kinds=4))

    async def main():
        dispatch = JustInTime()
        batcher = Batcher(Device(0.001, 0.0).process, dispatch=dispatch)
        for n in range(20):
            await batcher.submit(n, n)
            await batcher.submit(-1, n)
        remembered = dispatch.server(None)._kinds, dispatch._turns._flows, dispatch._returning
        assert [len(each) for each in remembered] == [4, 4, 4]
        assert dispatch.cost(-1).known
        assert dispatch._turns.rate(-1) is not None
        await batcher.aclose()

    virtual(main())


def test_the_end_of_a_call_whose_key_was_forgotten(virtual, gate, ticks, monkeypatch):
    """It is taken in as any other, even if many other keys came while it ran."""
    monkeypatch.setattr("batching.adaptive.policy.TUNING", replace(TUNING, kinds=2))

    async def main():
        batcher = Batcher(gate.process)
        tasks = [spawn(batcher.submit(key, 1)) for key in "abcd"]
        for call in range(4):
            await ticks()
            gate.finish(call)
        assert await asyncio.gather(*tasks) == [10] * 4

    virtual(main())


def test_a_call_that_fails_teaches_nothing(virtual):
    """The time of a failure is not the time of a call."""

    async def fail(key, items, server):
        await asyncio.sleep(1)
        raise OSError

    async def main():
        dispatch = JustInTime()
        batcher = Batcher(fail, dispatch=dispatch)
        await asyncio.gather(*(batcher.submit("k", n) for n in range(99)), return_exceptions=True)
        assert not dispatch.cost("k").known
        await batcher.aclose()

    virtual(main())


def test_what_was_learnt_is_told_in_words():
    """Of a device that merges calls, that as many as there are may be sent."""
    told = {}
    for kind in ("serial", "merging"):
        dispatch = JustInTime()
        run(ZOO[kind](), dispatch, 0.5, 20.0)
        told[kind] = dispatch.learnt("")
    assert (told["serial"].device, told["serial"].parallelism) == ("serial", 1)
    assert (told["merging"].device, told["merging"].parallelism) == ("merges calls that wait", 0)
