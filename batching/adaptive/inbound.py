"""Items that are on their way here, and how many of them a batch should wait for."""

import math
from typing import NamedTuple

from batching.adaptive.tuning import TUNING

__all__ = ["Inbound"]


class Inbound(NamedTuple):
    """Items that this machine is too busy to have prepared yet, and the seconds from one to the
    next; 0 of them where something else is the bottleneck."""

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
