"""What kind of device calls have met: do they wait for each other, slow each other down, neither?

From the times of calls that always meet as many others the kinds of device cannot be told apart:
steadily three at a time, calls take as long on a device that they share as on one where they wait
for each other, and on three that are each a third as fast. What tells them apart is the contrast
between calls that met none, one, and several. So some calls of each are kept (:class:`Contrast`),
each kind of device is asked how long a call would have taken alone by what it met, and the kind is
taken whose answers are on one straight line over the sizes (:func:`likeliest`).
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from batching.adaptive.cost import CallRecord, CostModel
from batching.adaptive.tuning import TUNING

__all__ = [
    "KINDS",
    "LEVELS",
    "SERIAL",
    "Contrast",
    "DeviceKind",
    "Explanation",
    "level_of",
    "likeliest",
]

LEVELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Numbers of calls at a time that are told apart; any other counts as the next one up."""


def level_of(calls: float) -> int:
    """The level that so many calls at a time belong to."""
    return next((level for level in LEVELS if level >= calls), LEVELS[-1])


@dataclass(frozen=True, order=True)
class DeviceKind:
    """How calls that meet at a device get on.

    Attributes
    ----------
    places
        Calls that run at full speed at a time.
    queues
        Whether those beyond wait until a place is free. If not they share the places.
    contention
        Where they share: by what part of a call's time each other call slows it down, up to the
        places (the Universal Scalability Law's first term; Gunther, 1993): k calls together are as
        fast as ``k / (1 + contention * (k - 1))`` of them alone.
    """

    places: int
    queues: bool
    contention: float = 0.0

    def speed(self, calls: float) -> float:
        """Calls' work that is done in the time of one call alone, while so many are there."""
        at_once = min(calls, self.places)
        return at_once / (1 + self.contention * (at_once - 1))

    def __str__(self) -> str:
        if self.contention:
            return f"shared, each call slows the others down by {self.contention:.0%}"
        if self.places == 1:
            return "serial" if self.queues else "shared"
        return f"{self.places} at a time"


SERIAL = DeviceKind(1, queues=True)
KINDS = (
    SERIAL,
    DeviceKind(1, queues=False),
    *(DeviceKind(LEVELS[-1], False, contention) for contention in (0.8, 0.6, 0.45, 0.3, 0.15)),
    *(DeviceKind(places, queues) for places in LEVELS[1:] for queues in (False, True)),
)


class Explanation(NamedTuple):
    """How well a kind explains what was seen."""

    error: float
    """Mean square, relative."""
    kind: DeviceKind
    transport_s: float
    fixed_s: float
    per_item_s: float
    work_share: float = 1.0
    """Of these calls' time, what it is that varies: the device's work where they wait for each
    other, all their time at the device where they share it."""

    def model(self) -> CostModel:
        """The cost that this kind found; its noise is that of the device's part alone."""
        noise = math.sqrt(self.error) / max(self.work_share, TUNING.exact)
        noise = min(1.0, max(TUNING.exact, noise))
        return CostModel(self.fixed_s, self.per_item_s, self.transport_s, noise)


Shares = list[tuple[int, float]]
"""Numbers of calls at a time, and for how long."""


def met(record: CallRecord, transport_s: float) -> Shares:
    """How many calls, itself one of them, were at the device while a call was, and for how long.

    >>> met(CallRecord(1, 5.0, 0.0, ends_before=(2.0,), others_after=((3.5, 5.0),)), 1.0)
    [(2, 1.0), (1, 2.5), (2, 0.5)]
    """
    own = min(transport_s, record.seconds)
    steps = [(own, 1)]
    for end in record.ends_before:
        if end > own:
            steps += [(own, 1), (end, -1)]
    for sent, end in record.others_after:
        if sent + transport_s < end:
            steps += [(sent + transport_s, 1), (end, -1)]
    steps.sort()
    shares: Shares = []
    calls = 0
    for place, (at, change) in enumerate(steps):
        calls += change
        until = steps[place + 1][0] if place + 1 < len(steps) else record.seconds
        if until > at:
            shares.append((calls, until - at))
    return shares


def alone_s(record: CallRecord, kind: DeviceKind, transport_s: float, shares: Shares) -> float:
    """Seconds that a device of this kind worked on a call, transport aside."""
    if not kind.queues:
        return sum(kind.speed(calls) / calls * seconds for calls, seconds in shares)
    place = len(record.ends_before) - kind.places
    ready = record.ends_before[place] if place >= 0 else 0.0
    if ready >= record.seconds:  # it overtook those that it should have waited for
        return math.inf
    return record.seconds - max(transport_s, ready)


def most_calls(shares: Shares) -> int:
    """The highest number of calls at a time that a call met for more than a moment."""
    total = sum(seconds for _, seconds in shares)
    together = 0.0
    for calls, seconds in sorted(shares, reverse=True):
        together += seconds
        if together > TUNING.contrast_share * total:
            return calls
    return 1


