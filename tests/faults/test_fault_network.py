"""Connections that end, stay silent or carry nonsense, while TensorFlow Serving itself is well."""

import asyncio
import contextlib
import socket

import pytest

from gateway.app import create_app
from gateway.keys import CLIENT
from gateway.settings import load_settings

PATIENCE = 5  # seconds for what takes about one


async def serve(spawn, *addresses, timeout="60"):
    """Start a gateway in front of these ports or addresses; where it listens."""
    backends = ",".join(f"127.0.0.1:{one}" if isinstance(one, int) else one for one in addresses)
    gateway = await spawn(
        "serve", "--port", "0", "--tfserving", backends, "--request-timeout", timeout,
        "--models", "colors",
    )  # fmt: skip
    return await gateway.url()


async def test_cut_off_in_the_middle_of_an_answer(spawn, relay, ask):
    """503 without waiting for the deadline, and right answers when the network is well."""
    url = await serve(spawn, relay.port)
    assert (await ask(url, "colors"))[0] == 200
    relay.mode = "cut"
    async with asyncio.timeout(PATIENCE):
        assert await ask(url, "colors") == (503, "backend_unavailable")
    relay.heal()
    async with asyncio.timeout(PATIENCE):
        while (await ask(url, "colors"))[0] != 200:
            pass


async def test_cut_off_with_another_to_ask(spawn, relay, servings, ask, shows):
    """The call is made again on the other replica, and nobody notices."""
    [other] = await servings(1)
    url = await serve(spawn, relay.port, other.address)
    assert (await ask(url, "colors"))[0] == 200
    relay.mode = "cut"
    async with asyncio.timeout(PATIENCE):
        lost = asyncio.ensure_future(shows(url, "gateway_replicas_left_out 1.0"))
        while not lost.done():
            answers = await asyncio.gather(*(ask(url, "colors") for _ in range(10)))
            assert {status for status, _ in answers} == {200}
        await lost
        relay.heal()
        await shows(url, "gateway_replicas_left_out 0.0")


async def test_half_open(spawn, relay, ask):
    """A connection that swallows everything costs 504, no more, and is given up when it ends."""
    url = await serve(spawn, relay.port, timeout="0.5")
    assert (await ask(url, "colors"))[0] == 200
    relay.mode = "blackhole"
    async with asyncio.timeout(PATIENCE):
        assert await ask(url, "colors") == (504, "deadline_exceeded")
    relay.heal()
    async with asyncio.timeout(PATIENCE):
        while (await ask(url, "colors"))[0] != 200:
            pass


async def test_half_open_with_another_to_ask(spawn, relay, servings, ask, shows):
    """After three silent calls the replica gets no more, until something comes from it."""
    [other] = await servings(1)
    url = await serve(spawn, relay.port, other.address, timeout="0.5")
    assert (await ask(url, "colors"))[0] == 200
    relay.mode = "blackhole"
    lost = asyncio.ensure_future(shows(url, "gateway_replicas_left_out 1.0"))
    async with asyncio.timeout(PATIENCE):
        while not lost.done():
            assert (await ask(url, "colors"))[0] in {200, 504}
        await lost
        answers = await asyncio.gather(*(ask(url, "colors") for _ in range(5)))
    assert {status for status, _ in answers} == {200}
    relay.heal()
    await shows(url, "gateway_replicas_left_out 0.0")


@pytest.mark.parametrize(
    "nonsense",
    [b"\x00\xff" * 500, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b""],
    ids=["bytes", "http", "nothing"],
)
async def test_no_grpc_at_all(spawn, ask, ready, nonsense):
    """Whatever listens there instead of TensorFlow Serving: 503, and /readyz says no."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(nonsense)
            await writer.drain()
            writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        url = await serve(spawn, server.sockets[0].getsockname()[1])
        async with asyncio.timeout(PATIENCE):
            assert await ask(url, "colors") == (503, "backend_unavailable")
            assert await ready(url) == (503, "model 'colors' is unreachable")


async def test_the_dns_changes(aiohttp_client, servings, photo, monkeypatch, caplog):
    """Requests go to the machines that a name stands for by now, and none fails for the change, nor
    while the name is not known at all."""
    monkeypatch.setattr("gateway.tfserving.replicas.RESOLVE_SECONDS", 0.01)
    monkeypatch.setattr("gateway.tfserving.names.LOOKS", 2)
    (old, new), machines = await servings(2), ["127.0.0.1"]
    port = old.address.rpartition(":")[2]
    await new.stop()
    await new.start(f"127.0.0.2:{port}")
    loop = asyncio.get_running_loop()
    elsewhere = loop.getaddrinfo

    async def look_up(host, *args, **options):
        if host != "pool":
            return await elsewhere(host, *args, **options)
        if not machines:
            raise socket.gaierror
        return [(socket.AF_INET, 0, 0, "", (ip, port)) for ip in machines]

    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    settings = load_settings({"tfserving": f"pool:{port}", "request_timeout": 60})
    gateway = await aiohttp_client(
        create_app(settings), server_kwargs={"handler_cancellation": True}
    )

    async def ask():
        body = {"model_name": "colors", "image": photo()}
        async with gateway.post("/imageDetection", json=body) as response:
            assert response.status == 200

    async with asyncio.timeout(PATIENCE):
        while not old.requests:
            await ask()
        machines[:] = ["127.0.0.2"]
        while not new.requests or gateway.app[CLIENT].count > 1:
            await ask()
        served, machines[:] = len(old.requests), []
        while "cannot be looked up" not in caplog.text:
            await ask()
        await ask()
    assert len(old.requests) == served
