"""Turns a run's JSON into the table of targets and the plots.

python -m bench.report bench/results/latest.json     # plots beside it, PNG and SVG
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import figures, targets
from bench.suite import DEADLINE, FAST, SLOW, SLOWER

__all__ = ["main", "plots", "text"]

COLOURS = {
    "gateway": "#c8102e",
    "gateway, 2 workers": "#e88a99",
    "mosec": "#1f77b4",
    "litserve": "#2ca02c",
    "bentoml": "#ff7f0e",
    "ray": "#9467bd",
    "fastapi": "#17a2b8",
    "flask": "#7f7f7f",
}
FLOOR_COLOURS = {"base64": "#9ecae1", "decode": "#4292c6", "resize": "#2171b5", "copy": "#08519c"}
STAGE_COLOURS = {
    "parse JSON": "#fdd0a2",
    "base64": "#9ecae1",
    "decode and resize": "#4292c6",
    "assemble the call": "#08519c",
    "read the answer": "#c7e9c0",
    "threshold": "#74c476",
    "write JSON": "#238b45",
    "metrics": "#bcbddc",
    "log line": "#807dba",
}
ELSE = "#d9d9d9"

Results = dict[str, Any]
mpl.use("Agg")


def text(results: Results) -> str:
    """Return the machine and the table of targets as Markdown."""
    machine = results["machine"]
    cores = f"{machine['cores']} cores"
    lines = [", ".join((machine["cpu"], cores, f"Linux {machine['kernel']}", machine["date"])), ""]
    if machine["busy_before"] > 0.05:
        busy = f"{100 * machine['busy_before']:.0f} %"
        lines += [f"**The machine was {busy} busy with other work when the run began.**", ""]
    lines += ["| target | limit | measured | |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in targets.table(results)]
    return "\n".join(lines + stage_table(results)) + "\n"


def stage_table(results: Results) -> list[str]:
    """Return where a request's CPU goes: each stage alone, and what the whole costs beyond."""
    lines = []
    for size, spent in results["stages"].items():
        whole = targets.run(results, "gateway", sizes=[size], concurrency=64)
        if whole is None:
            continue
        total = whole["cpu_ms"]["total"]
        lines += ["", f"| {size}, at concurrency 64 | CPU ms | % |", "| --- | --- | --- |"]
        rest = {"loop, HTTP, gRPC, hand-over, cold caches": total - sum(spent.values())}
        for name, value in {**spent, **rest, "whole request": total}.items():
            lines.append(f"| {name} | {value:.3f} | {100 * value / total:.0f} |")
    return lines


def formula(cost: str) -> str:
    """Return "a,b" as a reader expects it."""
    a, b = cost.split(",")
    return f"{a} ms + {b} ms · n"


def rows(results: Results, server: str, cost: str, key: str, **wanted: Any) -> list[Results]:
    """Return the runs of ``server`` with these settings where ``key`` is set, one for each value
    of it, in its order."""
    found = {}
    for row in results["runs"]:
        same = all(row[name] == value for name, value in wanted.items())
        same = same and not row.get("after_overload")
        if row["server"] == server and row["cost"] == cost and row[key] and same:
            found[row[key]] = row
    return [found[value] for value in sorted(found)]


def servers(results: Results) -> list[str]:
    """Return the servers of the run, the gateway last so that it is drawn on top."""
    names = list(dict.fromkeys(row["server"] for row in results["runs"]))
    return sorted(names, key=lambda name: name == "gateway")


def line(axes: Axes, name: str, x: list[float], y: list[float]) -> None:
    """Draw one server's line, the gateway's wider, a tuned peer's in dots and its own colour."""
    if not x:
        return
    plain = name.removesuffix(", tuned")
    axes.plot(
        x,
        y,
        "o-" if plain == name else "D:",
        color=COLOURS.get(plain),
        fillstyle="full" if plain == name else "none",
        label=name,
        linewidth=2.8 if name.startswith("gateway") else 1.5,
        markersize=5,
    )


