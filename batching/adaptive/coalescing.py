"""Items that are known to come soon: those that are being prepared, and callers that come back.

Waiting for them costs those who wait already; not waiting costs those who miss the batch the fixed
time of another call. It is the newsvendor's balance again, with a rate of arrivals that is known.
"""

import math
from typing import NamedTuple

from batching.adaptive.cost import CostModel
from batching.adaptive.tuning import TUNING

__all__ = ["Inbound", "Returning", "worth_waiting_for"]


class Inbound(NamedTuple):
    """Items that this machine has yet to prepare, and the seconds from one to the next; 0 of them
    where something else is the bottleneck."""

    items: int
    interval_s: float

    def target_batch_size(self) -> int:
        """How many items a batch should wait for, so that this machine makes few calls.

        Waiting for k of them costs each of those k about k/2 intervals; a call saved is time saved
        for all that are inbound. The sum is least at the square root that is known from order
        quantities (Harris, 1913).
        """
        if self.items < 1 or self.interval_s <= 0:
            return 1
        return max(1, math.isqrt(int(2 * self.items * TUNING.call_cpu_s / self.interval_s)))


def worth_waiting_for(waiting: int, inbound: Inbound, cost: CostModel, largest: int) -> int:
    """How many of the inbound items a batch of those ``waiting`` should wait for, so that the sum
    of all their latencies is least; none if not even the first.

    Those that it does not wait for share the call after it.

    >>> cost = CostModel(fixed_s=0.020, per_item_s=0.002, transport_s=0.0, noise=0.01)
    >>> worth_waiting_for(1, Inbound(7, 0.00065), cost, 32)  # a burst of eight: one call
    7
    >>> worth_waiting_for(30, Inbound(1, 0.020), cost, 32)  # one that comes late: the next call
    0
    """
    most = min(inbound.items, largest - waiting)
    if most < 1 or inbound.interval_s <= 0:
        return 0

    def total_s(count: int) -> float:
        first = waiting + count
        rest = inbound.items - count
        done = count * inbound.interval_s + cost.service_s(first)
        last = max(done, inbound.items * inbound.interval_s) + cost.service_s(rest)
        return first * done + (rest * last if rest else 0.0)

    parts = TUNING.inbound_parts
    counts = {most * part // parts for part in range(parts + 1)}
    return min(sorted(counts), key=total_s)


class Returning:
    """Callers of one key that ask again soon after their answer, as cameras and load tests do.

    Arrivals within a window after answers are compared with the part of time that such windows
    take: of arrivals at random no more fall into them.
    """

    def __init__(self) -> None:
        self._window_s = 0.0
        self._answered_at = -math.inf
        self._looked_at: float | None = None
        self._within = self._outside = 0.0
        self._open_s = self._closed_s = 0.0
        self._delay_s = 0.0
        self._missing = 0

    @property
    def share(self) -> float:
        """The part of all arrivals that come back, by what was seen of late, 0 to 1."""
        arrivals = self._within + self._outside
        seconds = self._open_s + self._closed_s
        if not arrivals or not seconds:
            return 0.0
        chance = self._open_s / seconds
        within = self._within / (arrivals + TUNING.returning_prior)
        return max(0.0, (within - chance) / (1 - chance)) if chance < 1 else 0.0

    def answered(self, items: int, window_s: float, now: float) -> None:
        """A call of so many items has ended; who comes within ``window_s`` came back."""
        self._pass(now)
        self._missing = items + (self._missing if self._is_open(now) else 0)
        self._window_s, self._answered_at = window_s, now

    def arrived(self, now: float) -> None:
        """An item has come."""
        self._pass(now)
        keep = TUNING.returning_keep
        self._within *= keep
        self._outside *= keep
        self._open_s *= keep
        self._closed_s *= keep
        if self._is_open(now):
            self._within += 1
            self._missing = max(0, self._missing - 1)
            delay = now - self._answered_at
            self._delay_s += TUNING.returning_weight * (delay - self._delay_s)
        else:
            self._outside += 1

    def wait_until(self, waiting: int, in_flight: int, cost: CostModel, now: float) -> float:
        """Until when a batch of those ``waiting`` should wait for callers to come back, of whom so
        many are ``in_flight``; ``now`` if it should not, ``math.inf`` for the end of a call.

        One call a round for all of them, which costs their way and their delay, is better than two
        that take turns, if the fixed time that it saves is longer. Within a round the next caller
        is waited for while that takes less than its part of the round.
        """
        missing = self._missing if self._is_open(now) else 0
        everyone = waiting + in_flight + missing
        if self.share < TUNING.returning_share or everyone <= 1:
            return now
        delay = max(self._delay_s, TUNING.shortest_s)
        last = delay * (math.log(everyone) + TUNING.euler_gamma)  # the mean of the slowest of them
        if cost.fixed_s <= cost.transport_s + last:
            return now
        if in_flight:
            return math.inf
        round_s = cost.service_s(everyone) + cost.transport_s + last
        if not missing or delay / missing > round_s / everyone:
            return now
        return max(now, self._answered_at + last + TUNING.returning_patience * delay)

    def _is_open(self, now: float) -> bool:
        return now - self._answered_at <= self._window_s

    def _pass(self, now: float) -> None:
        """Count the time since the last look as within a window or not."""
        if self._looked_at is not None:
            ends = self._answered_at + self._window_s
            within = max(0.0, min(now, ends) - self._looked_at)
            self._open_s += within
            self._closed_s += now - self._looked_at - within
        self._looked_at = now
