"""All invariants at once, over random schedules of submits, cancels, failures and closes."""

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batching import Batcher, BatcherClosedError, BatchFailedError, FreeSlot, QueueFullError

KEYS = "ab"
ENDS = ("ok", "ok", "ok", "raise", "few", "one-bad", "cancel-itself")

submits = st.tuples(st.just("submit"), st.sampled_from(KEYS), st.integers(1, 5))
cancels = st.tuples(st.just("cancel"), st.integers(0, 60), st.just(0))
pauses = st.tuples(st.just("pause"), st.sampled_from([0.0, 0.003, 0.01, 0.05]), st.just(0))
schedules = st.lists(submits | cancels | pauses, max_size=40)


class World:
    """A backend with a schedule of its own, that checks every call it gets."""

    def __init__(self, *, ends, times, max_batch_size, max_in_flight):
        self.ends, self.times = ends, times
        self.max_batch_size, self.max_in_flight = max_batch_size, max_in_flight
        self.running = Counter()
        self.sent = []
        self.bad = set()

    async def process(self, key, items, server):
        call = len(self.sent)
        self.sent.append((key, [n for n, _ in items]))
        self.running[key] += 1
        try:
            assert 0 < len(items) <= self.max_batch_size
            assert self.running[key] <= self.max_in_flight
            assert all(own == key for _, own in items)
            await asyncio.sleep(self.times[call % len(self.times)])
        finally:
            self.running[key] -= 1
        match self.ends[call % len(self.ends)]:
            case "raise":
                raise OSError(call)
            case "few":
                return items[1:]
            case "one-bad":
                self.bad.add(items[0][0])
                return [LookupError(items[0][0]), *items[1:]]
            case "cancel-itself":
                raise asyncio.CancelledError
        return items


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    schedule=schedules,
    ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=6),
    times=st.lists(st.sampled_from([0.001, 0.005, 0.02]), min_size=1, max_size=4),
    max_batch_size=st.integers(1, 6),
    max_in_flight=st.integers(1, 3),
    max_queue_size=st.integers(1, 25),
    delay=st.sampled_from([0.0, 0.0, 0.004]),
    limit=st.sampled_from([None, 0.0, 0.01]),
)
def test_invariants(
    virtual,
    ticks,
    schedule,
    ends,
    times,
    max_batch_size,
    max_in_flight,
    max_queue_size,
    delay,
    limit,
):
    """Each submit ends once and with its own; limits, order and the count of the living hold."""
    world = World(
        ends=ends, times=times, max_batch_size=max_batch_size, max_in_flight=max_in_flight
    )
    virtual(play(world, ticks, schedule, max_queue_size, delay, limit))


async def play(world, ticks, schedule, max_queue_size, delay, limit):
    batcher = Batcher(
        world.process,
        max_batch_size=world.max_batch_size,
        max_queue_size=max_queue_size,
        dispatch=FreeSlot(max_in_flight=world.max_in_flight, max_queue_delay=delay),
    )
    tasks, keys, cancelled = [], [], set()
    for verb, what, count in schedule:
        if verb == "submit":
            for _ in range(count):
                item = (len(tasks), what)
                keys.append(what)
                tasks.append(asyncio.ensure_future(batcher.submit(what, item)))
        elif verb == "cancel" and what < len(tasks) and not tasks[what].done():
            tasks[what].cancel()
            cancelled.add(what)
        elif verb == "pause":
            await asyncio.sleep(what)
            await ticks(10)
            check_at_rest(batcher, world, zip(keys, tasks, strict=True), max_queue_size, delay)
    await ticks()
    await batcher.aclose(limit)
    await ticks()
    assert all(task.done() for task in tasks)
    check_outcomes(world, tasks, cancelled, limit)
    assert repr(batcher) == "<Batcher closed waiting=0 in_flight=0 queues=0>"


def check_at_rest(batcher, world, tasks, max_queue_size, delay):
    sent = {n for _, items in world.sent for n in items}
    waiting = dict.fromkeys(KEYS, 0)
    for n, (key, task) in enumerate(tasks):
        if not task.done() and n not in sent:
            waiting[key] += 1
    assert batcher.depth == sum(waiting.values()) <= max_queue_size
    if delay == 0:
        for key, count in waiting.items():
            assert count == 0 or world.running[key] == world.max_in_flight


def check_outcomes(world, tasks, cancelled, limit):
    sent = [n for _, items in world.sent for n in items]
    assert len(sent) == len(set(sent)), "an item was sent twice"
    for key in KEYS:
        order = [n for own, items in world.sent if own == key for n in items]
        assert order == sorted(order), "not first in, first out"
    for n, task in enumerate(tasks):
        if task.cancelled():
            assert n in cancelled
            continue
        match task.exception():
            case None:
                assert task.result()[0] == n
                assert n in sent
            case QueueFullError():
                assert n not in sent
            case LookupError() as error:
                assert error.args == (n,)
                assert n in world.bad
            case BatchFailedError() as error:
                assert n in sent
                assert error.__cause__ is not None
            case BatcherClosedError():
                assert limit is not None
            case other:
                pytest.fail(f"unforeseen: {other!r}")
