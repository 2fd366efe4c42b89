"""The ends that requests come to, against a server whose answers are known."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from bench import clients, marks, photos
from bench.clients import LEFT, RIGHT, SILENT, WRONG, Clients, End

CODE = 37
Run = Callable[..., Awaitable[list[str]]]


def whole(status: int, answer: object) -> bytes:
    """Return an answer of HTTP."""
    body = json.dumps(answer)
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def seen(code: int) -> object:
    """Return what the gateway answers to the picture of ``code``."""
    found = [
        {"class_id": one.class_id, "score": one.score}
        | {"hit_box": {"x1": one.x1, "y1": one.y1, "x2": one.x2, "y2": one.y2}}
        for one in marks.detections(code)
    ]
    return {"detections": found}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Send three requests to a server that answers each with the same bytes, or closes on None."""
    monkeypatch.setattr(photos, "load", lambda sizes, each=1: [(CODE, b"picture")])
    monkeypatch.setattr(clients, "PATIENCE", 0.0)
    monkeypatch.setattr(clients, "LONGEST_STAY", 0.01)
    handlers: list[asyncio.Task[None]] = []

    async def start(answer: bytes | None, **settings: float) -> list[str]:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if task := asyncio.current_task():
                handlers.append(task)
            try:
                while answer is not None:
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = int(head.lower().partition(b"content-length:")[2].split()[0])
                    await reader.readexactly(size)
                    writer.write(answer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        ends: list[End] = []
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/imageDetection"
            load = Clients(url, ended=ends.append, **{"deadline": 5.0, **settings})
            await load.run(3, concurrency=1, rate=0)
            assert load.connections == 0
            await asyncio.gather(*handlers)
        return [end.outcome for end in ends]

    return start


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (whole(200, seen(CODE)), RIGHT),
        (whole(200, seen(CODE + 1)), WRONG),
        (whole(503, {"code": "overloaded"}), "503 overloaded"),
        (whole(500, "a trace"), "500, no code"),
        (None, SILENT),
    ],
    ids=["right", "a neighbour's", "refused", "no code", "closed"],
)
@pytest.mark.parametrize("fresh", [0.0, 1.0])
async def test_each_request_ends_once(
    run: Run, answer: bytes | None, outcome: str, fresh: float
) -> None:
    """Right, wrong, refused with a code or without, never answered: on kept and new connections."""
    assert await run(answer, fresh=fresh) == [outcome] * 3


async def test_who_leaves_and_who_waits_in_vain(run: Run) -> None:
    """Without an answer, a client that meant to leave has left; the others were let down."""
    assert await run(b"", leave=1.0) == [LEFT] * 3
    assert await run(b"", deadline=0.01) == [SILENT] * 3
