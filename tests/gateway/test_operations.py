"""What an operator sees: health, readiness, metrics, models, logs."""

import asyncio
import json
import logging

import grpc
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import get_model_status_pb2

from gateway.app import drain
from gateway.keys import ADMISSION

LOADING = get_model_status_pb2.ModelVersionStatus.LOADING


async def ready(gateway):
    response = await gateway.get("/readyz")
    return response.status, await response.json()


async def test_alive_whatever_happens(gateway, serving):
    """/healthz speaks of this process alone."""
    await serving.stop()
    response = await gateway.get("/healthz")
    assert (response.status, await response.json()) == (200, {"status": "alive"})


async def test_ready_when_a_configured_model_is_available(start, serving, fake_model, shows):
    """/readyz is 200 as soon as one configured model is AVAILABLE, and tells the state of each."""
    serving.models["slow"] = fake_model(state=LOADING)
    gateway = await start(models={"colors": "", "slow": "", "ghost": ""})
    await shows(gateway, "gateway_replicas_left_out", 0)  # it is warm
    status, answer = await ready(gateway)
    assert status == 200
    assert answer == {
        "ready": True,
        "models": {
            "colors": "AVAILABLE",
            "slow": "LOADING",
            "ghost": "unknown to TensorFlow Serving",
        },
    }
    del serving.models["colors"]
    status, answer = await ready(gateway)
    assert (status, answer["ready"]) == (503, False)
    assert "'slow' is LOADING" in answer["reason"]


async def test_ready_without_configured_models(gateway, serving, shows):
    """With no model configured, that TensorFlow Serving answers is enough."""
    await shows(gateway, "gateway_replicas_left_out", 0)
    assert (await ready(gateway))[0] == 200
    serving.abort = (grpc.StatusCode.UNAVAILABLE, "")
    status, answer = await ready(gateway)
    assert (status, answer["reason"]) == (503, "TensorFlow Serving cannot be reached")
    serving.abort = (grpc.StatusCode.INTERNAL, "")
    assert (await ready(gateway))[0] == 200


async def test_not_ready_when_unreachable(start, serving):
    """With TensorFlow Serving gone, /readyz says so for each model."""
    gateway = await start(models={"colors": ""})
    await serving.stop()
    status, answer = await ready(gateway)
    assert status == 503
    assert answer["models"] == {"colors": "unreachable"}


async def test_models(start, serving, fake_model, ask):
    """/models shows how each model is asked, or what the problem is."""
    serving.models |= {
        "tf2": fake_model(shape=(1, -1, -1, 3), input_name="input_tensor", version=3),
        "text": fake_model(dtype=types_pb2.DT_STRING, shape=(-1,)),
        "fixed": fake_model(shape=(-1, 300, 200, 3), signature="detection_signature"),
        "float": fake_model(dtype=types_pb2.DT_FLOAT),
    }
    gateway = await start(models={"colors": "coco", "tf2": ""})
    found = (await (await gateway.get("/models")).json())["models"]
    assert [model["name"] for model in found] == ["colors", "tf2"]
    assert found[0] == {
        "name": "colors",
        "labels": 80,
        "versions": {"1": "AVAILABLE"},
        "version": 1,
        "signature": "serving_default",
        "input": {"name": "inputs", "takes": "uint8 pixels", "height": None, "width": None},
        "batches": True,
    }
    assert (found[1]["batches"], found[1]["version"]) == (False, 3)
    await ask(gateway, model_name="fixed")
    asked = (await (await gateway.get("/models")).json())["models"]
    assert [model["name"] for model in asked] == ["colors", "fixed", "tf2"]
    response = await gateway.get("/models?name=text&name=fixed&name=float&name=ghost")
    text, fixed, wrong, ghost = (await response.json())["models"]
    assert text["input"]["takes"] == "encoded pictures"
    assert (fixed["input"]["height"], fixed["input"]["width"]) == (300, 200)
    assert fixed["signature"] == "detection_signature"
    assert "type float" in wrong["problem"]
    assert "'ghost'" in ghost["problem"]


