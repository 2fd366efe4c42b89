"""Loads one server and reports what it gave, as JSON.

    python -m bench.load --url http://127.0.0.1:8080/imageDetection --concurrency 64 --pid PID
    python -m bench.load --url http://127.0.0.1:8080/imageDetection --rate 300 --deadline 0.5

Closed loop: so many clients, each sending its next picture when it has its answer. Open loop:
Poisson arrivals that wait for nobody; latency counts from when a request was due, so a server that
stalls cannot hide its queue. Every answer is held against the picture's code (bench/marks.py).
"""

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import math
import random
import resource
import selectors
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pybase64
from hdrh.histogram import HdrHistogram

from bench import marks, photos, processes
from bench.http_client import Connection, connect, post

__all__ = ["Plan", "main", "matches", "run"]

PERCENTILES = (50, 90, 99, 99.9)
MAX_CONNECTIONS = 900  # select(2) ends at 1024 descriptors
GIVE_UP = 30.0  # seconds that a client without a deadline waits


@dataclass(frozen=True, slots=True)
class Plan:
    """One run: either ``concurrency`` or ``rate`` (requests a second). Times in seconds."""

    url: str
    concurrency: int = 0
    rate: float = 0.0
    seconds: float = 10.0
    warmup: float = 2.0
    deadline: float | None = None
    model: str = "ssd"
    sizes: tuple[str, ...] = ("640x480",)
    pid: int | None = None  # root of the process tree whose CPU and memory are measured
    control: int | None = None  # port of the simulated server's control
    envelope: str = "{}"  # JSON around the request, for a server that wants one


