"""Whether a server makes one call of those that wait, as TensorFlow Serving's own batching does."""

from collections.abc import Collection, Iterable
from typing import Generic, Protocol, TypeVar

from batching.adaptive.tuning import TUNING

__all__ = ["MergingDetector"]


class _Sent(Protocol):
    sent: float


C = TypeVar("C", bound=_Sent)


class MergingDetector(Generic[C]):
    """Looks at calls that waited at the same time: do they end together?

    Calls that were sent at different times and all waited while the server worked on others end
    together if it merges them, and on no other device: one after the other where they queue, and as
    far apart as they were sent where they share it.
    """

    def __init__(self) -> None:
        self._ended_at = 0.0
        self._waited: list[C] = []
        self._together = 0.0
        self._occasions = 0.0

    @property
    def known(self) -> bool:
        """Whether there were occasions enough to see it."""
        return self._occasions >= TUNING.merging_occasions

    @property
    def merges(self) -> bool:
        """Whether it was seen often enough."""
        return self.known and self._together >= TUNING.merging_share * self._occasions

    def ended(
        self, call: C, in_flight: Iterable[C], now: float, *, transport_s: float, service_s: float
    ) -> bool:
        """``call`` has ended while ``in_flight`` go on; a call takes the server ``service_s``.

        Returns whether it ended together with the one before.
        """
        together_s = service_s * TUNING.merging_together
        if now - self._ended_at <= together_s:
            return True
        running: Collection[C] = [call, *in_flight]
        if len(self._waited) > 1:
            self._occasions = TUNING.merging_keep * self._occasions + 1
            apart = any(one in running for one in self._waited)
            self._together = TUNING.merging_keep * self._together + (not apart)
        here = self._ended_at - transport_s - together_s
        self._waited = [one for one in running if one.sent <= here]
        sent = [one.sent for one in self._waited]
        if sent and max(sent) - min(sent) <= together_s:
            self._waited = []
        self._ended_at = now
        return False
