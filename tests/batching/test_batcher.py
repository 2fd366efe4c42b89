"""Grouping: who shares a call with whom, in what order, within which limits, with what outcome."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from batching import Batcher, BatchFailedError, FreeSlot, JustInTime, QueueFullError

spawn = asyncio.ensure_future


async def test_the_package_needs_no_configuration():
    """A batcher made with nothing but a process works on any event loop."""

    async def double(key: str, items: list[int], server: None) -> list[int]:
        return [2 * item for item in items]

    batcher = Batcher(double)
    assert await asyncio.gather(*(batcher.submit("k", n) for n in range(5))) == [0, 2, 4, 6, 8]
    await batcher.aclose()


def test_submits_of_one_tick_make_one_batch(virtual, gate, ticks):
    """Twenty submits of one tick leave as one batch of twenty, in order."""

    async def main():
        batcher = Batcher(gate.process)
        tasks = [spawn(batcher.submit("k", n)) for n in range(20)]
        await ticks()
        assert gate.calls == [("k", list(range(20)))]
        gate.finish(0)
        assert await asyncio.gather(*tasks) == [10 * n for n in range(20)]
        assert repr(batcher) == "<Batcher open waiting=0 in_flight=0 queues=0>"

    virtual(main())


def test_keys_do_not_mix(virtual, gate, ticks):
    """Items of different keys never share a call, and one key's full slots do not hold another."""

    async def main():
        batcher = Batcher(gate.process, dispatch=FreeSlot(max_in_flight=1))
        tasks = [spawn(batcher.submit(key, n)) for n, key in enumerate("abab")]
        await ticks()
        assert gate.calls == [("a", [0, 2]), ("b", [1, 3])]
        late = spawn(batcher.submit("a", 9))
        other = spawn(batcher.submit("c", 8))
        await ticks()
        assert gate.calls[2:] == [("c", [8])]
        for call in (2, 1, 0):
            gate.finish(call)
        await ticks()
        gate.finish(3)
        assert await asyncio.gather(*tasks, late, other) == [0, 10, 20, 30, 90, 80]

    virtual(main())


def test_limits_of_batch_and_flight(virtual, gate, ticks):
    """Batches stay within max_batch_size, calls within max_in_flight; no slot stays unused."""

    async def main():
        batcher = Batcher(gate.process, max_batch_size=3, dispatch=FreeSlot(max_in_flight=2))
        tasks = [spawn(batcher.submit("k", n)) for n in range(8)]
        await ticks()
        assert gate.calls == [("k", [0, 1, 2]), ("k", [3, 4, 5])]
        assert (batcher.depth, batcher.in_flight) == (2, 2)
        assert repr(batcher) == "<Batcher open waiting=2 in_flight=2 queues=1>"
        gate.finish(1)
        await ticks()
        assert gate.calls[2:] == [("k", [6, 7])]
        gate.finish(0)
        gate.finish(2)
        assert await asyncio.gather(*tasks) == [10 * n for n in range(8)]

    virtual(main())


def test_batch_size_by_key(virtual, gate, ticks):
    """A function may give each key a batch size of its own; less than one counts as one."""

    async def main():
        batcher = Batcher(
            gate.process,
            max_batch_size=lambda key, _: {"one": 0, "two": 2}[key],
            dispatch=FreeSlot(max_in_flight=9),
        )
        tasks = [spawn(batcher.submit(key, n)) for key in ("one", "two") for n in range(3)]
        await ticks()
        sizes = [(key, len(items)) for key, items in gate.calls]
        assert sizes == [("one", 1)] * 3 + [("two", 2), ("two", 1)]
        for call in range(5):
            gate.finish(call)
        await asyncio.gather(*tasks)

    virtual(main())


