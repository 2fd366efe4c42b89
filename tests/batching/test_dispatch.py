"""What a dispatch decides reaches the batch: how many items, which server, and when anew."""

import asyncio
import sys
from collections.abc import Hashable, Sequence
from typing import Any

from batching import Batcher, Departure, FreeSlot
from batching.dispatch import Q

spawn = asyncio.ensure_future


class Scripted(FreeSlot):
    """A dispatch that sends at most ``size`` items to ``server``, if the test lets it go."""

    server: Hashable = None
    size = sys.maxsize
    at = 0.0

    def next(self, queues: Sequence[Q], now: float) -> Departure[Q]:
        return Departure(queues[0], self.server, self.at, self.size)


def scripted(**values: Any) -> Scripted:
    dispatch = Scripted()
    for name, value in values.items():
        object.__setattr__(dispatch, name, value)  # FreeSlot is frozen
    return dispatch


def test_a_dispatch_may_send_less_than_what_waits(virtual, gate, ticks):
    """A batch carries no more than the dispatch says; the rest leaves in order, in later ones."""

    async def main():
        batcher = Batcher(gate.process, dispatch=scripted(size=2))
        tasks = [spawn(batcher.submit("k", n)) for n in range(5)]
        await ticks()
        assert [items for _, items in gate.calls] == [[0, 1], [2, 3], [4]]
        for call in range(3):
            gate.finish(call)
        assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40]

    virtual(main())


def test_a_batch_has_at_least_one_item(virtual, gate, ticks):
    """A dispatch that says none at all does not make the batcher turn in circles."""

    async def main():
        batcher = Batcher(gate.process, dispatch=scripted(size=0))
        task = spawn(batcher.submit("k", 1))
        await ticks()
        gate.finish(0)
        assert await task == 10

    virtual(main())


def test_the_server_that_is_named_gets_the_call(virtual, gate, ticks):
    """Process is told of the server that the dispatch has chosen."""

    async def main():
        batcher = Batcher(gate.process, servers=lambda _: ("x", "y"), dispatch=scripted(server="y"))
        task = spawn(batcher.submit("k", 1))
        await ticks()
        assert gate.servers == ["y"]
        gate.finish(0)
        await task

    virtual(main())


def test_the_limit_is_that_of_key_and_server(virtual, gate, ticks):
    """A server that takes less gets less of the same key."""
    limits = {("k", "x"): 3, ("k", "y"): 1}

    async def main():
        dispatch = scripted(server="x")
        batcher = Batcher(
            gate.process,
            servers=lambda _: ("x", "y"),
            max_batch_size=lambda key, server: limits[key, server],
            dispatch=dispatch,
        )
        tasks = [spawn(batcher.submit("k", n)) for n in range(3)]
        await ticks()
        object.__setattr__(dispatch, "server", "y")
        tasks += [spawn(batcher.submit("k", n)) for n in range(2)]
        await ticks()
        assert [len(items) for _, items in gate.calls] == [3, 1, 1]
        for call in range(3):
            gate.finish(call)
        await asyncio.gather(*tasks)

    virtual(main())


def test_wake_makes_it_decide_anew(virtual, gate, ticks):
    """What has changed outside is seen when the batcher is told, and not before."""

    async def main():
        dispatch = scripted(at=1000.0)
        batcher = Batcher(gate.process, dispatch=dispatch)
        task = spawn(batcher.submit("k", 1))
        await ticks()
        object.__setattr__(dispatch, "at", 0.0)
        await asyncio.sleep(1.0)
        assert gate.calls == []
        batcher.wake()
        await ticks()
        assert gate.calls == [("k", [1])]
        gate.finish(0)
        await task

    virtual(main())


def test_wake_of_an_idle_batcher_does_nothing(virtual, gate):
    """With nothing to decide no timer is set, and no loop is needed."""
    Batcher(gate.process).wake()


def test_free_slots_alternate_between_servers(virtual, gate, ticks):
    """Calls of a key that run at the same time go to one server after the other."""

    async def main():
        batcher = Batcher(
            gate.process,
            servers=lambda _: ("x", "y"),
            max_batch_size=1,
            dispatch=FreeSlot(max_in_flight=4),
        )
        tasks = [spawn(batcher.submit("k", n)) for n in range(5)]
        await ticks()
        assert gate.servers == ["x", "y", "x", "y"]
        for call in range(4):
            gate.finish(call)
        await ticks()
        gate.finish(4)
        await asyncio.gather(*tasks)

    virtual(main())
