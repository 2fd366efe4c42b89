"""Serial: the real batching code in virtual time, against an oracle that knows everything.

    python -m bench.simulate                     # table, JSON and plots in bench/results
    python -m bench.simulate --items 2000        # a quick look

Every case is a backend that needs ``a + b * n`` ms for a call of n items, a transport, a share of
the backend's capacity that arrives at random (Poisson), and a deviation of the service times
(log-normal). Nothing is set differently between them. The oracle knows when the device will be
free, future noise and all; with noise, no policy that does not see the future can match it, so two
more stand beside it: the best that such a policy can do (:mod:`bench.optimum`), and ours when it is
told the true costs instead of learning them.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from batching import Dispatch, JustInTime
from batching.adaptive.cost import CostModel
from batching.adaptive.probing import Probe
from batching.adaptive.server import Call, Server
from batching.simulation import Device, Oracle, simulate
from bench import figures
from bench.optimum import Optimum, Setting, applies

__all__ = ["Case", "main", "measure"]

BACKENDS = ((20.0, 2.0), (8.0, 1.0), (2.0, 0.05), (50.0, 0.2))  # a, b in ms
TRANSPORTS = (0.5, 4.0, 15.0)  # ms
LOADS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95)
SIGMAS = (0.0, 0.3)
LIMITS = {0.0: 1.05, 0.3: 1.10}
BATCH = 32
WARM = 0.4  # of a case's time, in which it learns
SHORTEST = 3.0  # seconds of a case
LONGER = 4  # times more items where queues are long and noisy, which takes longest to settle
NAMES = ("learning", "optimum", "knowing")
COLOURS = ("#1f77b4", "#2ca02c", "#c8102e")

Result = dict[str, Any]
mpl.use("Agg")


class Case(NamedTuple):
    """Times in ms; ``load`` is a share of capacity at full batches."""

    a: float
    b: float
    transport: float
    load: float
    sigma: float
    items: int

    def device(self) -> Device:
        """Return a new device, always with the same noise."""
        return Device(
            self.a / 1000, self.b / 1000, there=self.transport / 1000, sigma=self.sigma, seed=7
        )

    @property
    def overlap(self) -> float:
        """Seconds of a call that are not the device's: there and back."""
        return self.device().there + self.device().back


class Told(Server):
    """A server whose cost is true from the start, and which learns nothing."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        noise = max(case.sigma, 0.01)
        self._truth = CostModel(case.a / 1000, case.b / 1000, case.overlap, noise)
        self.most_in_flight = math.inf
        for probe in Probe:  # there is nothing to find out
            self.probes.done(probe, math.inf, 0.0)

    def curious(self, kind: Hashable) -> bool:
        """Return that all is known."""
        return False

    def cost(self, kind: Hashable) -> CostModel:
        """Return the truth."""
        return self._truth

    def end(self, call: Call, now: float, *, failed: bool) -> None:
        """Only note that the call has ended."""
        super().end(call, now, failed=True)  # from which nothing is learnt


class Knowing(JustInTime):
    """The same policy, which is told the true cost instead of learning it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self._told = Told(case)

    def server(self, name: Hashable) -> Server:
        """Return what was told, whatever the server is called."""
        super().server(name)
        return self._told


def measure(case: Case) -> Result:
    """Return mean and p99 in ms of the oracle and of each of NAMES; of the optimum with noise only,
    and where it can be computed."""
    rate = case.load * case.device().capacity(BATCH)
    seconds = max(SHORTEST, case.items / rate)
    setting = Setting(case.a / 1000, case.b / 1000, case.overlap, case.sigma, rate, BATCH)
    result: Result = case._asdict()
    for name in ("oracle", *NAMES):
        device = case.device()
        dispatch: Dispatch
        if name == "oracle":
            dispatch = Oracle(device)
        elif name == "optimum":
            if not case.sigma or not applies(setting):
                continue
            dispatch = Optimum(setting)
        else:
            dispatch = JustInTime() if name == "learning" else Knowing(case)
        answers = simulate(device, rate, seconds, dispatch=dispatch)
        times = [1000 * one.seconds for one in answers if one.at > WARM * seconds]
        result[name] = {"mean": float(np.mean(times)), "p99": float(np.percentile(times, 99))}
    return result


def worst(results: list[Result], name: str, figure: str, other: str = "oracle") -> float:
    """Return the highest multiple of ``other``'s over those that have both; NaN if none has."""
    return max(
        (
            result[name][figure] / result[other][figure]
            for result in results
            if name in result and other in result
        ),
        default=math.nan,
    )


