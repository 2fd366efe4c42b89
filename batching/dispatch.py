"""When does the next batch leave, and whose? The batcher's one decision, apart from its state."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = ["Dispatch", "FreeSlot", "Lane"]


class Lane(Protocol):
    """What a decision may look at: the items of one key."""

    @property
    def key(self) -> Hashable:
        """What the items of the lane have in common."""

    @property
    def depth(self) -> int:
        """Items that wait; at least 1 when a decision is asked for."""

    @property
    def oldest(self) -> float:
        """Loop time at which the item that has waited longest came in."""

    @property
    def in_flight(self) -> int:
        """Calls of this lane that have not ended."""

    @property
    def max_batch_size(self) -> int:
        """Items that one call may carry."""


L = TypeVar("L", bound=Lane)


class Dispatch(Protocol):
    """Decides which lane's batch leaves next, and when. A batcher has one of its own."""

    def next(self, lanes: Sequence[L], now: float) -> tuple[L, float]:
        """One of ``lanes``, and the loop time from which its batch may leave.

        ``now`` or earlier means at once. ``math.inf`` means not before something happens (a submit,
        the end of a call), whereupon the question is asked again; it is only for when a call is in
        flight, since else nothing would ever happen. A finite time is waited for, and cut short by
        ``aclose``.
        """

    def sent(self, lane: Lane, size: int, now: float) -> Any:
        """A batch of ``size`` items has left; what this returns comes back with ``ended``."""

    def ended(self, call: Any, now: float, *, failed: bool) -> None:
        """A call has ended; ``failed`` when it ended without a result for some item, so that its
        time may not be that of one ordinary call."""


@dataclass(frozen=True)
class FreeSlot:
    """A batch leaves when a slot of its lane is free: items gather while calls before them run.

    ``max_queue_delay`` (seconds) holds a batch that is not full back in the hope of company,
    although a slot is free; 0 never does.
    """

    max_in_flight: int = 2
    max_queue_delay: float = 0.0

    def __post_init__(self) -> None:
        if self.max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        if not 0 <= self.max_queue_delay < math.inf:
            raise ValueError("max_queue_delay must be a finite number of seconds, 0 or more")

    def next(self, lanes: Sequence[L], now: float) -> tuple[L, float]:
        """See :meth:`Dispatch.next`."""
        lane = min(lanes, key=self._leave_at)
        return lane, self._leave_at(lane)

    def sent(self, lane: Lane, size: int, now: float) -> None:
        """See :meth:`Dispatch.sent`."""

    def ended(self, call: Any, now: float, *, failed: bool) -> None:
        """See :meth:`Dispatch.ended`."""

    def _leave_at(self, lane: Lane) -> float:
        if lane.in_flight >= self.max_in_flight:
            return math.inf
        if lane.depth >= lane.max_batch_size:
            return -math.inf
        return lane.oldest + self.max_queue_delay
