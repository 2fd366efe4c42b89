"""Around every handler: request ids, errors as HTTP, a log line and a count for each request."""

import asyncio
import logging
import math
import os
import re
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic_core import to_json

from gateway import errors
from gateway.keys import ADMISSION, ARRIVED, LOG_FIELDS, METRICS, REQUEST_ID

__all__ = ["answer_errors", "observe", "refuse"]

log = logging.getLogger("gateway")

ID_HEADER: Final = "X-Request-ID"
SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
CLIENT_LEFT = 499  # nginx's status for a client that closed the connection before its answer

STATUS: dict[type[errors.GatewayError], int] = {
    errors.InvalidHttpError: 400,
    errors.InvalidJsonError: 400,
    errors.UnauthorizedError: 401,
    errors.ForbiddenError: 403,
    errors.ModelNotFoundError: 404,
    errors.BodyTimeoutError: 408,
    errors.BodyTooLargeError: 413,
    errors.ImageTooLargeError: 413,
    errors.EncodingUnsupportedError: 415,
    errors.InvalidRequestError: 422,
    errors.InvalidImageError: 422,
    errors.ClientLimitError: 429,
    errors.BackendAnswerInvalidError: 502,
    errors.BackendRefusedError: 502,
    errors.InputRefusedError: 502,
    errors.ModelUnsupportedError: 502,
    errors.BackendMemoryError: 503,
    errors.BackendUnavailableError: 503,
    errors.OverloadedError: 503,
    errors.ShuttingDownError: 503,
    errors.DeadlineExceededError: 504,
}
"""The one place where errors of the domain become HTTP."""

RETRY_AFTER_SECONDS = 1.0

HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Server": "tfserving-gateway",  # aiohttp would tell its release and Python's
    "X-Content-Type-Options": "nosniff",
}
"""On every answer: browsers shall neither guess, keep, frame nor run what is in it."""


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Name the request, time it, log it and count it; see ``keys`` for what handlers add."""
    loop = asyncio.get_running_loop()
    request[ARRIVED] = arrived = loop.time()
    offered = request.headers.get(ID_HEADER, "")
    request[REQUEST_ID] = request_id = (
        offered if SANE_ID.fullmatch(offered) else os.urandom(16).hex()
    )
    fields: dict[str, Any] = {}
    request[LOG_FIELDS] = fields
    status = CLIENT_LEFT
    try:
        response = await handler(request)
        response.headers.update(HEADERS)
        response.headers[ID_HEADER] = request_id
        status = response.status
        if request.app[ADMISSION].closing:  # else clients send their next request to who is gone
            response.force_close()
        return response
    finally:
        seconds = loop.time() - arrived
        route = request.match_info.route.name
        if route == "detect":
            request.app[METRICS].request(fields.get("model"), status, seconds)
        level = logging.INFO if route == "detect" or status >= 400 else logging.DEBUG
        if log.isEnabledFor(level):
            _log(request, level, status, seconds)


def _log(request: web.BaseRequest, level: int, status: int, seconds: float) -> None:
    line = {
        "request_id": request[REQUEST_ID],
        "method": request.method,
        "path": request.path,
        "status": status,
        "seconds": round(seconds, 6),
        "remote": request.remote,
        **request[LOG_FIELDS],
    }
    # As log.log() does, without the search of the stack for who called it.
    extra = {"request": line}
    log.handle(log.makeRecord(log.name, level, "", 0, "request", (), None, extra=extra))


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever was raised into the JSON that the interface promises."""
    try:
        return await handler(request)
    except errors.GatewayError as error:
        if isinstance(error, errors.OverloadedError):
            request.app[METRICS].rejected(error.reason)
            request[LOG_FIELDS]["reason"] = error.reason
        elif isinstance(error, errors.ShuttingDownError):
            request.app[METRICS].rejected(error.code)
        return _error(request, STATUS[type(error)], error.code, str(error), error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = (error.reason or "error").lower().replace(" ", "_")
        response = _error(request, error.status, code, _explain(request, error))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception:
        log.exception(
            "a defect of the gateway", extra={"request": {"request_id": request[REQUEST_ID]}}
        )
        return _error(request, 500, "internal_error", "the gateway failed; its log says why")


def _explain(request: web.Request, error: web.HTTPException) -> str:
    if error.status == 404:
        return f"there is nothing at {request.path}; detections are at POST /imageDetection"
    if error.status == 405:
        return f"{request.path} does not take {request.method}"
    return error.reason or "the request cannot be answered"


def refuse(request: web.BaseRequest, status: int, code: str, message: str) -> web.Response:
    """The answer, as of the middlewares, to what never reached them; it is logged."""
    request[REQUEST_ID], request[LOG_FIELDS] = os.urandom(16).hex(), {}
    response = _error(request, status, code, message)
    response.headers.update(HEADERS)
    response.headers[ID_HEADER] = request[REQUEST_ID]
    del request[LOG_FIELDS]["error"]  # it may quote what was sent
    if log.isEnabledFor(logging.INFO):
        _log(request, logging.INFO, status, 0.0)
    return response


def _error(
    request: web.BaseRequest,
    status: int,
    code: str,
    message: str,
    error: errors.GatewayError | None = None,
) -> web.Response:
    request[LOG_FIELDS]["code"] = code
    request[LOG_FIELDS]["error"] = message
    body: dict[str, object] = {"message": message, "code": code, "request_id": request[REQUEST_ID]}
    if isinstance(error, errors.InvalidRequestError):
        body["errors"] = error.errors
    response = web.Response(status=status, body=to_json(body), content_type="application/json")
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        wait = getattr(error, "retry_after", RETRY_AFTER_SECONDS)
        response.headers["Retry-After"] = str(max(1, math.ceil(wait)))
    return response
