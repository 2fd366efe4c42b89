"""aclose: flush, wait, cancel, refuse. Afterwards every future is done."""

import asyncio

import pytest

from batching import Batcher, BatcherClosedError, FreeSlot

spawn = asyncio.ensure_future


def test_close_of_an_idle_batcher_refuses_from_then_on(virtual, gate):
    """An unused batcher closes at once, may be closed again, and takes nothing any more."""

    async def main():
        batcher = Batcher(gate.process)
        await batcher.aclose()
        await batcher.aclose(timeout=1)
        with pytest.raises(BatcherClosedError):
            await batcher.submit("k", 1)
        assert repr(batcher) == "<Batcher closed waiting=0 in_flight=0 queues=0>"

    virtual(main())


def test_close_flushes_in_order_within_the_limits(virtual, gate, ticks):
    """What waits is sent, without its delay but within max_in_flight, and answered."""

    async def main():
        loop = asyncio.get_running_loop()
        batcher = Batcher(
            gate.process, max_batch_size=2, dispatch=FreeSlot(max_in_flight=1, max_queue_delay=60)
        )
        tasks = [spawn(batcher.submit("k", n)) for n in range(3)]
        await ticks()
        assert gate.calls == [("k", [0, 1])]
        closing = spawn(batcher.aclose())
        await ticks()
        assert repr(batcher) == "<Batcher closing waiting=1 in_flight=1 queues=1>"
        with pytest.raises(BatcherClosedError):
            await batcher.submit("k", 9)
        gate.finish(0)
        await ticks()
        assert gate.calls[1:] == [("k", [2])]
        gate.finish(1)
        await closing
        assert loop.time() == 0
        assert [task.result() for task in tasks] == [0, 10, 20]

    virtual(main())


def test_close_gives_up_after_its_limit(virtual, gate, ticks):
    """When the limit is over, all who are left get an error; the call is cancelled."""

    async def main():
        batcher = Batcher(gate.process, dispatch=FreeSlot(max_in_flight=1))
        running = spawn(batcher.submit("k", 0))
        await ticks()
        waiting = spawn(batcher.submit("k", 1))
        await ticks()
        await batcher.aclose(timeout=3)
        assert asyncio.get_running_loop().time() == pytest.approx(3)
        errors = await asyncio.gather(running, waiting, return_exceptions=True)
        assert [type(error) for error in errors] == [BatcherClosedError] * 2
        assert gate.open[0].cancelled()
        assert gate.calls == [("k", [0])]

    virtual(main())


def test_close_that_is_cancelled_gives_up_at_once(virtual, gate, ticks):
    """Cancelling aclose is the hard way out: nobody is left hanging."""

    async def main():
        batcher = Batcher(gate.process)
        running = spawn(batcher.submit("k", 0))
        await ticks()
        closing = spawn(batcher.aclose())
        await ticks()
        closing.cancel()
        with pytest.raises(BatcherClosedError):
            await running
        await asyncio.wait([closing])

    virtual(main())


def test_a_process_that_resists_cancellation_holds_no_caller(virtual, ticks):
    """Callers have their error when the limit is over, even if the call itself winds up slowly."""

    async def main():
        let_go = asyncio.Event()

        async def stubborn(key: str, items: list[int], server: None) -> list[int]:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await let_go.wait()
            return items

        batcher = Batcher(stubborn)
        task = spawn(batcher.submit("k", 0))
        await ticks()
        closing = spawn(batcher.aclose(timeout=1))
        with pytest.raises(BatcherClosedError):
            await task
        assert not closing.done()
        let_go.set()
        await closing

    virtual(main())


def test_callers_who_leave_while_it_closes(virtual, gate, ticks):
    """aclose returns as soon as the last one who waits has left."""

    async def main():
        batcher = Batcher(gate.process, dispatch=FreeSlot(max_in_flight=1))
        running = spawn(batcher.submit("k", 0))
        await ticks()
        waiting = spawn(batcher.submit("k", 1))
        await ticks()
        closing = spawn(batcher.aclose())
        await ticks()
        waiting.cancel()
        gate.finish(0)
        await closing
        assert await running == 0
        assert gate.calls == [("k", [0])]

    virtual(main())
