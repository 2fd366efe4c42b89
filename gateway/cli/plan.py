"""``plan``: what a load needs, by the same batching code in virtual time."""

import asyncio
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import ClientTimeout

from batching.simulation import Device, Servers, simulate
from gateway.cli.errors import CommandError
from gateway.cli.http import fetch_models, gateway_session

__all__ = ["Cost", "PlanOptions", "ServerCost", "latency", "learnt", "run"]

ITEMS = 4000  # of one simulation
SHORTEST = 4.0  # seconds of one simulation
WARM = 0.3  # of its time, in which it learns
MOST_REPLICAS = 1000
TOGETHER = 8  # replicas that are simulated at most; they get their part of the load
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


class ServerCost(NamedTuple):
    """What calls of one replica cost, as ``GET /models`` says it."""

    fixed_s: float
    per_item_s: float
    transport_s: float
    parallelism: int
    noise: float
    max_batch_size: int


class Cost(NamedTuple):
    """What requests cost: calls of each replica that is there, and the gateway, in seconds.

    Replicas that are added are reckoned to be like these, in turn.
    """

    servers: tuple[ServerCost, ...]
    decode_s: float
    """From when a request was read until its picture is decoded."""
    cpu_s: float
    """Of the gateway, a request."""


class Latency(NamedTuple):
    """In ms."""

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
    for server in dict.fromkeys(cost.servers):
        print(
            f"A call of n pictures takes {1000 * server.fixed_s:.1f} +"
            f" {1000 * server.per_item_s:.2f} n ms, of which {max(1, server.parallelism)} run at"
            f" once, and {1000 * server.transport_s:.1f} ms more on the way."
        )
    print(f"A request takes {1000 * cost.cpu_s:.1f} ms of the gateway's CPU.\n")
    replicas = _replicas(cost, options.rate, options.slo_ms)
    if replicas is None:
        least = latency(cost, options.rate, replicas=MOST_REPLICAS).p99
        print(
            f"Not even {MOST_REPLICAS} replicas keep {options.slo_ms:g} ms: p99 is {least:.0f} ms."
        )
        return 1
    gateways = max(1, math.ceil(options.rate * cost.cpu_s / (options.cores * BUSY)))
    print(f"{'TensorFlow Serving replicas':<40} {replicas}")
    print(f"{f'gateways of {options.cores} cores, {BUSY:.0%} busy':<40} {gateways}\n")
    print(f"{'requests/s':>12} {'mean ms':>10} {'p99 ms':>10}")
    for share in SHARES:
        rate = share * options.rate
        found = latency(cost, rate, replicas=replicas)
        print(f"{rate:>12.0f} {found.mean:>10.0f} {found.p99:>10.0f}")
    return 0


def latency(
    cost: Cost,
    rate: float,
    seconds: float | None = None,
    warmup: float | None = None,
    *,
    replicas: int = 1,
) -> Latency:
    """What requests at ``rate`` a second to so many replicas take, decoding included.

    In ``seconds`` that follow ``warmup`` seconds in which it learns; by default as long as it takes
    for figures to be steady. As many replicas share their calls as there are now; more of them are
    reckoned as several times these.
    """
    together = min(replicas, len(cost.servers), TOGETHER)
    rate *= together / replicas
    longest = max(SHORTEST, ITEMS / rate)
    warmup = WARM * longest if warmup is None else warmup
    seconds = longest - warmup if seconds is None else seconds
    most = min(server.max_batch_size for server in cost.servers)
    answers = simulate(_devices(cost, together), rate, warmup + seconds, max_batch_size=most)
    times = sorted(one.seconds for one in answers if one.at >= warmup)
    mean, p99 = sum(times) / len(times), times[int(0.99 * len(times))]
    return Latency(1000 * (mean + cost.decode_s), 1000 * (p99 + cost.decode_s))


def _devices(cost: Cost, count: int) -> Servers:
    servers = itertools.islice(itertools.cycle(cost.servers), count)
    return Servers({number: _device(server, number) for number, server in enumerate(servers)})


def _device(server: ServerCost, number: int) -> Device:
    return Device(
        server.fixed_s,
        server.per_item_s,
        there=server.transport_s,
        back=0.0,
        slots=max(1, server.parallelism),
        sigma=server.noise,
        seed=number + 1,
    )


def _replicas(cost: Cost, rate: float, slo_ms: float) -> int | None:
    """The least number with which p99 is within ``slo_ms``, by doubling and halving."""
    if latency(cost, rate, replicas=MOST_REPLICAS).p99 > slo_ms:
        return None
    most = min(server.max_batch_size for server in cost.servers)
    each = _devices(cost, len(cost.servers)).capacity(most) / len(cost.servers)
    few = math.ceil(rate / each) - 1
    enough = few + 1
    while latency(cost, rate, replicas=enough).p99 > slo_ms:
        few, enough = enough, min(2 * enough, MOST_REPLICAS)
    while enough - few > 1:
        middle = (few + enough) // 2
        if latency(cost, rate, replicas=middle).p99 > slo_ms:
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
    server = ServerCost(a, b, 0.001, 1, 0.0, options.max_batch_size)
    return Cost((server,), 2 * CPU_MS / 1000, CPU_MS / 1000)


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
    servers = [_server(one) for one in known[0]["learnt"]["servers"]]
    servers = [one for one in servers if _has_met(one)]
    if not servers:
        raise CommandError(
            "calls have hardly met yet, so the gateway cannot tell what TensorFlow Serving needs"
            " from what passes on the way; ask again after it has been busy, or give --cost"
        )
    return _cost(known[0]["name"], servers, metrics)


def _server(learnt: dict[str, Any]) -> ServerCost:
    return ServerCost(*(learnt[field] for field in ServerCost._fields))


def _has_met(server: ServerCost) -> bool:
    full = server.fixed_s + server.per_item_s * server.max_batch_size
    return full >= SEEN * server.transport_s


def _cost(model: str, servers: Sequence[ServerCost], metrics: str) -> Cost:
    def total(name: str, labels: str = "") -> float:
        found = re.findall(rf"^{name}(?:\{{{labels}\}})? (\S+)$", metrics, re.MULTILINE)
        return sum(map(float, found))

    label = f'model="{re.escape(model)}"'
    decoded = total("gateway_decode_seconds_count", label)
    cpu = total("process_cpu_seconds_total")  # which several workers do not tell
    return Cost(
        tuple(servers),
        total("gateway_decode_seconds_sum", label) / max(1.0, decoded),
        # Refused requests cost nearly nothing, and are not what is planned for.
        cpu / total("gateway_decode_seconds_count", "[^}]*") if cpu else CPU_MS / 1000,
    )
