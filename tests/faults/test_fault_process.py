"""What the machine may do to the gateway itself: no room for logs, no descriptors, a clock that
jumps."""

import asyncio
import itertools
import os
import resource
import signal
import time
from types import SimpleNamespace

import pytest
from aiohttp import ClientError

from bench.processes import descriptors, free_port
from gateway.app import create_app
from gateway.settings import load_settings

PATIENCE = 10


async def up(url, http, process) -> None:
    """Return when the gateway answers, of which it has no way to tell."""
    while process.returncode is None:
        try:
            async with http.get(f"{url}/healthz"):
                return
        except ClientError:
            continue
    raise AssertionError("the gateway has ended")


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_no_room_for_logs(spawn, serving, http, ask, log_format):
    """With standard error on a full disk requests are answered, and the stop is a clean one."""
    port = free_port()
    full = os.open("/dev/full", os.O_WRONLY)
    gateway = await spawn(
        "serve", "--port", str(port), "--tfserving", serving.address,
        "--log-format", log_format, stderr=full,
    )  # fmt: skip
    os.close(full)
    url = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(PATIENCE):
        await up(url, http, gateway.process)
        for _ in range(50):
            assert (await ask(url, "colors"))[0] == 200
        gateway.signal(signal.SIGTERM)
        assert await gateway.process.wait() == 0


def limit_descriptors(pid: int, more: int) -> None:
    """Let the process open so many more than it has."""
    hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + more, hard))


async def test_no_descriptors_left(spawn, serving, ask):
    """More connections than descriptors: those inside are served, and when some close, all are."""
    gateway = await spawn("serve", "--port", "0", "--tfserving", serving.address)
    url = await gateway.url()
    assert (await ask(url, "colors"))[0] == 200
    ending = asyncio.ensure_future(gateway.end())  # reads its lines, lest it waits for that
    pid, before = gateway.process.pid, descriptors(gateway.process.pid)
    limit_descriptors(pid, 4)
    host, port = url.removeprefix("http://").split(":")
    async with asyncio.timeout(PATIENCE):
        idle = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        while descriptors(pid) < before + 4:
            pass  # the gateway is another process
        assert (await ask(url, "colors"))[0] == 200  # on the connection that it has
        for _, writer in idle:
            writer.close()
            await writer.wait_closed()
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
        assert (await ask(url, "colors"))[0] == 200
        gateway.signal(signal.SIGTERM)
        assert await ending == 0
    told = [line for line in gateway.lines if "out of system resource" in line]
    assert 1 <= len(told) <= 10


async def test_no_descriptors_for_the_first_picture(spawn, serving, http, ask):
    """What could not be loaded for want of a descriptor is loaded when there is one again."""
    gateway = await spawn("serve", "--port", "0", "--tfserving", serving.address)
    url = await gateway.url()
    async with asyncio.timeout(PATIENCE):
        while (await http.get(f"{url}/readyz")).status != 200:
            pass  # then both connections are there
    pid = gateway.process.pid
    limit_descriptors(pid, 0)
    async with asyncio.timeout(PATIENCE):
        assert await ask(url, "colors") == (500, "internal_error")
        limit_descriptors(pid, 100)
        assert (await ask(url, "colors"))[0] == 200


async def test_the_clock_jumps(aiohttp_client, serving, photo, monkeypatch):
    """Whatever the time of day does, requests are answered and deadlines kept."""
    jumps = itertools.cycle((0.0, 1e9, -1e9, 1e5))
    clock = time.time
    # gRPC reads the clock twice for a deadline, here and in C: it cannot jump between the two.
    monkeypatch.setattr("grpc.aio._utils.time", SimpleNamespace(time=clock))
    monkeypatch.setattr(time, "time", lambda: clock() + next(jumps))
    settings = load_settings({"tfserving": serving.address, "request_timeout": 60, "models": {}})
    gateway = await aiohttp_client(
        create_app(settings), server_kwargs={"handler_cancellation": True}
    )
    body = {"model_name": "colors", "image": photo()}
    for _ in range(20):
        async with gateway.post("/imageDetection", json=body) as response:
            assert response.status == 200
            assert 0 < (await response.json())["controller_time"] < 60
    serving.gate = asyncio.Event()
    headers = {"X-Request-Timeout": "0.2"}
    async with (
        asyncio.timeout(PATIENCE),
        gateway.post("/imageDetection", json=body, headers=headers) as response,
    ):
        assert response.status == 504
    serving.gate.set()
