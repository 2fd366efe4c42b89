"""The table of targets says pass, FAIL or not measured as the figures say."""

from typing import Any

from bench import targets


def row(server: str, throughput: float, **settings: Any) -> dict[str, Any]:
    defaults = {
        "cost": targets.FAST,
        "model": "ssd",
        "sizes": ["640x480"],
        "rate": 0.0,
        "concurrency": 64,
        "wrong": 0,
        "latency_ms": {"p50": 5.0, "p99": 9.0},
        "cpu_ms": {"total": 1.5},
    }
    return defaults | {"server": server, "throughput": throughput} | settings


def live(rate: float, milliseconds: float) -> dict[str, Any]:
    """What the slow backend gave with small pictures."""
    latency = {"mean": milliseconds, "p99": 2 * milliseconds}
    small = {"model": "tiny", "sizes": ["160x120"]}
    return row("gateway", rate, cost=targets.SLOW, rate=rate, latency_ms=latency, **small)


RESULTS: dict[str, Any] = {
    "floor": [{"size": "640x480", "fixed": True, "exact": True, "cpu_ms": 1.2}],
    "direct": {targets.SLOW: {"throughput": 380.0}},
    "alone_ms": {"p50": 4.5, "p99": 5.0},
    "predicted": [
        {"rate": 90.0, "mean": 50.0, "p99": 100.0},
        {"rate": 180.0, "mean": 60.0, "p99": 120.0},
    ],
    "runs": [
        row("gateway", 600.0),
        row("gateway", 200.0, concurrency=1),
        row("gateway", 376.2, cost=targets.SLOW),
        *(live(rate, ms) for rate, ms in ((90.0, 52.0), (180.0, 57.0))),
        row("mosec", 250.0),
        row("ray", 310.0),
        row("flask", 12.0, model="full"),
    ],
}


def test_each_figure_is_held_against_its_limit() -> None:
    """Ratios are formed with the right rows, and both directions of a limit are kept."""
    verdicts = {text: (measured, verdict) for text, _, measured, verdict in targets.table(RESULTS)}
    assert verdicts["CPU, 640x480, times the floor"] == ("1.25", "pass")
    assert verdicts["throughput, times the best peer"] == ("1.94", "FAIL")
    assert verdicts["throughput, times the Flask way"] == ("50", "FAIL")
    assert verdicts["added at concurrency 1, p50"] == ("0.5 ms", "pass")
    assert verdicts["added at concurrency 1, p99"] == ("4 ms", "FAIL")
    assert verdicts["share of a 20 + 2n ms backend"] == ("99 %", "pass")
    assert verdicts["live mean, apart from simulated"] == ("5 %", "pass")


def test_what_was_not_measured_does_not_pass() -> None:
    """A missing run is named as such."""
    verdicts = {text: verdict for text, _, _, verdict in targets.table(RESULTS)}
    assert verdicts["CPU, 1920x1080, times the floor"] == "not measured"
    assert verdicts["two workers, times one process"] == "not measured"
