"""The batching code before every kind of device, against fixed numbers of calls in flight.

    python -m bench.zoo                                   # all: a quarter of an hour on two cores
    python -m bench.zoo --only sharing,amdahl --noise 0   # a part
    python -m bench.zoo --loads 25,90 --items 2000        # a quick look

Every case is a kind of device, a backend of ``a + b * n`` ms for a call of n items, a transport, a
share of what the device gets done in full batches that arrives at random (Poisson), and a deviation
of the times. Each is held against the best of several fixed numbers of calls in flight, as somebody
would set them who has tried them all on that very traffic: its mean and its p99 each against the
lowest of any. These do not depend on the policy, and are kept in ``results/zoo_baseline.json``; the
first run, which makes them, takes most of an hour.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from batching import Departure, Dispatch, FreeSlot, JustInTime, QueueView
from batching.dispatch import Q
from batching.simulation import (
    Amdahl,
    Backend,
    Bent,
    CollapsedError,
    Cores,
    Device,
    Foreign,
    Merging,
    Servers,
    Sharing,
    Sliced,
    Stepped,
    simulate,
)
from bench import zoo_report
from bench.zoo_report import Figures, Result

__all__ = ["FIXED", "KINDS", "Baseline", "Case", "Fixed", "main", "measure"]

BACKENDS = ((20.0, 2.0), (8.0, 1.0), (2.0, 0.05), (50.0, 0.2))  # a, b in ms
TRANSPORTS = (0.5, 4.0, 15.0)  # ms, half of it each way
LOADS = (25.0, 50.0, 75.0, 90.0, 95.0)  # % of capacity
SIGMAS = (0.0, 0.3)
FIXED = {str(calls): calls for calls in (1, 2, 3, 4, 6, 8, 16, 32)} | {"all": 1 << 30}
OURS = "ours"
BATCH = 32
SEED = 7
WARM = 0.4  # of a case's time, in which it learns
SHORTEST = 1.0  # seconds of a case
INSIDE = 4000  # items, with which it has collapsed
EDITION = 1  # of the devices and the traffic; to be raised when baselines are no longer theirs
SAVE_EVERY = 20.0  # seconds; a run that is ended loses no more
RESULTS = Path(__file__).parent / "results"

Task = tuple["Case", str]


def _unequal(a: float, b: float, there: float, back: float, *, sigma: float, seed: int) -> Servers:
    return Servers(
        {
            "fast": Device(a, b, there, back, sigma=sigma, seed=seed),
            "slow": Device(3 * a, 3 * b, there, back, sigma=sigma, seed=seed + 5),
        }
    )


class Kind(NamedTuple):
    """How such a device is made, and what it gets done, times what one serial device does."""

    make: Callable[..., Backend]
    size: float


KINDS = {
    "serial": Kind(Device, 1),
    "sharing": Kind(Sharing, 1),
    "cores": Kind(Cores, 4),
    "amdahl": Kind(Amdahl, 1.5),  # 1.67 with very many calls
    "merging": Kind(Merging, 1),
    "foreign": Kind(Foreign, 0.6),  # others take a third
    "steps": Kind(Stepped, 1),
    "bent": Kind(Bent, 0.5),  # or what it gets done in full batches, if that is less
    "sliced": Kind(Sliced, 0.5),
    "unequal": Kind(_unequal, 1.33),
}


class Case(NamedTuple):
    """Times in ms; ``load`` in % of what the device gets done in full batches."""

    sigma: float
    kind: str
    a: float
    b: float
    transport: float
    load: float
    items: int

    def device(self) -> Backend:
        """Return a new device, always with the same noise."""
        way = self.transport / 2000
        return KINDS[self.kind].make(
            self.a / 1000, self.b / 1000, way, way, sigma=self.sigma, seed=SEED
        )

    @property
    def rate(self) -> float:
        """Items a second."""
        serial = Device(self.a / 1000, self.b / 1000).capacity(BATCH)
        capacity = KINDS[self.kind].size * serial
        if self.kind == "bent":
            capacity = min(capacity, Bent(self.a / 1000, self.b / 1000).capacity(BATCH))
        return self.load / 100 * capacity

    @property
    def seconds(self) -> float:
        """How long items come."""
        return max(SHORTEST, self.items / self.rate)


class Fixed:
    """So many calls in flight, each to the server that has the fewest."""

    def __init__(self, calls: int) -> None:
        self._slots = FreeSlot(calls)
        self._running: Counter[Hashable] = Counter()

    def next(self, queues: Sequence[Q], now: float) -> Departure[Q]:
        """See :meth:`Dispatch.next`."""
        departure = self._slots.next(queues, now)
        server = min(departure.queue.servers, key=self._running.__getitem__)
        return departure._replace(server=server)

    def submitted(self, queue: QueueView, now: float) -> None:
        """See :meth:`Dispatch.submitted`."""

    def sent(self, queue: QueueView, server: Hashable, size: int, now: float) -> Hashable:
        """See :meth:`Dispatch.sent`."""
        self._running[server] += 1
        return server

    def ended(self, call: Any, now: float, *, failed: bool) -> None:
        """See :meth:`Dispatch.ended`."""
        self._running[call] -= 1


def measure(task: Task) -> Figures | None:
    """Return mean and p99 in ms of a case with a policy; None if it collapses."""
    case, policy = task
    dispatch: Dispatch = JustInTime() if policy == OURS else Fixed(FIXED[policy])
    try:
        answers = simulate(
            case.device(),
            case.rate,
            case.seconds,
            max_batch_size=BATCH,
            dispatch=dispatch,
            max_inside=INSIDE,
        )
    except CollapsedError:
        return None
    times = sorted(1000 * one.seconds for one in answers if one.at > WARM * case.seconds)
    return Figures(math.fsum(times) / len(times), times[int(0.99 * len(times))])


class Baseline:
    """What the fixed policies do, kept in a file under all that it depends on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = self._read()

    def missing(self, case: Case) -> list[str]:
        """Return the policies of which nothing is known."""
        known = self._known.get(self._key(case), {})
        return [policy for policy in FIXED if policy not in known]

    def add(self, case: Case, policy: str, figures: Figures | None) -> None:
        """Take down what a policy did; None if it collapsed."""
        of_case = self._known.setdefault(self._key(case), {})
        of_case[policy] = None if figures is None else list(figures)

    def of(self, case: Case) -> dict[str, Figures | None]:
        """Return what is known."""
        known = self._known.get(self._key(case), {})
        return {
            policy: None if figures is None else Figures(*figures)
            for policy, figures in known.items()
        }

    def save(self) -> None:
        """Add to the file, or leave it as it was."""
        for key, policies in self._read().items():  # another run may have written meanwhile
            self._known[key] = policies | self._known.get(key, {})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        lines = [f"{json.dumps(key)}: {json.dumps(of)}" for key, of in sorted(self._known.items())]
        new = self._file.with_suffix(".new")
        new.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        new.replace(self._file)

    def _read(self) -> dict[str, dict[str, list[float] | None]]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    @staticmethod
    def _key(case: Case) -> str:
        parts: dict[str, Any] = case._asdict()
        parts |= {"rate": f"{case.rate:.6g}", "seconds": f"{case.seconds:.6g}"}
        parts |= {"batch": BATCH, "seed": SEED, "warm": WARM, "inside": INSIDE, "edition": EDITION}
        return " ".join(f"{name} {value}" for name, value in parts.items())


