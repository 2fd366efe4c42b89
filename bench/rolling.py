"""Shows that everything can be renewed under load without a request that fails.

    python -m bench.rolling

Two gateways behind a balancer that asks for their readiness, three replicas behind both. Under
constant load, on kept and on fresh connections, each gateway gets SIGTERM and is started anew, then
each replica is restarted gracefully, then by kill -9. Ends with 1 if a request failed.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench import processes, servers
from bench.clients import RIGHT, Clients, End
from bench.faults import Fleet
from bench.relay import Balancer
from bench.servers import Backend
from bench.suite import machine

__all__ = ["Rolling", "main"]

RESULTS = Path(__file__).parent / "results"
DEADLINE = 2.0  # seconds, the gateways' request_timeout
DRAIN_DELAY = 1.0
SETTLE = 2.0  # seconds between two steps
FRESH = 0.3  # of all requests come on a connection of their own
FLAGS = ("--request-timeout", f"{DEADLINE:g}", "--drain-delay", f"{DRAIN_DELAY:g}")


class Gateways:
    """Processes of the gateway, each on a port that it keeps."""

    def __init__(self, count: int, behind: Backend) -> None:
        self.ports = [processes.free_port() for _ in range(count)]
        self._behind = behind
        self._running = [contextlib.ExitStack() for _ in self.ports]

    async def __aenter__(self) -> "Gateways":
        try:
            for number in range(len(self.ports)):
                await self._start(number)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(asyncio.to_thread(stack.close) for stack in self._running))

    async def restart(self, number: int) -> None:
        """SIGTERM, wait for its end, start it anew."""
        await asyncio.to_thread(self._running[number].close)
        await self._start(number)

    async def _start(self, number: int) -> None:
        gateway = servers.gateway(self._behind, *FLAGS, port=self.ports[number])
        await asyncio.to_thread(self._running[number].enter_context, gateway)


class Rolling:
    """One run; ``steps`` says what came of each step."""

    def __init__(self, **load: Any) -> None:
        self.load = load  # see Clients.run
        self.machine = machine()
        self.steps: dict[str, Counter[str]] = {}
        self._step = self.steps.setdefault("nothing", Counter())

    async def run(self) -> None:
        """Start everything, renew everything under load, stop everything."""
        async with Fleet() as fleet, Gateways(2, fleet.behind) as gateways:
            balancer = Balancer(gateways.ports)
            await balancer.start()
            try:
                url = f"http://127.0.0.1:{balancer.port}/imageDetection"
                clients = Clients(url, deadline=DEADLINE, ended=self._count, fresh=FRESH)
                load = asyncio.create_task(clients.run(sys.maxsize, **self.load))
                try:
                    await self._renew(fleet, gateways, balancer)
                    clients.limit = 0
                finally:
                    if clients.limit:
                        load.cancel()
                    await load
            finally:
                await balancer.aclose()

    async def _renew(self, fleet: Fleet, gateways: Gateways, balancer: Balancer) -> None:
        await asyncio.sleep(SETTLE)
        for number in range(len(gateways.ports)):
            await self._do(f"gateway {number + 1}: SIGTERM", gateways.restart, number)
            await balancer.all_ready()
        for number in range(len(fleet)):
            await self._do(f"replica {number + 1}: SIGTERM", fleet.start_again, number)
        for number in range(len(fleet)):

            async def kill(which: int) -> None:
                fleet.signal(which, signal.SIGKILL)
                await fleet.start_again(which)

            await self._do(f"replica {number + 1}: kill -9", kill, number)

    async def _do(self, name: str, action: Callable[[int], Awaitable[None]], number: int) -> None:
        self._step = self.steps.setdefault(name, Counter())
        sys.stderr.write(f"{name}\n")
        await action(number)
        await asyncio.sleep(SETTLE)

    def _count(self, end: End) -> None:
        self._step[f"{end.outcome} ({end.why})" if end.why else end.outcome] += 1

    def result(self) -> dict[str, Any]:
        """Everything of the run, as JSON has it."""
        return {"machine": self.machine, "steps": {name: dict(c) for name, c in self.steps.items()}}


def failed(result: dict[str, Any]) -> int:
    """Return how many requests had another end than a right answer."""
    steps = result["steps"].values()
    return sum(n for step in steps for outcome, n in step.items() if outcome != RIGHT)


def text(result: dict[str, Any]) -> str:
    """Return the run in Markdown."""
    machine = result["machine"]
    lines = [
        f"{machine['cores']} cores ({machine['cpu']}), {machine['date']}",
        "",
        "| what was renewed | requests | failed | why |",
        "| --- | --- | --- | --- |",
    ]
    for name, outcomes in result["steps"].items():
        others = {outcome: n for outcome, n in outcomes.items() if outcome != RIGHT}
        why = ", ".join(f"{n} x {outcome}" for outcome, n in others.items()) or "–"
        cells = (name, sum(outcomes.values()), sum(others.values()), why)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    total = sum(sum(outcomes.values()) for outcomes in result["steps"].values())
    lines.append(f"| together | {total} | {failed(result)} | |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run, write results/rolling.json, print the table; see the module for the status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--concurrency", type=int, default=16, help="clients in a closed loop")
    parser.add_argument("--rate", type=float, default=100.0, help="and requests a second beside")
    parser.add_argument(
        "--slow", type=int, default=0, help="and clients whose connections lie idle for seconds"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "rolling.json")
    load = vars(parser.parse_args())
    output = load.pop("output")

    async def body() -> dict[str, Any]:
        rolling = Rolling(**load)
        await rolling.run()
        return rolling.result()

    result = asyncio.run(body())
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(text(result))
    sys.exit(1 if failed(result) else 0)


if __name__ == "__main__":
    main()
