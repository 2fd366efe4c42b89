"""How the zoo is judged: cases, baselines that are kept, ratios, the map."""

import json
import math

import pytest

from batching.simulation import Cores, Servers, simulate
from bench import zoo
from bench.zoo import FIXED, KINDS, Baseline, Case, Fixed, measure
from bench.zoo_report import Figures, Result, line, plot, write

CASE = Case(0.0, "serial", 20.0, 2.0, 4.0, 50.0, 300)


def result(ours, *fixed, sigma=0.0, load=50.0):
    case = CASE._replace(sigma=sigma, load=load)._asdict()
    return Result(case, ours, {str(k): one for k, one in enumerate(fixed, 1)})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_measured(kind):
    """And has answers no faster than a call of one takes."""
    mean, p99 = measure((CASE._replace(kind=kind, load=25.0), "2"))
    assert 4 + 20 + 2 <= mean < p99


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_is_asked_for_more_than_it_can(kind):
    """95 % of what is called capacity is less than what the device gets done."""
    for a, b in zoo.BACKENDS:
        case = CASE._replace(kind=kind, a=a, b=b, load=95.0)
        assert case.rate < case.device().capacity(zoo.BATCH)


def test_baselines_are_kept(tmp_path, monkeypatch):
    """What was found once is not simulated again, unless something that it depends on changes."""
    file = tmp_path / "deep" / "baseline.json"
    baseline = Baseline(file)
    assert baseline.missing(CASE) == list(FIXED)
    baseline.add(CASE, "1", Figures(3.0, 4.0))
    baseline.add(CASE, "2", None)
    baseline.save()
    beside, again = Baseline(file), Baseline(file)
    assert again.missing(CASE) == list(FIXED)[2:]
    assert again.of(CASE) == {"1": (3.0, 4.0), "2": None}
    for field, value in ("items", 301), ("kind", "sharing"), ("sigma", 0.3), ("load", 75.0):
        assert again.missing(CASE._replace(**{field: value})) == list(FIXED)
    beside.add(CASE, "3", Figures(5.0, 6.0))
    beside.save()
    again.save()  # which does not know of that
    assert Baseline(file).missing(CASE) == list(FIXED)[3:]
    monkeypatch.setattr(zoo, "EDITION", -1)
    assert again.missing(CASE) == list(FIXED)


def test_each_figure_is_held_against_the_best_of_its_own():
    """Whoever collapsed is no better than anybody, and if all have there is nothing to hold to."""
    one = result(Figures(12.0, 30.0), Figures(10.0, 40.0), Figures(11.0, 25.0), None)
    assert one.ratio("mean") == pytest.approx(1.2)
    assert one.ratio("p99") == pytest.approx(1.2)
    assert result(None, Figures(10.0, 40.0), None).ratio("mean") == math.inf
    assert math.isnan(result(Figures(10.0, 40.0), None, None).ratio("mean"))


@pytest.mark.parametrize(
    ("mean", "p99", "sigma", "fails"),
    [
        (1.04, 1.14, 0.0, False),
        (1.06, 1.0, 0.0, True),
        (1.0, 1.16, 0.0, True),
        (1.09, 1.19, 0.3, False),
        (1.11, 1.0, 0.3, True),
        (1.0, 1.21, 0.3, True),
    ],
)
def test_limits(mean, p99, sigma, fails):
    """One figure over its limit fails the case; with noise there is more room."""
    assert result(Figures(mean, p99), Figures(1.0, 1.0), sigma=sigma).fails is fails


def test_the_line_names_the_worst(tmp_path):
    """And counts what failed; the file and the map hold all of it, collapsed or not."""
    results = [
        result(Figures(10.0, 20.0), Figures(10.0, 20.0), load=25.0),
        result(Figures(15.0, 22.0), Figures(10.0, 20.0), load=50.0),
        result(Figures(5.0, 60.0), Figures(10.0, 20.0), load=75.0),
        result(Figures(5.0, 60.0), None, load=90.0),
    ]
    text = line(results)
    assert "2 of 3 fail" in text
    assert "mean at worst 1.50 (20 + 2n, 4 ms, 50 %)" in text
    assert "p99 at worst 3.00 (20 + 2n, 4 ms, 75 %)" in text
    assert "on average 1.000" in text
    assert "all fixed collapsed in 1" in text
    results.append(result(None, Figures(10.0, 20.0), load=95.0))
    assert "3 of 4 fail | mean at worst collapsed" in line(results)
    assert "always collapsed" in line(results[-1:])
    write(results, tmp_path / "zoo.json")
    rows = json.loads((tmp_path / "zoo.json").read_text())
    assert [row["mean"] for row in rows] == [1.0, 1.5, 0.5, None, None]
    assert [row["ours"] is None for row in rows] == [False] * 4 + [True]
    assert plot(results, tmp_path).stat().st_size > 1000


def test_a_run_keeps_what_it_has_found(tmp_path, capsys):
    """One line for each device, and nothing but ours is simulated the second time."""
    baseline = Baseline(tmp_path / "baseline.json")
    cases = [CASE._replace(kind=kind, items=60) for kind in ("serial", "merging")]
    first = zoo.run(cases, baseline)
    assert not any(Baseline(tmp_path / "baseline.json").missing(case) for case in cases)
    assert zoo.run(cases, Baseline(tmp_path / "baseline.json")) == first
    lines = capsys.readouterr().out.splitlines()
    assert [text.split("|")[1].strip() for text in lines] == ["serial", "merging"] * 2


def test_fixed_calls_go_where_fewest_are():
    """Two servers, two calls in flight: one each, whichever ends first."""
    most = {"x": 0, "y": 0}
    running = dict(most)

    class Watched(Cores):
        name = ""

        async def process(self, key, items, server=None):
            running[server] += 1
            most[server] = max(most[server], running[server])
            try:
                return await super().process(key, items, server)
            finally:
                running[server] -= 1

    servers = Servers({"x": Watched(0.01, 0.0), "y": Watched(0.07, 0.0)})
    simulate(servers, 200, 2, max_batch_size=4, dispatch=Fixed(2))
    assert most == {"x": 1, "y": 1}
