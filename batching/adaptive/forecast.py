"""When one more item would have its result."""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from batching.adaptive.server import Server

__all__ = ["Backlog", "completion_at"]


class Backlog(NamedTuple):
    """Items that cost what those of ``key`` do and wait, here or on their way here."""

    key: Hashable
    items: int
    max_batch_size: int
    """Items of a call."""
    keys: float = 1.0
    """Over how many keys they are spread, which share no call."""
    servers: Sequence[Hashable] = (None,)
    """Where their calls may go."""


class _Fleet:
    """Servers that share work, seen as one as fast as the fastest, with more places."""

    def __init__(self, servers: Iterable[Server], kind: Hashable, size: int, now: float) -> None:
        known = [server for server in servers if server.cost(kind).known]
        self.known = bool(known)
        if not known:
            return
        best = min(known, key=lambda server: server.cost(kind).service_s(size) * server.stretch)
        self.model, self._stretch = best.cost(kind), best.stretch
        full = self.service_s(size)
        self.places = sum(
            server.parallelism * full / (server.cost(kind).service_s(size) * server.stretch)
            for server in known
        )
        self.free_at = max(now, min(server.free_at()[0] for server in known))

    def service_s(self, size: int) -> float:
        return self.model.service_s(size) * self._stretch


def completion_at(
    own: Backlog,
    others: Iterable[Backlog],
    servers: Callable[[Hashable], Server],
    kind: Callable[[Hashable], Hashable],
    ready_at: float,
    now: float,
) -> float:
    """The loop time at which one more item of ``own.key`` will have its result, if it is submitted
    at ``ready_at``.

    By what was learnt, with batches as full as they can be for all who are ahead, and a turn for
    each of the keys beside the item's own; of ``others`` no more than their fair turns. -inf while
    the cost of that key is not known: nothing is refused on suspicion.
    """

    def fleet(backlog: Backlog) -> _Fleet:
        names = map(servers, backlog.servers)
        return _Fleet(names, kind(backlog.key), backlog.max_batch_size, now)

    ours = fleet(own)
    if not ours.known:
        return -math.inf
    full, rest = divmod(int(own.items / own.keys), own.max_batch_size)
    batch = ours.service_s(own.max_batch_size)
    turn = batch if full else ours.service_s(rest + 1)
    before = own.keys * full * batch + (own.keys - 1) * turn
    turns = 0.0
    for other in others:
        theirs = fleet(other)
        if other.items and theirs.known and not set(own.servers).isdisjoint(other.servers):
            most = before + theirs.service_s(other.max_batch_size)
            turns += min(_work_s(other, theirs), most)
    start = max(ready_at + ours.model.transport_s, ours.free_at + (before + turns) / ours.places)
    calls = own.keys * (full + 1)
    doubt = ours.model.noise * turn * math.sqrt((calls - 1) / ours.places + 1)
    return start + turn + doubt


def _work_s(backlog: Backlog, fleet: _Fleet) -> float:
    """Seconds of a place for all of it, in batches as full as they can be."""
    each = math.ceil(backlog.items / backlog.keys)
    calls = backlog.keys * math.ceil(each / backlog.max_batch_size)
    return calls * fleet.service_s(min(each, backlog.max_batch_size))
