"""The speed that is asked for, held against a run's results."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from bench.suite import DEADLINE, FAST, SLOW, SLOWER, SMALL

__all__ = ["TARGETS", "Target", "table"]

Results = dict[str, Any]


class Target(NamedTuple):
    """``measure`` returns the figure, or None where the run does not have it."""

    text: str
    limit: float
    at_least: bool
    measure: Callable[[Results], float | None]
    unit: str = ""

    def passed(self, value: float) -> bool:
        """Say whether ``value`` meets the target."""
        return value >= self.limit if self.at_least else value <= self.limit


def run(results: Results, server: str, cost: str = FAST, **wanted: Any) -> dict[str, Any] | None:
    """Return the last run of ``server`` that has these settings."""
    wanted = {"cost": cost, "model": "ssd", "sizes": ["640x480"], "rate": 0.0} | wanted
    fits = [
        row
        for row in results["runs"]
        if row["server"] == server
        and not row.get("after_overload")
        and all(row[key] == value for key, value in wanted.items())
    ]
    return fits[-1] if fits else None


def floor(results: Results, size: str, *, fixed: bool) -> float:
    """Return the floor's CPU ms."""
    return next(
        float(row["cpu_ms"])
        for row in results["floor"]
        if row["size"] == size and row["fixed"] == fixed and row["exact"]
    )


def times_floor(size: str, model: str) -> Callable[[Results], float | None]:
    """Return a measure of the gateway's CPU per request as a multiple of the floor."""

    def measure(results: Results) -> float | None:
        row = run(results, "gateway", model=model, sizes=[size], concurrency=64)
        fixed = model == "ssd"
        return row["cpu_ms"]["total"] / floor(results, size, fixed=fixed) if row else None

    return measure


def times_peers(names: Iterable[str], model: str = "ssd") -> Callable[[Results], float | None]:
    """Return a measure of throughput at concurrency 64 as a multiple of the best of ``names``."""

    def measure(results: Results) -> float | None:
        ours = run(results, "gateway", concurrency=64)
        rows = [run(results, name, concurrency=64, model=model) for name in names]
        best = max((row["throughput"] for row in rows if row), default=0)
        return ours["throughput"] / best if ours and best else None

    return measure


def added(percentile: str) -> Callable[[Results], float | None]:
    """Return a measure of what the gateway adds to decode plus Predict at concurrency 1, in ms."""

    def measure(results: Results) -> float | None:
        row = run(results, "gateway", concurrency=1)
        return row["latency_ms"][percentile] - results["alone_ms"][percentile] if row else None

    return measure


def share_of_backend(results: Results) -> float | None:
    """Return throughput over what the slow backend gives to full batches, in percent."""
    row = run(results, "gateway", SLOW, concurrency=64)
    most = results["direct"][SLOW]["throughput"]
    return 100 * row["throughput"] / most if row else None


def growth(results: Results) -> float | None:
    """Return the MB by which memory grew after the first fifth of the requests."""
    rows = results.get("growth", [])
    settled = [megabytes for done, megabytes in rows if done >= rows[-1][0] / 5]
    return settled[-1] - settled[0] if len(settled) > 1 else None


def workers(results: Results) -> float | None:
    """Return two workers' throughput over one's."""
    two = run(results, "gateway, 2 workers", concurrency=64)
    one = run(results, "gateway", concurrency=64)
    return two["throughput"] / one["throughput"] if one and two else None


def live_to_simulated(figure: str) -> Callable[[Results], float | None]:
    """Return a measure of how far the live ``figure`` is from the simulated, in percent, worst."""

    small = SMALL | {"sizes": list(SMALL["sizes"])}

    def measure(results: Results) -> float | None:
        apart = [
            100 * abs(row["latency_ms"][figure] / simulated[figure] - 1)
            for simulated in results.get("predicted", [])
            if (row := run(results, "gateway", SLOW, rate=simulated["rate"], **small))
        ]
        return max(apart, default=None)

    return measure


def overload(share: float, measure: Callable[[Results, float], float | None]) -> Any:
    """Return a measure of the run that was offered ``share`` times what the backend gives."""

    def of(results: Results) -> float | None:
        capacity = float(results["direct"].get(SLOWER, {}).get("throughput", 0))
        row = run(results, "gateway", SLOWER, rate=share * capacity, deadline=DEADLINE)
        return measure(row, capacity) if row else None

    return of


