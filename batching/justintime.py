"""Just in time: the next batch leaves so that it arrives as the device falls idle."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from batching.dispatch import L, Lane
from batching.learning import CallCost, Sample

__all__ = ["Ahead", "JustInTime", "Upcoming"]

KINDS = 1024  # costs that are remembered; the one unused for longest is forgotten
MARGIN = 0.02  # of a call's time: how much earlier than just in time
FULL = 2.0  # times the noise: how much earlier a full batch leaves, which no other item can join
# Now and then a batch leaves a little earlier or later, since a cost is seen only where it varies.
EARLY = 0.15  # of a call's time, and the noise on top: would another call run beside this one?
LATE = 0.04  # of a call's time: does less lead do?
ROOM_TO_BE_LATE = 0.75  # of a batch; a fuller one is never late
TRIAL_SECONDS = 0.8  # from one such trial to the next
SHOWS = 0.1  # noise by which costs show by themselves: with three times as much trials are rare
# By how likely the device is idle when a batch arrives, it leaves (:func:`_idle_enough`).
BALANCE = 0.83
SURE = 0.95
KEEP = 0.85  # of what was seen of a key's rate, at each call
PAUSE = 4.0  # times a call's time; a longer one between two calls tells nothing of a rate
CALL_SECONDS = 1.5e-3  # CPU that a call costs this machine, whatever it carries (bench/README.md)


class Ahead(NamedTuple):
    """Items that cost what those of ``key`` do and wait, here or on their way here; how many of
    them a call takes, and over how many keys they are spread, which share no call."""

    key: Hashable
    items: int
    max_batch_size: int
    keys: float = 1.0


class Upcoming(NamedTuple):
    """Items that this machine is too busy to have prepared yet, and the seconds from one to the
    next; 0 of them where something else is the bottleneck."""

    items: int
    interval: float

    def company(self) -> int:
        """How many items a batch should wait for.

        Waiting for k of them costs each of those k about k/2 intervals; a call saved is time saved
        for all that are upcoming. The sum is least at the square root that is known from order
        quantities (Harris, 1913).
        """
        if self.items < 1 or self.interval <= 0:
            return 1
        return max(1, math.isqrt(int(2 * self.items * CALL_SECONDS / self.interval)))


@dataclass(eq=False)
class _Call:
    cost: CallCost
    size: int
    sent: float
    ahead: int
    waits: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Flow:
    """What comes for one key."""

    turn: float = 0.0
    left: float | None = None
    """When its last call did."""
    items: float = 0.0
    """That left, of late."""
    seconds: float = 0.0
    """Between their calls."""

    def leave(self, size: int, now: float, service: float) -> None:
        """A call of ``size`` leaves, which the device needs ``service`` seconds for."""
        if self.left is not None:
            self.items = KEEP * self.items + size
            self.seconds = KEEP * self.seconds + min(now - self.left, PAUSE * service)
        self.left = now


class JustInTime:
    """Learns what calls cost and sends each batch to arrive when the device can take it.

    All keys share one device, which runs some number of calls at a time; that number, the cost of
    calls and how much of it can overlap is learnt per kind of key (:class:`CallCost`). Until three
    calls of a kind have ended, two calls at a time leave. Keys take turns by cost (start-time fair
    queueing, Goyal et al., 1996): one that has used little goes before one that floods.

    Parameters
    ----------
    max_in_flight
        Calls that may run at a time, whatever was learnt.
    kind
        What keys have in common that cost the same; by default each key is learnt alone.
    upcoming
        Tells how many items are still to come from this machine. While there are many, a batch
        waits for a few of them although the device is free (:meth:`Upcoming.company`), but no
        longer than they should take.
    """

    def __init__(
        self,
        max_in_flight: int = 32,
        kind: Callable[[Any], Hashable] = lambda key: key,
        upcoming: Callable[[], Upcoming] = lambda: Upcoming(0, 0.0),
    ) -> None:
        if max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        self._max_in_flight = max_in_flight
        self._kind = kind
        self._upcoming = upcoming
        self._costs: OrderedDict[Hashable, CallCost] = OrderedDict()
        self._calls: list[_Call] = []
        self._flows: OrderedDict[Hashable, _Flow] = OrderedDict()
        self._turn = 0.0
        self._early_from = self._late_from = 0.0
        self._trial: str | None = None

    def cost(self, key: Hashable) -> CallCost:
        """What is known of calls for ``key``."""
        kind = self._kind(key)
        cost = self._costs.get(kind)
        if cost is None:
            cost = self._costs[kind] = CallCost()
            if len(self._costs) > KINDS:
                self._costs.popitem(last=False)
        self._costs.move_to_end(kind)
        return cost

    def next(self, lanes: Sequence[L], now: float) -> tuple[L, float]:
        """See :meth:`Dispatch.next`."""
        upcoming = self._upcoming()
        company = upcoming.company()
        if company > 1:
            patience = company * upcoming.interval
            ready = [
                lane
                for lane in lanes
                if lane.depth >= min(company, lane.max_batch_size) or lane.oldest + patience <= now
            ]
            if not ready:
                lane = min(lanes, key=lambda lane: lane.oldest)
                return lane, lane.oldest + patience
            lanes = ready
        lane = min(lanes, key=lambda lane: (self._turn_of(lane.key), lane.oldest))
        return lane, self._leave_at(lane, now)

    def sent(self, lane: Lane, size: int, now: float) -> _Call:
        """See :meth:`Dispatch.sent`."""
        call = _Call(self.cost(lane.key), size, now, ahead=len(self._calls))
        pause = TRIAL_SECONDS * (1 + (call.cost.noise / SHOWS) ** 2)
        if self._trial == "early":
            self._early_from = now + pause
        elif self._trial == "late":
            self._late_from = now + pause
        self._trial = None
        self._calls.append(call)
        flow = self._flows.setdefault(lane.key, _Flow())
        self._flows.move_to_end(lane.key)
        service = call.cost.service(size)
        if call.cost.known:
            flow.leave(size, now, service)
        self._turn = max(self._turn, flow.turn)
        flow.turn = self._turn + service
        if len(self._flows) > KINDS:
            self._flows.popitem(last=False)
        return call

    def ended(self, call: _Call, now: float, *, failed: bool) -> None:
        """See :meth:`Dispatch.ended`."""
        place = self._calls.index(call)
        del self._calls[place]
        for later in self._calls[place:]:
            later.waits.append(now - later.sent)
        if not failed:
            sample = Sample(call.size, now - call.sent, call.ahead, tuple(call.waits))
            call.cost.learn(sample, now)

    def expected(self, own: Ahead, others: Iterable[Ahead], ready: float, now: float) -> float:
        """When one more item of ``own.key`` will have its result, if it is submitted at ``ready``.

        By what was learnt, with batches as full as they can be for all who are ahead, and a turn
        for each of the keys beside the item's own; of ``others`` no more than their fair turns.
        -inf while the cost of that key is not known: nothing is refused on suspicion.
        """
        cost = self.cost(own.key)
        if not cost.known:
            return -math.inf
        full, rest = divmod(int(own.items / own.keys), own.max_batch_size)
        batch = cost.service(own.max_batch_size)
        turn = batch if full else cost.service(rest + 1)
        before = own.keys * full * batch + (own.keys - 1) * turn
        turns = sum(
            min(self._work(other), before + self.cost(other.key).service(other.max_batch_size))
            for other in others
            if other.items
        )
        free = max(now, self._free(cost.slots)[0])
        start = max(ready + cost.overlap, free + (before + turns) / cost.slots)
        calls = own.keys * (full + 1)
        doubt = cost.noise * turn * math.sqrt((calls - 1) / cost.slots + 1)
        return start + turn + doubt

    def _work(self, ahead: Ahead) -> float:
        """Seconds of the device for all of it, in batches as full as they can be."""
        cost, each = self.cost(ahead.key), math.ceil(ahead.items / ahead.keys)
        calls = ahead.keys * math.ceil(each / ahead.max_batch_size)
        return calls * cost.service(min(each, ahead.max_batch_size)) if cost.known else 0.0

    def _turn_of(self, key: Hashable) -> float:
        flow = self._flows.get(key)
        return self._turn if flow is None else flow.turn

    def _leave_at(self, lane: Lane, now: float) -> float:
        self._trial = None
        running = len(self._calls)
        if running == 0:
            return now
        if running >= self._max_in_flight:
            return math.inf
        cost = self.cost(lane.key)
        if not cost.known:
            return now if running < 2 else math.inf
        size = min(lane.depth, lane.max_batch_size)
        service = cost.service(size)
        needed = cost.slots * (2 + math.ceil(cost.overlap / service))
        if running >= min(needed, 2 * (cost.deepest + 1)):
            return math.inf  # the device hangs or has become slow, or is not known to take more
        free, deviation = self._free(cost.slots)
        if free <= now - 4 * deviation:
            return now
        lead = cost.overlap + service * self._extra(lane, size, cost.noise, now)
        flow = self._flows.get(lane.key)
        rate = flow.items / flow.seconds if flow and flow.seconds else size / service
        return _worth_leaving(free, deviation, lead, _idle_enough(rate * cost.a, lane.depth), now)

    def _extra(self, lane: Lane, size: int, noise: float, now: float) -> float:
        """By what part of a call's time the lead is longer than the overlap."""
        if lane.depth >= lane.max_batch_size:
            return max(MARGIN, FULL * noise)
        if now >= self._early_from:
            self._trial = "early"
            return EARLY + noise
        if now >= self._late_from and size < ROOM_TO_BE_LATE * lane.max_batch_size:
            self._trial = "late"
            return -LATE
        return MARGIN

    def _free(self, slots: int) -> tuple[float, float]:
        """When one of ``slots`` will be free as seen from here, and the deviation of that guess."""
        ends: list[float] = []
        variance = 0.0
        for call in self._calls:
            cost, service = call.cost, call.cost.service(call.size)
            start = call.sent + cost.overlap
            place = call.ahead - cost.slots
            if 0 <= place < len(call.waits):
                start = max(start, call.sent + call.waits[place])
            if len(ends) >= cost.slots:
                start = max(start, sorted(ends)[-cost.slots])
            ends.append(start + service)
            variance += (service * cost.noise) ** 2
        if len(ends) < slots:
            return -math.inf, 0.0
        return sorted(ends)[-slots], math.sqrt(variance / slots)


