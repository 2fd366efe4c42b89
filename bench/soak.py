"""Shows that nothing is lost: requests without end, a fault every few seconds, each answer checked.

    python -m bench.soak --requests 200000

A gateway in front of three simulated replicas, one of them behind a relay. Faults are drawn with a
fixed seed, none before all others were had; clients leave all the time. Ends with 1 if an answer
was wrong or missing, if a refusal was not one that the fault explains, or if anything grew.
"""

import argparse
import asyncio
import contextlib
import gc
import itertools
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import processes, servers, soak_report
from bench.clients import LEFT, RIGHT, SILENT, WRONG, Clients, End
from bench.faults import COST, FAULTS, Fleet
from bench.servers import Service
from bench.suite import machine

__all__ = ["Soak", "main"]

RESULTS = Path(__file__).parent / "results"
DEADLINE = 2.0  # seconds, the gateway's request_timeout
LATE = DEADLINE + soak_report.ALLOWED_SECONDS
QUIET = 3.0  # seconds from the end of one fault to the next; what began under it ends within
WARM = 5.0  # seconds until the first fault
LOOK = 0.02  # seconds between two looks at how late this process's own loop is
AFTERMATH = DEADLINE + 0.2  # seconds for which a fault that is over may still be felt
LEAVE = 0.02  # of all clients
ANY_FAULT = {"503 backend_unavailable", "503 overloaded", "504 deadline_exceeded"}
NONE = "none"


@dataclass(frozen=True, slots=True)
class Window:
    """One fault, in seconds since the start."""

    kind: str
    since: float
    until: float


