"""What can happen to a replica, each as one coroutine that lasts as long as the fault does.

Standing replicas are processes of bench/simulated_serving.py; each comes back on its own port.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence

from bench import servers
from bench.relay import Relay
from bench.servers import Backend

__all__ = ["FAULTS", "Fault", "Fleet"]

LASTS = 3.0  # seconds
SETTLES = 1.0  # seconds in which the gateway finds a replica that is back
COST = "4,0.2"  # ms: a + b * n


class Fleet:
    """``count`` replicas; where ``relayed``, the first stands behind a relay.

    Used as an asynchronous context manager: all run inside of it, none after it.
    """

    def __init__(self, count: int = 3, *, relayed: bool = False) -> None:
        self.relay = Relay(lambda: [self._port(0)])
        self._relayed = relayed
        self._running: list[contextlib.ExitStack] = [contextlib.ExitStack() for _ in range(count)]
        self._replicas: list[Backend] = []

    async def __aenter__(self) -> "Fleet":
        try:
            for stack in self._running:
                self._replicas.append(await _start(stack, None))
            await self.relay.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.relay.aclose()
        for number in range(len(self._replicas)):
            with contextlib.suppress(ProcessLookupError):
                self.signal(number, signal.SIGCONT)
        await asyncio.gather(*(asyncio.to_thread(stack.close) for stack in self._running))

    def __len__(self) -> int:
        return len(self._replicas)

    @property
    def behind(self) -> Backend:
        """All of them, as the gateway's one backend."""
        ports = [self._port(number) for number in range(len(self))]
        if self._relayed:
            ports[0] = self.relay.port
        return Backend(",".join(f"127.0.0.1:{port}" for port in ports), control=0)

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a signal to one."""
        os.kill(self._replicas[number].pid, what)

    async def change(self, number: int, **settings: str | float) -> None:
        """Change the behaviour of one."""
        await asyncio.to_thread(self._replicas[number].change, **settings)

    async def start_again(self, number: int) -> None:
        """End one with SIGTERM, if it still runs, and start it on the port that it had."""
        port = self._port(number)
        await asyncio.to_thread(self._running[number].close)
        self._replicas[number] = await _start(self._running[number], port)

    def _port(self, number: int) -> int:
        return int(self._replicas[number].address.rpartition(":")[2])


async def _start(stack: contextlib.ExitStack, port: int | None) -> Backend:
    return await asyncio.to_thread(stack.enter_context, servers.backend(COST, port=port))


Fault = Callable[[Fleet, int], Awaitable[None]]
"""Does its worst to the replica of that number, and lets it be well again."""


async def killed(fleet: Fleet, number: int) -> None:
    """kill -9, and a new process on the same port."""
    fleet.signal(number, signal.SIGKILL)
    await asyncio.sleep(LASTS)
    await fleet.start_again(number)


async def stopped(fleet: Fleet, number: int) -> None:
    """SIGSTOP in the middle of its calls, and SIGCONT."""
    fleet.signal(number, signal.SIGSTOP)
    await asyncio.sleep(LASTS)
    fleet.signal(number, signal.SIGCONT)


def behaving(**worse: float) -> Fault:
    """Make a fault of settings of the simulated server, which are 1 for slow and 0 for the rest."""

    async def fault(fleet: Fleet, number: int) -> None:
        await fleet.change(number, **worse)
        await asyncio.sleep(LASTS)
        await fleet.change(number, **{name: int(name == "slow") for name in worse})

    return fault


async def cut(fleet: Fleet, _: int) -> None:
    """The first replica's connections end in the middle of an answer."""
    fleet.relay.mode = "cut"
    await asyncio.sleep(LASTS)
    fleet.relay.heal()


async def half_open(fleet: Fleet, _: int) -> None:
    """The first replica's connections stay open and carry nothing."""
    fleet.relay.mode = "blackhole"
    await asyncio.sleep(LASTS)
    fleet.relay.heal()


async def all_restarted(fleet: Fleet, _: int) -> None:
    """SIGTERM to one after the other, each up again for a while before the next is stopped."""
    for number in range(len(fleet)):
        await fleet.start_again(number)
        await asyncio.sleep(SETTLES)


FAULTS: dict[str, tuple[Fault, Sequence[str]]] = {
    "kill -9": (killed, ()),
    "SIGSTOP": (stopped, ()),
    "five times slower": (behaving(slow=5), ()),
    "a fifth fails": (behaving(error_rate=0.2), ()),
    "refuses": (behaving(refuse=1), ()),
    "hangs": (behaving(hang=1), ()),
    "answers cut off": (cut, ()),
    "half-open": (half_open, ()),
    "all restarted": (all_restarted, ()),
}
"""Each with the answers it may cause beside those that any fault may."""
