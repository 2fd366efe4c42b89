"""Which batch leaves next, when, and where to? The batcher's one decision, apart from its state."""

import math
import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

__all__ = ["Departure", "Dispatch", "FreeSlot", "Q", "QueueView"]


class QueueView(Protocol):
    """What a decision may look at: the items of one key."""

    @property
    def key(self) -> Hashable:
        """What the items of the queue have in common."""

    @property
    def depth(self) -> int:
        """Items that wait; at least 1 when a decision is asked for."""

    @property
    def oldest(self) -> float:
        """Loop time at which the item that has waited longest came in."""

    @property
    def in_flight(self) -> int:
        """Calls of this queue that have not ended, on whatever server."""

    @property
    def servers(self) -> Sequence[Hashable]:
        """Where a call may go; at least one."""

    def max_batch_size(self, server: Hashable) -> int:
        """Items that one call of ``server`` may carry."""


Q = TypeVar("Q", bound=QueueView)


class Departure(NamedTuple, Generic[Q]):
    """A batch of ``queue`` may leave for ``server`` from loop time ``at`` on."""

    queue: Q
    server: Hashable
    at: float
    size: int = sys.maxsize
    """Items that it carries at most, beside what waits and what the server takes."""


class Dispatch(Protocol):
    """Decides which batch leaves next, when, and where to. A batcher has one of its own."""

    def next(self, queues: Sequence[Q], now: float) -> Departure[Q]:
        """Of the batches that ``queues``, none of them empty, could send, the one to leave first.

        ``at`` of ``now`` or earlier means at once. ``math.inf`` means not before something happens
        (a submit, the end of a call), whereupon the question is asked again; it is only for when a
        call is in flight, since else nothing would ever happen. A finite time is waited for, and
        cut short by ``aclose``.
        """

    def submitted(self, queue: QueueView, now: float) -> None:
        """An item has joined ``queue``."""

    def sent(self, queue: QueueView, server: Hashable, size: int, now: float) -> Any:
        """A batch of ``size`` items has left; what this returns comes back with ``ended``."""

    def ended(self, call: Any, now: float, *, failed: bool) -> None:
        """A call has ended; ``failed`` when it ended without a result for some item, so that its
        time may not be that of one ordinary call."""


@dataclass(frozen=True)
class FreeSlot:
    """A batch leaves when a slot of its queue is free: items gather while calls before them run.

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

    def next(self, queues: Sequence[Q], now: float) -> Departure[Q]:
        """See :meth:`Dispatch.next`. Servers take turns."""
        queue = min(queues, key=self._leave_at)
        servers = queue.servers
        return Departure(queue, servers[queue.in_flight % len(servers)], self._leave_at(queue))

    def submitted(self, queue: QueueView, now: float) -> None:
        """See :meth:`Dispatch.submitted`."""

    def sent(self, queue: QueueView, server: Hashable, size: int, now: float) -> None:
        """See :meth:`Dispatch.sent`."""

    def ended(self, call: Any, now: float, *, failed: bool) -> None:
        """See :meth:`Dispatch.ended`."""

    def _leave_at(self, queue: QueueView) -> float:
        if queue.in_flight >= self.max_in_flight:
            return math.inf
        if queue.depth >= queue.max_batch_size(queue.servers[0]):
            return -math.inf
        return queue.oldest + self.max_queue_delay
