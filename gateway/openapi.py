"""The interface described for programs in OpenAPI 3.1, from the models that read its JSON."""

from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from pydantic_core import to_json

from gateway.admission import PRIORITIES
from gateway.handlers import PRIORITY_HEADER, TIMEOUT_HEADER
from gateway.middleware import ID_HEADER, SANE_ID, STATUS
from gateway.schema import (
    DEFAULT_THRESHOLD,
    DetectionRequest,
    Detections,
    Failure,
    Health,
    Models,
    Readiness,
)

__all__ = ["describe", "route"]

INTERFACE_VERSION: Final = "1.0"

MEANINGS: Final = {
    400: "the body is empty or not JSON; the head is no HTTP, or has a line above 8190 bytes or"
    " more than 128 fields",
    401: "there are `api_keys`, and you have sent none of them",
    403: "your key is not for this model",
    404: "TensorFlow Serving has no such model, or it is still loading",
    408: "the body did not arrive in time, or came slower than `min_body_rate`",
    413: "more bytes or pixels than allowed, or more than 64 KiB of JSON outside its strings",
    415: "the body is compressed (`Content-Encoding`); a picture gains nothing by that",
    422: "a field is missing or wrong; `errors` maps each field to its reasons",
    429: "you have sent more than one client, or your key, may (`client_rate`, `client_share`)",
    500: "a defect of the gateway; its log has the trace",
    502: "TensorFlow Serving refused the input or answered something that is no set of detections",
    503: "try again, after the seconds in `Retry-After`",
    504: "no answer within `request_timeout`, or your `X-Request-Timeout`",
}
"""Of each status that a request for detections may get: as the README says it."""

WAITED_FOR: Final = (429, 503)
KEY_OR_NONE: Final[list[dict[str, list[str]]]] = [{}, {"bearer": []}, {"header": []}]
"""A key is asked for where there are ``api_keys``."""
MODELS: Final[dict[type[BaseModel], JsonSchemaMode]] = {
    DetectionRequest: "validation",
    Detections: "serialization",
    Failure: "serialization",
    Health: "serialization",
    Models: "serialization",
    Readiness: "serialization",
}


def route() -> web.RouteDef:
    """``GET /openapi.json``; the description is made here, once."""
    description = to_json(describe())

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=description, content_type="application/json")

    return web.get("/openapi.json", openapi)


def describe() -> dict[str, Any]:
    """The description as JSON values."""
    _, schemas = models_json_schema(
        list(MODELS.items()), ref_template="#/components/schemas/{model}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tfserving-gateway",
            "version": INTERFACE_VERSION,
            "description": "Object detection by TensorFlow Serving behind one plain HTTP call.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {
            "/imageDetection": {"post": _detect()},
            "/models": {"get": _models()},
            "/healthz": {
                "get": _get("health", "Whether the process is alive", {200: (Health, "It is")})
            },
            "/readyz": {
                "get": _get(
                    "readiness",
                    "Whether requests can be answered now",
                    {200: (Readiness, "They can"), 503: (Readiness, "They cannot; the reason")},
                )
            },
            "/metrics": {
                "get": _get("metrics", "For Prometheus", {200: (None, "In its text format")})
            },
            "/openapi.json": {
                "get": _get("openapi", "This description", {200: (dict, "OpenAPI 3.1")})
            },
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "headers": {
                "WWW-Authenticate": {
                    "description": "How to send a key",
                    "required": True,
                    "schema": {"const": "Bearer"},
                },
                ID_HEADER: {
                    "description": "The id of the request, yours or one that was made",
                    "required": True,
                    "schema": {"type": "string", "pattern": f"^{SANE_ID.pattern}$"},
                },
                "Retry-After": {
                    "description": "Seconds after which it may be worth to ask again",
                    "required": True,
                    "schema": {"type": "integer", "minimum": 1},
                },
            },
        },
    }


def _detect() -> dict[str, Any]:
    codes: dict[int, set[str]] = {400: {"invalid_http"}, 500: {"internal_error"}}
    for error, status in STATUS.items():
        codes.setdefault(status, set()).add(error.code)
    return {
        "operationId": "detect",
        "summary": "The objects on a picture",
        "description": "The body is JSON, whatever its Content-Type says. Without a `threshold`,"
        f" detections that score more than {DEFAULT_THRESHOLD} are returned.",
        "parameters": [
            _request_id(),
            {
                "name": TIMEOUT_HEADER,
                "in": "header",
                "description": "Seconds that you can wait, if less than `request_timeout`",
                "schema": {"type": "number", "exclusiveMinimum": 0},
            },
            {
                "name": PRIORITY_HEADER,
                "in": "header",
                "description": "Who is refused first when there is more than can be answered",
                "schema": {"enum": list(PRIORITIES), "default": "normal"},
            },
        ],
        "requestBody": {"required": True, "content": _json(_ref(DetectionRequest))},
        "security": KEY_OR_NONE,
        "responses": {
            "200": _response("What was found", _json(_ref(Detections))),
            **{str(status): _failure(status, sorted(codes[status])) for status in sorted(codes)},
            "default": _other(),
        },
    }


def _models() -> dict[str, Any]:
    name = {
        "name": "name",
        "in": "query",
        "description": "The models to describe, instead of those configured or asked for",
        "schema": {"type": "array", "items": {"type": "string"}},
    }
    operation = _get("models", "How models are asked", {200: (Models, "Each model")})
    operation["parameters"].append(name)
    operation["security"] = KEY_OR_NONE
    operation["responses"] |= {
        str(status): _failure(status, [code])
        for status, code in ((401, "unauthorized"), (403, "forbidden"))
    }
    return operation


def _get(
    operation: str, summary: str, answers: dict[int, tuple[type | None, str]]
) -> dict[str, Any]:
    responses = {}
    for status, (model, description) in answers.items():
        if model is None:
            content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
        else:
            content = _json(_ref(model) if issubclass(model, BaseModel) else {"type": "object"})
        responses[str(status)] = _response(description, content)
    return {
        "operationId": operation,
        "summary": summary,
        "parameters": [_request_id()],
        "responses": {**responses, "default": _other()},
    }


def _failure(status: int, codes: list[str]) -> dict[str, Any]:
    narrowed: dict[str, Any] = {"properties": {"code": {"enum": codes}}}
    if status == 422:
        narrowed["required"] = ["errors"]
    headers = ["Retry-After"] if status in WAITED_FOR else []
    headers += ["WWW-Authenticate"] if status == 401 else []
    content = _json({"allOf": [_ref(Failure), narrowed]})
    return _response(MEANINGS[status], content, *headers)


def _other() -> dict[str, Any]:
    return _response("No such path, or not with this method", _json(_ref(Failure)))


def _response(description: str, content: dict[str, Any], *headers: str) -> dict[str, Any]:
    names = (ID_HEADER, *headers)
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": content,
    }


def _request_id() -> dict[str, Any]:
    return {
        "name": ID_HEADER,
        "in": "header",
        "description": "Finds the request in the gateway's log; any that does not fit is replaced",
        "schema": {"type": "string", "pattern": f"^{SANE_ID.pattern}$"},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _ref(model: type) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
