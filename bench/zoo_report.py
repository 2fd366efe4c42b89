"""What the zoo's results are: the lines, the file and the plot."""

import itertools
import json
import math
from collections.abc import Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Rectangle

from bench import figures

__all__ = ["Figures", "Result", "line", "plot", "write"]

# The first is without noise, the second with: mean and p99, times those of the best.
LIMITS = {False: (1.05, 1.15), True: (1.10, 1.20)}
BOUNDS = (0.0, 0.95, 1.0, 1.05, 1.1, 1.2, 1.5, 2.0, 1e9)
COLOURS = (
    *("#2166ac", "#92c5de", "#e8f1f6"),  # up to 1.05
    *("#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"),
)
COLLAPSED, NOBODY = "black", "#bbbbbb"

mpl.use("Agg")


class Figures(NamedTuple):
    """In ms."""

    mean: float
    p99: float


class Result(NamedTuple):
    """What a case's policies did; None for those that collapsed."""

    case: dict[str, Any]
    ours: Figures | None
    fixed: dict[str, Figures | None]

    def ratio(self, figure: str) -> float:
        """Return ours times the lowest of any fixed policy: inf if ours collapsed, NaN if all of
        the others did."""
        others = [getattr(one, figure) for one in self.fixed.values() if one is not None]
        if not others:
            return math.nan
        ours = math.inf if self.ours is None else getattr(self.ours, figure)
        return float(ours / min(others))

    @property
    def fails(self) -> bool:
        """Whether a figure is over its limit."""
        limits = zip(Figures._fields, LIMITS[self.case["sigma"] > 0], strict=True)
        return any(self.ratio(figure) > limit for figure, limit in limits)


def line(results: Sequence[Result]) -> str:
    """Return what is to be known of one device with one noise."""
    known = [result for result in results if not math.isnan(result.ratio("mean"))]
    cells = [f"noise {results[0].case['sigma']:g}", f"{results[0].case['kind']:8}"]
    cells += [f"{sum(result.fails for result in known):2} of {len(known)} fail"]
    for figure in Figures._fields:
        if known:
            worst = max(known, key=lambda result: result.ratio(figure))
            cells += [f"{figure} at worst {_times(worst.ratio(figure))} ({_name(worst.case)})"]
    stood = [result.ratio("mean") for result in known if result.ours is not None]
    cells += [f"on average {np.mean(stood):.3f}" if stood else "always collapsed"]
    if len(known) < len(results):
        cells += [f"all fixed collapsed in {len(results) - len(known)}"]
    return " | ".join(cells)


def _times(ratio: float) -> str:
    return "collapsed" if math.isinf(ratio) else f"{ratio:.2f}"


def _name(case: dict[str, Any]) -> str:
    return f"{case['a']:g} + {case['b']:g}n, {case['transport']:g} ms, {case['load']:g} %"


def write(results: Iterable[Result], file: Path) -> None:
    """Write all that was found, with the ratios."""
    rows = [
        {
            **result.case,
            "fails": result.fails,
            **{name: _finite(result.ratio(name)) for name in Figures._fields},
            "ours": result.ours and result.ours._asdict(),
            "fixed": {name: one and one._asdict() for name, one in result.fixed.items()},
        }
        for result in results
    ]
    file.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def _finite(ratio: float) -> float | None:
    return ratio if math.isfinite(ratio) else None


def plot(results: Sequence[Result], directory: Path) -> Path:
    """Draw a map for each noise and figure: a row a device, a column a backend, transport and load;
    blue up to 1.05 times the best, red beyond."""
    panels = list(itertools.product(_values(results, "sigma"), Figures._fields))
    kinds = _values(results, "kind")
    columns = list(
        itertools.product(
            *(_values(results, name) for name in ("a", "transport", "load")),
        )
    )
    shape = (6 + 0.28 * len(columns), 1.6 + len(panels) * (0.9 + 0.27 * len(kinds)))
    figure, grid = plt.subplots(len(panels), figsize=shape, layout="constrained", squeeze=False)
    for axes, (sigma, name) in zip(grid[:, 0], panels, strict=True):
        found = {
            (one.case["kind"], one.case["a"], one.case["transport"], one.case["load"]): one
            for one in results
            if one.case["sigma"] == sigma
        }
        _map(axes, [[found.get((kind, *column)) for column in columns] for kind in kinds], name)
        axes.set_yticks(range(len(kinds)), kinds)
        axes.set_title(f"noise {sigma:g}: {name}, times the best fixed number of calls in flight")
        _columns(axes, columns, {one.case["a"]: one.case["b"] for one in results})
    grid[-1, 0].set_xlabel("load in %, transport, backend", labelpad=32)
    norm, colours = BoundaryNorm(BOUNDS, len(COLOURS)), ListedColormap(COLOURS)
    bar = figure.colorbar(
        plt.cm.ScalarMappable(norm, colours), ax=grid, spacing="uniform", fraction=0.02, pad=0.01
    )
    bar.set_ticks(BOUNDS[1:-1], labels=[f"{bound:g}" for bound in BOUNDS[1:-1]])
    bar.set_label("black: ours collapsed, grey: all the others did")
    return figures.save(figure, directory, "zoo", dpi=90)


def _values(results: Iterable[Result], name: str) -> list[Any]:
    return list(dict.fromkeys(result.case[name] for result in results))


def _map(axes: Axes, rows: list[list[Result | None]], name: str) -> None:
    """Colour a cell for each result, and write the ratio into those that are over 1.05."""
    for y, row in enumerate(rows):
        for x, result in enumerate(row):
            if result is None:
                continue
            ratio = result.ratio(name)
            if math.isnan(ratio):
                colour = NOBODY
            elif math.isinf(ratio):
                colour = COLLAPSED
            else:
                colour = COLOURS[int(np.searchsorted(BOUNDS, ratio, side="left")) - 1]
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=colour, linewidth=0))
            if 1.05 < ratio < math.inf:
                text = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
                dark = ratio > 1.2
                axes.text(*(x, y, text), ha="center", va="center", fontsize=6, color="wk"[not dark])
    axes.set(xlim=(-0.5, len(rows[0]) - 0.5), ylim=(len(rows) - 0.5, -0.5))


def _columns(axes: Axes, columns: list[tuple[float, ...]], b: dict[float, float]) -> None:
    """Name the loads under the map, then the transports, then the backends, with lines between."""
    axes.set_xticks(range(len(columns)), [f"{column[-1]:g}" for column in columns], fontsize=7)
    axes.tick_params(length=0)
    for level, below in ((2, 24), (1, 37)):
        begin = 0
        for key, group in itertools.groupby(columns, key=itemgetter(slice(level))):
            end = begin + len(list(group))
            name = f"{key[1]:g} ms" if level == 2 else f"{key[0]:g} + {b[key[0]]:g}n ms"
            axes.annotate(
                name,
                ((begin + end - 1) / 2, 0),
                (0, -below),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
            if begin:
                axes.axvline(begin - 0.5, color="black", linewidth=0.5 if level == 2 else 2.5)
            begin = end
