"""Turns a run of bench/soak.py into its tables and its plot.

python -m bench.soak_report bench/results/soak.json --plots bench/plots
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench import figures

__all__ = ["main", "passed", "plot", "text"]

ALLOWED_SECONDS = 0.5  # beyond the deadline, until an answer is late
GROWTH_MB, GROWTH_FILES = 15, 5  # from the first quarter to the last; batches in hand vary by more
COLOURS = {
    "200": "#2ca02c",
    "left": "#c7c7c7",
    "502 backend_answer_invalid": "#9467bd",
    "503 backend_unavailable": "#1f77b4",
    "503 overloaded": "#ff7f0e",
    "504 deadline_exceeded": "#c8102e",
}
BANDS = plt.get_cmap("tab10")

Results = dict[str, Any]
mpl.use("Agg")


def checks(results: Results) -> list[tuple[str, str, str, bool]]:
    """Return what must be so: text, limit, measured, and whether it is."""
    (memory, memory_last), (files, files_last) = results["memory_mb"], results["descriptors"]
    counts = [
        ("answers that are not their picture's", results["wrong"]),
        ("requests without an answer", results["without_answer"]),
        ("refusals that no fault explains", sum(results["unexplained"].values())),
        (f"answers after {results['deadline'] + ALLOWED_SECONDS:g} s", results["late"]),
    ]
    rows = [(name, "0", str(count), count == 0) for name, count in counts]
    grown = memory_last - memory
    measured = f"{grown:+.1f} ({memory:.1f} to {memory_last:.1f})"
    rows.append(("MB grown, first to last quarter", f"≤ {GROWTH_MB}", measured, grown <= GROWTH_MB))
    grown = files_last - files
    measured = f"{grown:+.1f} ({files:.1f} to {files_last:.1f})"
    rows.append(
        (
            "descriptors grown, beside the clients'",
            f"≤ {GROWTH_FILES}",
            measured,
            grown <= GROWTH_FILES,
        )
    )
    return rows


def passed(results: Results) -> bool:
    """Say whether all is as it must be."""
    return all(good for _, _, _, good in checks(results))


def text(results: Results) -> str:
    """Return the run in Markdown: what must be so, then a row for each kind of fault."""
    machine = results["machine"]
    run = (
        f"{results['requests']:,} requests in {results['seconds']:.0f} s, {machine['cores']} cores"
        f" ({machine['cpu']}), {machine['date']}. Slowest answer {results['slowest']:.2f} s; the"
        f" clients' process was late by up to {results['own_lag']:.2f} s itself, and the gateway's"
        f" loop waited {100 * results['core_share_missed']:.0f} % of its worst second for a core."
    )
    lines = [
        run,
        "",
        "| | limit | measured | |",
        "| --- | --- | --- | --- |",
    ]
    for name, limit, measured, good in checks(results):
        lines.append(f"| {name} | {limit} | {measured} | {'pass' if good else 'FAIL'} |")
    lines += [
        "",
        "| fault | times | requests | 200 | left | others | p99 ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind, row in results["faults"].items():
        others = ", ".join(f"{n} x {outcome}" for outcome, n in row["others"].items()) or "–"
        p99 = "–" if row["p99_ms"] is None else f"{row['p99_ms']:.0f}"
        cells = (kind, row["times"] or "", row["requests"], row["right"], row["left"], others, p99)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    for name in ("unexplained", "without_answer_why"):
        if results[name]:
            lines += ["", f"{name}: {results[name]}"]
    return "\n".join(lines) + "\n"


def plot(results: Results, directory: Path) -> Path:
    """Draw answers a second, memory and descriptors over time; return the PNG."""
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(14, 9), sharex=True, layout="constrained", height_ratios=(3, 1.4, 1.2)
    )
    series = results["per_second"]
    order = ["200", *(name for name in series if name not in {"200", "left"})]
    x = range(len(series["200"]) - 1)  # the last second is not whole
    top.plot(x, series["200"][:-1], color=COLOURS["200"], linewidth=1.2, label="200, and right")
    top.set(title="Right answers", ylabel="a second", ylim=(0, None))
    for name in order[1:]:
        middle.plot(x, series[name][:-1], color=COLOURS.get(name, "black"), label=name, linewidth=1)
    middle.set(title="Other answers", ylabel="a second", ylim=(0, None))
    memory(results, bottom)
    for axes in (top, middle, bottom):
        shade(results, axes, named=axes is top)
        axes.grid(alpha=0.3)
        axes.margins(x=0.01)
    bottom.set_xlabel("seconds")
    top.legend(loc="upper left", bbox_to_anchor=(1.05, 1), fontsize=8, title="while a fault is on")
    if order[1:]:
        middle.legend(loc="upper left", bbox_to_anchor=(1.05, 1), fontsize=8)
    figure.suptitle(f"{results['requests']:,} requests, three replicas, a fault every few seconds")
    return figures.save(figure, directory, "soak")


def memory(results: Results, axes: Axes) -> None:
    """Draw the gateway's memory, and its descriptors on a scale of their own."""
    at = [one[0] for one in results["samples"]]
    axes.plot(at, [one[1] / 1e6 for one in results["samples"]], color="#08519c")
    axes.set_title("The gateway's memory (blue) and its descriptors, beside the clients' (brown)")
    axes.set_ylim(0, None)
    axes.set_ylabel("MB, PSS", color="#08519c")
    beside = axes.twinx()
    beside.plot(at, [one[2] for one in results["samples"]], color="#8c564b", linewidth=1)
    beside.set_ylabel("descriptors", color="#8c564b")
    beside.set_ylim(0, None)


def shade(results: Results, axes: Axes, *, named: bool) -> None:
    """Mark when each fault was on, a colour for each kind; their names go to the legend once."""
    kinds = [kind for kind in results["faults"] if kind != "none"]
    seen = set()
    for kind, since, until in results["windows"]:
        label = kind if named and kind not in seen else None
        seen.add(kind)
        axes.axvspan(since, until, color=BANDS(kinds.index(kind)), alpha=0.25, lw=0, label=label)


def main() -> None:
    """Print the tables and write the plot of the run that is named."""
    figures.report_file(__doc__, text, lambda results, directory: [plot(results, directory)])


if __name__ == "__main__":
    main()
