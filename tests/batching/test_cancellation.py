"""A caller that leaves: its place is free at once, and nobody else notices."""

import asyncio
import gc
import weakref

import pytest

from batching import Batcher, BatchFailedError, FreeSlot

spawn = asyncio.ensure_future


def test_a_waiting_caller_leaves(virtual, gate, ticks):
    """The item of a cancelled caller is never processed, and its place in the queue is free."""

    async def main():
        batcher = Batcher(gate.process, max_queue_size=3, dispatch=FreeSlot(max_in_flight=1))
        running = spawn(batcher.submit("k", 0))
        await ticks()
        waiting = [spawn(batcher.submit("k", n)) for n in (1, 2, 3)]
        await ticks()
        waiting[1].cancel()
        await ticks()
        assert batcher.depth == 2
        late = spawn(batcher.submit("k", 4))
        await ticks()
        gate.finish(0)
        await ticks()
        assert gate.calls[1] == ("k", [1, 3, 4])
        gate.finish(1)
        assert await asyncio.gather(running, waiting[0], waiting[2], late) == [0, 10, 30, 40]
        assert waiting[1].cancelled()

    virtual(main())


def test_a_caller_leaves_in_the_tick_of_dispatch(virtual, gate, ticks):
    """Cancelled between submit and dispatch, an item is not sent, though its place still stands."""

    async def main():
        batcher = Batcher(gate.process)
        tasks = [spawn(batcher.submit("k", n)) for n in range(3)]
        await asyncio.sleep(0)  # all three have submitted; the batch leaves in the next tick
        tasks[1].cancel()
        await ticks()
        assert gate.calls == [("k", [0, 2])]
        assert batcher.depth == 0
        gate.finish(0)
        assert await asyncio.gather(tasks[0], tasks[2]) == [0, 20]

    virtual(main())


def test_everybody_leaves_in_the_tick_of_dispatch(virtual, gate, ticks):
    """A batch of which nobody is left makes no call at all."""

    async def main():
        batcher = Batcher(gate.process)
        tasks = [spawn(batcher.submit("k", n)) for n in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await ticks()
        assert gate.calls == []
        assert repr(batcher) == "<Batcher open waiting=0 in_flight=0 queues=0>"

    virtual(main())


@pytest.mark.parametrize("outcome", [None, OSError("boom"), [1, 2]], ids=["result", "error", "few"])
def test_a_caller_in_flight_leaves(virtual, gate, ticks, outcome):
    """However the call ends, a departed caller's row is ignored and the others get their own."""

    async def main():
        batcher = Batcher(gate.process)
        tasks = [spawn(batcher.submit("k", n)) for n in range(3)]
        await ticks()
        tasks[0].cancel()
        await ticks()
        assert batcher.in_flight == 1
        gate.finish(0, outcome)
        rest = await asyncio.gather(*tasks[1:], return_exceptions=True)
        if outcome is None:
            assert rest == [10, 20]
        else:
            assert [type(error) for error in rest] == [BatchFailedError] * 2
        assert tasks[0].cancelled()

    virtual(main())


def test_an_item_in_flight_keeps_its_slot_until_the_call_ends(virtual, gate, ticks):
    """The backend goes on working when callers leave, so the slot is not given away early."""

    async def main():
        batcher = Batcher(gate.process, dispatch=FreeSlot(max_in_flight=1))
        gone = spawn(batcher.submit("k", 0))
        await ticks()
        gone.cancel()
        waiting = spawn(batcher.submit("k", 1))
        await ticks()
        assert len(gate.calls) == 1
        gate.finish(0)
        await ticks()
        gate.finish(1)
        assert await waiting == 10

    virtual(main())


def test_a_deadline_frees_the_place(virtual, gate, ticks):
    """A caller under asyncio.timeout gets TimeoutError and its item is not sent later."""

    async def main():
        batcher = Batcher(gate.process, dispatch=FreeSlot(max_in_flight=1))
        running = spawn(batcher.submit("k", 0))
        await ticks()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await batcher.submit("k", 1)
        assert batcher.depth == 0
        gate.finish(0)
        await running
        await ticks()
        assert gate.calls == [("k", [0])]

    virtual(main())


def test_the_oldest_leaves_before_its_delay_is_over(virtual, gate):
    """A timer set for somebody who left does no harm to those who came after."""

    async def main():
        batcher = Batcher(gate.process, dispatch=FreeSlot(max_queue_delay=1.0))
        first = spawn(batcher.submit("k", 0))
        await asyncio.sleep(0.5)
        second = spawn(batcher.submit("k", 1))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.sleep(0.6)
        assert gate.calls == []
        await asyncio.sleep(0.4)
        assert gate.calls == [("k", [1])]
        gate.finish(0)
        assert await second == 10

    virtual(main())


def test_a_result_that_came_with_the_cancellation_is_dropped(virtual, gate, ticks):
    """A caller cancelled in the tick in which its result came is cancelled, without a fuss."""

    async def main():
        batcher = Batcher(gate.process)
        task = spawn(batcher.submit("k", 0))
        await ticks()
        gate.finish(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.done()
        assert batcher.in_flight == 0

    virtual(main())


def test_nothing_holds_on_to_an_item(virtual, gate, ticks):
    """After the answer, or after its caller left, no reference to an item stays behind."""

    class Item:
        pass

    async def main():
        async def process(key: str, items: list[Item], server: None) -> list[int]:
            return [0] * len(items)

        batcher = Batcher(process)
        items = [Item(), Item()]
        refs = [weakref.ref(item) for item in items]
        answered, gone = (spawn(batcher.submit("k", item)) for item in items)
        await asyncio.sleep(0)
        gone.cancel()
        await answered
        await ticks()
        del items, answered, gone
        gc.collect()
        assert [ref() for ref in refs] == [None, None]

    virtual(main())
