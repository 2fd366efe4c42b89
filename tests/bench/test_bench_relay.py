"""The relay between two programs that are well, and the balancer that is made of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bench import relay as relays
from bench.relay import Balancer, Relay

Serve = Callable[[bytes], Awaitable[int]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start servers that answer each read with the same bytes; the port of each."""
    servers: list[asyncio.Server] = []

    async def start(answer: bytes) -> int:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.read(100):
                    writer.write(answer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.fixture
async def relay(serve: Serve) -> AsyncIterator[Relay]:
    """A relay to a server that answers with ten bytes."""
    port = await serve(b"0123456789")
    relay = Relay(lambda: [port])
    await relay.start()
    yield relay
    await relay.aclose()


async def ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection and send something on it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"?")
    return reader, writer


async def test_half_of_an_answer_and_no_more(relay: Relay) -> None:
    """What was whole before is cut in the middle, then the connection ends."""
    reader, writer = await ask(relay.port)
    assert await reader.readexactly(10) == b"0123456789"
    relay.mode = "cut"
    writer.write(b"?")
    assert await reader.read() == b"01234"
    writer.close()


async def test_what_was_swallowed_does_not_come_later(relay: Relay) -> None:
    """A connection that lost bytes is closed when all is well again, and a new one works."""
    relay.mode = "blackhole"
    reader, writer = await ask(relay.port)
    while not relay._lost:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    relay.heal()
    assert await reader.read() == b""
    writer.close()
    reader, writer = await ask(relay.port)
    assert await reader.readexactly(10) == b"0123456789"
    writer.close()


async def test_new_connections_go_to_who_is_ready(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In turn to all that are ready, past one that is not."""
    ports = [await serve(b"a"), await serve(b"b")]
    ready = set(ports)
    monkeypatch.setattr(relays, "_ready", lambda port: port in ready)
    monkeypatch.setattr(relays, "LOOK_SECONDS", 0)
    balancer = Balancer(ports)
    await balancer.start()

    async def who() -> bytes:
        reader, writer = await ask(balancer.port)
        answer = await reader.readexactly(1)
        writer.close()
        return answer

    assert {await who(), await who()} == {b"a", b"b"}
    ready.remove(ports[0])
    while balancer.ready != {ports[1]}:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    assert {await who(), await who()} == {b"b"}
    await balancer.aclose()
