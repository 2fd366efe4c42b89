"""What the load generator counts, against small servers whose answers are known."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bench import marks, photos
from bench.load import Load, Plan, matches

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
CODE = 37


def body(code: int = CODE, **change: object) -> bytes:
    """Return the right answer to ``code``, or with a change to its first row a wrong one."""
    found = [
        {
            "class_id": row.class_id,
            "score": row.score,
            "class_label": None,
            "hit_box": {"x1": row.x1, "y1": row.y1, "x2": row.x2, "y2": row.y2},
        }
        for row in marks.detections(code)
    ]
    found[0] |= change
    return json.dumps({"detections": found, "controller_time": 0.1, "tfserve_time": 0.1}).encode()


def whole(status: int, content: bytes, *headers: str) -> bytes:
    """Return an answer with its length."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[bytes | None], Awaitable[Load]]]:
    """Return a maker of loads whose server always gives the same bytes, or nothing."""
    servers: list[asyncio.Server] = []
    loads: list[Load] = []
    handlers: list[asyncio.Task[None]] = []

    async def start(answer: bytes | None) -> Load:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if task := asyncio.current_task():
                handlers.append(task)
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = int(head.lower().partition(b"content-length:")[2].split()[0])
                    await reader.readexactly(size)
                    if answer is not None:
                        writer.write(answer)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        port = server.sockets[0].getsockname()[1]
        load = Load(Plan(f"http://127.0.0.1:{port}/imageDetection", concurrency=1, deadline=0.2))
        loads.append(load)
        return load

    yield start
    for load in loads:
        for connection in load.free:
            connection.close()
    await asyncio.gather(*handlers)
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.fixture(autouse=True)
def one_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures are one, and small."""
    monkeypatch.setattr(photos, "load", lambda sizes, each=1: [(CODE, b"picture")])


@pytest.mark.parametrize(
    "change",
    [{"class_id": 91}, {"score": 0.5}, {"hit_box": {"x1": 0, "y1": 0, "x2": 1, "y2": 1}}],
)
def test_an_answer_with_one_thing_wrong_is_wrong(change: dict[str, object]) -> None:
    """Class, score and box all count."""
    assert matches(body(), CODE)
    assert not matches(body(**change), CODE)


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"detections": []}', body(CODE + 1)])
def test_another_pictures_answer_is_wrong(answer: bytes) -> None:
    """So is none, and what is not JSON."""
    assert not matches(answer, CODE)


async def test_right_wrong_and_refused_are_told_apart(
    serve: Callable[[bytes | None], Awaitable[Load]],
) -> None:
    """Only right answers enter the latency; refusals have a histogram of their own."""
    for answer, good, wrong, refused in (
        (whole(200, body()), 2, 0, 0),
        (whole(200, body(CODE + 1)), 0, 2, 0),
        (whole(503, b"{}"), 0, 0, 2),
    ):
        load = await serve(answer)
        for _ in range(2):
            await load.one(load.now())
        tally = load.tally
        assert (tally.good, tally.wrong) == (good, wrong)
        assert tally.refusal.total_count == refused
        assert tally.latency.total_count == good
        assert len(load.free) == 1  # the connection was kept and used again


async def test_chunked_answers_and_closing_servers_are_understood(
    serve: Callable[[bytes | None], Awaitable[Load]],
) -> None:
    """Chunks are joined, and a connection that the server closes is not used again."""
    content = body()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:99], content[99:]))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    load = await serve(head + chunks + b"0\r\n\r\n")
    await load.one(load.now())
    assert (load.tally.good, len(load.free)) == (1, 1)
    load = await serve(whole(200, content, "Connection: close"))
    for _ in range(2):
        await load.one(load.now())
    assert (load.tally.good, len(load.free)) == (2, 0)


async def test_a_client_leaves_at_its_deadline(
    serve: Callable[[bytes | None], Awaitable[Load]],
) -> None:
    """A request without an answer is late, and its connection is given up."""
    load = await serve(None)
    await load.one(load.now())
    assert load.tally.statuses == {"late": 1}
    assert load.free == []


async def test_latency_counts_from_when_the_request_was_due(
    serve: Callable[[bytes | None], Awaitable[Load]],
) -> None:
    """The time that a request could not be sent is part of its latency."""
    load = await serve(whole(200, body()))
    await load.one(load.now() - 0.15)
    assert load.tally.latency.get_min_value() >= 150_000


async def test_a_server_that_is_gone_is_an_error_not_an_answer(
    serve: Callable[[bytes | None], Awaitable[Load]],
) -> None:
    """A refused connection is counted by its name."""
    load = await serve(None)
    load.port = 1
    await load.one(load.now())
    assert load.tally.statuses == {"ConnectionRefusedError": 1}
