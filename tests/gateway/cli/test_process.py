"""The gateway as a process: settings from the environment, readiness, and a clean end."""

import asyncio
import json
import re
import signal
import socket

import aiohttp
import pytest


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


async def post(http, url: str, photo) -> tuple[int, dict]:
    body = {"model_name": "colors", "image": photo()}
    async with http.post(f"{url}/imageDetection", json=body) as response:
        return response.status, await response.json()


async def test_serve_and_stop(spawn, serving, http, photo):
    """SIGTERM: not ready, new requests are refused, those inside are answered, then exit 0."""
    host, port = serving.address.split(":")
    gateway = await spawn("serve", "--port", "0", APP_TFSERVING_HOST=host, APP_TFSERVING_PORT=port)
    url = await gateway.url()
    assert (await post(http, url, photo))[0] == 200
    serving.gate = asyncio.Event()
    await serving.arrived.acquire()
    inside = asyncio.ensure_future(post(http, url, photo))
    await serving.arrived.acquire()
    gateway.signal(signal.SIGTERM)
    await gateway.line("stopping")
    async with http.get(f"{url}/readyz") as response:
        assert (response.status, (await response.json())["reason"]) == (503, "shutting down")
    status, answer = await post(http, url, photo)
    assert (status, answer["code"]) == (503, "shutting_down")
    gateway.signal(signal.SIGHUP)
    await gateway.line("were read again")
    serving.gate.set()
    assert (await inside)[0] == 200
    assert await gateway.end() == 0


@pytest.mark.parametrize("stuck", ["gate", "metadata_gate"])
async def test_stop_gives_up_after_drain_timeout(spawn, serving, http, photo, stuck):
    """Who has no answer when drain_timeout is over is told so with 503; the exit is still clean."""
    gateway = await spawn(
        "serve", "--port", "0", "--tfserving", serving.address, "--drain-timeout", "0.2",
        "--request-timeout", "60",
    )  # fmt: skip
    url = await gateway.url()
    gate = asyncio.Event()
    setattr(serving, stuck, gate)
    inside = asyncio.ensure_future(post(http, url, photo))
    await (serving.arrived if stuck == "gate" else serving.metadata_asked).acquire()
    gateway.signal(signal.SIGINT)
    assert await gateway.end() == 0
    status, answer = await inside
    assert (status, answer["code"]) == (503, "shutting_down")
    gate.set()


async def test_a_second_signal_ends_it_at_once(spawn, serving, http, photo):
    """Whoever is inside, and however long it might still wait."""
    gateway = await spawn(
        "serve", "--port", "0", "--tfserving", serving.address, "--drain-timeout", "600",
        "--request-timeout", "600",
    )  # fmt: skip
    url = await gateway.url()
    serving.gate = asyncio.Event()
    inside = asyncio.ensure_future(post(http, url, photo))
    await serving.arrived.acquire()
    gateway.signal(signal.SIGTERM)
    await gateway.line("stopping")
    gateway.signal(signal.SIGTERM)
    assert await gateway.end() == -signal.SIGTERM
    with pytest.raises(aiohttp.ClientError):
        await inside
    serving.gate.set()


async def test_json_log_lines(spawn, serving, http, photo):
    """Away from a terminal every log line is one JSON object; a request's fields are at its top."""
    gateway = await spawn("serve", "--port", "0", "--tfserving", serving.address)
    url = await gateway.url()
    await post(http, url, photo)
    line = json.loads((await gateway.line("request_id")).string)
    assert line.keys() >= {"time", "level", "message", "request_id", "status", "seconds", "model"}
    gateway.signal(signal.SIGTERM)
    assert await gateway.end() == 0
    assert all(json.loads(line) for line in gateway.lines)


async def test_text_log_lines(spawn, serving, http, photo):
    """--log-format text gives lines for people."""
    gateway = await spawn(
        "serve", "--port", "0", "--tfserving", serving.address, "--log-format", "text"
    )
    url = await gateway.url()
    await post(http, url, photo)
    found = await gateway.line("status=200")
    assert re.match(r"\d\d:\d\d:\d\d INFO +request  request_id=\w+ method=POST", found.string)


async def test_port_that_is_taken(spawn):
    """A port that is taken is told in a line, with exit status 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = await spawn("serve", "--port", str(taken.getsockname()[1]))
        assert await gateway.end() == 1
    assert "cannot listen on 127.0.0.1:" in gateway.lines[-1]


async def test_backend_without_a_model(spawn, tmp_path):
    """The embedded server says in a line that its directory is not there."""
    backend = await spawn("backend", "--model-base-path", str(tmp_path / "nothing"))
    assert await backend.end() == 1
    assert "is not a directory" in backend.lines[-1]


async def test_hangup(spawn, serving, http, photo, tmp_path):
    """SIGHUP reads the settings again; a file at fault is told, and the old ones stay."""
    config, labels = tmp_path / "config.yaml", tmp_path / "labels.txt"
    labels.write_text("a\nb\nold")
    config.write_text(f"models: {{colors: {labels}}}")
    gateway = await spawn(
        "serve", "--port", "0", "--tfserving", serving.address, "--config", str(config)
    )
    url = await gateway.url()

    async def label() -> str:
        return (await post(http, url, photo))[1]["detections"][0]["class_label"]

    assert await label() == "old"
    labels.write_text("a\nb\nnew")
    gateway.signal(signal.SIGHUP)
    await gateway.line("were read again")
    assert await label() == "new"
    for wrong in (f"models: {{colors: {tmp_path}/no.txt}}", "max_batch_size: many"):
        config.write_text(wrong)
        gateway.signal(signal.SIGHUP)
        await gateway.line(r"stay as they were: .*(no\.txt|max_batch_size)")
        assert await label() == "new"
    gateway.signal(signal.SIGTERM)
    assert await gateway.end() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_open_to_the_network_without_keys(spawn, tmp_path, workers):
    """It is told once; not where there are keys, nor on the loopback."""
    keys = tmp_path / "keys.yaml"
    keys.write_text("[]")
    common = ("serve", "--port", "0", "--workers", workers)
    for flags, warnings in [
        (("--host", "0.0.0.0"), 1),  # noqa: S104 - this is what is warned of
        (("--host", "0.0.0.0", "--api-keys", str(keys)), 0),  # noqa: S104 - as above
        (("--host", "localhost"), 0),
    ]:
        gateway = await spawn(*common, *flags)
        await gateway.url()
        gateway.signal(signal.SIGTERM)
        assert await gateway.end() == 0
        told = [line for line in gateway.lines if "no api_keys are set" in line]
        assert len(told) == warnings


async def test_admin_port_that_is_taken(spawn):
    """As for the other port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        gateway = await spawn("serve", "--port", "0", "--admin-port", port)
        assert await gateway.end() == 1
    assert f"cannot listen on 127.0.0.1:{port}: " in gateway.lines[-1]
