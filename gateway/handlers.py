"""The routes."""

import asyncio
import math
from contextlib import AbstractContextManager
from typing import Any, Final, cast

from aiohttp import web
from pydantic_core import to_json

from gateway.access import Key
from gateway.admission import PRIORITIES, Place, Priority
from gateway.errors import (
    BackendUnavailableError,
    BodyTimeoutError,
    BodyTooLargeError,
    DeadlineExceededError,
    EncodingUnsupportedError,
    GatewayError,
    InvalidRequestError,
    ModelNotFoundError,
)
from gateway.keys import (
    ACCESS,
    ADMISSION,
    ARRIVED,
    CLIENT,
    CLIENTS,
    DETECTOR,
    LOG_FIELDS,
    METRICS,
    MODELS,
    SETTINGS,
)
from gateway.metrics import CONTENT_TYPE
from gateway.schema import detections_json, parse_request
from gateway.tfserving import ModelChoice, VersionState

__all__ = ["admin_routes", "routes"]

TIMEOUT_HEADER: Final = "X-Request-Timeout"
PRIORITY_HEADER: Final = "X-Priority"
READINESS_TIMEOUT = 2.0
MOST_NAMES = 100  # that one request may ask for the state of
FIRST_BYTES = 1 << 16  # of a body, for which there must be room before any has come


def routes() -> list[web.RouteDef]:
    """What is for clients."""
    return [
        web.post("/imageDetection", image_detection, name="detect"),
        web.get("/models", models),
    ]


def admin_routes() -> list[web.RouteDef]:
    """What is for operators and their machines."""
    return [
        web.get("/healthz", healthz),
        web.get("/readyz", readyz),
        web.get("/metrics", metrics),
    ]


async def image_detection(request: web.Request) -> web.Response:
    """One picture: admitted, read, detected, answered."""
    app, arrived = request.app, request[ARRIVED]
    key = _key(request)
    timeout, priority = _check_headers(request)
    deadline = arrived + timeout
    reading = True
    announced = min(request.content_length or 0, FIRST_BYTES)
    with (
        _enter(request, key),
        app[ADMISSION].enter(announced, priority) as place,
    ):
        try:
            async with asyncio.timeout_at(deadline):
                now = asyncio.get_running_loop().time()
                app[DETECTOR].forecast.refuse_any(place, deadline, now)
                wanted = parse_request(await _read_body(request, place))
                reading = False
                request[LOG_FIELDS]["model"] = wanted.model_name
                if key is not None:
                    key.check_model(wanted.model_name)
                found = await app[DETECTOR].detect(
                    wanted.choice,
                    wanted.image,
                    threshold=wanted.threshold,
                    place=place,
                    deadline=deadline,
                )
        except TimeoutError as error:
            if reading:
                reason = str(error) or "the body did not arrive in time"
                raise BodyTimeoutError(reason) from None
            raise DeadlineExceededError(
                f"no answer within the {timeout:g} s that the request was given"
            ) from None
    request[LOG_FIELDS]["detections"] = len(found.detections)
    request[LOG_FIELDS]["tfserve_seconds"] = round(found.tfserve_time, 6)
    answer = detections_json(
        found.detections,
        app[MODELS].labels(wanted.model_name),
        controller_time=asyncio.get_running_loop().time() - arrived,
        tfserve_time=found.tfserve_time,
        model_version=found.model_version,
    )
    return web.Response(body=answer, content_type="application/json")


def _key(request: web.Request) -> Key | None:
    """Whose key the request carries, where one is needed; its name is told in the log."""
    access = request.app[ACCESS]
    if not access.needed:
        return None
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        secret = request.headers.get("X-API-Key", "")
    key = access.identify(secret.strip())
    request[LOG_FIELDS]["client"] = key.name
    return key


def _enter(request: web.Request, key: Key | None) -> AbstractContextManager[None]:
    """Count the request among those of its client: its key's, its header's or its address's."""
    clients, settings = request.app[CLIENTS], request.app[SETTINGS]
    if key is not None:
        return clients.enter(key.name, rate=key.rate, places=settings.places(key.share))
    header = settings.client_header
    named = request.headers.get(header) if header else None
    return clients.enter(f"{header} {named}" if named else request.remote or "")


def _check_headers(request: web.Request) -> tuple[float, Priority]:
    """The seconds that the request is given, and its priority."""
    settings, headers = request.app[SETTINGS], request.headers
    if (request.content_length or 0) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    if headers.get("Content-Encoding", "identity") != "identity":
        raise EncodingUnsupportedError("send the body as it is, without Content-Encoding")
    errors, timeout = {}, settings.request_timeout
    if TIMEOUT_HEADER in headers:
        try:
            wanted = float(headers[TIMEOUT_HEADER])
        except ValueError:
            wanted = 0.0
        if not 0 < wanted < math.inf:
            errors[TIMEOUT_HEADER] = ["is not a number of seconds above 0"]
        timeout = min(timeout, wanted)
    priority = headers.get(PRIORITY_HEADER, "normal")
    if priority not in PRIORITIES:
        errors[PRIORITY_HEADER] = ["is none of " + ", ".join(PRIORITIES)]
    if errors:
        raise InvalidRequestError(errors)
    return timeout, cast("Priority", priority)