def run(cases: Sequence[Case], baseline: Baseline) -> list[Result]:
    """Simulate what is not known yet on all cores; print a line when a device is done."""
    tasks = [(case, policy) for case in cases for policy in (*baseline.missing(case), OURS)]
    results: list[Result] = []
    with multiprocessing.Pool() as pool:
        try:
            done = zip(tasks, pool.imap(measure, tasks, chunksize=1), strict=True)
            for _, group in itertools.groupby(done, key=lambda one: one[0][0][:2]):
                of_kind = list(_results(group, baseline))
                sys.stdout.write(f"{zoo_report.line(of_kind)}\n")
                sys.stdout.flush()
                results += of_kind
                baseline.save()
        finally:
            baseline.save()
    return results


def _results(done: Iterable[tuple[Task, Figures | None]], baseline: Baseline) -> Iterable[Result]:
    saved = time.monotonic()
    for (case, policy), figures in done:
        if policy == OURS:  # which comes last of its case
            yield Result(case._asdict(), figures, baseline.of(case))
            if time.monotonic() - saved > SAVE_EVERY:
                baseline.save()
                saved = time.monotonic()
        else:
            baseline.add(case, policy, figures)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def main() -> None:
    """Simulate the cases that were asked for, print the lines, write JSON and the plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=6000, help="of each case, at least")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, with commas")
    parser.add_argument("--loads", type=_numbers, default=LOADS, help="%% of capacity, with commas")
    parser.add_argument("--noise", type=_numbers, default=SIGMAS, help="with commas")
    parser.add_argument("--output", type=Path, default=RESULTS, help="for zoo.json and the plot")
    flags = parser.parse_args()
    kinds = flags.only.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such kinds: {', '.join(sorted(unknown))}")
    cases = [
        Case(sigma, kind, a, b, transport, load, flags.items)
        for sigma, kind, (a, b), transport, load in itertools.product(
            flags.noise, kinds, BACKENDS, TRANSPORTS, flags.loads
        )
    ]
    results = run(cases, Baseline(RESULTS / "zoo_baseline.json"))
    flags.output.mkdir(parents=True, exist_ok=True)
    zoo_report.write(results, flags.output / "zoo.json")
    sys.stdout.write(f"{zoo_report.plot(results, flags.output)}\n")


if __name__ == "__main__":
    main()
