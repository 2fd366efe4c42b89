"""The time from which a batch likely finds the device idle when it arrives."""

import math

from batching.adaptive.tuning import TUNING

__all__ = ["idle_enough", "leave_at"]


def idle_enough(items_in_fixed_time: float, waiting: int) -> float:
    """The probability that the device will be idle on arrival, from which a batch leaves.

    A second too early keeps the items that come in it for the next call; a second too late is one
    for each that waits, and makes calls rarer. At r items a second these follow each other every
    C = (a + late) / (1 - r b) seconds, half of which an item waits, to then take a + b r C; so a
    second too late costs each (1/2 + r b) / (1 - r b), one too early about one. Where r C of them
    wait, the two are in balance (the newsvendor's ratio; Arrow, Harris and Marschak, 1951) at
    r a / 1.5 over their number. ``items_in_fixed_time`` is r a, those that come in the fixed time
    of a call.

    The best there can be without seeing the future, which ``bench.optimum`` computes, follows the
    same law for any number that waits but one or two, with 0.83 instead of 1 / 1.5.
    """
    return min(TUNING.idle_sure, TUNING.idle_balance * items_in_fixed_time / waiting)


def leave_at(
    free_at: float, deviation_s: float, lead_s: float, likelihood: float, now: float
) -> float:
    """The first time at which to leave; ``math.inf``: not before something happens.

    Parameters
    ----------
    free_at, deviation_s
        The device is seen to fall idle at a time that is normally distributed like this.
    lead_s
        Seconds before it does, that one may leave; it is while the device is not seen to be idle
        that the probability that it will be on arrival rises.
    likelihood
        That of idleness on arrival, from which on it is worth leaving (:func:`idle_enough`).
    """
    if lead_s <= 0:
        return math.inf

    def likely(at: float) -> bool:
        busy = _tail((at - free_at) / deviation_s)
        if busy < 1e-12:  # noqa: PLR2004 - as good as never, against division by zero
            return True
        return 1 - _tail((at + lead_s - free_at) / deviation_s) / busy >= likelihood

    if likely(now):
        return now
    early, late = now, free_at + TUNING.certain_deviations * deviation_s
    if not likely(late):
        return math.inf
    for _ in range(TUNING.bisections):
        middle = (early + late) / 2
        early, late = (early, middle) if likely(middle) else (middle, late)
    return late


def _tail(z: float) -> float:
    """The probability that a standard normal variable exceeds ``z``."""
    return 0.5 * math.erfc(z / math.sqrt(2))
