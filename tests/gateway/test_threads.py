"""Work in threads: results come back to whom they belong, and nothing is done for nobody."""

import asyncio
import os
import sys
import threading
import weakref

import pytest

from gateway.threads import Threads


@pytest.fixture
async def one():
    threads = Threads(1)
    yield threads
    threads.close()


async def test_results_belong_to_their_callers():
    """Many calls over a few threads each get their own result, off the loop's thread."""
    threads = Threads(3)
    results = await asyncio.gather(
        *(threads.run(lambda n: (n, threading.get_ident()), n) for n in range(200))
    )
    assert [n for n, _ in results] == list(range(200))
    assert threading.get_ident() not in {ident for _, ident in results}
    threads.close()
    for thread in threads._threads:
        thread.join()


async def test_what_is_raised_is_raised(one):
    """An exception reaches the caller of its function, and the thread goes on."""

    def fail():
        raise LookupError("this one")

    with pytest.raises(LookupError, match="this one"):
        await one.run(fail)
    assert await one.run(str, 7) == "7"


class Thing:
    """What can be seen to be gone."""


async def test_a_caller_that_leaves_before_its_turn(one):
    """Its function is never run nor counted, what it would work on is let go of at once, and those
    behind it get their turn."""
    gate, ran = threading.Event(), []
    running = asyncio.ensure_future(one.run(gate.wait))
    thing = Thing()
    gone = weakref.ref(thing)
    waiting = asyncio.ensure_future(one.run(ran.append, thing))
    await asyncio.sleep(0)
    del thing
    waiting.cancel()
    await asyncio.wait([waiting])
    del waiting
    assert gone() is None
    assert one.waiting <= 1  # the first, if no thread has come to it yet
    gate.set()
    await running
    assert await one.run(str, 1) == "1"
    assert not ran


async def test_who_leaves_is_passed_over(one):
    """The order of the others stays."""
    gate, ran = threading.Event(), []
    running = asyncio.ensure_future(one.run(gate.wait))
    waiting = [asyncio.ensure_future(one.run(ran.append, n)) for n in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait([waiting[1]])
    gate.set()
    await asyncio.gather(running, waiting[0], waiting[2])
    assert ran == [0, 2]


async def test_a_caller_that_leaves_while_it_is_served(one):
    """The result of a function whose caller has left is dropped without a fuss."""
    gate, started = threading.Event(), threading.Event()

    def work():
        started.set()
        gate.wait()

    task = asyncio.ensure_future(one.run(work))
    await asyncio.to_thread(started.wait)
    task.cancel()
    await asyncio.wait([task])
    gate.set()
    assert await one.run(str, 1) == "1"


def test_a_loop_that_is_gone():
    """A thread whose loop was closed meanwhile ends in peace."""
    gate = threading.Event()
    started = threading.Event()
    kept = []

    def work():
        started.set()
        gate.wait()

    async def main():
        kept.append(Threads(1))
        task = asyncio.ensure_future(kept[0].run(work))
        await asyncio.to_thread(started.wait)
        task.cancel()
        kept[0].close()

    asyncio.run(main())
    gate.set()
    kept[0]._threads[0].join()
    assert not kept[0]._threads[0].is_alive()


async def test_what_waits_and_how_long_it_takes(one, monkeypatch):
    """The number of functions without a thread, and the time from one result to the next."""
    clock = iter(range(1000))
    monkeypatch.setattr("gateway.threads.monotonic", lambda: float(next(clock)))
    gate, started = threading.Event(), threading.Event()

    def work():
        started.set()
        gate.wait()

    tasks = [asyncio.ensure_future(one.run(work)) for _ in range(3)]
    await asyncio.to_thread(started.wait)
    assert one.waiting == 2
    gate.set()
    await asyncio.gather(*tasks)
    assert one.waiting == 0
    for _ in range(100):
        await one.run(int)
    assert one.interval == pytest.approx(1.0, rel=0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own on Linux")
async def test_the_event_loop_goes_first(one):
    """Where cores are short, the threads stand behind the loop, which has to refuse and answer."""

    def niceness():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert await one.run(niceness) == min(19, niceness() + 5)