async def test_metrics(gateway, ask, serving):
    """What was sent is what is counted, by model and status; a made-up name is no label."""
    for model, threshold in [("colors", 0), ("colors", 0), ("colors", 9), ("ghost-1", 0)]:
        await ask(gateway, model_name=model, threshold=threshold)
    await gateway.get("/healthz")
    response = await gateway.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    lines = (await response.text()).splitlines()
    for line in (
        'gateway_requests_total{model="colors",status="200"} 2.0',
        'gateway_requests_total{model="unknown",status="422"} 1.0',
        'gateway_requests_total{model="unknown",status="404"} 1.0',
        'gateway_controller_seconds_count{model="colors"} 2.0',
        'gateway_tfserve_seconds_count{model="colors"} 2.0',
        'gateway_decode_seconds_count{model="colors"} 2.0',
        'gateway_queue_seconds_count{model="colors"} 2.0',
        'gateway_batch_size_sum{model="colors"} 2.0',
        "gateway_queue_depth 0.0",
        "gateway_batches_in_flight 0.0",
        "gateway_requests_inside 0.0",
        "gateway_pending_bytes 0.0",
    ):
        assert line in lines
    assert not [line for line in lines if "ghost" in line]


@pytest.fixture
def requests_logged(caplog):
    caplog.set_level(logging.INFO, "gateway")
    return lambda: [record.request for record in caplog.records if record.message == "request"]


async def test_one_log_line_a_request(gateway, ask, requests_logged):
    """A request for detections leaves one line with its id and its end; a health check none."""
    await ask(gateway, headers={"X-Request-ID": "abc"})
    await ask(gateway, model_name="ghost")
    await gateway.get("/healthz")
    good, bad = requests_logged()
    assert good["request_id"] == "abc"
    assert (good["status"], good["model"], good["detections"]) == (200, "colors", 1)
    assert good["seconds"] >= good["tfserve_seconds"] > 0
    assert (bad["status"], bad["code"]) == (404, "model_not_found")


async def test_a_defect_of_ours_is_500_and_tells_nothing(gateway, ask, serving, monkeypatch):
    """An unforeseen exception is logged with its trace and answered without it."""

    def explode(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("gateway.predict.split_rows", explode)
    status, answer = await ask(gateway)
    assert (status, answer["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(answer)
    monkeypatch.undo()
    assert (await ask(gateway))[0] == 200


async def test_draining_takes_its_time_once(start, shows):
    """A request that cannot be ended holds the stop up once, not at every step of it."""
    gateway = await start(drain_timeout=0.05)
    _, writer = await asyncio.open_connection(gateway.server.host, gateway.server.port)
    writer.write(b"POST /imageDetection HTTP/1.1\r\nHost: gateway\r\nContent-Length: 9\r\n\r\n")
    await shows(gateway, "gateway_requests_inside", 1)
    await drain(gateway.app)
    assert gateway.app[ADMISSION].inside == 1
    async with asyncio.timeout(0):  # no wait is left, not even a short one
        await drain(gateway.app)
    writer.close()
    await writer.wait_closed()


async def test_unready_before_it_refuses(start, ask):
    """During drain_delay /readyz says no and requests are still answered; after it they are not."""
    gateway = await start(drain_delay=3600)
    draining = asyncio.ensure_future(drain(gateway.app))
    await asyncio.sleep(0)
    async with gateway.get("/readyz") as response:
        assert (response.status, (await response.json())["reason"]) == (503, "shutting down")
    assert (await ask(gateway))[0] == 200
    draining.cancel()
    another = await start(drain_delay=0.01)
    await drain(another.app)
    assert (await ask(another))[1]["code"] == "shutting_down"


async def test_clients_move_away_while_it_drains(start, photo):
    """From the stop's signal on every answer closes its connection, so that no client sends its
    next request to a gateway that will be gone."""
    gateway = await start(drain_delay=3600)
    body = {"model_name": "colors", "image": photo()}
    async with gateway.post("/imageDetection", json=body) as response:
        assert "Connection" not in response.headers
    draining = asyncio.ensure_future(drain(gateway.app))
    await asyncio.sleep(0)
    for path in ("/imageDetection", "/nowhere"):
        async with gateway.post(path, json=body) as response:
            assert response.headers["Connection"] == "close"
    async with gateway.get("/readyz") as response:
        assert response.headers["Connection"] == "close"
    draining.cancel()
