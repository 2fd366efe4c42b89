"""When the next batch leaves for a server that is at work."""

import math
from collections.abc import Hashable
from typing import NamedTuple

from batching.adaptive.probing import Probe
from batching.adaptive.server import Server
from batching.adaptive.tuning import TUNING

__all__ = ["Waiting", "departure", "idle_enough", "leave_at"]


class Waiting(NamedTuple):
    """The items that a batch is made of."""

    items: int
    largest: int
    """Items that a call carries at most."""
    rate: float
    """Items a second that come."""


def departure(
    server: Server, kind: Hashable, waiting: Waiting, free: tuple[float, float], now: float
) -> tuple[Probe | None, float]:
    """When the next batch leaves for a ``server`` with calls in flight, and what is tried by that.

    ``free`` is :meth:`Server.free_at`. ``math.inf``: not before something happens.
    """
    # More than twice as many as are known to end well might be too many for a server that hangs, or
    # has become another.
    most = 2 * (max(server.most_in_flight, server.parallelism) + 1)
    if len(server.calls) >= most:
        return None, math.inf
    if server.merges:
        # Each waits for one call at most, and is in the next.
        largest_s = server.cost(kind).service_s(waiting.largest)
        longest_s = server.cost(kind).transport_s + TUNING.merging_longest * largest_s
        return None, now if now - server.calls[0].sent < longest_s else math.inf
    if server.calls[0].alone or server.alone_due(kind, now):
        return None, math.inf
    model, running = server.cost(kind), len(server.calls)
    service = model.service_s(min(waiting.items, waiting.largest)) * server.stretch
    if running >= server.parallelism * (2 + math.ceil(model.transport_s / service)):
        return None, math.inf
    free_at, deviation = free
    if free_at <= now - TUNING.certain_deviations * deviation:
        return None, now
    probe, extra = _extra(server, waiting, model.noise, now)
    likelihood = idle_enough(waiting.rate * model.fixed_s, waiting.items)
    lead = model.transport_s + service * extra
    at = leave_at(free_at, deviation, lead, likelihood, now)
    more = _try_more(server, kind, waiting, free_at - model.transport_s, service, now)
    return more if more is not None and now <= more[1] < at else (probe, at)


def _extra(
    server: Server, waiting: Waiting, noise: float, now: float
) -> tuple[Probe | None, float]:
    """By what part of a call's time the lead is longer than the transport."""
    probes = server.probes
    if waiting.items >= waiting.largest:  # nobody else could join, so only the device can lose
        full = TUNING.full_lead_noise * noise if server.device.queues else 0.0
        return None, max(TUNING.margin, full)
    if probes.due(Probe.EARLY, now):
        return Probe.EARLY, TUNING.probe_early + min(noise, TUNING.probe_early_noise)
    if probes.due(Probe.LATE, now) and waiting.items < TUNING.probe_late_room * waiting.largest:
        return Probe.LATE, -TUNING.probe_late
    return None, TUNING.margin


def _try_more(
    server: Server,
    kind: Hashable,
    waiting: Waiting,
    just_in_time: float,
    service_s: float,
    now: float,
) -> tuple[Probe, float] | None:
    """What is tried beside more calls than are best, and when; None if nothing is."""
    ahead_s = just_in_time - now
    last_s = server.service_s(server.calls[-1])
    if ahead_s <= last_s:  # nobody waits at the device
        curious = server.curious(kind)
        if curious and waiting.items >= waiting.largest:  # a full batch costs nothing more
            return Probe.MORE, now
        if curious or server.probes.due(Probe.MORE, now):
            return Probe.MORE, just_in_time - TUNING.contrast_overlap * service_s
    elif (
        len(server.calls) > 1
        and max(waiting.items, server.calls[-1].size) < TUNING.probe_merging_room * waiting.largest
        and server.probes.due(Probe.MERGING, now)
    ):
        one_waits = ahead_s <= last_s + server.service_s(server.calls[-2])
        if one_waits:
            apart_s = TUNING.probe_merging_apart * service_s
            return Probe.MERGING, max(now, server.used_at + apart_s)
    return None


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
    if lead_s <= 0:  # it is to arrive after the device has become idle, which its end will tell
        return math.inf

    def likely(at: float) -> bool:
        busy = _tail((at - free_at) / deviation_s)
        if busy < TUNING.never:
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
