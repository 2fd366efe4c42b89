"""Connections that nobody holds for nothing: what aiohttp does not limit itself.

A client that sends a request's head or its body too slowly is cut off. Nothing is timed for each
request: all connections are looked at once a second.
"""

import asyncio
from time import monotonic
from typing import Any, Final

from aiohttp import EMPTY_PAYLOAD, StreamReader, hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.errors import InvalidHttpError
from gateway.keys import METRICS, SETTINGS
from gateway.middleware import refuse
from gateway.settings import Settings

__all__ = ["Runner"]

SWEEP_SECONDS = 1.0
GRACE_SECONDS = 1.0  # in which a body may be as slow as it likes
OPTIONS: Final[dict[str, Any]] = {"access_log": None, "auto_decompress": False}


class Runner(web.AppRunner):
    """Runs the application; a client that leaves cancels its handler.

    Its limits are the settings ``header_timeout`` and ``min_body_rate``; each takes effect within
    a second. Requests that are worked on are not touched, nor connections that are idle between
    two requests.
    """

    def __init__(self, app: web.Application) -> None:
        super().__init__(app, shutdown_timeout=1.0)
        self._sweeping: asyncio.Task[None] | None = None

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(made)
        self._sweeping = asyncio.create_task(_sweep(server, self.app))
        return server

    async def _cleanup_server(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        await super()._cleanup_server()


async def _sweep(server: web.Server, app: web.Application) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        now = monotonic()
        for connection in server.connections:
            if isinstance(connection, _Connection) and (
                limit := connection.cut_off(now, app[SETTINGS])
            ):
                app[METRICS].rejected(limit)


class _Server(web.Server):
    """As ``like``, which AppRunner made, with connections of ours."""

    def __init__(self, like: web.Server) -> None:
        def request_of(
            message: Any, body: StreamReader, connection: "_Connection", writer: Any, task: Any
        ) -> web.BaseRequest:
            connection.begin(body)
            expected = message.headers.get(hdrs.EXPECT)
            if expected is not None and expected.lower() != "100-continue":
                # Nobody has to know it (RFC 9110, 10.1.1), and aiohttp would answer by itself.
                headers = CIMultiDict(message.headers)
                headers.popall(hdrs.EXPECT)
                message = message._replace(headers=CIMultiDictProxy(headers))
            return make(message, body, connection, writer, task)

        make = like.request_factory
        super().__init__(
            like.request_handler,
            request_factory=request_of,  # type: ignore[arg-type]  # all connections are ours
            handler_cancellation=True,
        )

    def __call__(self) -> "_Connection":
        return _Connection(self, loop=asyncio.get_running_loop(), **OPTIONS)


class _Connection(web.RequestHandler):
    """Knows since when it waits for the rest of a head, and how much of a body has come."""

    __slots__ = ("_body", "_body_since", "_busy", "_head_since")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_since: float | None = monotonic()
        self._body = EMPTY_PAYLOAD
        self._body_since = 0.0
        self._busy = False

    def data_received(self, data: bytes) -> None:
        if data and self._head_since is None and self._body.is_eof():
            self._head_since = monotonic()
        super().data_received(data)
        if not self._body.is_eof() and self._messages:
            message, _ = self._messages[-1]
            if not isinstance(message, RawRequestMessage):  # what came is neither a body's next
                self._messages.pop()  # part nor a next request
                if self._busy:
                    self._body.set_exception(InvalidHttpError("the request's body is no HTTP"))
                else:  # it has its answer
                    self.force_close()

    def begin(self, body: StreamReader) -> None:
        """A request's head is complete, and its turn has come."""
        self._head_since, self._body, self._body_since = None, body, monotonic()
        self._busy = True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(self._body.exception(), InvalidHttpError):
            resp.force_close()
            self._body.feed_eof()  # the rest would be waited for
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._busy = False
            if self._head_since is not None:  # the next head began meanwhile; its time begins now
                self._head_since = monotonic()

    def cut_off(self, now: float, settings: Settings) -> str | None:
        """End what is too slow; the name of the limit, if one was exceeded."""
        if self.transport is None:
            return None
        if self._busy:
            least = settings.min_body_rate * (now - self._body_since - GRACE_SECONDS)
            body = self._body
            if body.is_eof() or body.exception() is not None or body.total_bytes >= least:
                return None
            # Whoever reads the body is told, and answers.
            body.set_exception(
                TimeoutError(
                    f"the body comes slower than min_body_rate, {settings.min_body_rate} bytes/s"
                )
            )
            return "min_body_rate"
        if self._head_since is None or now - self._head_since < settings.header_timeout:
            return None
        self.force_close()
        return "header_timeout"

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP as all else; aiohttp would log a stack, and quote keys."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        reason = (message or "").partition("\n")[0].removesuffix(":")
        if isinstance(exc, LineTooLong):
            reason = f"a line or a field is longer than {self.max_field_size} bytes"
        response = refuse(request, 400, InvalidHttpError.code, f"the request is no HTTP: {reason}")
        response.force_close()
        return response
