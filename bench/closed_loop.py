"""Clients that each send the next item when they have their answer: cameras, load tests.

    python -m bench.closed_loop                # the table, and JSON in bench/results
    python -m bench.closed_loop --think 0,10   # a part

In virtual time, before a serial device. Whoever has such clients may be better off if a batch waits
until more of them have come back. Beside ours stand one call in flight, and what one call for all
gives: with n clients ``n / (a + b n + transport + think H_n)`` answers a second, where the last of
n pauses ends after ``think H_n`` on average (H_n: the n-th harmonic number).
"""

import argparse
import itertools
import json
import math
import multiprocessing
import sys
from pathlib import Path
from typing import Any, NamedTuple

from batching import Dispatch, FreeSlot, JustInTime
from batching.simulation import Device, closed_loop

__all__ = ["Case", "main", "measure"]

BACKENDS = ((20.0, 2.0, 4.0), (8.0, 1.0, 1.0), (2.0, 0.05, 0.5), (50.0, 0.2, 4.0))
"""a, b and transport, in ms."""
CLIENTS = (2, 4, 8, 16, 32)
THINK = (0.0, 1.0, 2.0, 10.0)  # ms
BATCH = 32
SEED = 7
ITEMS = 8000  # about, of a case
SHORTEST, LONGEST = 4.0, 20.0  # seconds of a case
WARM = 0.4  # of its time, in which it learns
GOOD = 0.95  # of the better of the two, from which on ours is good

Result = dict[str, Any]


class Case(NamedTuple):
    """Times in ms."""

    a: float
    b: float
    transport: float
    clients: int
    think: float

    @property
    def for_all(self) -> float:
        """Answers a second with one call for all of them."""
        n = min(self.clients, BATCH)
        pauses = self.think * sum(1 / k for k in range(1, n + 1))
        return 1000 * n / (self.a + self.b * n + self.transport + pauses)

    def run(self, dispatch: Dispatch) -> tuple[float, float]:
        """Return answers a second, and the mean time of an answer in ms."""
        way = self.transport / 2000
        device = Device(self.a / 1000, self.b / 1000, way, way, seed=SEED)
        seconds = min(LONGEST, max(SHORTEST, ITEMS / self.for_all))
        answers = closed_loop(
            device,
            self.clients,
            self.think / 1000,
            seconds,
            max_batch_size=BATCH,
            dispatch=dispatch,
        )
        times = [1000 * one.seconds for one in answers if one.at > WARM * seconds]
        return len(times) / ((1 - WARM) * seconds), math.fsum(times) / len(times)


def measure(case: Case) -> Result:
    """Return answers a second and mean latency of ours and of one call in flight."""
    result: Result = {**case._asdict(), "all": case.for_all}
    for name, dispatch in (("ours", JustInTime()), ("one", FreeSlot(1))):
        result[name], result[f"{name}_ms"] = case.run(dispatch)
    result["ratio"] = result["ours"] / max(result["one"], result["all"])
    return result


def table(results: list[Result]) -> str:
    """Return a row for each case: answers a second, and ours over the better of the other two."""
    lines = [
        "| backend | clients | think | ours | one in flight | one call for all | ours to it |",
        f"|{' --- |' * 7}",
    ]
    for one in results:
        cells = [
            f"{one['a']:g} + {one['b']:g}n ms, {one['transport']:g} ms",
            f"{one['clients']}",
            f"{one['think']:g} ms",
            f"{one['ours']:.0f}/s, {one['ours_ms']:.1f} ms",
            f"{one['one']:.0f}/s, {one['one_ms']:.1f} ms",
            f"{one['all']:.0f}/s",
            f"{one['ratio']:.2f}" + ("" if one["ratio"] >= GOOD else " **worse**"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    good = sum(one["ratio"] >= GOOD for one in results)
    lines += ["", f"{good} of {len(results)} give {GOOD:.0%} of the better of the two, or more."]
    return "\n".join(lines) + "\n"


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def main() -> None:
    """Simulate all cases on all cores, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=_numbers, default=CLIENTS, help="with commas")
    parser.add_argument("--think", type=_numbers, default=THINK, help="ms, with commas")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    flags = parser.parse_args()
    cases = [
        Case(*backend, int(clients), think)
        for backend, clients, think in itertools.product(BACKENDS, flags.clients, flags.think)
    ]
    with multiprocessing.Pool() as pool:
        results = pool.map(measure, cases, chunksize=1)
    flags.output.mkdir(parents=True, exist_ok=True)
    (flags.output / "closed_loop.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(table(results))


if __name__ == "__main__":
    main()
