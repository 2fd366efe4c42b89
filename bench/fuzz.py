"""Damaged pictures and damaged JSON against all that a request passes, and against a gateway.

    python -m bench.fuzz --count 100000 --seed 1

Every input goes through the functions that read a request, in a process of its own: only errors
that a client is told of may come out, none may end the process, none may take a second of CPU, and
memory may not grow. A share goes to a gateway over HTTP, each few beside a sound request: none may
be answered with 5xx, and the sound one must be answered. What fails is written to a folder.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import aiohttp
import grpc
import grpc.aio
from aiohttp import web

from bench import mutations
from bench.simulated_serving import Behaviour, SimulatedServing
from gateway.app import create_app
from gateway.errors import GatewayError
from gateway.imaging import decode_base64, open_picture
from gateway.schema import parse_request
from gateway.settings import load_settings

__all__ = ["Report", "main", "over_http", "read", "watch"]

CPU_LIMIT = 1.0
PATIENCE = 60.0  # seconds after which an input is taken for one that never ends
TOGETHER = 8  # requests at a time over HTTP
WARM = 2000  # inputs after which all code has been loaded, and memory should stay as it is
FIXED = (300, 300)
# What a picture may cost grows with its pixels: 25 ns for each, 40 where it is packed again. The
# limit on CPU is for what costs more than that, so that pictures are held to a camera's size.
MAX_PIXELS = 16_000_000

Check = Callable[[bytes], str]
Inputs = Callable[[int], tuple[str, bytes]]


class Result(NamedTuple):
    """What one input came to; ``defect`` is empty where all is as it should be."""

    number: int
    kind: str
    outcome: str
    defect: str
    cpu: float
    rss: int


@dataclass
class Report:
    """All results of a run, counted; times in seconds, sizes in bytes."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    defects: list[tuple[int, str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    first_rss: int = 0
    last_rss: int = 0
    peak_rss: int = 0
    count: int = 0

    def add(self, result: Result) -> None:
        """Count one more."""
        self.outcomes.setdefault(result.kind, Counter())[result.outcome] += 1
        if result.defect:
            self.defects.append((result.number, result.defect))
        self.slowest = max(self.slowest, (result.cpu, result.number))
        self.count += 1
        if self.count <= WARM:
            self.first_rss = result.rss
        self.last_rss = result.rss

    def text(self, title: str) -> str:
        """As a table."""
        codes = sorted({code for row in self.outcomes.values() for code in row})
        lines = [f"{title}: {self.count} inputs", " ".join(f"{c:>17}" for c in ("", *codes))]
        for kind, row in sorted(self.outcomes.items()):
            lines.append(" ".join(f"{c:>17}" for c in (kind, *(row[code] for code in codes))))
        mib = 1 << 20
        lines.append(
            f"slowest {self.slowest[0]:.3f} s of CPU (input {self.slowest[1]}); memory"
            f" {self.first_rss / mib:.0f} MiB once warm, {self.last_rss / mib:.0f} MiB at the end,"
            f" {self.peak_rss / mib:.0f} MiB at most; {len(self.defects)} defects"
        )
        lines += [f"  input {number}: {defect}" for number, defect in self.defects]
        return "\n".join(lines) + "\n"


def read(body: bytes) -> str:
    """What a request passes through before its batch; the code of what it was refused for.

    One of the three ways that a picture may go, by the length of the body.
    """
    try:
        request = parse_request(body)
        picture = open_picture(decode_base64(request.image), max_pixels=MAX_PIXELS)
        if len(body) % 3 == 0:
            good = len(picture.to_encoded()) > 0
        elif len(body) % 3 == 1:
            good = picture.to_rgb().shape == (picture.height, picture.width, 3)
        else:
            good = picture.to_rgb(FIXED).shape == (*FIXED, 3)
    except GatewayError as error:
        return error.code
    if not good:
        raise ValueError("an array of another size than was announced")
    return "read"


def _child(sent: Connection, check: Check, inputs: Inputs, numbers: range) -> None:
    for number in numbers:
        kind, body = inputs(number)
        defect, began = "", time.process_time()
        try:
            outcome = check(body)
        except Exception as error:
            outcome, defect = "defect", f"{type(error).__name__}: {error}"
        cpu = time.process_time() - began
        if cpu > CPU_LIMIT:
            defect = defect or f"took {cpu:.2f} s of CPU"
        sent.send(Result(number, kind, outcome, defect, cpu, _rss()))
    _end(sent)


