"""Bytes that are no HTTP: answered, told in one line, and no concern of anybody else."""

import asyncio
import json

import pytest

SENT = [
    b"GARBAGE\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
    b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /imageDetection HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /imageDetection HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
]


async def send(url: str, data: bytes) -> bytes:
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await reader.read()  # up to the end of the connection
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("flags", [[], ["--log-format", "json"]], ids=["text", "json"])
async def test_no_valid_http(spawn, flags):
    """400 and the end of the connection; no trace in the answer or the log; others are served."""
    process = await spawn("serve", "--port", "0", "--tfserving", "127.0.0.1:1", *flags)
    url = await process.url()
    for data in SENT:
        answer = await send(url, data)
        assert answer.startswith(b"HTTP/1.0 400 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "invalid_http"
        assert b"Traceback" not in answer
        assert b".py" not in answer
    assert not [line for line in process.lines if "Traceback" in line or "aiohttp/" in line]
    health = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert (await send(url, health)).startswith(b"HTTP/1.1 200 ")
