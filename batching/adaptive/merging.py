"""Whether a server makes one call of those that wait, as TensorFlow Serving's own batching does."""

from collections.abc import Collection, Iterable
from typing import Generic, Protocol, TypeVar

from batching.adaptive.cost import CostModel
from batching.adaptive.tuning import TUNING

__all__ = ["MergingDetector"]


class _Sent(Protocol):
    sent: float
    size: int
    largest: int
    """Items of a call at most; a server is taken to merge no more."""


C = TypeVar("C", bound=_Sent)


class MergingDetector(Generic[C]):
    """Looks at calls that waited at the same time: do they end together?

    Calls that were sent at different times and all waited while the server worked on others end
    together if it merges them, as soon as one call of all their items would. On other devices they
    end one after the other, or together by chance and after the time of as many calls.
    """

    def __init__(self) -> None:
        self._before = self._ended_at = self._sent = 0.0
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

    def ended(self, call: C, in_flight: Iterable[C], now: float, cost: CostModel) -> bool:
        """``call`` has ended while ``in_flight`` go on.

        Returns whether it ended together with the one before, though they were sent apart.
        """
        together_s = cost.service_s(1) * TUNING.merging_together
        apart_s, self._sent = abs(call.sent - self._sent), call.sent
        if now - self._ended_at <= together_s:
            return apart_s > 2 * together_s
        running: Collection[C] = [call, *in_flight]
        if len(self._waited) > 1:
            self._occasions = TUNING.merging_keep * self._occasions + 1
            together = not any(one in running for one in self._waited)
            # By chance they end together where they share the device as well, but not as soon.
            size = sum(one.size for one in self._waited)
            soon_s = cost.service_s(size) + TUNING.merging_saved * cost.fixed_s
            soon = self._ended_at - self._before <= soon_s
            self._together = TUNING.merging_keep * self._together + (together and soon)
        here = self._ended_at - cost.transport_s - together_s
        self._waited = _first_batch(one for one in running if one.sent <= here)
        apart_s = TUNING.merging_apart * together_s
        if self._waited and self._waited[-1].sent - self._waited[0].sent <= apart_s:
            self._waited = []
        self._before, self._ended_at = self._ended_at, now
        return False


def _first_batch(waiting: Iterable[C]) -> list[C]:
    """Those of the calls that one merged call has room for, the first sent first."""
    batch: list[C] = []
    size = 0
    for call in sorted(waiting, key=lambda call: call.sent):
        size += call.size
        if size > call.largest:
            break
        batch.append(call)
    return batch
