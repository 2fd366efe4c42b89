"""Health and metrics on a port of their own."""

import asyncio
import re
import socket

import aiohttp
import pytest

from gateway.keys import CLIENT
from gateway.settings import SettingsInvalidError

ADMIN = ("/metrics", "/healthz", "/readyz")


async def test_they_are_there_alone(start, ask, caplog):
    """The admin port has nothing for clients, and the other nothing for operators."""
    caplog.set_level("INFO", "gateway")
    gateway = await start(admin_port=0)
    port = re.search(r"metrics and health are on port (\d+)", caplog.text)[1]
    assert (await ask(gateway))[0] == 200
    while gateway.app[CLIENT].left_out:  # noqa: ASYNC110 - nothing tells that it is warm
        await asyncio.sleep(0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as operator:
        for path in ADMIN:
            assert (await gateway.get(path)).status == 404
            async with operator.get(path) as response:
                assert response.status == 200
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                text = await response.text()
            if path == "/metrics":
                assert 'gateway_requests_total{model="colors",status="200"} 1.0' in text
        for path in ("/models", "/imageDetection"):
            async with operator.get(path) as response:
                assert (response.status, (await response.json())["code"]) == (404, "not_found")


def test_it_is_another_port(settings):
    """The same port for both is refused by name."""
    with pytest.raises(SettingsInvalidError, match="admin_port: is the port for requests"):
        settings(port=8080, admin_port=8080)


async def test_it_is_taken(listen):
    """It is told as for the other port: the gateway does not start without it."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await listen(admin_port=taken.getsockname()[1])
