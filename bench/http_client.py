"""The least HTTP client that can load a server on the same two cores: one request at a time on a
keep-alive connection, requests encoded beforehand."""

import asyncio
import socket

__all__ = ["Connection", "connect", "post"]


def post(host: str, path: str, body: bytes, timeout: float | None = None) -> bytes:
    """Return the bytes of a POST of JSON; ``timeout``, in seconds, is told to the server."""
    hurry = f"X-Request-Timeout: {timeout:g}\r\n" if timeout else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{hurry}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class Connection(asyncio.Protocol):
    """One connection; answers come with Content-Length or in chunks (RFC 9112, 6 and 7.1)."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = bytearray()
        self._body_at = 0  # 0 until the header is whole
        self._size: int | None = None  # of the body; None for chunks
        self._last = False  # the server said that it closes after this answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take as much of a request as the kernel lets us in one call."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)

    def request(self, data: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send ``data``; the future gives status and body, or ConnectionError."""
        self._answer = asyncio.get_running_loop().create_future()
        if self.closed or self._transport is None:
            self._answer.set_exception(ConnectionResetError("closed"))
        else:
            self._transport.write(data)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Complete the answer when its last byte is here."""
        received = self._received
        received += data
        if not self._body_at:
            head = received.find(b"\r\n\r\n")
            if head < 0:
                return
            self._read_header(bytes(received[:head]).lower())
            self._body_at = head + 4
        if self._size is None:
            if not received.endswith(b"0\r\n\r\n"):
                return
            body = _joined(bytes(received[self._body_at :]))
        elif len(received) < self._body_at + self._size:
            return
        else:
            body = bytes(received[self._body_at :])
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(received[9:12]), body))
        received.clear()
        self._body_at = 0
        if self._last:
            self.close()

    def _read_header(self, header: bytes) -> None:
        self._last = b"\r\nconnection: close" in header
        length = header.partition(b"\r\ncontent-length:")[2]
        self._size = int(length.partition(b"\r\n")[0]) if length else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way."""
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed by the server"))

    def close(self) -> None:
        """Leave at once; the request under way, if any, is abandoned."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()


def _joined(chunks: bytes) -> bytes:
    """Return the content of a chunked body."""
    content: list[bytes] = []
    at = 0
    while True:
        line_end = chunks.index(b"\r\n", at)
        size = int(chunks[at:line_end].partition(b";")[0], 16)
        if size == 0:
            return b"".join(content)
        content.append(chunks[line_end + 2 : line_end + 2 + size])
        at = line_end + 4 + size


async def connect(host: str, port: int) -> Connection:
    """Open a connection; OSError if nothing listens."""
    return (await asyncio.get_running_loop().create_connection(Connection, host, port))[1]
