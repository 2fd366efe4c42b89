"""What calls cost, as one frozen value, and what one call shows of it."""

from dataclasses import dataclass
from typing import NamedTuple

from batching.adaptive.tuning import TUNING

__all__ = ["UNKNOWN", "CallRecord", "CostModel"]


@dataclass(frozen=True)
class CostModel:
    """A call of n items takes ``transport_s + fixed_s + per_item_s * n`` seconds if nothing is in
    its way; while it is transported, the device may run other calls."""

    fixed_s: float
    per_item_s: float
    transport_s: float
    noise: float
    """Standard deviation of the device's time for a call, relative to it."""
    known: bool = True
    """Whether enough calls were seen to rely on it."""

    def service_s(self, size: float) -> float:
        """Seconds that the device needs for a call of ``size`` items."""
        return max(self.fixed_s + self.per_item_s * size, TUNING.shortest_s)


UNKNOWN = CostModel(0.0, 0.0, 0.0, TUNING.noise_prior, known=False)


class CallRecord(NamedTuple):
    """One call that has ended. All times are seconds after its departure."""

    size: int
    seconds: float
    """Its end."""
    ready_s: float
    """When a device that takes one call at a time was ready for it: the end of the last call before
    it; 0 if there was none."""
    ends_before: tuple[float, ...] = ()
    """The ends, in order, of the calls that were in flight when it left; those that ended after it
    count as its own end."""
    others_after: tuple[tuple[float, float], ...] = ()
    """Departure and end of each call that left during it; an end after its own as above."""
