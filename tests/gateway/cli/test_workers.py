"""Several processes behind one port."""

import asyncio
import os
import re
import signal
import socket

import aiohttp
import pytest


@pytest.fixture
def two_workers(spawn, serving):
    """Start a gateway of two workers in front of the fake, with more flags and variables."""

    def start(*flags: str, **env: str):
        common = ("--port", "0", "--workers", "2", "--tfserving", serving.address)
        return spawn("serve", *common, *flags, **env)

    return start


async def test_workers_share_the_port_and_the_metrics(two_workers, photo, tmp_path):
    """Whichever worker answers /metrics, it counts what all were sent; SIGTERM ends them all."""
    gateway = await two_workers(TMPDIR=str(tmp_path))
    url = await gateway.url()
    body = {"model_name": "colors", "image": photo()}

    async def post(_: int) -> int:
        # A connection of its own each time, so that the kernel spreads them over the workers.
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/imageDetection", json=body) as response,
        ):
            return response.status

    def counting() -> set[str]:
        return {re.search(r"_(\d+)\.db$", path.name)[1] for path in tmp_path.rglob("counter_*.db")}

    sent = 0
    while len(counting()) < 2:  # a worker that starts later than the other gets its share later
        assert sent < 3000, "one worker got everything"
        assert await asyncio.gather(*map(post, range(30))) == [200] * 30
        sent += 30
    for _ in range(8):
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
            text = await response.text()
        assert f'gateway_requests_total{{model="colors",status="200"}} {sent}.0' in text
        assert 'gateway_tfserve_seconds_count{model="colors"}' in text
        assert f'gateway_batch_size_sum{{model="colors"}} {sent}.0' in text
        assert "gateway_queue_depth 0.0" in text
        assert "gateway_requests_inside 0.0" in text
    workers = gateway.children()
    assert len(workers) == 2
    assert counting() == {worker.name for worker in workers}
    gateway.signal(signal.SIGTERM)
    assert await gateway.end() == 0
    assert not list(tmp_path.iterdir())
    assert not [worker for worker in workers if worker.exists()]


async def test_workers_that_cannot_start(spawn, tmp_path):
    """A label map at fault is told, and ends the command rather than being tried for ever."""
    gateway = await spawn(
        "serve", "--port", "0", "--workers", "2", "--models", f"a={tmp_path}/nothing.txt"
    )
    assert await gateway.end() != 0
    assert "nothing.txt" in "".join(gateway.lines)


async def test_hangup_reaches_every_worker(two_workers, tmp_path):
    """Each takes the new settings over, and goes on as the process that it was."""
    config = tmp_path / "config.yaml"
    config.write_text("models: {colors: coco}")
    gateway = await two_workers("--config", str(config))
    await gateway.url()
    for _ in range(2):
        await gateway.line("is warm")
    workers = gateway.children()
    config.write_text("models: {colors: coco, other: coco}")
    gateway.signal(signal.SIGHUP)
    for _ in range(2):
        assert "restart" not in (await gateway.line("read again|restart")).string
    assert gateway.children() == workers
    gateway.signal(signal.SIGTERM)
    assert await gateway.end() == 0


async def test_workers_share_the_admin_port(two_workers, photo):
    """Whichever of them answers there, it counts for all; the other port has no metrics."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gateway = await two_workers("--admin-port", str(port))
    url = await gateway.url()
    for _ in range(2):
        await gateway.line(f"metrics and health are on port {port}")
    body = {"model_name": "colors", "image": photo()}
    for sent in range(1, 9):
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/imageDetection", json=body) as response:
                assert response.status == 200
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                text = await response.text()
            async with session.get(f"{url}/metrics") as response:
                assert response.status == 404
        assert f'gateway_requests_total{{model="colors",status="200"}} {sent}.0' in text
    gateway.signal(signal.SIGTERM)
    assert await gateway.end() == 0


async def test_a_worker_that_is_replaced(two_workers, tmp_path):
    """It begins with what was read last, not with what was read first; while that cannot be read it
    is tried again, and the others go on."""
    config, keys = tmp_path / "config.yaml", tmp_path / "keys.yaml"
    config.write_text("models: {colors: coco}")
    gateway = await two_workers("--config", str(config))
    url = await gateway.url()
    for _ in range(2):
        await gateway.line("is warm")
    keys.write_text(f"[{{name: a, sha256: {'a' * 64}}}]")
    config.write_text(f"{{models: {{colors: coco}}, api_keys: {keys}}}")
    gateway.signal(signal.SIGHUP)
    for _ in range(2):
        await gateway.line("read again")

    async def statuses() -> set[int]:
        found = set()
        for _ in range(12):
            async with aiohttp.ClientSession() as session, session.get(f"{url}/models") as answer:
                found.add(answer.status)
        return found

    assert await statuses() == {401}
    os.kill(int(gateway.children()[0].name), signal.SIGKILL)
    await gateway.line("is warm")
    assert await statuses() == {401}
    keys.write_text("- half")
    os.kill(int(gateway.children()[0].name), signal.SIGKILL)
    await gateway.line("api_keys: entry 1")
    assert await statuses() == {401}
    keys.write_text(f"[{{name: a, sha256: {'a' * 64}}}]")
    await gateway.line("is warm")
    assert await statuses() == {401}
    gateway.signal(signal.SIGTERM)
    assert await gateway.end() == 0
