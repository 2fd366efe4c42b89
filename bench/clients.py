"""Clients that never give up a request without saying how it ended.

Where bench/load.py measures a server that is well, this asks what became of each single request
while servers die: right, wrong, refused with a code, left by its client, or never answered.
"""

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import pybase64

from bench import photos
from bench.http_client import Connection, connect, post
from bench.load import matches

__all__ = ["LEFT", "RIGHT", "SILENT", "WRONG", "Clients", "End"]

SIZES = ("160x120", "240x320", "320x240")
MODELS = ("ssd", "full")
PATIENCE = 10.0  # seconds beyond the deadline, until a request counts as never answered
LONGEST_STAY = 0.05  # seconds that a client waits who is going to leave
LONGEST_PAUSE = 4.0  # seconds between two requests of a slow client
MAX_CONNECTIONS = 900
RIGHT, WRONG, SILENT, LEFT = "200", "200, wrong", "no answer", "left"


class End(NamedTuple):
    """How a request ended; times on the event loop's clock. ``outcome`` is one of the words above,
    or status and code of a refusal; ``why`` says more of one that was never answered."""

    due: float
    at: float
    outcome: str
    why: str = ""


class Clients:
    """Sends small pictures to ``url``, each answer held against its own picture.

    ``leave`` is the share of requests whose client goes before the answer, ``fresh`` the share that
    is sent on a connection of its own. ``ended`` is told of each request, once. ``deadline`` is the
    server's, in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline: float,
        ended: Callable[[End], None],
        leave: float = 0.0,
        fresh: float = 0.0,
    ) -> None:
        parts = urlsplit(url)
        self.host, self.port = str(parts.hostname), parts.port or 80
        self.leave, self.fresh, self.deadline = leave, fresh, deadline
        self.sent = 0
        self.limit = 0
        self._ended = ended
        self._random = random.Random(3)
        self._free: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._now = asyncio.get_running_loop().time
        self._requests = _requests(parts.netloc, parts.path)

    @property
    def connections(self) -> int:
        """Connections that the clients have open."""
        self._open = {one for one in self._open if not one.closed}
        return len(self._open)

    async def run(self, limit: int, *, concurrency: int, rate: float, slow: int = 0) -> None:
        """Send ``limit`` requests: by so many clients one after the other each, and at ``rate`` a
        second by others who wait for nobody. ``slow`` clients more have a connection each that they
        keep, and seldom use."""
        self.limit = limit
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._in_turn())
            for _ in range(slow):
                group.create_task(self._now_and_then())
            group.create_task(self._at_random(rate))
        while self._free:
            self._free.pop().close()

    async def _in_turn(self) -> None:
        while self.sent < self.limit:
            await self._one(self._now())

    async def _now_and_then(self) -> None:
        kept: deque[Connection] = deque()
        while self.sent < self.limit:
            await asyncio.sleep(LONGEST_PAUSE * self._random.random())
            await self._one(self._now(), kept)
        while kept:
            kept.pop().close()

    async def _at_random(self, rate: float) -> None:
        due = self._now()
        async with asyncio.TaskGroup() as group:
            while rate and self.sent < self.limit:
                due += self._random.expovariate(rate)
                await asyncio.sleep(max(0.0, due - self._now()))
                if self.sent < self.limit:
                    group.create_task(self._one(due))

    async def _one(self, due: float, kept: deque[Connection] | None = None) -> None:
        """Send a request on a connection that is free, of ``kept`` or of all; or on a new one."""
        self.sent += 1
        free = self._free if kept is None else kept
        code, data = next(self._requests)
        fresh = self._random.random() < self.fresh
        leaves = self._random.random() < self.leave
        stay = LONGEST_STAY * self._random.random() if leaves else self.deadline + PATIENCE
        connection: Connection | None = None
        why = ""
        try:
            async with self._slots:
                connection = await self._connection(deque() if fresh else free)
                async with asyncio.timeout(stay):
                    status, body = await connection.request(data)
            outcome = _outcome(status, body, code)
        except TimeoutError:
            outcome = LEFT if leaves else SILENT
        except OSError as error:
            outcome, why = SILENT, f"{type(error).__name__}: {error}"
            await asyncio.sleep(0.05)  # or a server that is gone is asked without end
        self._ended(End(due, self._now(), outcome, why))
        if connection is not None and not connection.closed:
            if fresh or outcome in {LEFT, SILENT}:
                connection.close()
            else:
                free.append(connection)

    async def _connection(self, free: deque[Connection]) -> Connection:
        while free:
            if not (kept := free.popleft()).closed:
                return kept
        connection = await connect(self.host, self.port)
        self._open.add(connection)
        return connection


def _requests(host: str, path: str) -> Iterator[tuple[int, bytes]]:
    """Every picture for every model, over and over."""
    requests = []
    for model, (code, jpeg) in itertools.product(MODELS, photos.load(list(SIZES))):
        image = pybase64.b64encode(jpeg).decode()
        body = json.dumps({"model_name": model, "image": image, "threshold": 0.4})
        requests.append((code, post(host, path, body.encode())))
    random.Random(1).shuffle(requests)
    return itertools.cycle(requests)


def _outcome(status: int, body: bytes, code: int) -> str:
    if status == 200:
        return RIGHT if matches(body, code) else WRONG
    try:
        return f"{status} {json.loads(body)['code']}"
    except (ValueError, KeyError, TypeError):
        return f"{status}, no code"