def _idle_enough(fixed: float, waiting: int) -> float:
    """The probability that the device will be idle on arrival, from which a batch leaves.

    A second too early keeps the items that come in it for the next call; a second too late is one
    for each that waits, and makes calls rarer. At r items a second these follow each other every
    C = (a + late) / (1 - r b) seconds, half of which an item waits, to then take a + b r C; so a
    second too late costs each (1/2 + r b) / (1 - r b), one too early about one. Where r C of them
    wait, the two are in balance (the newsvendor's ratio; Arrow, Harris and Marschak, 1951) at
    r a / 1.5 over their number. ``fixed`` is r a, the items that come in the fixed time of a call.

    The best there can be without seeing the future, which ``bench.optimum`` computes, follows the
    same law for any number that waits but one or two, with 0.83 instead of 1 / 1.5.
    """
    return min(SURE, BALANCE * fixed / waiting)


def _worth_leaving(
    free: float, deviation: float, lead: float, idle_enough: float, now: float
) -> float:
    """The time from which a batch that takes ``lead`` to arrive likely finds the device idle.

    The device is seen to fall idle at a time that is normally distributed around ``free``. While it
    is not seen, the probability that it will have when the batch arrives rises; too early costs
    those who come after, too late the device's time.
    """
    if lead <= 0:
        return math.inf

    def likely(at: float) -> bool:
        busy = _tail((at - free) / deviation)
        return busy < 1e-12 or 1 - _tail((at + lead - free) / deviation) / busy >= idle_enough

    if likely(now):
        return now
    early, late = now, free + 4 * deviation
    if not likely(late):
        return math.inf
    for _ in range(12):
        middle = (early + late) / 2
        early, late = (early, middle) if likely(middle) else (middle, late)
    return late


def _tail(z: float) -> float:
    """The probability that a standard normal variable exceeds ``z``."""
    return 0.5 * math.erfc(z / math.sqrt(2))
