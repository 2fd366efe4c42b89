"""How many calls a device is best given at a time."""

import math
from typing import NamedTuple

from batching.adaptive.device import LEVELS, DeviceKind
from batching.adaptive.tuning import TUNING

__all__ = ["Demand", "best_parallelism", "mean_latency_s"]


class Demand(NamedTuple):
    """What a device is asked for: items a second, and the cost of the calls that bring them."""

    rate: float
    fixed_s: float
    per_item_s: float
    max_batch_size: int


def mean_latency_s(calls: int, speed: float, demand: Demand) -> float:
    """What an item takes on average if so many calls at a time run at this speed.

    Calls that follow each other evenly, each with what has come since the one before, take
    T = s (a + b r T / c) for c of them, stretched by s = c / speed; an item waits for half the
    distance of two and then takes T. Near capacity, where batches are full, comes the wait behind
    those that are left over: with Poisson arrivals rho / (2 (1 - rho)) items (the random walk of a
    queue that is served in bulk; Bailey, 1954). Infinite beyond capacity.
    """
    rate, fixed_s, per_item_s, largest = demand
    stretch = calls / speed
    full = stretch * (fixed_s + per_item_s * largest)
    load = rate * full / (calls * largest)
    if load >= TUNING.capacity_used:
        return math.inf
    part = rate * per_item_s / speed
    seconds = max(stretch * fixed_s / (1 - part), stretch * (fixed_s + per_item_s))
    left_over = load / (2 * (1 - load)) / rate if rate > 0 else 0.0
    return seconds * (1 + 1 / (2 * calls)) + left_over


def best_parallelism(kind: DeviceKind, current: int, highest: int, demand: Demand | None) -> int:
    """The number of calls at a time with the least mean latency, but no more than one level above
    the ``highest`` that was seen; another than the ``current`` one only if it is clearly better."""
    allowed = [level for level in LEVELS if level <= kind.places]
    allowed = [level for level in allowed if level <= highest] + [
        level for level in allowed if level > highest
    ][:1]
    if not kind.contention or demand is None:
        return allowed[-1] if not kind.contention else min(current, allowed[-1])
    latencies = {level: mean_latency_s(level, kind.speed(level), demand) for level in allowed}
    if min(latencies.values()) == math.inf:
        enough = TUNING.speed_enough * kind.speed(allowed[-1])
        return next(level for level in allowed if kind.speed(level) >= enough)
    best = min(allowed, key=lambda level: latencies[level])
    if current in latencies and latencies[best] > latencies[current] * (
        1 - TUNING.concurrency_gain
    ):
        return current
    return best
