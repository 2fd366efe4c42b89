"""A dispatch that sees the future, for others to be held against."""

from collections.abc import Hashable, Sequence
from typing import Any

from batching.dispatch import Departure, Q, QueueView
from batching.simulation.devices import Device

__all__ = ["Oracle"]

TICK = 1e-9  # seconds; as good as none


class Oracle:
    """A dispatch that knows when its device will be free, noise and all, and so is never wrong."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._sent = 0

    def next(self, queues: Sequence[Q], now: float) -> Departure[Q]:
        """See :meth:`Dispatch.next`."""
        queue = queues[0]
        if self._sent > self._device.started:  # the device is to hear of it in this very tick
            at = now + TICK
        else:
            at = self._device.free - self._device.there
        return Departure(queue, queue.servers[0], at)

    def submitted(self, queue: QueueView, now: float) -> None:
        """See :meth:`Dispatch.submitted`."""

    def sent(self, queue: QueueView, server: Hashable, size: int, now: float) -> None:
        """See :meth:`Dispatch.sent`."""
        self._sent += 1

    def ended(self, call: Any, now: float, *, failed: bool) -> None:
        """See :meth:`Dispatch.ended`."""
