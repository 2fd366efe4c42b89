"""The description of the interface: valid, complete, and what is answered."""

import base64
import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from gateway.handlers import PRIORITY_HEADER, TIMEOUT_HEADER
from gateway.middleware import STATUS
from gateway.models import Detection
from gateway.openapi import describe
from gateway.schema import detections_json

README = Path(__file__).parents[2] / "README.md"
DESCRIPTION = describe()
DETECT = DESCRIPTION["paths"]["/imageDetection"]["post"]


def check(value, path: str, status: int, method: str = "get") -> None:
    """Hold a JSON value against what the description says of an answer."""
    responses = DESCRIPTION["paths"][path][method]["responses"]
    content = responses.get(str(status), responses["default"])["content"]
    (schema,) = [content["application/json"]["schema"]]
    components = {"components": DESCRIPTION["components"]}
    Draft202012Validator({**schema, **components}).validate(value)


async def test_it_is_served_and_valid(gateway):
    """GET /openapi.json answers the description, and that is OpenAPI 3.1."""
    response = await gateway.get("/openapi.json")
    assert response.content_type == "application/json"
    served = await response.json()
    assert served == json.loads(json.dumps(DESCRIPTION))
    assert served["openapi"].startswith("3.1.")
    validate(served)


async def test_every_route_is_described(gateway):
    """No path or method of the application is missing, and none is made up."""
    routes = {
        (route.resource.canonical, route.method.lower())
        for route in gateway.app.router.routes()
        if route.method != "HEAD"
    }
    described = {
        (path, method) for path, methods in DESCRIPTION["paths"].items() for method in methods
    }
    assert routes == described


def test_statuses_and_codes_are_those_of_the_readme():
    """Each row of the README's table of errors is in the description, in the same words."""
    table = README.read_text().partition("| status | `code` | meaning |\n")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[1:]]
    told = {
        status: (response["description"], response["content"]["application/json"]["schema"])
        for status, response in DETECT["responses"].items()
        if status not in ("200", "default")
    }
    meant = {
        status: (meaning, sorted(re.findall(r"`(\w+)`", codes)))
        for status, codes, meaning in rows
        if status != "404, 405"  # no path or method of the description
    }
    assert {
        status: (meaning, schema["allOf"][1]["properties"]["code"]["enum"])
        for status, (meaning, schema) in told.items()
    } == meant
    assert set(told) == {str(status) for status in STATUS.values()} | {"500"}


async def test_keys_are_described(start, tmp_path):
    """Where keys are asked for, the answer says how to send one; the description needs none."""
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"[{{name: a, sha256: {'a' * 64}}}]")
    gateway = await start(api_keys=str(keys))
    for path, method in (("/models", "get"), ("/imageDetection", "post")):
        response = await gateway.request(method, path)
        assert response.status == 401
        check(await response.json(), path, 401, method)
        operation = DESCRIPTION["paths"][path][method]
        assert set(DESCRIPTION["components"]["securitySchemes"]) == {
            name for way in operation["security"] for name in way
        }
    assert (await gateway.get("/openapi.json")).status == 200


def test_headers_are_described():
    """What a request may carry, and what comes back with an answer."""
    names = {parameter["name"] for parameter in DETECT["parameters"]}
    assert names == {"X-Request-ID", TIMEOUT_HEADER, PRIORITY_HEADER}
    for status, response in DETECT["responses"].items():
        told = set(response["headers"])
        more = {"401": {"WWW-Authenticate"}, "429": {"Retry-After"}, "503": {"Retry-After"}}
        assert told == {"X-Request-ID"} | more.get(status, set())


def test_what_is_written_is_what_is_described():
    """The answer has the described fields, all and no others, with a label or without."""
    found = [Detection(7, 0.9, 0.0, 0.25, 1.0, 0.75), Detection(1, 1.5, 0, 0, 0, 0)]
    answer = json.loads(
        detections_json(found, {7: "cat"}, controller_time=1, tfserve_time=0.5, model_version=3)
    )
    check(answer, "/imageDetection", 200, "post")
    schemas = DESCRIPTION["components"]["schemas"]
    assert answer.keys() == schemas["Detections"]["properties"].keys()
    for one in answer["detections"]:
        assert one.keys() == schemas["DetectedObject"]["properties"].keys()
        assert one["hit_box"].keys() == schemas["HitBox"]["properties"].keys()
    for schema in ("Detections", "DetectedObject", "HitBox"):
        assert set(schemas[schema]["required"]) == schemas[schema]["properties"].keys()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"image": "no base64!"}, 422),
        ({"threshold": 2}, 422),
        ({"image": base64.b64encode(b"GIF89a").decode()}, 422),
        ({"model_name": "ghost"}, 404),
    ],
    ids=str,
)
async def test_answers_are_as_described(gateway, ask, change, status):
    """Detections and refusals, as they come over HTTP."""
    got, answer = await ask(gateway, **change)
    assert got == status
    check(answer, "/imageDetection", status, "post")


async def test_operations_are_as_described(start, ask, serving):
    """Health, readiness and models, in good days and in bad ones; and what is not there."""
    gateway = await start(models={"colors": "coco", "ghost": ""})
    await ask(gateway)
    for path in ("/healthz", "/readyz", "/models"):
        response = await gateway.get(path)
        check(await response.json(), path, response.status)
    response = await gateway.get("/imageDetection")
    check(await response.json(), "/imageDetection", response.status, "post")
    await serving.stop()
    for path in ("/readyz", "/models"):
        response = await gateway.get(path)
        assert response.status == (503 if path == "/readyz" else 200)
        check(await response.json(), path, response.status)


def test_limits_of_a_request_are_described():
    """What a client may check before it sends is what the gateway checks."""
    request = DESCRIPTION["components"]["schemas"]["DetectionRequest"]
    validator = Draft202012Validator(request)
    assert validator.is_valid({"model_name": "a", "image": "aGVs", "threshold": 1, "more": 1})
    assert request["required"] == ["model_name", "image"]
    for wrong in (
        {"model_name": ""},
        {"model_name": "a" * 257},
        {"image": ""},
        {"threshold": 1.1},
        {"threshold": None},
        {"model_version": -1},
        {"model_version": 1 << 63},
        {"version_label": ""},
    ):
        assert not validator.is_valid({"model_name": "a", "image": "aGVs", **wrong})