async def _read_body(request: web.Request, place: Place) -> bytes:
    """The body; what has come of it is held, not what was announced."""
    limit = request.app[SETTINGS].max_body_bytes
    chunks, size = [], 0
    async for chunk in request.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        if size > FIRST_BYTES:
            place.hold(size)
    return b"".join(chunks)


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the body is longer than max_body_bytes, {limit} bytes")


async def models(request: web.Request) -> web.Response:
    """The models that are configured or were asked for, or those of ``?name=``, and their state."""
    app, key = request.app, _key(request)
    names = list(dict.fromkeys(request.query.getall("name", [])))
    if len(names) > MOST_NAMES:
        raise InvalidRequestError({"name": [f"is given more than {MOST_NAMES} times"]})
    if key is not None:
        for name in names:
            key.check_model(name)
    if not names:
        known = {*app[MODELS], *app[DETECTOR].catalog.seen}
        names = sorted(known if key is None or key.models is None else known & key.models)
    with _enter(request, key):
        found = await asyncio.gather(*(_describe(app, name) for name in names))
    return web.Response(body=to_json({"models": found}), content_type="application/json")


async def _describe(app: web.Application, name: str) -> dict[str, Any]:
    described: dict[str, Any] = {"name": name, "labels": len(app[MODELS].labels(name))}
    try:
        async with asyncio.timeout(READINESS_TIMEOUT):
            versions = await app[CLIENT].status(name, timeout=READINESS_TIMEOUT)
            described["versions"] = {str(one.version): one.state.name for one in versions}
            model = await app[DETECTOR].catalog.get(ModelChoice(name))
    except TimeoutError:
        return {**described, "problem": "TensorFlow Serving did not answer in time"}
    except GatewayError as error:
        return {**described, "problem": str(error)}
    described |= {
        "version": model.version,
        "signature": model.call.signature_name,
        "input": {
            "name": model.call.input_name,
            "takes": "encoded pictures" if model.encoded else "uint8 pixels",
            "height": model.size and model.size[0],
            "width": model.size and model.size[1],
        },
        "batches": model.batches,
    }
    now = asyncio.get_running_loop().time()
    if (learnt := app[DETECTOR].forecast.learnt(name, now)) is not None:
        described["learnt"] = {
            "expected_s": learnt.expected_s,
            # Addresses are not for clients; /metrics, which is for operators, has them.
            "servers": [known._asdict() for known in learnt.servers.values()],
        }
    return described


async def healthz(request: web.Request) -> web.Response:
    """The process is alive and its event loop turns."""
    return web.json_response({"status": "alive"})


async def readyz(request: web.Request) -> web.Response:
    """Whether requests can be answered now; if not, why."""
    app = request.app
    if app[ADMISSION].closing:
        return web.json_response({"ready": False, "reason": "shutting down"}, status=503)
    names = [*app[MODELS]]
    states = dict(
        zip(names, await asyncio.gather(*(_state(app, name) for name in names)), strict=True)
    )
    if names:
        ready = "AVAILABLE" in states.values()
        reason = "; ".join(f"model {name!r} is {state}" for name, state in states.items())
    else:  # any answer, if only that there is no model without a name, proves that it is there
        ready = await _state(app, "") != "unreachable"
        reason = "TensorFlow Serving cannot be reached"
    if ready and app[CLIENT].left_out == app[CLIENT].count:
        ready, reason = False, "TensorFlow Serving is being warmed up"
    if not ready and (failure := app[CLIENT].tls_failure) is not None:
        reason += f"; TLS with TensorFlow Serving: {failure}"
    answer = {"ready": ready, "models": states} | ({} if ready else {"reason": reason})
    return web.json_response(answer, status=200 if ready else 503)


async def _state(app: web.Application, name: str) -> str:
    try:
        versions = await app[CLIENT].status(name, timeout=READINESS_TIMEOUT)
    except ModelNotFoundError:
        return "unknown to TensorFlow Serving"
    except (BackendUnavailableError, DeadlineExceededError):
        return "unreachable"
    except GatewayError:
        return "not served"
    if any(one.state is VersionState.AVAILABLE for one in versions):
        return "AVAILABLE"
    return versions[0].state.name if versions else "not served"


async def metrics(request: web.Request) -> web.Response:
    """For Prometheus."""
    return web.Response(body=request.app[METRICS].expose(), headers={"Content-Type": CONTENT_TYPE})
