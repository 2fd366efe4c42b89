"""Bursts that find the device idle: a page of pictures, a camera with several lenses.

    python -m bench.bursts       # the table, and JSON in bench/results

In virtual time, before a serial device. The items of a burst come at once and are decoded on two
cores, so that they are submitted within a moment: whoever sends the first alone makes all others
wait for it, and whoever waits for the last makes the first wait. Times count from the beginning of
the burst. Beside ours stand fixed numbers of calls in flight, one call for all, and the best way to
cut the burst into calls, as who knows all would do.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batching import Dispatch, FreeSlot, JustInTime
from batching.simulation import Device, bursts

__all__ = ["Case", "best", "main", "measure"]

BACKENDS = ((20.0, 2.0, 4.0), (8.0, 1.0, 1.0), (2.0, 0.05, 0.5), (50.0, 0.2, 4.0))
"""a, b and transport, in ms."""
ITEMS = (4, 8, 16, 32)
DECODE = 1.3  # ms, of an item on one core
CORES = 2
COUNT = 100  # bursts of a case
WARM = 0.4  # of them, in which it learns
PAUSE = 0.5  # seconds between them
BATCH = 32
POLICIES = ("ours", "1", "2", "4")

Result = dict[str, Any]


class Case(NamedTuple):
    """Times in ms."""

    a: float
    b: float
    transport: float
    items: int

    @property
    def decoded(self) -> list[float]:
        """When each item is submitted."""
        return [DECODE * (1 + place // CORES) for place in range(self.items)]

    def run(self, dispatch: Dispatch) -> tuple[float, float]:
        """Return the mean of all answers and of each burst's last, in ms."""
        way = self.transport / 2000
        answers = bursts(
            Device(self.a / 1000, self.b / 1000, way, way),
            [at / 1000 for at in self.decoded],
            COUNT,
            pause_s=PAUSE,
            max_batch_size=BATCH,
            dispatch=dispatch,
        )
        each = [1000 * one.seconds for one in answers[int(WARM * COUNT) * self.items :]]
        last = [max(each[n : n + self.items]) for n in range(0, len(each), self.items)]
        return math.fsum(each) / len(each), math.fsum(last) / len(last)


def best(comes: Sequence[float], a: float, b: float, transport: float, largest: int) -> float:
    """Return the lowest mean time of items that come at such times, cut into calls in order."""
    # For each number of items that are done: when the device is free, and the sum of their times;
    # only those of which no other is as early in both.
    done: list[list[tuple[float, float]]] = [[(0.0, 0.0)]]
    for n, came in enumerate(comes, 1):
        found = []
        for size in range(1, min(n, largest) + 1):
            for free, total in done[n - size]:
                end = max(free, came + transport / 2) + a + b * size
                found.append((end, total + size * (end + transport / 2)))
        done.append([])
        for free, total in sorted(found):
            if not done[n] or total < done[n][-1][1]:
                done[n].append((free, total))
    return min(total for _, total in done[-1]) / len(comes)


def measure(case: Case) -> Result:
    """Return the mean, and the mean of the last, of each policy, of one call and of the best."""
    result: Result = case._asdict()
    for name in POLICIES:
        dispatch: Dispatch = JustInTime() if name == "ours" else FreeSlot(int(name))
        result[name], result[f"{name}_last"] = case.run(dispatch)
    result["all"] = case.decoded[-1] + case.transport + case.a + case.b * case.items
    result["best"] = best(case.decoded, case.a, case.b, case.transport, BATCH)
    return result


def table(results: list[Result]) -> str:
    """Return a row for each case: the mean in ms, that of the last in brackets."""
    head = ["backend", "items", "ours", *(f"{name} in flight" for name in POLICIES[1:])]
    head += ["one call for all", "best", "ours to it"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for one in results:
        cells = [f"{one['a']:g} + {one['b']:g}n ms, {one['transport']:g} ms", f"{one['items']}"]
        cells += [f"{one[name]:.1f} ({one[f'{name}_last']:.1f})" for name in POLICIES]
        cells += [f"{one[name]:.1f}" for name in ("all", "best")]
        cells += [f"{one['ours'] / one['best']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Simulate all cases on all cores, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    flags = parser.parse_args()
    cases = [Case(*backend, items) for backend, items in itertools.product(BACKENDS, ITEMS)]
    with multiprocessing.Pool() as pool:
        results = pool.map(measure, cases, chunksize=1)
    flags.output.mkdir(parents=True, exist_ok=True)
    (flags.output / "bursts.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(table(results))


if __name__ == "__main__":
    main()
