"""Whose turn it is: keys share what they have in common fairly, by what their calls cost."""

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from batching.adaptive.tuning import TUNING

__all__ = ["DecayingRate", "Turns"]


class DecayingRate:
    """Items a second, of which those of ``window_s`` seconds ago count for a third."""

    def __init__(self, window_s: float = TUNING.rate_window_s) -> None:
        self._window_s = window_s
        self._count = 0.0
        self._at = 0.0
        self._began: float | None = None

    def add(self, items: int, now: float) -> None:
        """So many have come."""
        if self._began is None:
            self._began = now
        self._count = self._count * math.exp((self._at - now) / self._window_s) + items
        self._at = now

    def per_second(self, now: float) -> float:
        """The rate of late; 0 before the first."""
        if self._began is None:
            return 0.0
        # So soon after the first, no more than this part of the window can have been seen.
        seen = -math.expm1((self._began - now) / self._window_s)
        count = self._count * math.exp((self._at - now) / self._window_s)
        return count / (self._window_s * max(seen, 0.05))


@dataclass(slots=True)
class _Flow:
    turn: float = 0.0
    left: float | None = None
    items: float = 0.0
    seconds: float = 0.0


class Turns:
    """Start-time fair queueing (Goyal et al., 1996): who has used little goes before who floods.

    Also knows at what rate items of a key leave.
    """

    def __init__(self) -> None:
        self._turn = 0.0
        self._flows: OrderedDict[Hashable, _Flow] = OrderedDict()

    def of(self, key: Hashable) -> float:
        """The lower, the earlier."""
        flow = self._flows.get(key)
        return self._turn if flow is None else flow.turn

    def rate(self, key: Hashable) -> float | None:
        """Items of the key a second, of late; None if that is not known."""
        flow = self._flows.get(key)
        return flow.items / flow.seconds if flow and flow.seconds else None

    def used(self, key: Hashable, size: int, service_s: float, now: float, *, known: bool) -> None:
        """A call of ``size`` items leaves, which takes ``service_s`` seconds, if that is known."""
        flow = self._flows.setdefault(key, _Flow())
        self._flows.move_to_end(key)
        if known:
            if flow.left is not None:
                flow.items = TUNING.rate_keep * flow.items + size
                pause = min(now - flow.left, TUNING.rate_pause * service_s)
                flow.seconds = TUNING.rate_keep * flow.seconds + pause
            flow.left = now
        self._turn = max(self._turn, flow.turn)
        flow.turn = self._turn + service_s
        if len(self._flows) > TUNING.kinds:
            self._flows.popitem(last=False)
