"""Several devices that a batcher tells apart."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

from batching.simulation.devices.common import SimulatedDevice

__all__ = ["Servers"]

T = TypeVar("T")


class Servers:
    """Several devices, of one kind or of several, each by its name as a batcher's server."""

    def __init__(self, devices: Mapping[Hashable, SimulatedDevice]) -> None:
        if not devices:
            raise ValueError("there must be at least one device")
        self.devices = dict(devices)
        """May be changed while they run; a batcher sees it when it is woken."""

    @property
    def names(self) -> tuple[Hashable, ...]:
        """See :attr:`SimulatedDevice.names`."""
        return tuple(self.devices)

    @property
    def seed(self) -> int:
        """That of the first."""
        return next(iter(self.devices.values())).seed

    @property
    def started(self) -> int:
        """Calls that they have been told of."""
        return sum(device.started for device in self.devices.values())

    async def process(self, key: object, items: list[T], server: Hashable) -> list[T]:
        """Give the items back when the device of that name has run them."""
        return await self.devices[server].process(key, items, server)

    def capacity(self, max_batch_size: int) -> float:
        """Items a second, in calls of ``max_batch_size`` to each."""
        return sum(device.capacity(max_batch_size) for device in self.devices.values())