@dataclass(slots=True)
class Tally:
    """What came back during one window."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    good: int = 0  # right, and within the deadline where there is one
    latency: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, 600_000_000, 3))  # µs
    refusal: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, 600_000_000, 3))  # µs

    def answered(self, code: int, status: int, body: bytes, seconds: float) -> None:
        """Count one answer that took ``seconds`` (from due to last byte)."""
        self.statuses[str(status)] += 1
        micros = int(seconds * 1e6)
        if status != 200:
            self.refusal.record_value(micros)
        elif matches(body, code):
            self.good += 1
            self.latency.record_value(micros)
        else:
            self.wrong += 1


def matches(body: bytes, code: int) -> bool:
    """Say whether ``body`` is the whole and only the answer to the picture of ``code``."""
    try:
        answer = json.loads(body)
        seen = (answer[0] if isinstance(answer, list) else answer)["detections"]
        wanted = marks.detections(code)
        return len(seen) == len(wanted) and all(map(_same, seen, wanted))
    except (ValueError, KeyError, TypeError, IndexError):
        return False


def _same(seen: dict[str, Any], wanted: marks.Detection) -> bool:
    box = seen["hit_box"]
    pairs = (
        (seen["score"], wanted.score),
        (box["x1"], wanted.x1),
        (box["y1"], wanted.y1),
        (box["x2"], wanted.x2),
        (box["y2"], wanted.y2),
    )
    return seen["class_id"] == wanted.class_id and all(abs(a - b) < 1e-5 for a, b in pairs)


class Load:
    """One plan while it runs."""

    def __init__(self, plan: Plan) -> None:
        url = urlsplit(plan.url)
        self.plan = plan
        self.host, self.port = str(url.hostname), url.port or 80
        requests = [
            (code, post(url.netloc, url.path, _body(plan, jpeg), plan.deadline))
            for code, jpeg in photos.load(list(plan.sizes))
        ]
        random.Random(1).shuffle(requests)
        self.requests: Iterator[tuple[int, bytes]] = itertools.cycle(requests)
        self.tally = Tally()
        self.now = asyncio.get_running_loop().time
        self.free: list[Connection] = []
        self.slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self.window_from = self.until = math.inf  # loop times, known when the warm-up is over

    async def client(self) -> None:
        """Send one request after the other until the window ends."""
        while self.now() < self.until:
            await self.one(self.now())

    async def arrivals(self) -> None:
        """Start requests at Poisson times until the window ends, and wait for the last of them."""
        due, times = self.now(), random.Random(2)
        uncounted = Tally()
        async with asyncio.TaskGroup() as group:
            while due < self.until:
                await asyncio.sleep(max(0.0, due - self.now()))
                counted = self.tally if due >= self.window_from else uncounted
                group.create_task(self.one(due, counted))
                due += times.expovariate(self.plan.rate)

    async def one(self, due: float, tally: Tally | None = None) -> None:
        """Send one request that was due at ``due``, and count its end."""
        code, data = next(self.requests)
        connection: Connection | None = None
        outcome = ""
        try:
            async with asyncio.timeout_at(due + (self.plan.deadline or GIVE_UP)), self.slots:
                connection = self.free.pop() if self.free else await connect(self.host, self.port)
                status, body = await connection.request(data)
            (tally or self.tally).answered(code, status, body, self.now() - due)
        except TimeoutError:
            outcome = "late"
        except OSError as error:
            outcome = type(error).__name__
            await asyncio.sleep(0.01)
        if outcome:
            (tally or self.tally).statuses[outcome] += 1
            if connection is not None:
                connection.close()
        elif connection is not None and not connection.closed:
            self.free.append(connection)

    async def progress(self, seconds: float) -> None:
        """Keep one line on the terminal up to date; a line every five seconds elsewhere."""
        live = sys.stderr.isatty()
        began = time.monotonic()
        while True:
            await asyncio.sleep(0.5 if live else 5)
            took, tally = time.monotonic() - began, self.tally
            others = {k: n for k, n in tally.statuses.items() if k != "200"}
            p99 = tally.latency.get_value_at_percentile(99) / 1000
            text = f"{took:5.1f}/{seconds:.0f} s  {tally.good} right  p99 {p99:.1f} ms"
            text += f"  wrong {tally.wrong}  others {others or 0}"
            sys.stderr.write(f"\r\x1b[K{text}" if live else f"{text}\n")
            sys.stderr.flush()

    async def run(self) -> dict[str, Any]:
        """Warm up, measure, and return the result."""
        plan = self.plan
        progress = asyncio.create_task(self.progress(plan.warmup + plan.seconds))
        clients = [self.arrivals] if plan.rate else [self.client] * plan.concurrency
        work = [asyncio.create_task(client()) for client in clients]
        await asyncio.sleep(plan.warmup)
        backend = [await asyncio.to_thread(_counts, plan.control)]
        cpu = [_cpu(plan.pid)]
        window = self.tally = Tally()
        self.window_from = self.now()
        self.until = self.window_from + plan.seconds
        await asyncio.sleep(plan.seconds)
        seconds = self.now() - self.window_from
        cpu.append(_cpu(plan.pid))
        progress.cancel()
        if not plan.rate:
            self.tally = Tally()  # what ends from here on is outside the window
        backend.append(await asyncio.to_thread(_counts, plan.control))
        await asyncio.gather(*work)
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
        for connection in self.free:
            connection.close()
        return _result(plan, window, seconds, cpu, backend)


def _body(plan: Plan, jpeg: bytes) -> bytes:
    image = pybase64.b64encode(jpeg).decode()
    request = json.dumps({"model_name": plan.model, "image": image, "threshold": 0.4})
    return plan.envelope.replace("{}", request).encode()


def _cpu(pid: int | None) -> tuple[float, processes.Cpu | None]:
    """Return the CPU seconds of this client, and those of the server."""
    return time.process_time(), processes.cpu(pid) if pid is not None else None


def _counts(control: int | None) -> dict[str, Any] | None:
    """Return what the simulated server has done so far."""
    if control is None:
        return None
    with urllib.request.urlopen(f"http://127.0.0.1:{control}") as answer:
        return dict(json.load(answer))


def _result(
    plan: Plan,
    tally: Tally,
    seconds: float,
    cpu: list[tuple[float, processes.Cpu | None]],
    backend: list[dict[str, Any] | None],
) -> dict[str, Any]:
    answers = max(1, sum(n for status, n in tally.statuses.items() if status.isdigit()))
    result: dict[str, Any] = {
        "model": plan.model,
        "sizes": list(plan.sizes),
        "concurrency": plan.concurrency,
        "rate": plan.rate,
        "deadline": plan.deadline,
        "seconds": round(seconds, 3),
        "throughput": tally.good / seconds,
        "right": tally.good,
        "wrong": tally.wrong,
        "statuses": dict(tally.statuses),
        "latency_ms": _percentiles(tally.latency),
        "refusal_ms": _percentiles(tally.refusal) if tally.refusal.total_count else None,
    }
    (client, before), (client_after, after) = cpu
    result["client_cpu_ms"] = 1000 * (client_after - client) / answers
    if before and after and plan.pid is not None:
        user = 1000 * (after.user - before.user) / answers
        system = 1000 * (after.system - before.system) / answers
        result["cpu_ms"] = {"user": user, "system": system, "total": user + system}
        result["memory_mb"] = processes.memory(plan.pid) / 1e6
    old, new = backend
    if old and new:
        calls, images = new["calls"] - old["calls"], new["images"] - old["images"]
        busy = (new["busy_seconds"] - old["busy_seconds"]) / seconds / new["devices"]
        mean = images / max(1, calls)
        result["backend"] = {"calls": calls, "images": images, "mean_batch": mean, "busy": busy}
    return result


def _percentiles(histogram: HdrHistogram) -> dict[str, float]:
    values = {f"p{p:g}": histogram.get_value_at_percentile(p) / 1000 for p in PERCENTILES}
    mean, highest = histogram.get_mean_value() / 1000, histogram.get_max_value() / 1000
    return values | {"mean": mean, "max": highest}


def run(plan: Plan) -> dict[str, Any]:
    """Run ``plan`` in this process and return its result; see _result for the keys."""

    async def body() -> dict[str, Any]:
        load = Load(plan)
        gc.collect()
        gc.freeze()
        return await load.run()

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    # epoll waits in whole milliseconds, select in microseconds: arrivals come when they are due.
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
    ) as runner:
        return runner.run(body())


def main() -> None:
    """Parse the flags, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--url", required=True)
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--concurrency", type=int, default=0)
    load.add_argument("--rate", type=float, default=0.0, help="requests a second, open loop")
    for name in ("seconds", "warmup"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Plan("", 1), name))
    parser.add_argument("--deadline", type=float, help="seconds after which a client leaves")
    parser.add_argument("--model", default="ssd")
    parser.add_argument(
        "--sizes", default="640x480", help=f"with commas: {', '.join(photos.SIZES)}"
    )
    parser.add_argument("--pid", type=int, help="root of the process tree to measure")
    parser.add_argument("--control", type=int, help="control port of the simulated server")
    parser.add_argument("--json", type=Path, help="write the result here as well")
    flags = vars(parser.parse_args())
    file = flags.pop("json")
    flags["sizes"] = tuple(flags["sizes"].split(","))
    with contextlib.suppress(KeyboardInterrupt):
        text = json.dumps(run(Plan(**flags)), indent=2)
        sys.stdout.write(text + "\n")
        if file:
            file.write_text(text + "\n")


if __name__ == "__main__":
    main()