class Contrast:
    """The last calls that met so many others, for each level."""

    def __init__(self) -> None:
        self._levels: dict[int, deque[tuple[float, CallRecord]]] = {}

    def add(self, record: CallRecord, now: float) -> int:
        """Keep a call that ended just now; return its level.

        It is that of the calls in flight, not of those believed to be at the device: what is
        believed must not decide what is remembered.
        """
        for kept in self._levels.values():
            if kept and kept[0][0] < now - TUNING.contrast_age_s:
                kept.popleft()
        level = level_of(most_calls(met(record, 0.0)))
        kept = self._levels.setdefault(level, deque(maxlen=TUNING.contrast_calls))
        kept.append((now, record))
        return level

    def seen(self, level: int) -> int:
        """How many calls of a level there are."""
        return len(self._levels.get(level, ()))

    def at_device(self, transport_s: float) -> list[int]:
        """How many calls each of them met at the device, itself one of them."""
        return [most_calls(met(record, transport_s)) for record in self.records()]

    def records(self) -> list[CallRecord]:
        """The last of each level, not too many in all."""
        each = max(TUNING.contrast_least, TUNING.contrast_all // max(1, len(self._levels)))
        return [
            record for kept in self._levels.values() for _, record in islice(reversed(kept), each)
        ]

    def clear(self) -> None:
        """Forget all: the device has become another."""
        self._levels.clear()


def explain(
    records: Sequence[CallRecord], kinds: Iterable[DeviceKind], transports_s: Iterable[float]
) -> list[Explanation]:
    """How well each kind does, with the best of the transports."""
    best: dict[DeviceKind, Explanation] = {}
    for transport_s in transports_s:
        shares = [met(record, transport_s) for record in records]
        for kind in kinds:
            times = [
                alone_s(record, kind, transport_s, share)
                for record, share in zip(records, shares, strict=True)
            ]
            error, fixed_s, per_item_s = _line(records, times, kind.queues, transport_s)
            if kind not in best or error < best[kind].error:
                total = max(sum(record.seconds for record in records), TUNING.shortest_s)
                varies = sum(
                    fixed_s + per_item_s * record.size
                    if kind.queues
                    else record.seconds - transport_s
                    for record in records
                )
                best[kind] = Explanation(
                    error, kind, transport_s, fixed_s, per_item_s, varies / total
                )
    return sorted(best.values())


def likeliest(
    records: Sequence[CallRecord], current: DeviceKind, transport_s: float
) -> Explanation:
    """The kind that explains the calls best; the ``current`` one unless another does clearly so."""
    shortest = min(record.seconds for record in records)
    step = shortest / TUNING.contrast_transports
    coarse = [transport_s, *(step * place for place in range(TUNING.contrast_transports))]
    # Kinds with more places than calls ever met are all alike.
    most = level_of(1 + max(most_calls(met(record, 0.0)) for record in records))
    kinds = {kind for kind in KINDS if kind.contention or kind.places <= most} | {current}
    found = explain(records, kinds, coarse)
    near = {
        max(0.0, best.transport_s + step * place / 4)
        for best in found[:1]
        for place in (-2, -1, 1, 2)
    }
    best = min([found[0], *explain(records, [found[0].kind], near)])
    ours = next(one for one in found if one.kind == current)
    kept = explain(records, [current], [transport_s])[0]
    if kept.error < ours.error * (1 + TUNING.transport_doubt / len(records)):
        ours = kept
    exact = TUNING.contrast_exact**2
    evidence = len(records) * math.log((ours.error + exact) / (best.error + exact))
    return best if evidence > TUNING.contrast_evidence else ours


def _line(
    records: Sequence[CallRecord], times: Sequence[float], queues: bool, transport_s: float
) -> tuple[float, float, float]:
    """The mean square error of a straight line, and its two parts, none negative.

    Errors are relative to what a call took in all: so they are the same for all kinds.
    """
    overtook = sum(time == math.inf for time in times)
    if overtook:
        kept = [(r, t) for r, t in zip(records, times, strict=True) if t < math.inf]
        if not kept:
            return 1.0, 0.0, 0.0
        error, a, b = _line([r for r, _ in kept], [t for _, t in kept], queues, transport_s)
        return (error * len(kept) + overtook) / len(records), a, b
    middle = sorted(record.seconds for record in records)[len(records) // 2]
    weights = []
    for record, time in zip(records, times, strict=True):
        took, slowed = max(record.seconds, middle / 4), 1.0
        if not queues:  # an error of the work is one of the time by as much as it was slowed down
            at_device = record.seconds - transport_s
            slowed = max(at_device / max(time, at_device / 64, TUNING.shortest_s), 1.0)
        weights.append((slowed / took) ** 2)
    w = wn = wnn = wy = wny = 0.0
    for record, time, weight in zip(records, times, weights, strict=True):
        w += weight
        wn += weight * record.size
        wnn += weight * record.size**2
        wy += weight * time
        wny += weight * record.size * time
    spread = w * wnn - wn * wn
    b = (w * wny - wn * wy) / spread if spread > TUNING.least_spread * w * wnn else 0.0
    b = max(0.0, b)
    a = (wy - b * wn) / w
    if a < 0:
        a, b = 0.0, max(wny / wnn, 0.0)
    square = 0.0
    for record, time, weight in zip(records, times, weights, strict=True):
        square += min(weight * (time - a - b * record.size) ** 2, 4.0)
    return square / len(times), a, b
