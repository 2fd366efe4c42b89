"""Just in time: the next batch leaves so that it arrives as a device falls idle."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from batching.adaptive.device import level_of
from batching.adaptive.cost import CostModel
from batching.adaptive.departure import idle_enough, leave_at
from batching.adaptive.probing import Probe, Probes, pause_of_lead_s
from batching.adaptive.server import Call, Server
from batching.adaptive.tuning import TUNING
from batching.adaptive.turns import Turns
from batching.dispatch import Departure, Q, QueueView

__all__ = ["JustInTime"]


class JustInTime:
    def __init__(
        self,
        max_in_flight: int = 32,
        kind: Callable[[Any], Hashable] = lambda key: key,
    ) -> None:
        self._max_in_flight = max_in_flight
        self._kind = kind
        self._servers: dict[Hashable, Server] = {}
        self._probes: dict[Hashable, Probes] = {}
        self._turns = Turns()
        self._running = 0
        self._plan: tuple[Probe | None, Hashable] = (None, None)

    def server(self, name: Hashable) -> Server:
        server = self._servers.get(name)
        if server is None:
            server = self._servers[name] = Server()
            self._probes[name] = Probes()
        return server

    def next(self, queues: Sequence[Q], now: float) -> Departure[Q]:
        queue = min(queues, key=lambda queue: (self._turns.of(queue.key), queue.oldest))
        name = queue.servers[0]
        probe, at = self._leave(queue, name, now)
        self._plan = probe, name
        return Departure(queue, name, at)

    def submitted(self, queue: QueueView, now: float) -> None:
        pass

    def sent(self, queue: QueueView, name: Hashable, size: int, now: float) -> Call:
        server, kind = self.server(name), self._kind(queue.key)
        model = server.cost(kind)
        probe, planned = self._plan
        if probe is not None and planned == name:
            self._commit(probe, name, model, size, now)
        self._plan = None, None
        call = server.send(queue.key, kind, size, queue.max_batch_size(name), now)
        self._running += 1
        self._turns.used(queue.key, size, model.service_s(size), now, known=model.known)
        return call

    def ended(self, call: Call, now: float, *, failed: bool) -> None:
        self._running -= 1
        changes = call.server.changes
        call.server.end(call, now, failed=failed)
        if call.server.changes != changes:
            for name, server in self._servers.items():
                if server is call.server:
                    self._probes[name].renew()

    def _commit(self, probe: Probe, name: Hashable, model: CostModel, size: int, now: float) -> None:
        service = model.service_s(size)
        if probe is Probe.MORE:
            pause = max(TUNING.probe_up_interval_s, TUNING.probe_up_calls * service)
        elif probe is Probe.FEWER:
            pause = max(TUNING.probe_down_interval_s, TUNING.probe_down_calls * service)
        else:
            pause = pause_of_lead_s(model.noise)
        self._probes[name].done(probe, pause, now)

    def _leave(self, queue: QueueView, name: Hashable, now: float) -> tuple[Probe | None, float]:
        server, probes = self.server(name), self._probes[name]
        running = len(server.calls)
        if running == 0:
            return (Probe.FEWER if self._draining(server, probes, now) else None), now
        if self._running >= self._max_in_flight:
            return None, math.inf
        model = server.cost(self._kind(queue.key))
        if not model.known:
            return None, math.inf
        if server.merges:
            return None, now
        if self._draining(server, probes, now):
            return None, math.inf
        size = min(queue.depth, queue.max_batch_size(name))
        service = model.service_s(size) * server.stretch
        places = server.parallelism
        free, deviation = server.free_at()
        if running >= places * (2 + math.ceil(model.transport_s / service)):
            return None, math.inf
        if free <= now - TUNING.certain_deviations * deviation:
            return None, now
        probe, extra = self._extra(probes, queue, name, size, model.noise, now)
        rate = self._turns.rate(queue.key) or size / service
        likelihood = idle_enough(rate * model.fixed_s, queue.depth)
        lead = model.transport_s + service * extra
        at = leave_at(free, deviation, lead, likelihood, now)
        more = free - TUNING.contrast_overlap * service - model.transport_s
        if running == places and probes.due(Probe.MORE, now) and now <= more < at:
            return Probe.MORE, more
        return probe, at

    def _extra(
        self, probes: Probes, queue: QueueView, name: Hashable, size: int, noise: float, now: float
    ) -> tuple[Probe | None, float]:
        """By what part of a call's time the lead is longer than the transport."""
        largest = queue.max_batch_size(name)
        if queue.depth >= largest:
            return None, max(TUNING.margin, TUNING.full_lead_noise * noise)
        if probes.due(Probe.EARLY, now):
            return Probe.EARLY, TUNING.probe_early + noise
        if probes.due(Probe.LATE, now) and size < TUNING.probe_late_room * largest:
            return Probe.LATE, -TUNING.probe_late
        return None, TUNING.margin

    def _draining(self, server: Server, probes: Probes, now: float) -> bool:
        """Whether no call may leave until all have ended, to see how fast one is alone."""
        return probes.due(Probe.FEWER, now) and now - server.alone_at > TUNING.probe_down_interval_s