class Soak:
    """One run; ``result`` says what came of it."""

    def __init__(self, requests: int, concurrency: int, rate: float) -> None:
        self.requests, self.concurrency, self.rate = requests, concurrency, rate
        self.ends: list[tuple[float, float, str, str]] = []  # at, seconds, outcome, fault
        self.silent: Counter[str] = Counter()
        self.windows: list[Window] = []
        self.samples: list[tuple[float, int, int, float]] = []  # at, bytes, descriptors, waited
        self.machine: dict[str, Any] = {"cpu": "unknown", "cores": 0, "date": "never"}
        self.lag = 0.0  # most seconds by which this process was late itself
        self._now = asyncio.get_running_loop().time
        self._began = 0.0
        self._current: tuple[str, float] | None = None  # the fault that is on, and since when

    async def run(self) -> None:
        """Start everything, send all requests, and stop everything."""
        self.machine = machine()
        flags = ("--request-timeout", f"{DEADLINE:g}", "--models", "ssd", "--models", "full")
        async with Fleet(relayed=True) as fleet, contextlib.AsyncExitStack() as stack:
            gateway = servers.gateway(fleet.behind, *flags)
            service: Service = await asyncio.to_thread(gateway.__enter__)
            stack.push_async_callback(asyncio.to_thread, gateway.__exit__, None, None, None)
            clients = Clients(service.url, deadline=DEADLINE, ended=self._count, leave=LEAVE)
            self._began = self._now()
            beside = [
                asyncio.create_task(work)
                for work in (
                    self._fail(fleet),
                    self._sample(service.pid, clients),
                    self._progress(),
                    self._watch_itself(),
                )
            ]
            load = clients.run(self.requests, concurrency=self.concurrency, rate=self.rate)
            load_task = asyncio.create_task(load)
            try:
                await asyncio.wait([load_task, *beside], return_when=asyncio.FIRST_COMPLETED)
                for task in beside:
                    if task.done():
                        task.result()  # none of them ends by itself, but in failure
                await load_task
            finally:
                for task in (load_task, *beside):
                    task.cancel()
                await asyncio.gather(load_task, *beside, return_exceptions=True)
                self._close_window()

    def _count(self, end: End) -> None:
        self.ends.append((end.at - self._began, end.at - end.due, end.outcome, self._fault_of(end)))
        if end.outcome == SILENT:
            self.silent[end.why] += 1

    def _fault_of(self, end: End) -> str:
        """The fault that was on, or hardly over, at some time of the request; else ``NONE``."""
        due, at = end.due - self._began, end.at - self._began
        if self._current is not None and at >= self._current[1]:
            return self._current[0]
        last = self.windows[-1] if self.windows else None
        return last.kind if last and due <= last.until + AFTERMATH else NONE

    async def _fail(self, fleet: Fleet) -> None:
        await asyncio.sleep(WARM - QUIET)
        for kind, number in _deck(len(fleet)):
            await asyncio.sleep(QUIET)
            self._current = (kind, self._now() - self._began)
            await FAULTS[kind][0](fleet, number)
            self._close_window()

    def _close_window(self) -> None:
        if self._current is not None:
            self.windows.append(Window(*self._current, self._now() - self._began))
            self._current = None

    async def _sample(self, pid: int, clients: Clients) -> None:
        while True:
            memory = await asyncio.to_thread(processes.memory, pid)
            files = await asyncio.to_thread(processes.descriptors, pid) - clients.connections
            waited = processes.waited(pid)
            self.samples.append((self._now() - self._began, memory, files, waited))
            await asyncio.sleep(1)

    async def _watch_itself(self) -> None:
        while True:
            due = self._now() + LOOK
            await asyncio.sleep(LOOK)
            self.lag = max(self.lag, self._now() - due)

    async def _progress(self) -> None:
        while True:
            await asyncio.sleep(5)
            seconds = self._now() - self._began
            outcomes = dict(Counter(outcome for _, _, outcome, _ in self.ends).most_common())
            fault = self._current[0] if self._current else NONE
            sys.stderr.write(f"{seconds:5.0f} s  {len(self.ends)}  fault: {fault}  {outcomes}\n")
            sys.stderr.flush()

    def result(self) -> dict[str, Any]:
        """Everything of the run, as JSON has it."""
        ends = self.ends
        rows = {kind: self._row(kind) for kind in [NONE, *FAULTS]}
        rows = {kind: row for kind, row in rows.items() if row["requests"]}
        outcomes = Counter(outcome for _, _, outcome, _ in ends)
        unexplained = Counter(
            f"{outcome} (fault: {fault})"
            for _, _, outcome, fault in ends
            if outcome not in {RIGHT, WRONG, SILENT, LEFT} | _explained(fault)
        )
        quarter = max(1, len(self.samples) // 4)
        first, last = self.samples[:quarter], self.samples[-quarter:]
        return {
            "machine": self.machine,
            "requests": len(ends),
            "seconds": ends[-1][0],
            "deadline": DEADLINE,
            "cost": COST,
            "outcomes": dict(outcomes.most_common()),
            "wrong": outcomes[WRONG],
            "without_answer": outcomes[SILENT],
            "without_answer_why": dict(self.silent),
            "unexplained": dict(unexplained),
            "late": sum(seconds > LATE for _, seconds, outcome, _ in ends if outcome != LEFT),
            "own_lag": self.lag,
            "core_share_missed": self._core_share_missed(),
            "slowest": max(seconds for _, seconds, _, _ in ends),
            "memory_mb": [_mean(one[1] for one in part) / 1e6 for part in (first, last)],
            "descriptors": [_mean(one[2] for one in part) for part in (first, last)],
            "faults": rows,
            "windows": [(one.kind, one.since, one.until) for one in self.windows],
            "per_second": self._per_second(),
            "samples": self.samples,
        }

    def _core_share_missed(self) -> float:
        """Of its worst second, what the gateway's loop spent waiting for a core that others had."""
        pairs = itertools.pairwise(self.samples)
        return max(((b[3] - a[3]) / (b[0] - a[0]) for a, b in pairs), default=0.0)

    def _row(self, kind: str) -> dict[str, Any]:
        ends = [(seconds, outcome) for _, seconds, outcome, fault in self.ends if fault == kind]
        answered = sorted(seconds for seconds, outcome in ends if outcome == RIGHT)
        counts = Counter(outcome for _, outcome in ends)
        right, left = counts.pop(RIGHT, 0), counts.pop(LEFT, 0)
        return {
            "times": sum(one.kind == kind for one in self.windows),
            "requests": len(ends),
            "right": right,
            "left": left,
            "others": dict(counts.most_common()),
            "p99_ms": 1000 * answered[int(0.99 * len(answered))] if answered else None,
        }

    def _per_second(self) -> dict[str, list[int]]:
        """Answers of each kind in each second."""
        series: dict[str, list[int]] = {}
        seconds = int(self.ends[-1][0]) + 1
        for at, _, outcome, _ in self.ends:
            series.setdefault(outcome, [0] * seconds)[min(int(at), seconds - 1)] += 1
        return series


def _deck(replicas: int) -> Iterator[tuple[str, int]]:
    """Faults without end, and whom they hit: all kinds in a drawn order, then all again."""
    draw = random.Random(4)
    while True:
        for kind in draw.sample(list(FAULTS), len(FAULTS)):
            yield kind, draw.randrange(replicas)


def _explained(fault: str) -> set[str]:
    return set() if fault == NONE else ANY_FAULT | set(FAULTS[fault][1])


def _mean(values: Iterator[int]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def main() -> None:
    """Run, write results/soak.json and the plot, print the table; see the module for the status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--concurrency", type=int, default=24, help="clients in a closed loop")
    parser.add_argument("--rate", type=float, default=150.0, help="and requests a second beside")
    parser.add_argument("--output", type=Path, default=RESULTS / "soak.json")
    parser.add_argument("--plots", type=Path, help="directory (default: beside the output)")
    flags = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))

    async def body() -> dict[str, Any]:
        soak = Soak(flags.requests, flags.concurrency, flags.rate)
        gc.freeze()
        await soak.run()
        return soak.result()

    began = time.monotonic()
    result = asyncio.run(body())
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    flags.output.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(soak_report.text(result))
    file = soak_report.plot(result, flags.plots or flags.output.parent)
    sys.stdout.write(f"{file}\n{time.monotonic() - began:.0f} s\n")
    sys.exit(0 if soak_report.passed(result) else 1)


if __name__ == "__main__":
    main()
