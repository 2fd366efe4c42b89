"""Capacity planning: what the simulator says of a load, and what a running gateway tells it."""

import asyncio
import re

import pytest

from gateway.cli import main
from gateway.cli.plan import Cost, ServerCost, latency


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Short simulations: what they say is near enough for these tests."""
    monkeypatch.setattr("gateway.cli.plan.ITEMS", 500)
    monkeypatch.setattr("gateway.cli.plan.SHORTEST", 2.0)


def plan(*argv: str) -> int:
    return main(["plan", *argv])


def test_of_a_given_cost(capsys):
    """Replicas and gateways for a load, and a latency that rises with it and stays within it."""
    assert plan("--rate", "900", "--slo", "200", "--cost", "20,2") == 0
    text = capsys.readouterr().out
    assert re.search(r"replicas +3\n", text)  # of 381/s each
    assert re.search(r"gateways of 2 cores, 70% busy +2\n", text)
    rows = [[float(cell) for cell in line.split()] for line in text.splitlines()[-5:]]
    assert [row[0] for row in rows] == [225, 450, 675, 810, 900]
    assert rows == sorted(rows)
    assert 22 < rows[0][1] < rows[0][2] <= rows[-1][2] <= 200


def test_more_replicas_where_the_objective_is_tighter(capsys):
    """Near what an idle replica needs it takes more of them; beyond that none will do."""
    assert plan("--rate", "900", "--slo", "75", "--cost", "20,2") == 0
    assert int(re.search(r"replicas +(\d+)\n", capsys.readouterr().out)[1]) > 4
    assert plan("--rate", "900", "--slo", "20", "--cost", "20,2") == 1
    assert "Not even 1000 replicas keep 20 ms" in capsys.readouterr().out


SERIAL = ServerCost(0.02, 0.002, 0.001, 1, 0.0, 32)


def test_the_simulation_knows_parallelism_and_decoding():
    """A second device nearly halves what is waited for under load; decoding is added."""
    one = Cost((SERIAL,), 0.0, 0.0025)
    two = one._replace(servers=(SERIAL._replace(parallelism=2),))
    slow = one._replace(decode_s=0.1)
    assert latency(two, 300).mean < 0.8 * latency(one, 300).mean
    assert latency(slow, 300).mean == pytest.approx(latency(one, 300).mean + 100)


def test_replicas_are_like_those_that_are_there_in_turn():
    """Two of which one is three times slower are better than the fast one alone, and worse than
    two fast ones; as many times the load on as many times the replicas take about as long."""
    fast = Cost((SERIAL,), 0.0, 0.0025)
    slower = SERIAL._replace(fixed_s=0.06, per_item_s=0.006)
    mixed = fast._replace(servers=(SERIAL, slower))
    two = latency(mixed, 300, replicas=2).mean
    assert latency(fast, 300, replicas=2).mean < two < latency(fast, 300).mean
    assert latency(mixed, 4800, replicas=32).mean == two


@pytest.mark.parametrize(
    "argv",
    [
        ["--cost", "20"],
        ["--cost=-1,2"],
        ["--cost", "a,b"],
        ["--cost", "0,0"],
        ["--from", "http://127.0.0.1:1"],
    ],
)
def test_a_cost_that_is_none(argv, capsys):
    """A line says what is wrong, and nothing is planned."""
    assert plan("--rate", "9", "--slo", "9", *argv) in (1, 2)
    caught = capsys.readouterr()
    assert caught.err.startswith("tfserving-gateway: ")
    assert not caught.out


async def test_from_a_running_gateway(start, ask, believe, capsys):
    """What it has learnt, and what a request costs it, are the plan's figures."""
    gateway = await start()

    async def ask_it() -> tuple[int, str]:
        url = str(gateway.make_url("/")).rstrip("/")
        argv = ["--rate", "600", "--slo", "300", "--from", url]
        status = await asyncio.to_thread(plan, *argv)
        caught = capsys.readouterr()
        return status, caught.out + caught.err

    status, text = await ask_it()
    assert (status, "has learnt of no model" in text) == (2, True)
    for _ in range(8):
        assert (await ask(gateway))[0] == 200
    believe(gateway, 0.02, per_item_s=0.002, transport_s=0.004, noise=0.1)
    status, text = await ask_it()
    assert status == 0
    assert "takes 20.0 + 2.00 n ms, of which 1 run at once, and 4.0 ms more" in text
    assert re.search(r"replicas +2\n", text)  # of 381/s each
    assert float(re.search(r"takes ([\d.]+) ms of the gateway's CPU", text)[1]) > 0
    believe(gateway, 0.0, transport_s=0.004)
    status, text = await ask_it()
    assert (status, "calls have hardly met" in text) == (1, True)
