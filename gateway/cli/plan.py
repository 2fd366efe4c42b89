"""``plan``: what a load needs, by the same batching code in virtual time."""

import asyncio
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import ClientTimeout

from batching.simulation import Device, simulate
from gateway.cli.errors import CommandError
from gateway.cli.http import fetch_models, gateway_session

__all__ = ["Cost", "PlanOptions", "latency", "learnt", "run"]

ITEMS = 4000  # of one simulation
SHORTEST = 4.0  # seconds of one simulation
WARM = 0.3  # of its time, in which it learns
MOST_REPLICAS = 1000
CPU_MS = 2.5  # of a 640x480 photograph (bench/README.md), where no gateway is there to be asked
BUSY = 0.7  # of a gateway's cores: beyond it, decoding is what makes requests wait
SEEN = 0.05  # of the time on the way, which a full call needs at least, else nothing was seen of it
SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)


@dataclass(frozen=True)
class PlanOptions:
    """``rate`` in requests a second, ``slo_ms`` for p99; the cost from ``url`` or as ``a,b`` ms.

    ``metrics_url`` is where that gateway's /metrics is, if not there.
    """

    rate: float
    slo_ms: float
    url: str | None
    metrics_url: str | None
    key_file: Path | None
    cost: str | None
    model: str | None
    max_batch_size: int
    cores: int


class Cost(NamedTuple):
    """What requests cost, in seconds: a call (as ``detector.Learnt`` says it), and the gateway."""

    a: float
    b: float
    overlap: float
    slots: int
    noise: float
    max_batch_size: int
    decode: float
    """From when a request was read until its picture is decoded."""
    cpu: float
    """Of the gateway, a request."""


class Latency(NamedTuple):
    """In ms, of what one replica was sent."""

    mean: float
    p99: float


def run(options: PlanOptions) -> int:
    """Print how many replicas and gateways are needed, and the latency by load.

    Returns 1 if no number of replicas meets the objective, else 0.

    Raises
    ------
    CommandError
        The cost cannot be read, or the gateway has not learnt any yet.
    """
    cost = _asked(options.url, options) if options.url else _given(options)
    print(
        f"A call of n pictures takes {1000 * cost.a:.1f} + {1000 * cost.b:.2f} n ms, of which"
        f" {cost.slots} run at once, and {1000 * cost.overlap:.1f} ms more on the way."
        f" A request takes {1000 * cost.cpu:.1f} ms of the gateway's CPU.\n"
    )
    replicas = _replicas(cost, options.rate, options.slo_ms)
    if replicas is None:
        least = latency(cost, options.rate / MOST_REPLICAS).p99
        print(
            f"Not even {MOST_REPLICAS} replicas keep {options.slo_ms:g} ms: p99 is {least:.0f} ms."
        )
        return 1
    gateways = max(1, math.ceil(options.rate * cost.cpu / (options.cores * BUSY)))
    print(f"{'TensorFlow Serving replicas':<40} {replicas}")
    print(f"{f'gateways of {options.cores} cores, {BUSY:.0%} busy':<40} {gateways}\n")
    print(f"{'requests/s':>12} {'mean ms':>10} {'p99 ms':>10}")
    for share in SHARES:
        rate = share * options.rate
        found = latency(cost, rate / replicas)
        print(f"{rate:>12.0f} {found.mean:>10.0f} {found.p99:>10.0f}")
    return 0


def latency(
    cost: Cost, rate: float, seconds: float | None = None, warmup: float | None = None
) -> Latency:
    """What requests at ``rate`` a second to one replica take, decoding included.

    In ``seconds`` that follow ``warmup`` seconds in which it learns; by default as long as it takes
    for figures to be steady.
    """
    longest = max(SHORTEST, ITEMS / rate)
    warmup = WARM * longest if warmup is None else warmup
    seconds = longest - warmup if seconds is None else seconds
    device = _device(cost)
    answers = simulate(device, rate, warmup + seconds, max_batch_size=cost.max_batch_size)
    times = sorted(one.seconds for one in answers if one.at >= warmup)
    mean, p99 = sum(times) / len(times), times[int(0.99 * len(times))]
    return Latency(1000 * (mean + cost.decode), 1000 * (p99 + cost.decode))


