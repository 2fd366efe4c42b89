"""Who sends too slowly, or no HTTP, is cut off; who is answered, or merely idle, is not."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

HEAD = b"POST /imageDetection HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n"
ALIVE = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"
SECOND = 0.02  # of these tests: the sweep's interval


@pytest.fixture(autouse=True)
def _short_seconds(monkeypatch):
    monkeypatch.setattr("gateway.connections.SWEEP_SECONDS", SECOND)
    monkeypatch.setattr("gateway.connections.GRACE_SECONDS", SECOND)


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = await self.reader.readexactly(int(headers["Content-Length"]))
        return int(status.split()[1]), headers, body

    async def closed(self) -> bool:
        """Wait for the end; whether nothing came before it."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:  # what was sent crossed the end
            return True


@asynccontextmanager
async def connect(address: tuple[str, int]) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection(*address)
    try:
        yield Connection(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
def rejected() -> Callable[..., asyncio.Future[list[str]]]:
    """The lines of gateway_rejected_total, as an operator sees them."""

    async def read(address: tuple[str, int]) -> list[str]:
        async with connect(address) as operator:
            await operator.send(ALIVE.replace(b"/healthz", b"/metrics"))
            text = (await operator.answer())[2].decode()
        return [line for line in text.splitlines() if line.startswith("gateway_rejected_total{")]

    return read


@pytest.mark.parametrize("sent", [b"", b"GET /heal", ALIVE[:-2]], ids=["nothing", "some", "nearly"])
async def test_header_timeout_from_the_connection(listen, rejected, sent):
    """A connection on which no head is complete in time is closed, whatever has come of it."""
    address = await listen(header_timeout=3 * SECOND)
    async with connect(address) as slow:
        await slow.send(sent)
        assert await slow.closed()
    assert await rejected(address) == ['gateway_rejected_total{reason="header_timeout"} 1.0']


async def test_header_timeout_of_a_trickle(listen):
    """A byte now and then does not put it off."""
    async with connect(await listen(header_timeout=5 * SECOND)) as slow:
        closed = asyncio.ensure_future(slow.closed())
        for byte in ALIVE * 100:
            if closed.done():
                break
            slow.writer.write(bytes([byte]))
            await asyncio.wait([closed], timeout=SECOND)
        assert await closed


async def test_header_timeout_of_the_next_head(listen):
    """On a kept-alive connection its time begins with the head's first byte."""
    async with connect(await listen(header_timeout=3 * SECOND)) as slow:
        for _ in range(2):
            await slow.send(ALIVE)
            assert (await slow.answer())[0] == 200
        await slow.send(ALIVE[:9])
        assert await slow.closed()


async def test_header_timeout_of_the_next_head_sent_too_early(listen, serving, photo):
    """A head that began while the request before it was worked on is timed from its answer."""
    serving.gate = asyncio.Event()
    async with connect(await listen(header_timeout=3 * SECOND)) as slow:
        body = json.dumps({"model_name": "colors", "image": photo()}).encode()
        await slow.send(HEAD % len(body) + body)
        await serving.arrived.acquire()
        await slow.send(ALIVE[:9])
        async with connect(await listen(header_timeout=3 * SECOND)) as other:  # as long as it takes
            assert await other.closed()
        serving.gate.set()
        assert (await slow.answer())[0] == 200
        assert await slow.closed()


async def test_idle_and_busy_connections_stay(listen, serving, photo):
    """Neither one that is idle after its answer nor one whose answer takes long is closed."""
    address = await listen(header_timeout=2 * SECOND, min_body_rate=0)
    serving.gate = asyncio.Event()
    async with connect(address) as idle, connect(address) as busy:
        await idle.send(ALIVE)
        assert (await idle.answer())[0] == 200
        body = json.dumps({"model_name": "colors", "image": photo()}).encode()
        await busy.send(HEAD % len(body))
        async with connect(address) as silent:  # as long as it takes
            assert await silent.closed()
        await busy.send(body)
        await serving.arrived.acquire()
        async with connect(address) as silent:
            assert await silent.closed()
        serving.gate.set()
        assert (await busy.answer())[0] == 200
        for _ in range(2):
            async with connect(address) as silent:
                assert await silent.closed()
        for one in (busy, idle):
            await one.send(ALIVE)
            assert (await one.answer())[0] == 200


@pytest.mark.parametrize("sent", [0, 100])
async def test_min_body_rate(listen, rejected, sent):
    """A body that comes too slowly is 408 long before the deadline; its place is free."""
    address = await listen(min_body_rate=1 << 20)
    async with connect(address) as slow:
        await slow.send(HEAD % 1000 + b" " * sent)
        status, _, body = await slow.answer()
        answer = json.loads(body)
        assert (status, answer["code"]) == (408, "body_timeout")
        assert "min_body_rate, 1048576 bytes/s" in answer["message"]
    assert await rejected(address) == ['gateway_rejected_total{reason="min_body_rate"} 1.0']


@pytest.mark.parametrize("rate", [0, 10])
async def test_a_body_that_keeps_the_rate(listen, photo, rate):
    """Pauses are no fault while the average is kept; 0 lets everybody take their time."""
    address = await listen(min_body_rate=rate, header_timeout=2 * SECOND)
    body = json.dumps({"model_name": "colors", "image": photo()}).encode()
    async with connect(address) as slow:
        await slow.send(HEAD % len(body) + body[:100])
        for _ in range(3):
            async with connect(address) as silent:
                assert await silent.closed()
        await slow.send(body[100:])
        assert (await slow.answer())[0] == 200


LONG = b"a" * 8200


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"GET /" + LONG + b" HTTP/1.1\r\n\r\n", "longer than 8190 bytes"),
        (b"GET / HTTP/1.1\r\nX-A: " + LONG + b"\r\n\r\n", "longer than 8190 bytes"),
        (b"GET / HTTP/1.1\r\n" + LONG + b": a\r\n\r\n", "longer than 8190 bytes"),
        (b"GET / HTTP/1.1\r\n" + b"X-A: 1\r\n" * 129 + b"\r\n", "Too many headers"),
        (b"GET / HTTP/1.1\r\nAuthorization: Bearer s3cret\x01\r\n\r\n", "header value"),
        (b"GET http://[s3cret HTTP/1.1\r\n\r\n", "s3cret"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", "HTTPS"),
    ],
    ids=["line", "field", "name", "number", "character", "url", "tls"],
)
async def test_what_is_no_http(listen, caplog, head, reason):
    """Each limit of a head is 400 as JSON; one line is logged, and quotes nothing that was sent."""
    caplog.set_level(logging.DEBUG)
    async with connect(await listen()) as sender:
        await sender.send(head)
        status, headers, body = await sender.answer()
        assert await sender.closed()
    answer = json.loads(body)
    assert (status, answer["code"]) == (400, "invalid_http")
    assert reason in answer["message"]
    assert headers["X-Request-ID"] == answer["request_id"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    (record,) = (one for one in caplog.records if hasattr(one, "request") or "aiohttp" in one.name)
    assert record.request["code"] == "invalid_http"
    assert "s3cret" not in str([vars(one) for one in caplog.records])


async def test_chunks_that_are_none(listen, caplog):
    """A body that is no HTTP is told so at once, not when its time is over; one line is logged."""
    caplog.set_level(logging.DEBUG)
    async with connect(await listen(min_body_rate=0, request_timeout=600)) as sender:
        await sender.send(
            b"POST /imageDetection HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await sender.send(b"4\r\n{   \r\n")
        await sender.send(b"zz\r\n")
        status, _, body = await sender.answer()
        assert (status, json.loads(body)["code"]) == (400, "invalid_http")
        assert await sender.closed()
    (record,) = (one for one in caplog.records if hasattr(one, "request") or "aiohttp" in one.name)
    assert record.levelname == "INFO"


async def test_chunks_that_are_none_after_the_answer(listen, caplog):
    """The connection ends, and is not held open for the rest."""
    caplog.set_level(logging.DEBUG)
    async with connect(await listen()) as sender:
        await sender.send(b"POST /none HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert (await sender.answer())[0] == 404
        async with asyncio.timeout(5):
            await sender.send(b"zz\r\n")
            assert await sender.closed()
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("expected", [b"100-continue", b"nonsense", b"\xff"])
async def test_what_is_expected(listen, expected):
    """Only what HTTP knows of is answered by itself; nothing keeps a request from its answer."""
    async with connect(await listen()) as sender:
        await sender.send(b"GET /none HTTP/1.1\r\nHost: a\r\nExpect: " + expected + b"\r\n\r\n")
        if expected == b"100-continue":
            assert await sender.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        status, headers, body = await sender.answer()
        assert (status, json.loads(body)["code"]) == (404, "not_found")
        assert headers["Server"] == "tfserving-gateway"
