"""The servers of a measurement, each started on free ports of the loopback and stopped again."""

import contextlib
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any, NamedTuple

import pybase64

from bench import load, peers, photos, processes

__all__ = ["Backend", "Service", "backend", "gateway", "peer"]


class Backend(NamedTuple):
    """A running simulated server."""

    address: str
    control: int
    pid: int = 0

    def change(self, **settings: str | float) -> dict[str, Any]:
        """Change its behaviour, or with no arguments just read settings and counts."""
        url = f"http://127.0.0.1:{self.control}"
        data = urllib.parse.urlencode(settings).encode() or None
        with urllib.request.urlopen(url, data=data, timeout=5) as answer:
            return dict(json.load(answer))


class Service(NamedTuple):
    """A running gateway or peer: where it answers, its process, and seconds from start to ready."""

    name: str
    url: str
    pid: int
    ready_seconds: float

    def plan(self, **settings: Any) -> load.Plan:
        """Return a plan that loads and measures this service."""
        envelope = peers.ENVELOPES.get(self.name.partition(",")[0], "{}")
        return load.Plan(self.url, pid=self.pid, envelope=envelope, **settings)


@contextlib.contextmanager
def backend(cost: str, *flags: str, port: int | None = None) -> Iterator[Backend]:
    """Run the simulated server with ``cost`` ("a,b" in ms)."""
    port, control = port or processes.free_port(), processes.free_port()
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "bench.simulated_serving", "--cost", cost, *flags]
    command += ["--address", address, "--control", str(control)]
    with processes.running(command, f"127.0.0.1:{control}") as process:
        yield Backend(address, control, process.pid)


@contextlib.contextmanager
def gateway(behind: Backend, *flags: str, port: int | None = None) -> Iterator[Service]:
    """Run the gateway in front of a backend; ready is what its /readyz says."""
    port = port or processes.free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--tfserving", behind.address]
    command += ["--host", "127.0.0.1", "--port", str(port), *flags]
    began = time.monotonic()
    with processes.running(command, f"http://127.0.0.1:{port}/readyz") as process:
        ready = time.monotonic() - began
        yield Service("gateway", f"http://127.0.0.1:{port}/imageDetection", process.pid, ready)


@contextlib.contextmanager
def peer(
    name: str, behind: Backend, model: str = "ssd", style: str = "documented"
) -> Iterator[Service]:
    """Run a peer in front of a backend; ready is when it has answered one picture rightly."""
    port = processes.free_port()
    began = time.monotonic()
    with processes.running(
        peers.command(name, port),
        f"127.0.0.1:{port}",
        env=peers.environment(port, behind.address, model, style),
        wait=120,
    ) as process:
        url = f"http://127.0.0.1:{port}/imageDetection"
        _await_answer(url, model, peers.ENVELOPES.get(name, "{}"), began + 120)
        called = name if style == "documented" else f"{name}, {style}"
        yield Service(called, url, process.pid, time.monotonic() - began)


def _await_answer(url: str, model: str, envelope: str, until: float) -> None:
    """Post a picture until it is answered, twice a second."""
    [(code, jpeg)] = photos.load(["640x480"], each=1)
    image = pybase64.b64encode(jpeg).decode()
    body = json.dumps({"model_name": model, "image": image, "threshold": 0.4})
    data = envelope.replace("{}", body).encode()
    reason: Any = None
    while time.monotonic() < until:
        request = urllib.request.Request(  # noqa: S310 - loopback
            url, data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
                reason = answer.read()
                if load.matches(reason, code):
                    return
        except OSError as error:
            reason = error.read() if isinstance(error, urllib.error.HTTPError) else error
        time.sleep(0.5)
    raise RuntimeError(f"{url} gave no right answer: {reason!r}"[:500])