def goodput(row: Results, capacity: float) -> float:
    """Return answers in time, in percent of what the backend gives."""
    return 100 * float(row["throughput"]) / capacity


def in_time(row: Results, _: float) -> float:
    """Return the share of the admitted that were answered in time, in percent."""
    admitted = sum(n for status, n in row["statuses"].items() if status != "503")
    return 100 * float(row["right"]) / max(1, admitted)


def refusal(row: Results, _: float) -> float | None:
    """Return p99 of the time to a refusal, in ms."""
    return row["refusal_ms"]["p99"] if row["refusal_ms"] else None


def recovery(results: Results) -> float | None:
    """Return p99 right after the overload, as a multiple of what it was before."""
    capacity = float(results["direct"].get(SLOWER, {}).get("throughput", 0))
    before = run(results, "gateway", SLOWER, rate=0.5 * capacity, deadline=DEADLINE)
    after = [r for r in results["runs"] if r["server"] == "gateway" and r.get("after_overload")]
    if not before or not after:
        return None
    return float(after[-1]["latency_ms"]["p99"] / before["latency_ms"]["p99"])


def start(key: str) -> Callable[[Results], float | None]:
    """Return a measure of the start."""
    return lambda results: results.get("start", {}).get(key)


def wrong(results: Results) -> float:
    """Return the number of answers that were not their picture's."""
    return float(sum(row["wrong"] for row in results["runs"] if row["server"] == "gateway"))


BATCHING = ("bentoml", "fastapi", "litserve", "mosec", "ray")
TUNED = tuple(f"{name}, tuned" for name in BATCHING)
TARGETS = (
    Target("answers that are not their picture's", 0, False, wrong),
    Target("CPU, 640x480, times the floor", 1.3, False, times_floor("640x480", "ssd")),
    Target("CPU, 1920x1080, times the floor", 1.3, False, times_floor("1920x1080", "ssd")),
    Target("CPU, dynamic size, times the floor", 1.5, False, times_floor("640x480", "full")),
    Target("throughput, times the best peer", 2, True, times_peers(BATCHING)),
    Target("the same, peers with our decoder", 2, True, times_peers(TUNED)),
    Target("throughput, times the Flask way", 70, True, times_peers(["flask"], "full")),
    Target("added at concurrency 1, p50", 1.0, False, added("p50"), "ms"),
    Target("added at concurrency 1, p99", 3.0, False, added("p99"), "ms"),
    Target("share of a 20 + 2n ms backend", 97, True, share_of_backend, "%"),
    Target("live mean, apart from simulated", 10, False, live_to_simulated("mean"), "%"),
    Target("live p99, apart from simulated", 10, False, live_to_simulated("p99"), "%"),
    Target("goodput at 1.5 times capacity", 95, True, overload(1.5, goodput), "%"),
    Target("goodput at 3 times capacity", 95, True, overload(3.0, goodput), "%"),
    Target("goodput at 10 times capacity", 95, True, overload(10.0, goodput), "%"),
    Target("admitted and in time at 1.5 times", 99, True, overload(1.5, in_time), "%"),
    Target("admitted and in time at 3 times", 99, True, overload(3.0, in_time), "%"),
    Target("admitted and in time at 10 times", 99, True, overload(10.0, in_time), "%"),
    Target("refused at 3 times, p99", 5, False, overload(3.0, refusal), "ms"),
    Target("p99 after overload, times before", 1.5, False, recovery),
    Target("from start to ready", 1.0, False, start("ready_seconds"), "s"),
    Target("idle memory", 90, False, start("idle_mb"), "MB"),
    Target("growth over the requests of the run", 5, False, growth, "MB"),
    Target("two workers, times one process", 1.0, True, workers),
)


def table(results: Results) -> list[tuple[str, str, str, str]]:
    """Return rows of target, limit, measured and pass, fail or not measured."""
    rows = []
    for target in TARGETS:
        limit = f"{'≥' if target.at_least else '≤'} {target.limit:g} {target.unit}".strip()
        value = target.measure(results)
        if value is None:
            rows.append((target.text, limit, "–", "not measured"))
        else:
            verdict = "pass" if target.passed(value) else "FAIL"
            rows.append((target.text, limit, f"{value:.3g} {target.unit}".strip(), verdict))
    return rows
