"""The simulated server, driven by the official stubs over real gRPC."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import NamedTuple

import grpc
import numpy as np
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from batching.simulation import run_virtually
from bench import marks
from bench.simulated_serving import Behaviour, SimulatedServing


class Setup(NamedTuple):
    """A server without cost, and the official client."""

    serving: SimulatedServing
    client: PredictionServiceStub
    channel: grpc.aio.Channel


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    """Start the server on a free port."""
    serving = SimulatedServing(Behaviour(cost=(0, 0)))
    server = grpc.aio.server()
    serving.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Setup(serving, PredictionServiceStub(channel), channel)
    await server.stop(None)


def marked(code: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Return a picture that is nothing but its code."""
    picture = np.zeros((height, width, 3), np.uint8)
    step = marks.SHARE * marks.GRID
    for i, colour in enumerate(marks.colours(code)):
        row, column = divmod(i, marks.GRID)
        down = slice(row * height // step, (row + 1) * height // step)
        picture[down, column * width // step : (column + 1) * width // step] = colour
    return picture


def request(*pictures: np.ndarray, model: str = "full", **spec: str) -> PredictRequest:
    """Return the official request for ``pictures``."""
    batch = np.stack(pictures)
    message = PredictRequest()
    message.model_spec.name = model
    message.model_spec.signature_name = spec.get("signature", "")
    tensor = message.inputs[spec.get("name", "inputs")]
    tensor.dtype = types_pb2.DT_UINT8
    for size in batch.shape:
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_content = batch.tobytes()
    return message


async def test_each_picture_gets_its_own_answer(setup: Setup) -> None:
    """Row i of every output belongs to picture i."""
    codes = [7, 4095, 0]
    response = await setup.client.Predict(request(*map(marked, codes)))
    boxes = np.array(response.outputs["detection_boxes"].float_val).reshape(3, marks.ROWS, 4)
    scores = np.array(response.outputs["detection_scores"].float_val).reshape(3, marks.ROWS)
    classes = np.array(response.outputs["detection_classes"].float_val).reshape(3, marks.ROWS)
    for i, code in enumerate(codes):
        for k, row in enumerate(marks.detections(code)):
            assert classes[i, k] == row.class_id
            assert scores[i, k] == pytest.approx(row.score)
            assert boxes[i, k] == pytest.approx((row.y1, row.x1, row.y2, row.x2))
        assert (scores[i, len(marks.detections(code)) :] < 0.1).all()


async def test_the_output_filter_is_kept(setup: Setup) -> None:
    """Only the outputs that were asked for are sent."""
    message = request(marked(1))
    message.output_filter.append("detection_scores")
    assert list((await setup.client.Predict(message)).outputs) == ["detection_scores"]


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (request(marked(1), model="nothing"), grpc.StatusCode.NOT_FOUND),
        (request(marked(1), model="ssd"), grpc.StatusCode.INVALID_ARGUMENT),
        (request(marked(1), name="images"), grpc.StatusCode.INVALID_ARGUMENT),
        (request(marked(1), signature="other"), grpc.StatusCode.FAILED_PRECONDITION),
        (request(*[marked(1)] * 5), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_serving_would_refuse_is_refused(
    setup: Setup, message: PredictRequest, status: grpc.StatusCode
) -> None:
    """Unknown model, wrong shape, input or signature, and a batch over the limit."""
    setup.serving.behaviour.max_batch_size = 4
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await setup.client.Predict(message)
    assert caught.value.code() == status


@pytest.mark.parametrize(
    ("fault", "status"),
    [("refuse", grpc.StatusCode.UNAVAILABLE), ("error_rate", grpc.StatusCode.INTERNAL)],
)
async def test_faults_come_and_go(setup: Setup, fault: str, status: grpc.StatusCode) -> None:
    """A fault lasts until it is lifted."""
    setup.serving.behaviour.change(fault, "1")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await setup.client.Predict(request(marked(1)))
    assert caught.value.code() == status
    setup.serving.behaviour.change(fault, "0")
    assert (await setup.client.Predict(request(marked(1)))).outputs


async def test_a_hung_server_answers_nothing_until_it_is_released(setup: Setup) -> None:
    """Neither Predict nor GetModelStatus, and both afterwards."""
    setup.serving.behaviour.hang = True
    setup.serving.apply()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await setup.client.Predict(request(marked(1)), timeout=0.05)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    ask = GetModelStatusRequest()
    ask.model_spec.name = "ssd"
    waiting = asyncio.ensure_future(ModelServiceStub(setup.channel).GetModelStatus(ask))
    setup.serving.behaviour.hang = False
    setup.serving.apply()
    assert (await waiting).model_version_status


def test_the_device_takes_calls_one_after_the_other() -> None:
    """Calls that come together wait for a free device: two devices halve the wait."""

    async def run(serving: SimulatedServing) -> float:
        await serving.run("full", 1)
        return 1000 * asyncio.get_running_loop().time()

    async def main(serving: SimulatedServing) -> list[float]:
        return await asyncio.gather(*(run(serving) for _ in range(4)))

    for devices, ends in ((1, [3, 6, 9, 12]), (2, [3, 3, 6, 6])):
        serving = SimulatedServing(Behaviour(cost=(1, 2), devices=devices))
        assert run_virtually(main(serving)) == pytest.approx(ends)
        assert serving.counts.images == 4
        assert serving.counts.busy_seconds == pytest.approx(0.012)


async def test_the_control_port_changes_and_reports(setup: Setup) -> None:
    """POST changes settings, a mistake is named, and GET counts calls by batch size."""
    control = await asyncio.start_server(setup.serving.control, "127.0.0.1", 0)
    port = control.sockets[0].getsockname()[1]

    async def ask(method: str, body: str = "") -> tuple[int, dict[str, object]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), json.loads(answer)

    async with control:
        assert (await ask("POST", "cost=0,0&slow=2.5&devices=2"))[0] == 200
        await setup.client.Predict(request(marked(1), marked(2)))
        status, seen = await ask("GET")
        assert (status, seen["slow"], seen["devices"]) == (200, 2.5, 2)
        assert (seen["calls"], seen["images"], seen["batches"]) == (1, 2, {"2": 1})
        status, seen = await ask("POST", "speed=1")
        assert (status, seen["message"]) == (400, "no such setting: speed")
