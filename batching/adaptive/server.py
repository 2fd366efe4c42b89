"""One server: its calls in flight, and what is known of it."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from batching.adaptive.concurrency import Demand, best_parallelism
from batching.adaptive.cost import UNKNOWN, CallRecord, CostModel
from batching.adaptive.device import (
    SERIAL,
    Contrast,
    DeviceKind,
    alone_s,
    level_of,
    likeliest,
    met,
)
from batching.adaptive.estimator import CostEstimator
from batching.adaptive.merging import MergingDetector
from batching.adaptive.probing import Probe, Probes
from batching.adaptive.tuning import TUNING
from batching.adaptive.turns import DecayingRate

__all__ = ["Call", "Server"]


def _sent_rate(server: "Server", now: float) -> float:
    return server.sent.per_second(now)


@dataclass(eq=False, slots=True)
class Call:
    """A call in flight."""

    server: "Server"
    key: Hashable
    kind: Hashable
    size: int
    sent: float
    ahead: int
    """Calls in flight when it left."""
    largest: int = 32
    waits: list[float] = field(default_factory=list)
    """Seconds from its departure to each end of one of those, as they come."""
    later: "list[Call]" = field(default_factory=list)
    """Calls that left while it ran."""
    end: float = math.inf
    alone: bool = False
    """Whether no other is to meet it."""
    crowded: bool = False
    """Whether it met, to learn from it, more others than is best."""

    def record(self) -> CallRecord:
        """All that it shows, once it has ended."""
        seconds = self.end - self.sent
        ends = (*self.waits, *[seconds] * (self.ahead - len(self.waits)))
        after = tuple(
            (call.sent - self.sent, min(call.end, self.end) - self.sent) for call in self.later
        )
        return CallRecord(self.size, seconds, ends[-1] if ends else 0.0, ends, after)


class _ItemKind:
    """What is learnt of one kind of items."""

    def __init__(self, prior: CostModel) -> None:
        self.estimator = CostEstimator(prior)
        self.contrast = Contrast()
        self.met_calls: list[int] = []
        """How many calls each of these met at the device."""
        self.looked_at = -math.inf
        self.patience_s = TUNING.contrast_s[0]


class Server:
    """What is learnt of a server, by the calls that it runs: for each kind of item the cost, for
    all together what kind of device it is and how many calls at a time it is best given."""

    def __init__(
        self,
        kin: Callable[[Hashable], CostModel] = lambda _: UNKNOWN,
        demanded: "Callable[[Server, float], float] | None" = None,
    ) -> None:
        self._demanded = demanded or _sent_rate
        self.calls: list[Call] = []
        self.used_at = -math.inf
        """When a call last left for it."""
        self.most_in_flight = 1.0
        """The highest number of calls in flight of which one ended well, of late."""
        self.probes = Probes()
        self.device: DeviceKind = SERIAL
        self.parallelism = 1
        """Calls that are best at the device at a time."""
        self.merging: MergingDetector[Call] = MergingDetector()
        self._kin = kin
        self._kinds: OrderedDict[Hashable, _ItemKind] = OrderedDict()
        self._mix = _Mix()
        self.sent = DecayingRate()
        """Items that left for it."""
        self._chosen_at = -math.inf

    @property
    def merges(self) -> bool:
        """Whether it makes one call of those that wait."""
        return self.merging.merges

    def cost(self, kind: Hashable) -> CostModel:
        """What is known of calls of a kind; what its kin are like, before the first."""
        own = self.own_cost(kind)
        return self._kin(kind) if own is None else own

    def own_cost(self, kind: Hashable) -> CostModel | None:
        """What was learnt of calls of a kind on this very server; None before the first."""
        known = self._kinds.get(kind)
        return None if known is None else known.estimator.model

    def curious(self, kind: Hashable) -> bool:
        """Whether it is hardly known what one call more than is best would bring."""
        known = self._kinds.get(kind)
        met_calls = [] if known is None else known.met_calls
        return sum(calls > self.parallelism for calls in met_calls) < TUNING.probe_more_new

    def alone_due(self, kind: Hashable, now: float) -> bool:
        """Whether too few calls are remembered that met no other, and it is time for one."""
        known = self._kinds.get(kind)
        forgot = known is not None and known.contrast.seen(1) < TUNING.probe_more_new
        return forgot and self.probes.due(Probe.ALONE, now)

    @property
    def stretch(self) -> float:
        """By what factor calls take longer at the device than alone, when as many are there as is
        best."""
        return self.parallelism / self.device.speed(self.parallelism)

    def service_s(self, call: Call) -> float:
        """What the device needs for a call, beside as many others as is best."""
        return self.cost(call.kind).service_s(call.size) * self.stretch

    @property
    def catch_up_s(self) -> float:
        """Seconds in which a backlog is to be worked off."""
        shortest, longest = TUNING.catch_up_s
        return min(max(TUNING.catch_up_calls * self._mix.full_s, shortest), longest)

    def send(self, key: Hashable, kind: Hashable, size: int, largest: int, now: float) -> Call:
        """A call leaves."""
        call = Call(self, key, kind, size, now, len(self.calls), largest)
        for other in self.calls:
            other.later.append(call)
        self.calls.append(call)
        self.used_at = now
        model = self.cost(kind)
        if model.known:
            self._mix.add(size, model, largest)
        self.sent.add(size, now)
        return call

    def end(self, call: Call, now: float, *, failed: bool) -> None:
        """A call has ended; learn from it unless it ``failed``."""
        call.end = now
        place = self.calls.index(call)
        del self.calls[place]
        for later in self.calls[place:]:
            later.waits.append(now - later.sent)
        if not failed:
            lately = TUNING.most_keep * self.most_in_flight
            self.most_in_flight = max(call.ahead + 1.0, lately)
            self._learn(call, now)

    def free_at(self) -> tuple[float, float]:
        """When one of the places will be free as seen from here, and the deviation of that
        guess; -inf if one is."""
        ends: list[float] = []
        variance = 0.0
        places = self.parallelism
        for call in self.calls:
            model = self.cost(call.kind)
            service = self.service_s(call)
            start = call.sent + model.transport_s
            if 0 <= call.ahead - places < len(call.waits):
                start = max(start, call.sent + call.waits[call.ahead - places])
            if len(ends) >= places:
                start = max(start, sorted(ends)[-places])
            ends.append(start + service)
            variance += (service * model.noise) ** 2
        if len(ends) < places:
            return -math.inf, 0.0
        return sorted(ends)[-places], math.sqrt(variance / places)

    def _learn(self, call: Call, now: float) -> None:
        known = self._kind(call.kind)
        model, record = known.estimator.model, call.record()
        together = model.known and self.merging.ended(call, self.calls, now, model)
        if together or self.merges:
            # What ends together tells nothing of how calls get on, and while the server merges them
            # none tells its own cost; should that rise, they no longer end as soon as one call.
            return
        level = known.contrast.add(record, now)
        if self._learn_cost(known.estimator, record, now, usual=not call.crowded):
            known.contrast.clear()
            self.probes.renew()
            known.patience_s = TUNING.contrast_s[0]
        elif model.known:
            new = known.contrast.seen(level) <= TUNING.probe_more_new
            if new or now - known.looked_at > known.patience_s:
                self._look_again(known, now)
            if new or now - self._chosen_at > TUNING.contrast_s[0]:
                self._choose(known, now)

    def _look_again(self, known: _ItemKind, now: float) -> None:
        """What kind of device is it?"""
        known.looked_at = now
        model, records = known.estimator.model, known.contrast.records()
        if len(records) >= TUNING.contrast_enough:
            found = likeliest(records, self.device, model.transport_s)
            moved = (
                abs(found.transport_s - model.transport_s)
                > TUNING.transport_moved * model.transport_s
            )
            if found.kind != self.device:
                known.patience_s = TUNING.contrast_s[0]
            else:
                known.patience_s = min(
                    TUNING.contrast_longer * known.patience_s, TUNING.contrast_s[1]
                )
            if found.kind != self.device or (self.device != SERIAL and moved):
                self.device = found.kind
                known.estimator.restart(found.model())
        known.met_calls = known.contrast.at_device(known.estimator.model.transport_s)

    def _choose(self, known: _ItemKind, now: float) -> None:
        """How many calls at a time is it best given?"""
        self._chosen_at = now
        demand = self._mix.demand(self._demanded(self, now))
        highest = level_of(max(known.met_calls, default=1))
        self.parallelism = best_parallelism(self.device, self.parallelism, highest, demand)

    def _learn_cost(
        self, estimator: CostEstimator, record: CallRecord, now: float, *, usual: bool
    ) -> bool:
        """Whether costs have changed for good. Where calls do not wait for each other, the time of
        a call is brought to what it would have been alone."""
        if self.device == SERIAL:
            return estimator.learn(record, now, usual=usual)
        transport_s = estimator.model.transport_s
        shares = met(record, transport_s)
        worked = alone_s(record, self.device, transport_s, shares)
        alone = record._replace(seconds=transport_s + worked, ready_s=0.0)
        return worked < math.inf and estimator.learn(alone, now, usual=usual)

    def _kind(self, kind: Hashable) -> _ItemKind:
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _ItemKind(self._kin(kind))
            if len(self._kinds) > TUNING.kinds:
                self._kinds.popitem(last=False)
        self._kinds.move_to_end(kind)
        return known


class _Mix:
    """What calls on a server cost on average, of whatever kind, of late."""

    def __init__(self) -> None:
        self._items = self._calls = self._fixed = self._per_item = 0.0
        self._largest = 1

    def add(self, size: int, model: CostModel, largest: int) -> None:
        keep = TUNING.mix_keep
        self._items = keep * self._items + size
        self._calls = keep * self._calls + 1
        self._fixed = keep * self._fixed + model.fixed_s
        self._per_item = keep * self._per_item + size * model.per_item_s
        self._largest = largest

    @property
    def full_s(self) -> float:
        """What the device needs for a full call."""
        demand = self.demand(0.0)
        return demand.fixed_s + demand.per_item_s * demand.max_batch_size if demand else 0.0

    def demand(self, rate: float) -> Demand | None:
        if not self._calls:
            return None
        return Demand(rate, self._fixed / self._calls, self._per_item / self._items, self._largest)
