"""Devices as they are in the field, each as far as it matters to whoever sends it calls.

A call of n items is ``a + b * n`` seconds of work for a device that does nothing else. It arrives
``there`` seconds after it was sent, and its answer ``back`` seconds after its end. What the kinds
differ in is what happens when calls meet, and what work is not on that straight line.
"""

from batching.simulation.devices.common import SimulatedDevice
from batching.simulation.devices.merging import Merging
from batching.simulation.devices.serial import Bent, Device, Foreign, Sliced, Stepped
from batching.simulation.devices.servers import Servers
from batching.simulation.devices.sharing import Amdahl, Cores, Sharing

__all__ = [
    "Amdahl",
    "Bent",
    "Cores",
    "Device",
    "Foreign",
    "Merging",
    "Servers",
    "Sharing",
    "SimulatedDevice",
    "Sliced",
    "Stepped",
]
