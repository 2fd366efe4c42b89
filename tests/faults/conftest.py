"""The gateway as a process, and what it needs to be hurt: replicas that can be killed, a relay that
can be cut."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from bench.processes import free_port
from bench.relay import Relay

PATIENCE = 10  # seconds, so that no test waits without end
Ask = Callable[..., Awaitable[tuple[int, Any]]]


@dataclass
class Replica:
    """A simulated TensorFlow Serving as a process of its own."""

    process: asyncio.subprocess.Process
    port: int
    control: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def calls(self) -> int:
        """Predict calls that it has begun."""

        def read() -> int:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.control}") as answer:
                return int(json.load(answer)["calls"])

        return await asyncio.to_thread(read)

    async def works(self, calls: int) -> None:
        """Return when it has begun more than ``calls``."""
        async with asyncio.timeout(PATIENCE):
            while await self.calls() <= calls:
                pass

    async def gets(self, number: int) -> None:
        """Send it a signal that ends it, and wait for the end."""
        self.process.send_signal(number)
        await self.process.wait()


@pytest.fixture
def replica(spawn) -> Callable[..., Awaitable[Replica]]:
    """Start a replica, on a port that may be given; ``cost`` is that of its calls in ms."""

    async def start(port: int | None = None, cost: str = "1,0.1") -> Replica:
        port, control = port or free_port(), free_port()
        started = await spawn(
            "--address", f"127.0.0.1:{port}", "--control", str(control), "--cost", cost,
            module="bench.simulated_serving",
        )  # fmt: skip
        assert b"simulated serving" in await started.process.stdout.readline()
        return Replica(started.process, port, control)

    return start


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as session:
        yield session


@pytest.fixture
def ask(http, photo) -> Ask:
    """Post a picture to a gateway; its status, and the word for its error or its detections."""

    async def post(url: str, model: str = "ssd", headers: Any = None) -> tuple[int, Any]:
        body = {"model_name": model, "image": photo()}
        async with http.post(f"{url}/imageDetection", json=body, headers=headers) as response:
            answer = await response.json()
            return response.status, answer.get("code", answer.get("detections"))

    return post


@pytest.fixture
def ready(http) -> Callable[[str], Awaitable[tuple[int, str]]]:
    """What /readyz says: status and reason."""

    async def get(url: str) -> tuple[int, str]:
        async with http.get(f"{url}/readyz") as response:
            return response.status, (await response.json()).get("reason", "")

    return get


@pytest.fixture
def shows(http) -> Callable[[str, str], Awaitable[None]]:
    """Wait until a line stands in /metrics."""

    async def poll(url: str, line: str) -> None:
        text = ""
        async with asyncio.timeout(PATIENCE):
            while f"\n{line}\n" not in text:
                async with http.get(f"{url}/metrics") as response:
                    text = await response.text()

    return poll


@pytest.fixture
async def relay(serving) -> AsyncIterator[Relay]:
    """A relay in front of the fake TensorFlow Serving."""
    port = int(serving.address.rpartition(":")[2])
    relay = Relay(lambda: [port])
    await relay.start()
    yield relay
    await relay.aclose()
