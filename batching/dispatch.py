"""When does the next batch of a lane leave? The batcher's one decision, apart from its state."""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

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


class Dispatch(Protocol):
    """Decides when a lane's next batch leaves."""

    def leave_at(self, lane: Lane, now: float) -> float:
        """Loop time from which the batch may leave; ``now`` or earlier means at once.

        ``math.inf`` means not before something happens in the lane (a submit, the end of a call),
        whereupon the question is asked again. A finite time is waited for, and cut short by
        ``aclose``. An infinite answer is only for lanes that have a call in flight: with none,
        nothing would ever happen.
        """


@dataclass(frozen=True)
class FreeSlot:
    """A batch leaves when a slot is free: items gather while the calls before them run.

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

    def leave_at(self, lane: Lane, now: float) -> float:
        """See :meth:`Dispatch.leave_at`."""
        if lane.in_flight >= self.max_in_flight:
            return math.inf
        if lane.depth >= lane.max_batch_size:
            return now
        return lane.oldest + self.max_queue_delay