def _device(cost: Cost) -> Device:
    return Device(
        cost.a, cost.b, there=cost.overlap, back=0.0, slots=cost.slots, sigma=cost.noise, seed=1
    )


def _replicas(cost: Cost, rate: float, slo_ms: float) -> int | None:
    """The least number with which p99 is within ``slo_ms``, by doubling and halving."""
    if latency(cost, rate / MOST_REPLICAS).p99 > slo_ms:
        return None
    few = math.ceil(rate / _device(cost).capacity(cost.max_batch_size)) - 1
    enough = few + 1
    while latency(cost, rate / enough).p99 > slo_ms:
        few, enough = enough, min(2 * enough, MOST_REPLICAS)
    while enough - few > 1:
        middle = (few + enough) // 2
        if latency(cost, rate / middle).p99 > slo_ms:
            few = middle
        else:
            enough = middle
    return enough


def _given(options: PlanOptions) -> Cost:
    try:
        a, b = (float(part) / 1000 for part in (options.cost or "").split(","))
    except ValueError:
        raise CommandError("--cost takes two numbers of ms, as in 20,2", status=2) from None
    if not (0 <= a < math.inf and 0 <= b < math.inf and a + b > 0):
        raise CommandError("--cost takes two numbers of ms, none below 0", status=2)
    return Cost(a, b, 0.001, 1, 0.0, options.max_batch_size, 2 * CPU_MS / 1000, CPU_MS / 1000)


def _asked(url: str, options: PlanOptions) -> Cost:
    return learnt(url, options.model, metrics_url=options.metrics_url, key_file=options.key_file)


def learnt(
    url: str, model: str | None, *, metrics_url: str | None = None, key_file: Path | None = None
) -> Cost:
    """What the gateway at ``url`` knows of ``model``, or of the only one that it has used.

    Raises
    ------
    CommandError
        No gateway answers there, or it does not know enough yet.
    """
    return asyncio.run(_ask(url, model, metrics_url or url, key_file))


async def _ask(url: str, model: str | None, metrics_url: str, key_file: Path | None) -> Cost:
    """What the gateway at ``url`` has learnt of a model, and its own figures."""
    timeout = ClientTimeout(total=30)
    async with gateway_session(url, timeout, key_file) as session:
        models = await fetch_models(session, [model] if model else [])
    async with gateway_session(metrics_url, timeout) as session, session.get("/metrics") as answer:
        metrics = await answer.text()
        if answer.status != 200:
            raise CommandError(
                f"there are no metrics at {metrics_url}; if the gateway has an admin_port, name it"
                " with --metrics-from",
                status=2,
            )
    known = [one for one in models if "learnt" in one]
    if len(known) != 1:
        names = ", ".join(one["name"] for one in known) or "no model"
        raise CommandError(f"the gateway has learnt of {names}; name one with --model", status=2)
    cost = _cost(known[0]["name"], known[0]["learnt"], metrics)
    if cost.a + cost.b * cost.max_batch_size < SEEN * cost.overlap:
        raise CommandError(
            "calls have hardly met yet, so the gateway cannot tell what TensorFlow Serving needs"
            " from what passes on the way; ask again after it has been busy, or give --cost"
        )
    return cost


def _cost(model: str, learnt: dict[str, Any], metrics: str) -> Cost:
    def total(name: str, labels: str = "") -> float:
        found = re.findall(rf"^{name}(?:\{{{labels}\}})? (\S+)$", metrics, re.MULTILINE)
        return sum(map(float, found))

    label = f'model="{re.escape(model)}"'
    decoded = total("gateway_decode_seconds_count", label)
    replicas = total("gateway_replicas") - total("gateway_replicas_left_out")
    cpu = total("process_cpu_seconds_total")  # which several workers do not tell
    return Cost(
        learnt["a"],
        learnt["b"],
        learnt["overlap"],
        max(1, round(learnt["slots"] / max(1.0, replicas))),  # of one of them
        learnt["noise"],
        learnt["max_batch_size"],
        total("gateway_decode_seconds_sum", label) / max(1.0, decoded),
        # Refused requests cost nearly nothing, and are not what is planned for.
        cpu / total("gateway_decode_seconds_count", "[^}]*") if cpu else CPU_MS / 1000,
    )