def against_concurrency(results: Results) -> Figure:
    """Throughput, p50 and p99 against concurrency, with the floor's and the backend's limits."""
    figure, (left, *latencies) = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained")
    for name in servers(results):
        model = "full" if name == "flask" else "ssd"
        found = rows(results, name, FAST, "concurrency", model=model, sizes=["640x480"])
        x = [row["concurrency"] for row in found]
        line(left, name, x, [row["throughput"] for row in found])
        for axes, percentile in zip(latencies, ("p50", "p99"), strict=True):
            line(axes, name, x, [row["latency_ms"][percentile] for row in found])
            axes.set(title=f"Latency, {percentile}", ylabel="ms", yscale="log")
    cores = results["machine"]["cores"]
    limit = cores * 1000 / targets.floor(results, "640x480", fixed=True)
    left.axhline(limit, color="black", linestyle=":", label=f"floor alone on {cores} cores")
    left.set(title="Throughput", ylabel="right answers a second", ylim=(0, None))
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    for axes in (left, *latencies):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("concurrent clients")
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.grid(alpha=0.3)
    figure.suptitle(f"640x480 photographs, backend of {formula(FAST)}")
    return figure


def cpu(results: Results) -> Figure:
    """CPU per request: the floor's stages, and on top what each server adds."""
    figure, axes = plt.subplots(figsize=(11, 4.8), layout="constrained")
    base = next(r for r in results["floor"] if r["fixed"] and r["exact"] and r["size"] == "640x480")
    bars: dict[str, dict[str, float]] = {"floor": base["stages"]}
    for name in sorted(servers(results), key=lambda name: (not name.startswith("gate"), name)):
        found = rows(results, name, FAST, "concurrency", model="ssd", sizes=["640x480"])
        if found:
            own = results["stages"]["640x480"] if name == "gateway" else base["stages"]
            bars[name] = own | {"all else": found[-1]["cpu_ms"]["total"] - sum(own.values())}
    for place, (name, parts) in enumerate(bars.items()):
        colours = STAGE_COLOURS if name == "gateway" else FLOOR_COLOURS
        left = 0.0
        for stage, value in parts.items():
            axes.barh(place, value, left=left, color=colours.get(stage, ELSE), label=stage)
            left += value
        ratio = f", {left / base['cpu_ms']:.1f} x" if name != "floor" else ""
        axes.text(left, place, f" {left:.2f} ms{ratio}", va="center", fontsize=9)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.set(title="CPU per request, 640x480 to 300x300", xlabel="ms, user and system")
    axes.margins(x=0.15)
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    figure.legend(once.values(), once.keys(), loc="outside right upper", fontsize=8)
    return figure


def by_load(results: Results) -> Figure:
    """Mean batch size and p99 against the offered load."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    capacity = results["direct"][SLOW]["throughput"]
    for name in servers(results):
        found = rows(results, name, SLOW, "rate", sizes=["640x480"], deadline=None)
        x = [100 * row["rate"] / capacity for row in found if row["rate"] <= capacity]
        found = found[: len(x)]
        line(left, name, x, [row["backend"]["mean_batch"] for row in found])
        line(right, name, x, [row["latency_ms"]["p99"] for row in found])
    left.set(title="Batch size", ylabel="pictures a call, mean", ylim=(0, None))
    right.set(title="Latency, p99", ylabel="ms", yscale="log")
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter("{x:g}")
    for axes in (left, right):
        axes.set_xlabel(f"offered load, % of what a backend of {formula(SLOW)} gives")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    return figure


def goodput(results: Results) -> Figure:
    """Answers in time against the offered load."""
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    capacity = results["direct"][SLOWER]["throughput"]
    for name in servers(results):
        if name not in COLOURS:
            continue
        found = rows(results, name, SLOWER, "rate", sizes=["640x480"], deadline=DEADLINE)
        x = [row["rate"] / capacity for row in found]
        line(axes, name, x, [100 * row["throughput"] / capacity for row in found])
    axes.plot([0.4, 1, 10], [40, 100, 100], ":", color="black", label="ideal")
    axes.set_xscale("log")
    axes.set_xticks([0.5, 1, 1.5, 3, 10], ["0.5", "1", "1.5", "3", "10"])
    axes.set(
        title=f"Answers within {1000 * DEADLINE:.0f} ms, backend of {formula(SLOWER)}",
        xlabel="offered load, times what the backend gives",
        ylabel="% of what the backend gives",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


PLOTS = {
    "concurrency": against_concurrency,
    "cpu": cpu,
    "batch_size": by_load,
    "goodput": goodput,
}


def plots(results: Results, directory: Path) -> list[Path]:
    """Draw every plot that the run has data for; return the PNG files."""
    overload = any(row["deadline"] for row in results["runs"])
    return [
        figures.save(draw(results), directory, name)
        for name, draw in PLOTS.items()
        if overload or name != "goodput"
    ]


def main() -> None:
    """Print the table and write the plots of the run that is named."""
    figures.report_file(__doc__, text, plots)


if __name__ == "__main__":
    main()
