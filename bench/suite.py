"""The measurements of one run, in order, each added to one dictionary that is written as JSON.

Every server is started for its measurements and stopped after them, so that nothing but the load,
the simulated backend and the server under test shares the cores.
"""

import os
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import floor, load, photos, processes, servers, stages
from bench.servers import Backend, Service
from gateway.cli import plan

__all__ = ["DEADLINE", "FAST", "SLOW", "SLOWER", "SMALL", "Suite"]

FAST, SLOW = "2,0.05", "20,2"  # ms: a + b * n
SLOWER = "80,4"  # for overload: ten times what it gives can still be offered from the same machine
DEADLINE = 0.5  # seconds, for goodput
MIXED = tuple(photos.SIZES)
LARGEST = "1920x1080"
SHARES = (0.25, 0.5, 0.75, 0.9)  # of what the slow backend gives to full batches
# Pictures that hardly cost CPU: the simulator knows of the backend's time, not of these cores'.
SMALL: dict[str, Any] = {"model": "tiny", "sizes": ("160x120",)}
OFFERED = (0.5, 1.0, 1.5, 3.0, 10.0)


class Suite:
    """Measures into ``results``; ``full`` takes longer and sweeps more, ``seconds`` is a window."""

    def __init__(
        self,
        *,
        full: bool,
        peers: Iterable[str],
        gateway: bool = True,
        seconds: float | None = None,
    ) -> None:
        self.full = full
        self.peers = list(peers)
        self.seconds = seconds or (10.0 if full else 4.0)
        self.warmup = 3.0 if full else 1.5
        self.gateway = gateway
        self.results: dict[str, Any] = {
            "machine": machine(),
            "full": full,
            "floor": [],
            "stages": {},
            "direct": {},
            "runs": [],
        }

    def run(self) -> dict[str, Any]:
        """Run all parts and return the results."""
        parts = [self.floors, self.backend_alone]
        if self.gateway:
            parts += [self.own_stages, self.cpu_and_throughput, self.slow_backend, self.simulated]
            parts += [self.goodput, self.memory, self.workers]
        for part in parts:
            part()
        for name in self.peers:
            self.peer(name)
        return self.results

    def say(self, text: str) -> None:
        """Tell the terminal what is being measured."""
        sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
        sys.stderr.flush()

    def measure(self, service: Service, behind: Backend, **settings: Any) -> dict[str, Any]:
        """Load ``service`` as ``settings`` (of load.Plan) say, and return the result."""
        behind_now = behind.change()
        cost = ",".join(f"{ms:g}" for ms in behind_now["cost"])
        plan = service.plan(
            **{"seconds": self.seconds, "warmup": self.warmup, "control": behind.control} | settings
        )
        how = f"{plan.rate:.0f}/s" if plan.rate else f"concurrency {plan.concurrency}"
        self.say(f"{service.name}: {plan.model}, {'+'.join(plan.sizes)}, {how}, backend {cost} ms")
        result = {"server": service.name, "cost": cost} | load.run(plan)
        bad = {k: n for k, n in result["statuses"].items() if k != "200"}
        self.say(
            f"    {result['throughput']:.0f}/s  p50 {result['latency_ms']['p50']:.1f} ms"
            f"  p99 {result['latency_ms']['p99']:.1f} ms"
            f"  CPU {result['cpu_ms']['total']:.2f} ms  wrong {result['wrong']}  {bad or ''}"
        )
        return result

    def keep(self, service: Service, behind: Backend, **settings: Any) -> None:
        """Measure, and add the result to the run's."""
        self.results["runs"].append(self.measure(service, behind, **settings))

    def floors(self) -> None:
        """CPU of the floor for each size, with and without resizing, exact and inexact."""
        for size in photos.SIZES:
            for fixed, exact in ((True, True), (False, True), (True, False)):
                self.say(f"floor: {size}, {'300x300' if fixed else 'full size'}, exact {exact}")
                row = floor.floor(size, fixed=fixed, exact=exact, seconds=self.seconds / 4)
                self.results["floor"].append(row)

    def own_stages(self) -> None:
        """CPU of each of the gateway's own stages, alone in one thread."""
        for size in ("640x480", LARGEST):
            self.say(f"stages: {size}, 300x300")
            self.results["stages"][size] = stages.stages(size, seconds=self.seconds / 8)

    def backend_alone(self) -> None:
        """What each backend gives to full batches, and decode plus Predict one by one."""
        for cost in (FAST, SLOW, SLOWER):
            with servers.backend(cost) as behind:
                self.say(f"direct: full batches, backend {cost} ms")
                self.results["direct"][cost] = floor.direct(behind.address, seconds=self.seconds)
                if cost == FAST:
                    self.results["alone_ms"] = floor.alone(behind.address, seconds=self.seconds)

    def cpu_and_throughput(self) -> None:
        """The fast backend: concurrency, sizes and the model of dynamic size."""
        sweep = (1, 2, 4, 8, 16, 32, 64, 128) if self.full else (1, 8, 64)
        with servers.backend(FAST) as behind, servers.gateway(behind) as service:
            for concurrency in sweep:
                self.keep(service, behind, concurrency=concurrency)
            self.keep(service, behind, concurrency=64, sizes=(LARGEST,))
            self.keep(service, behind, concurrency=64, sizes=MIXED)
            self.keep(service, behind, concurrency=64, model="full")
            self.keep(service, behind, concurrency=64, model="full", sizes=(LARGEST,))

    def slow_backend(self) -> None:
        """The slow backend by load, and concurrency 64."""
        with servers.backend(SLOW) as behind, servers.gateway(behind) as service:
            half = self.results["direct"][SLOW]["throughput"] / 2
            self.measure(service, behind, rate=half)  # it has learnt when it is measured
            self.by_load(service, behind)
            self.keep(service, behind, concurrency=64)

    def by_load(self, service: Service, behind: Backend) -> None:
        """Open loop at shares of what the slow backend can give."""
        capacity = self.results["direct"][SLOW]["throughput"]
        for share in (0.05, *SHARES) if self.full else SHARES:
            self.keep(service, behind, rate=share * capacity)

    def simulated(self) -> None:
        """The slow backend by load, and what the simulator says of the very same arrivals from what
        the gateway has learnt.

        From the largest load: under it what of a call can overlap is not seen, and what was learnt
        last is asked for afterwards.
        """
        capacity = self.results["direct"][SLOW]["throughput"]
        seconds = 5 * self.seconds
        with servers.backend(SLOW) as behind, servers.gateway(behind) as service:
            for share in reversed(SHARES):
                self.keep(service, behind, rate=share * capacity, seconds=seconds, **SMALL)
            cost = plan.learnt(service.url.removesuffix("/imageDetection"), SMALL["model"])
        self.say(f"plan: {cost}")
        self.results["predicted"] = [
            {"rate": rate, **plan.latency(cost, rate, seconds, self.warmup)._asdict()}
            for rate in (share * capacity for share in SHARES)
        ]

    def goodput(self) -> None:
        """Open loop far beyond what the slower backend can give, with a deadline, and back."""
        with servers.backend(SLOWER) as behind, servers.gateway(behind) as service:
            self.overload(service, behind)

    def overload(self, service: Service, behind: Backend) -> None:
        """Offer too much; what counts is answers within the deadline."""
        capacity = self.results["direct"][SLOWER]["throughput"]
        for share in OFFERED:
            self.keep(service, behind, rate=share * capacity, deadline=DEADLINE)
        # And at once half the load, from the first request on: is it as good as before?
        after = self.measure(
            service, behind, rate=capacity / 2, deadline=DEADLINE, warmup=1.0, seconds=2.0
        )
        self.results["runs"].append(after | {"after_overload": True})

    def memory(self) -> None:
        """Start, idle memory, and growth over many requests."""
        requests = 200_000 if self.full else 5_000
        with servers.backend(FAST) as behind, servers.gateway(behind) as service:
            time.sleep(1)
            idle = processes.memory(service.pid) / 1e6
            self.results["start"] = {"ready_seconds": service.ready_seconds, "idle_mb": idle}
            done, rss = 0, []
            while done < requests:
                result = self.measure(service, behind, concurrency=64, seconds=self.seconds)
                done += max(1, result["right"])
                rss.append((done, processes.memory(service.pid) / 1e6))
            self.results["growth"] = rss

    def workers(self) -> None:
        """Two worker processes, where the gateway has that."""
        try:
            with (
                servers.backend(FAST) as behind,
                servers.gateway(behind, "--workers", "2") as service,
            ):
                self.keep(service._replace(name="gateway, 2 workers"), behind, concurrency=64)
        except RuntimeError as error:
            self.say(f"--workers 2 was not measured: {str(error)[-300:]}")

    def peer(self, name: str) -> None:
        """The same load on a peer: the fast backend, and in full runs everything else."""
        model = "full" if name == "flask" else "ssd"
        try:
            with servers.backend(FAST) as behind, servers.peer(name, behind, model) as service:
                for concurrency in (1, 8, 32, 64) if self.full else (8, 64):
                    self.keep(service, behind, concurrency=concurrency, model=model)
                if self.full and model == "ssd":
                    behind.change(cost=SLOW)
                    self.keep(service, behind, concurrency=64)
                    self.by_load(service, behind)
                if model == "ssd":
                    behind.change(cost=SLOWER)
                    self.overload(service, behind)
            if model == "ssd":
                with (
                    servers.backend(FAST) as behind,
                    servers.peer(name, behind, style="tuned") as service,
                ):
                    for concurrency in (8, 64):
                        self.keep(service, behind, concurrency=concurrency)
        except RuntimeError as error:
            self.say(f"{name} was not measured: {str(error)[-300:]}")


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "busy_before": others_share(),
    }


def others_share(seconds: float = 1.0) -> float:
    """Return the share of all cores' time that was used (/proc/stat, proc(5)), by others than us:
    figures taken on a machine that has other work are too high."""

    def read() -> tuple[int, int]:
        ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]  # idle and waiting for disks

    all_before, idle_before = read()
    time.sleep(seconds)
    all_after, idle_after = read()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)
