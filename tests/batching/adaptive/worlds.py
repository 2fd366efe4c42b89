"""What tests of the policy share: devices, and how they are run."""

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from batching import FreeSlot
from batching.simulation import (
    Amdahl,
    Bent,
    Cores,
    Device,
    Foreign,
    Merging,
    Oracle,
    Servers,
    Sharing,
    Sliced,
    Stepped,
    simulate,
)

USUAL = {"a": 0.02, "b": 0.002, "there": 0.004}


def mean(answers: Sequence, since=3.0, until=1e9):
    times = [answer.seconds for answer in answers if since <= answer.at < until]
    return sum(times) / len(times)


def run(device, dispatch, load, seconds=12.0):
    dispatch = Oracle(device) if dispatch is Oracle else dispatch
    return simulate(device, load * device.capacity(32), seconds, dispatch=dispatch)


def best_of(make, load, seconds=12.0, since=5.0):
    """What the best number of calls at a time, were it known, would make of the device."""
    return min(mean(run(make(), FreeSlot(n), load, seconds), since) for n in (1, 2, 4, 32))


BACKENDS = {
    "ssd": USUAL,
    "fast": {"a": 0.002, "b": 0.00005, "there": 0.015},
    "flat": {"a": 0.05, "b": 0.0002, "there": 0.0005},
}

ZOO = {
    "serial": lambda: Device(**USUAL),
    "sharing": lambda: Sharing(**USUAL),
    "cores": lambda: Cores(**USUAL, cores=4),
    "amdahl": lambda: Amdahl(**USUAL),
    "merging": lambda: Merging(**USUAL),
    "steps": lambda: Stepped(**USUAL),
    "bent": lambda: Bent(**USUAL),
    "sliced": lambda: Sliced(**USUAL),
    "foreign": lambda: Foreign(**USUAL),
    "unequal": lambda: Servers({"x": Device(**USUAL), "y": Device(0.04, 0.004, 0.004)}),
}


class Changing(Device):
    """A device that becomes another after five seconds."""

    change: ClassVar[dict[str, float]] = {}

    async def process(self, key, items, server=None):
        if asyncio.get_running_loop().time() >= 5:
            for name, value in self.change.items():
                setattr(self, name, value)
        return await super().process(key, items, server)


def changing(change, **truth):
    device = Changing(**truth)
    device.change = change
    return device


class Queue:
    """A queue that looks as a test wants it to."""

    in_flight = 0

    def __init__(self, key, depth, oldest=0.0, servers=(None,)):
        self.key, self.depth, self.oldest, self.servers = key, depth, oldest, servers

    def max_batch_size(self, server):
        return 32
