"""A TCP relay that can be told to fail, and a balancer that is a relay to whoever is ready.

The faults are those of the network between two programs that are well: a connection that ends in
the middle of an answer, and one that stays open and carries nothing more.
"""

import asyncio
import contextlib
import urllib.request
from collections.abc import Callable, Iterable
from typing import Literal

__all__ = ["Balancer", "Relay"]

CHUNK = 1 << 18
LOOK_SECONDS = 0.1  # from one look at the readiness of a target to the next


class Relay:
    """Passes each connection on to the first of ``targets()``, ports of the loopback, that accepts.

    ``mode`` may be changed at any time. ``pass``: bytes go both ways. ``cut``: half of the next
    piece of an answer goes through, then both sides are closed. ``blackhole``: bytes are taken and
    dropped, and nobody is told; a connection that has lost some is lost until it is closed.
    """

    def __init__(self, targets: Callable[[], Iterable[int]]) -> None:
        self.mode: Literal["pass", "cut", "blackhole"] = "pass"
        self.port = 0
        self._targets = targets
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._lost: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen on a free port of the loopback, ``port``."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        self._end(self._links)
        await asyncio.gather(*self._links, return_exceptions=True)

    def heal(self) -> None:
        """Pass bytes again; connections that have lost some are closed."""
        self.mode = "pass"
        self._end(self._lost)

    @staticmethod
    def _end(links: Iterable[asyncio.Task[None]]) -> None:
        for link in list(links):
            link.cancel()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None  # noqa: S101 - for the type checker
        self._links.add(link)
        writers = [writer]
        try:
            there, writer_there = await self._connect()
            writers.append(writer_there)
            ways = [
                asyncio.ensure_future(self._carry(link, reader, writer_there, answers=False)),
                asyncio.ensure_future(self._carry(link, there, writer, answers=True)),
            ]
            try:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in done:
                    way.result()
                for one in writers:
                    one.close()  # what is written still goes out
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            for one in writers:
                one.transport.abort()
        finally:
            self._links.discard(link)
            self._lost.discard(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for port in self._targets():
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        raise ConnectionRefusedError

    async def _carry(
        self,
        link: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        answers: bool,
    ) -> None:
        while data := await reader.read(CHUNK):
            if self.mode == "blackhole" or link in self._lost:
                self._lost.add(link)
            elif self.mode == "cut" and answers:
                writer.write(data[: len(data) // 2])
                await asyncio.sleep(0)
                raise ConnectionAbortedError
            else:
                writer.write(data)
                await writer.drain()


class Balancer(Relay):
    """Sends new connections to the gateways of ``ports`` whose /readyz says so, in turn.

    A connection stays where it is once it is made, as with any balancer of TCP.
    """

    def __init__(self, ports: Iterable[int]) -> None:
        super().__init__(lambda: sorted(self.ready, key=self._turn))
        self.ready: set[int] = set()
        self._ports = list(ports)
        self._used = dict.fromkeys(self._ports, 0)
        self._connections = 0
        self._looking: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()

    async def start(self) -> None:
        """Begin to look at the targets, then to listen."""
        await self._look()
        self._looking = asyncio.create_task(self._keep_looking())
        await super().start()

    async def aclose(self) -> None:
        """Close everything."""
        if self._looking is not None:
            self._looking.cancel()
        await super().aclose()

    def _turn(self, port: int) -> int:
        return self._used[port]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await super()._connect()
        self._connections += 1
        self._used[writer.get_extra_info("peername")[1]] = self._connections
        return reader, writer

    async def all_ready(self) -> None:
        """Return when all targets are."""
        while len(self.ready) < len(self._ports):
            await self._looked.wait()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        states = await asyncio.gather(*(asyncio.to_thread(_ready, one) for one in self._ports))
        self.ready = {port for port, ready in zip(self._ports, states, strict=True) if ready}
        self._looked.set()
        self._looked = asyncio.Event()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
            return True
    except OSError:
        return False
