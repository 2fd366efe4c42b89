"""Batchers in front of simulated devices, in virtual time: hours of traffic in seconds.

    device = Amdahl(a=0.020, b=0.002, sigma=0.3)
    answers = simulate(device, rate=200, seconds=60, dispatch=FreeSlot(2))

The batchers and what decides for them are the real ones; only the clock and the devices are not.
"""

from batching.simulation.clock import VirtualLoop, run_virtually
from batching.simulation.devices import (
    Amdahl,
    Bent,
    Cores,
    Device,
    Foreign,
    Merging,
    Servers,
    Sharing,
    SimulatedDevice,
    Sliced,
    Stepped,
)
from batching.simulation.oracle import Oracle
from batching.simulation.run import Answer, Backend, CollapsedError, bursts, closed_loop, simulate

__all__ = [
    "Amdahl",
    "Answer",
    "Backend",
    "Bent",
    "CollapsedError",
    "Cores",
    "Device",
    "Foreign",
    "Merging",
    "Oracle",
    "Servers",
    "Sharing",
    "SimulatedDevice",
    "Sliced",
    "Stepped",
    "VirtualLoop",
    "bursts",
    "closed_loop",
    "run_virtually",
    "simulate",
]