def test_full_queue_refuses_at_once(virtual, gate, ticks):
    """max_queue_size counts what waits over all keys; the one too many is refused, alone."""

    async def main():
        batcher = Batcher(gate.process, max_queue_size=2, dispatch=FreeSlot(max_in_flight=1))
        first = [spawn(batcher.submit(key, 0)) for key in "ab"]
        await ticks()
        waiting = [spawn(batcher.submit(key, 1)) for key in "ab"]
        await ticks()
        with pytest.raises(QueueFullError, match="max_queue_size"):
            await batcher.submit("c", 2)
        for call in (0, 1):
            gate.finish(call)
        await ticks()
        assert batcher.depth == 0
        for call in (2, 3):
            gate.finish(call)
        assert await asyncio.gather(*first, *waiting) == [0, 0, 10, 10]

    virtual(main())


def test_queue_delay_waits_for_company(virtual, gate, ticks):
    """With max_queue_delay a batch leaves when the delay of its oldest is over, or when full."""

    async def main():
        loop = asyncio.get_running_loop()
        batcher = Batcher(
            gate.process, max_batch_size=3, dispatch=FreeSlot(max_in_flight=9, max_queue_delay=0.5)
        )
        tasks = [spawn(batcher.submit("k", 0))]
        await asyncio.sleep(0.3)
        tasks.append(spawn(batcher.submit("k", 1)))
        await asyncio.sleep(0.1)
        assert gate.calls == []
        await asyncio.sleep(0.11)
        assert gate.calls == [("k", [0, 1])]
        tasks += [spawn(batcher.submit("k", n)) for n in (2, 3, 4)]
        full_at = loop.time()
        await ticks()
        assert loop.time() == full_at
        assert gate.calls[1:] == [("k", [2, 3, 4])]
        gate.finish(0)
        gate.finish(1)
        await asyncio.gather(*tasks)

    virtual(main())


def test_two_delays_share_one_timer(virtual, gate, ticks):
    """Queues that wait at the same time are each sent when their own delay is over."""

    async def main():
        batcher = Batcher(gate.process, dispatch=FreeSlot(max_queue_delay=0.5))
        tasks = [spawn(batcher.submit("a", 0))]
        await asyncio.sleep(0.2)
        tasks.append(spawn(batcher.submit("b", 1)))
        await asyncio.sleep(0.31)
        assert gate.calls == [("a", [0])]
        await asyncio.sleep(0.2)
        assert gate.calls == [("a", [0]), ("b", [1])]
        gate.finish(0)
        gate.finish(1)
        await asyncio.gather(*tasks)

    virtual(main())


def test_one_bad_item_fails_alone(virtual, gate, ticks):
    """An exception in place of one result goes to its caller; the mates get their results."""

    async def main():
        batcher = Batcher(gate.process)
        tasks = [spawn(batcher.submit("k", n)) for n in range(3)]
        await ticks()
        gate.finish(0, [0, LookupError("item 1"), 20])
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert results[::2] == [0, 20]
        assert isinstance(results[1], LookupError)

    virtual(main())


def test_failed_call_gives_each_its_own_exception(virtual, gate, ticks):
    """When process raises, every caller has an exception object of its own, cause attached."""

    async def main():
        batcher = Batcher(gate.process)
        tasks = [spawn(batcher.submit("k", n)) for n in range(3)]
        await ticks()
        boom = OSError("boom")
        gate.finish(0, boom)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [BatchFailedError] * 3
        assert len(set(map(id, errors))) == 3
        assert all(error.__cause__ is boom and "boom" in str(error) for error in errors)
        again = spawn(batcher.submit("k", 7))
        await ticks()
        gate.finish(1)
        assert await again == 70

    virtual(main())


@pytest.mark.parametrize("answer", [[], [0], [0, 10, 20, 30], 5], ids=repr)
def test_wrong_number_of_results_fails_all(virtual, gate, ticks, answer):
    """Results that cannot be told apart are given to nobody."""

    async def main():
        batcher = Batcher(gate.process)
        tasks = [spawn(batcher.submit("k", n)) for n in range(3)]
        await ticks()
        gate.finish(0, answer)
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(error, BatchFailedError)
            assert "3 results" in str(error)

    virtual(main())


def test_call_that_cancels_itself_fails_its_callers(virtual, gate, ticks):
    """A process that ends in CancelledError fails its batch; the callers are not cancelled."""

    async def main():
        batcher = Batcher(gate.process)
        task = spawn(batcher.submit("k", 1))
        await ticks()
        gate.open[0].cancel()
        with pytest.raises(BatchFailedError):
            await task

    virtual(main())