def _end(sent: Connection) -> None:
    sent.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    sent.close()


def _rss() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def watch(check: Check, inputs: Inputs, count: int) -> Report:
    """Give each of ``count`` inputs to ``check`` in a child process, which may die of it."""
    return _run(partial(_child, check=check, inputs=inputs), count)


def over_http(inputs: Inputs, count: int) -> Report:
    """Post each of ``count`` inputs to a gateway in a child process."""
    return _run(partial(_http_child, inputs=inputs), count)


def _run(child: Callable[..., None], count: int) -> Report:
    report, at = Report(), 0
    while at < count:
        for result in _results(child, range(at, count)):
            if isinstance(result, Result):
                report.add(result)
                at = result.number + 1
            else:
                report.peak_rss = max(report.peak_rss, result)
        if at < count:  # it ended before its time, by the input after the last that it told of
            report.add(Result(at, "", "crash", "ended the process, or never ended", 0.0, 0))
            at += 1
    return report


def _results(child: Callable[..., None], numbers: range) -> Iterator[Result | int]:
    context = multiprocessing.get_context("spawn")
    received, sent = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(sent,), kwargs={"numbers": numbers})
    process.start()
    sent.close()
    try:
        while received.poll(PATIENCE):
            yield received.recv()
    except EOFError:
        pass
    finally:
        process.kill()
        process.join()
        process.close()
        received.close()


def _http_child(sent: Connection, inputs: Inputs, numbers: range) -> None:
    asyncio.run(_post_all(sent, inputs, numbers))
    _end(sent)


async def _post_all(sent: Connection, inputs: Inputs, numbers: range) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    SimulatedServing(Behaviour(cost=(0.1, 0.01))).add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    app = create_app(load_settings({"tfserving": f"127.0.0.1:{port}", "request_timeout": 60}))
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, http_port = runner.addresses[0][:2]
    url = f"http://{host}:{http_port}/imageDetection"
    async with aiohttp.ClientSession() as session:
        for first in range(numbers.start, numbers.stop, TOGETHER):
            some = range(first, min(first + TOGETHER, numbers.stop))
            made = [inputs(number) for number in some]
            bodies = [*(body for _, body in made), mutations.sound()]
            began = time.process_time()
            *answers, of_sound = await asyncio.gather(*(_post(session, url, b) for b in bodies))
            cpu = time.process_time() - began
            for number, (kind, _), (status, code) in zip(some, made, answers, strict=True):
                defect = "" if status < 500 else f"answered {status} {code}"
                if of_sound[0] != 200:
                    defect = defect or f"a sound request beside it was answered {of_sound}"
                if cpu > TOGETHER * CPU_LIMIT:
                    defect = defect or f"took {cpu:.2f} s of CPU, with those beside it"
                sent.send(Result(number, kind, code, defect, cpu / len(bodies), _rss()))
    await runner.cleanup()
    await server.stop(None)


async def _post(session: aiohttp.ClientSession, url: str, body: bytes) -> tuple[int, str]:
    async with session.post(url, data=body) as response:
        answer = json.loads(await response.read())
        return response.status, str(answer.get("code", response.status))


def main() -> None:
    """Parse the flags, fuzz, print a table; the exit status is 1 if there are defects."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="inputs (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--http", type=float, default=0.05, help="share that goes over HTTP too")
    parser.add_argument("--keep", type=Path, default=Path(__file__).parent / "results" / "fuzz")
    flags = parser.parse_args()
    inputs = partial(mutations.body, flags.seed)
    reports = {
        "directly": watch(read, inputs, flags.count),
        "over HTTP": over_http(inputs, int(flags.count * flags.http)),
    }
    for title, report in reports.items():
        sys.stdout.write(report.text(title))
        for number, _ in report.defects:
            flags.keep.mkdir(parents=True, exist_ok=True)
            (flags.keep / f"{flags.seed}-{number}.json").write_bytes(inputs(number)[1])
    sys.exit(any(report.defects for report in reports.values()))


if __name__ == "__main__":
    main()