def table(results: list[Result]) -> str:
    """Return, for each backend, transport and noise, the worst ratios over all loads."""
    lines = [
        "## serial",
        "",
        "| backend | transport | noise | limit | mean | p99 | | best | ours to it | told | p99 |",
        f"|{' --- |' * 11}",
    ]
    for sigma, (a, b), transport in itertools.product(SIGMAS, BACKENDS, TRANSPORTS):
        found = select(results, sigma=sigma, a=a, b=b, transport=transport)
        ours = worst(found, "learning", "mean"), worst(found, "learning", "p99")
        cells = [f"{a:g} + {b:g}n ms", f"{transport:g} ms", f"{sigma:g}", f"{LIMITS[sigma]:.2f}"]
        cells += [f"{ratio:.3f}" for ratio in ours]
        cells += ["pass" if max(ours) <= LIMITS[sigma] else "FAIL"]
        ratios = [
            worst(found, "optimum", "mean"),
            worst(found, "learning", "mean", "optimum"),
            worst(found, "knowing", "mean"),
            worst(found, "knowing", "p99"),
        ]
        cells += ["–" if math.isnan(ratio) else f"{ratio:.3f}" for ratio in ratios]
        lines.append(f"| {' | '.join(cells)} |")
    good = sum(
        worst([result], "learning", figure) <= LIMITS[result["sigma"]]
        for result in results
        for figure in ("mean", "p99")
    )
    lines += ["", f"{good} of {2 * len(results)} single figures are within their limit."]
    return "\n".join(lines) + "\n"


def select(results: list[Result], **wanted: float) -> list[Result]:
    """Return the results of the cases that have these values."""
    return [
        result for result in results if all(result[key] == value for key, value in wanted.items())
    ]


def plot(results: list[Result], directory: Path) -> None:
    """Draw the latency over the oracle's against the load: a row a figure and noise."""
    rows = list(itertools.product(SIGMAS, ("mean", "p99")))
    figure, grid = plt.subplots(
        len(rows), len(BACKENDS), figsize=(15, 12), sharex=True, sharey="row", layout="constrained"
    )
    for axes_row, (sigma, what) in zip(grid, rows, strict=True):
        for axes, (a, b) in zip(axes_row, BACKENDS, strict=True):
            for transport, colour in zip(TRANSPORTS, COLOURS, strict=True):
                found = select(results, sigma=sigma, a=a, b=b, transport=transport)
                for name, style in (("learning", "o-"), ("optimum", ":")):
                    axes.plot(
                        [100 * result["load"] for result in found],
                        [worst([result], name, what) for result in found],
                        style,
                        color=colour,
                        markersize=4,
                        label=f"{transport:g} ms" + ("" if name == "learning" else ", best mean"),
                    )
            axes.axhline(1, color="black", linewidth=0.8)
            axes.axhline(LIMITS[sigma], color="black", linewidth=0.8, linestyle="--")
            axes.grid(alpha=0.3)
            axes.set_title(f"{a:g} + {b:g}n ms, noise {sigma:g}", fontsize=10)
        axes_row[0].set_ylabel(f"{what}, times the oracle's")
    for axes in grid[-1]:
        axes.set_xlabel("load, % of capacity")
    grid[0][0].legend(title="transport", fontsize=8)
    figures.save(figure, directory, "simulation", dpi=90)


def main() -> None:
    """Simulate all cases on all cores, print the table, write JSON and plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=12_000, help="of each case, at least")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    flags = parser.parse_args()
    cases = [
        Case(a, b, transport, load, sigma, flags.items * (LONGER if sigma and load >= 0.9 else 1))
        for sigma, (a, b), transport, load in itertools.product(SIGMAS, BACKENDS, TRANSPORTS, LOADS)
    ]
    results = []
    with multiprocessing.Pool() as pool:
        for done, result in enumerate(pool.imap(measure, cases), 1):
            results.append(result)
            if done % 12 == 0:
                sys.stderr.write(f"{done} of {len(cases)} cases\n")
    flags.output.mkdir(parents=True, exist_ok=True)
    (flags.output / "simulation.json").write_text(json.dumps(results, indent=1) + "\n")
    plot(results, flags.output)
    sys.stdout.write(table(results))


if __name__ == "__main__":
    main()