def test_observer_hears_of_each_batch(virtual, gate, ticks):
    """The observer is told the waits when a batch leaves; size, time and error at its end."""
    heard: list[Any] = []

    class Ear:
        def dispatched(self, key: str, waits: Sequence[float]) -> None:
            heard.append((key, [round(wait, 3) for wait in waits]))

        def finished(self, key: str, size: int, seconds: float, error: BaseException | None):
            heard.append((key, size, round(seconds, 3), type(error)))

    async def main():
        batcher = Batcher(gate.process, observer=Ear(), dispatch=FreeSlot(max_in_flight=1))
        tasks = [spawn(batcher.submit("k", 0))]
        await ticks()
        tasks.append(spawn(batcher.submit("k", 1)))
        await asyncio.sleep(0.25)
        gate.finish(0)
        await ticks()
        gate.finish(1, OSError())
        await asyncio.gather(*tasks, return_exceptions=True)

    virtual(main())
    assert heard == [
        ("k", [0.0]),
        ("k", 1, 0.25, type(None)),
        ("k", [0.25]),
        ("k", 1, 0.0, OSError),
    ]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda process: Batcher(process, max_batch_size=0), "max_batch_size"),
        (lambda process: Batcher(process, max_queue_size=0), "max_queue_size"),
        (lambda _: FreeSlot(max_in_flight=0), "max_in_flight"),
        (lambda _: FreeSlot(max_queue_delay=-1), "max_queue_delay"),
        (lambda _: FreeSlot(max_queue_delay=float("inf")), "max_queue_delay"),
        (lambda _: FreeSlot(max_queue_delay=float("nan")), "max_queue_delay"),
    ],
)
def test_limits_that_make_no_sense_are_refused(gate, make, name):
    """A limit out of range is named when the object is made, not when it first bites."""
    with pytest.raises(ValueError, match=name):
        make(gate.process)


def test_an_observer_that_raises_harms_nobody(virtual, gate, ticks):
    """Batches go on; the loop's exception handler hears of it."""

    class Ear:
        def dispatched(self, *_: Any) -> None:
            raise RuntimeError("dispatched")

        def finished(self, *_: Any) -> None:
            raise RuntimeError("finished")

    async def main():
        loop, told = asyncio.get_running_loop(), []
        before = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: told.append(str(context["exception"])))
        batcher = Batcher(gate.process, observer=Ear(), dispatch=FreeSlot(max_in_flight=1))
        calls = [asyncio.ensure_future(batcher.submit("a", n)) for n in (1, 2)]
        await ticks()
        gate.finish(0)
        await ticks()
        assert await asyncio.gather(*calls) == [10, 20]
        loop.set_exception_handler(before)
        assert told == ["dispatched", "finished"]

    virtual(main())


def test_an_item_that_failed_is_told(virtual, gate, ticks):
    """A call of which one item failed is no ordinary one: nothing is learnt of its time."""
    dispatch = JustInTime()

    async def main():
        batcher = Batcher(gate.process, dispatch=dispatch)
        calls = [asyncio.ensure_future(batcher.submit("a", n)) for n in (1, 2)]
        await ticks()
        gate.finish(0, [10, ValueError("two")])
        await asyncio.wait(calls)
        assert calls[0].result() == 10
        assert str(calls[1].exception()) == "two"

    virtual(main())
    assert dispatch.server(None).sent.per_second(0.0) > 0
    assert not dispatch.server(None)._kind("a").contrast.records()


def test_the_error_of_an_item_whose_caller_has_left(virtual, gate, ticks):
    """It is nobody's; the caller beside it has its result."""

    async def main():
        batcher = Batcher(gate.process)
        calls = [asyncio.ensure_future(batcher.submit("a", n)) for n in (1, 2)]
        await ticks()
        calls[1].cancel()
        await ticks()
        gate.finish(0, [10, ValueError("two")])
        await asyncio.wait(calls)
        assert calls[0].result() == 10
        assert calls[1].cancelled()

    virtual(main())
