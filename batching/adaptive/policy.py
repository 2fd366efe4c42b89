"""Just in time: the next batch leaves so that it arrives as a device falls idle."""

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from batching.adaptive.coalescing import Inbound, Returning, worth_waiting_for
from batching.adaptive.cost import UNKNOWN, CostModel
from batching.adaptive.departure import Waiting, departure
from batching.adaptive.forecast import Backlog, completion_at
from batching.adaptive.probing import Probe, pause_s
from batching.adaptive.server import Call, Server
from batching.adaptive.tuning import TUNING
from batching.adaptive.turns import DecayingRate, Turns
from batching.dispatch import Departure, Q, QueueView

__all__ = ["JustInTime", "Learnt"]


@dataclass(frozen=True)
class Learnt:
    """What is known of a server and one kind of items."""

    cost: CostModel
    device: str
    """The kind of device that it seems to be, in words."""
    parallelism: int
    """Calls that are best at the device at a time; 0: as many as there are."""


class _Choice(NamedTuple):
    """One way to send a batch."""

    done_at: float
    """When it would be done, as far as is known."""
    at: float
    server: Hashable
    service_s: float = 0.0
    """What the device needs for it."""
    probe: Probe | None = None
    size: int = sys.maxsize


class JustInTime:
    """Learns what calls cost and sends each batch to arrive when a device can take it.

    What is learnt of a server is in :class:`Server`; it starts with one call at a time, all of
    which ended before the next leaves. Keys take turns by cost on the servers that they share. A
    batch goes to the server that will have done it first, which it may have to wait for.

    Parameters
    ----------
    max_in_flight
        Calls that may run at a time on all servers together, whatever was learnt.
    kind
        What keys have in common that cost the same; by default each key is learnt alone.
    inbound
        Tells how many items are still to come from this machine. While there are many, a batch
        waits for a few of them although a device is free (:meth:`Inbound.target_batch_size`), but
        no longer than they should take.
    """

    def __init__(
        self,
        max_in_flight: int = 32,
        kind: Callable[[Any], Hashable] = lambda key: key,
        inbound: Callable[[], Inbound] = lambda: Inbound(0, 0.0),
    ) -> None:
        if max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        self._max_in_flight = max_in_flight
        self._kind = kind
        self._inbound = inbound
        self._servers: dict[Hashable, Server] = {}
        self._turns = Turns()
        self._arrivals = DecayingRate()
        self._returning: OrderedDict[Hashable, Returning] = OrderedDict()
        self._crowd = 0
        self._running = 0
        self._chosen: _Choice | None = None

    def server(self, name: Hashable) -> Server:
        """What is known of a server."""
        server = self._servers.get(name)
        if server is None:
            server = self._servers[name] = Server(self._kin, self._demanded)
        return server

    def forget(self, name: Hashable) -> None:
        """A server is gone for good."""
        self._servers.pop(name, None)

    def cost(self, key: Hashable, server: Hashable = None) -> CostModel:
        """What is known of calls for ``key`` on a server."""
        return self.server(server).cost(self._kind(key))

    def learnt(self, key: Hashable, server: Hashable = None) -> Learnt:
        """All that is known of a server, for ``key``."""
        known = self.server(server)
        if known.merges:
            return Learnt(self.cost(key, server), "merges calls that wait", 0)
        return Learnt(self.cost(key, server), str(known.device), known.parallelism)

    def expected(
        self, own: Backlog, others: Iterable[Backlog], ready_at: float, now: float
    ) -> float:
        """See :func:`completion_at`."""
        return completion_at(own, others, self.server, self._kind, ready_at, now)

    def next(self, queues: Sequence[Q], now: float) -> Departure[Q]:
        """See :meth:`Dispatch.next`."""
        self._chosen = None
        self._crowd = sum(
            max(0, queue.depth - queue.max_batch_size(queue.servers[0])) for queue in queues
        )
        inbound = self._inbound()
        ready, patience = self._with_company(queues, inbound, now)
        if not ready:
            return patience
        best: Departure[Q] | None = None
        taken: set[Hashable] = set()
        for queue in sorted(ready, key=lambda one: (self._turns.of(one.key), one.oldest)):
            names = [name for name in queue.servers if name not in taken]
            if not names:
                continue
            choice = self._best(queue, [self._choice(queue, name, now) for name in names], now)
            at = self._when_together(queue, choice, inbound, now)
            departure = Departure(queue, choice.server, at, choice.size)
            if at <= now:
                self._chosen = choice
                return departure
            taken.add(choice.server)  # who comes later must not take it away
            if best is None or at < best.at:
                best = departure
        assert best is not None  # noqa: S101 - the first queue has at least one server
        return best

    def submitted(self, queue: QueueView, now: float) -> None:
        """See :meth:`Dispatch.submitted`."""
        self._arrivals.add(1, now)
        returning = self._returning.get(queue.key)
        if returning is None:
            returning = self._returning[queue.key] = Returning()
            if len(self._returning) > TUNING.kinds:
                self._returning.popitem(last=False)
        self._returning.move_to_end(queue.key)
        returning.arrived(now)

    def sent(self, queue: QueueView, server: Hashable, size: int, now: float) -> Call:
        """See :meth:`Dispatch.sent`."""
        known, kind = self.server(server), self._kind(queue.key)
        model = known.cost(kind)
        probe = self._chosen.probe if self._chosen is not None else None
        if probe is not None:
            crowded = queue.depth >= queue.max_batch_size(server)
            service_s = model.service_s(size)
            pause = pause_s(probe, service_s, model.noise, crowded=crowded)
            if probe is Probe.MERGING and not known.merging.known:
                pause = TUNING.probe_merging_new_calls * service_s
            known.probes.done(probe, pause, now)
        self._chosen = None
        self._running += 1
        self._turns.used(queue.key, size, model.service_s(size), now, known=model.known)
        call = known.send(queue.key, kind, size, queue.max_batch_size(server), now)
        call.alone = probe is Probe.ALONE
        if probe in {Probe.MORE, Probe.MERGING}:
            for one in known.calls:
                one.crowded = True
        return call

    def ended(self, call: Call, now: float, *, failed: bool) -> None:
        """See :meth:`Dispatch.ended`."""
        self._running -= 1
        call.server.end(call, now, failed=failed)
        if (returning := self._returning.get(call.key)) is not None:
            model = call.server.cost(call.kind)
            window_s = TUNING.returning_window * model.fixed_s if model.known else 0.0
            returning.answered(call.size, window_s, now)

    @staticmethod
    def _with_company(
        queues: Sequence[Q], inbound: Inbound, now: float
    ) -> tuple[Sequence[Q], Departure[Q]]:
        """The queues that need not wait for what is inbound, and when the first of them need not
        any more."""
        target = inbound.target_batch_size()
        patience_s = target * inbound.interval_s if target > 1 else 0.0
        first = min(queues, key=lambda queue: queue.oldest)
        ready = [
            queue
            for queue in queues
            if target == 1
            or queue.depth >= min(target, queue.max_batch_size(queue.servers[0]))
            or queue.oldest + patience_s <= now
        ]
        return ready, Departure(first, first.servers[0], first.oldest + patience_s)

    def _when_together(
        self, queue: QueueView, choice: _Choice, inbound: Inbound, now: float
    ) -> float:
        """When a batch leaves that may wait for items that are known to come soon: those that are
        being prepared, and callers that come back. What waits for this machine's sake has waited
        before (:meth:`_with_company`)."""
        server, kind = self.server(choice.server), self._kind(queue.key)
        cost, largest = server.cost(kind), queue.max_batch_size(choice.server)
        if not cost.known or server.merges or queue.depth >= largest:
            return choice.at
        at = choice.at
        latest = queue.oldest + cost.fixed_s
        count = worth_waiting_for(queue.depth, inbound, cost, largest) if at <= now < latest else 0
        if count:
            return min(now + TUNING.inbound_patience * count * inbound.interval_s, latest)
        returning = self._returning.get(queue.key)
        if returning is not None and server.parallelism == 1 and len(queue.servers) == 1:
            in_flight = sum(call.size for call in server.calls if call.key == queue.key)
            at = max(at, returning.wait_until(queue.depth, in_flight, cost, now))
        return at

    def _demanded(self, server: Server, now: float) -> float:
        """Items a second that a server is to be given: its share of those that come and wait."""
        rate = self._arrivals.per_second(now) + self._crowd / server.catch_up_s
        total = sum(other.sent.per_second(now) for other in self._servers.values())
        return rate * server.sent.per_second(now) / total if total else rate

    def _kin(self, kind: Hashable) -> CostModel:
        """What servers are like, for one of which nothing is known."""
        found = [
            model
            for server in self._servers.values()
            if (model := server.own_cost(kind)) is not None and model.known
        ]
        if not found:
            return UNKNOWN
        n = len(found)
        return replace(
            found[0],
            fixed_s=sum(model.fixed_s for model in found) / n,
            per_item_s=sum(model.per_item_s for model in found) / n,
            transport_s=sum(model.transport_s for model in found) / n,
        )

    def _best(self, queue: QueueView, choices: list[_Choice], now: float) -> _Choice:
        """The one that is done first, but for a crowd: those behind are helped if another server
        takes this batch although it needs longer.

        A batch taken away spares all who wait behind it its time, and those who will come, until
        the queue is empty, by the factor 1 / (1 - rho) of any queue.
        """
        first = min(choices, key=self._order)
        full = queue.max_batch_size(first.server)
        behind = queue.depth - full
        others = [one for one in choices if one.at <= now]
        if first.at <= now or behind <= 0 or not others:
            return first
        other = min(others, key=self._order)
        faster = sum(1 / one.service_s for one in choices if 0 < one.service_s < other.service_s)
        if not faster:
            return first
        spare = max(1 - self._arrivals.per_second(now) / (full * faster), TUNING.spare_least)
        gain = behind * first.service_s / spare
        return other if gain > full * (other.done_at - first.done_at) else first

    def _order(self, choice: _Choice) -> tuple[float, float]:
        """What is done first comes first; of those alike the server that was used least lately."""
        return choice.done_at, self.server(choice.server).used_at

    def _choice(self, queue: QueueView, name: Hashable, now: float) -> _Choice:
        """How a batch is best sent to a server, and when it would be done."""
        server, kind = self.server(name), self._kind(queue.key)
        model = server.cost(kind)
        running = len(server.calls)
        if self._running >= self._max_in_flight:
            return _Choice(math.inf, math.inf, name)
        if not model.known:  # one call at a time tells most
            return _Choice(now, now, name) if not running else _Choice(math.inf, math.inf, name)
        size = min(queue.depth, queue.max_batch_size(name))
        service = model.service_s(size) * server.stretch
        if not running:
            if now - server.used_at > TUNING.explore_interval_s and len(queue.servers) > 1:
                return _Choice(-math.inf, now, name, size=1)  # to be seen, it comes before all
            probe = Probe.ALONE if server.alone_due(kind, now) else None
            return _Choice(now + model.transport_s + service, now, name, service, probe)
        free, deviation = server.free_at()
        rate = self._turns.rate(queue.key) or queue.depth / service
        waiting = Waiting(queue.depth, queue.max_batch_size(name), rate)
        probe, at = departure(server, kind, waiting, (free, deviation), now)
        soonest = max(now, free - model.transport_s) if at == math.inf else max(now, at)
        done = max(soonest + model.transport_s, free) + service
        return _Choice(done, at, name, service, probe)
