"""A TensorFlow Serving in process: real gRPC, the official messages, behaviour on demand; and
processes of the command."""

import asyncio
import base64
import io
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import Message
from PIL import Image
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

Outputs = Mapping[str, np.ndarray]
OPEN = (-1, -1, -1, 3)


def color_detections(images: np.ndarray) -> Outputs:
    """One detection a picture, told by its colour: class from red, box from green and blue."""
    n = len(images)
    boxes = np.zeros((n, 100, 4), np.float32)
    scores = np.zeros((n, 100), np.float32)
    classes = np.ones((n, 100), np.float32)
    for row, image in enumerate(images):
        red, green, blue = image.reshape(-1, 3).mean(axis=0)
        boxes[row, 0] = (0.25, green / 512, 0.75, 0.5 + blue / 512)
        scores[row, 0] = 0.9
        classes[row, 0] = round(float(red) / 10)
    return {
        "detection_boxes": boxes,
        "detection_scores": scores,
        "detection_classes": classes,
        "num_detections": np.ones(n, np.float32),
        "raw_detection_scores": np.zeros((n, 2000, 91), np.float32),
    }


def string_detections(strings: np.ndarray) -> Outputs:
    """As ``color_detections``, for a model that decodes its pictures itself."""
    return color_detections(
        np.stack([tf.io.decode_image(data, channels=3).numpy() for data in strings])
    )


@dataclass
class FakeModel:
    """A model of the fake: its signature, and the function from input to outputs."""

    detect: Callable[[np.ndarray], Outputs] = color_detections
    version: int = 1
    signature: str = "serving_default"
    input_name: str = "inputs"
    tensor_name: str = "image_tensor:0"
    dtype: int = types_pb2.DT_UINT8
    shape: tuple[int, ...] | None = OPEN
    outputs: tuple[str, ...] = (
        "detection_boxes",
        "detection_scores",
        "detection_classes",
        "num_detections",
        "raw_detection_scores",
    )
    state: int = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    as_content: bool = False

    def signature_map(self) -> get_model_metadata_pb2.SignatureDefMap:
        definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
        info = definition.inputs[self.input_name]
        info.name, info.dtype = self.tensor_name, self.dtype
        if self.shape is None:
            info.tensor_shape.unknown_rank = True
        else:
            for size in self.shape:
                info.tensor_shape.dim.add(size=size)
        for name in self.outputs:
            definition.outputs[name].name = f"{name}:0"
            definition.outputs[name].dtype = types_pb2.DT_FLOAT
        return get_model_metadata_pb2.SignatureDefMap(signature_def={self.signature: definition})


@dataclass
class FakeServing(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    """Serves ``models``; records the input of each Predict, and its client's certificate; fails,
    waits or lies when told to."""

    models: dict[str, FakeModel] = field(default_factory=dict)
    address: str = ""
    batches: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    requests: list[predict_pb2.PredictRequest] = field(default_factory=list)
    metadata_calls: int = 0
    abort: tuple[grpc.StatusCode, str] | None = None
    refuse: Callable[[np.ndarray], tuple[grpc.StatusCode, str] | None] = lambda images: None
    gate: asyncio.Event | None = None
    metadata_gate: asyncio.Event | None = None
    status_gate: asyncio.Event | None = None
    metadata_asked: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    certificates: list[bytes] = field(default_factory=list)
    server: Any = None

    async def start(
        self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(self, self.server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(self, self.server)
        if credentials is None:
            port = self.server.add_insecure_port(address)
        else:
            port = self.server.add_secure_port(address, credentials)
        self.address = f"127.0.0.1:{port}"
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(grace=None)

    async def _model(self, spec: Any, context: Any) -> FakeModel:
        if self.abort is not None:
            await context.abort(*self.abort)
        model = self.models.get(spec.name)
        if spec.version_label:
            model = self.models.get(f"{spec.name}@{spec.version_label}")
            if model is None:
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"Unrecognized servable version label: {spec.version_label}",
                )
        elif spec.HasField("version") and (model is None or model.version != spec.version.value):
            model = self.models.get(f"{spec.name}:{spec.version.value}")
        if model is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})"
            )
        return model

    async def Predict(self, request: predict_pb2.PredictRequest, context: Any) -> Message:  # noqa: N802 - gRPC's name
        self.requests.append(request)
        self.certificates += context.auth_context().get("x509_pem_cert", [])
        self.arrived.release()
        if self.gate is not None:
            await self.gate.wait()
        model = await self._model(request.model_spec, context)
        if request.model_spec.signature_name != model.signature:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "Serving signature not found")
        if list(request.inputs) != [model.input_name]:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input does not match signature")
        images = tf.make_ndarray(request.inputs[model.input_name])
        self.batches.append((request.model_spec.name, images.shape))
        if (refusal := self.refuse(images)) is not None:
            await context.abort(*refusal)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = model.version
        for name, value in model.detect(images).items():
            if request.output_filter and name not in request.output_filter:
                continue
            if model.as_content:
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            else:
                tensor = response.outputs[name]
                tensor.dtype = types_pb2.DT_FLOAT
                for size in value.shape:
                    tensor.tensor_shape.dim.add(size=size)
                tensor.float_val.extend(value.ravel().tolist())
        return response

    async def GetModelMetadata(self, request: Any, context: Any) -> Message:  # noqa: N802 - gRPC's name
        self.metadata_calls += 1
        self.metadata_asked.release()
        if self.metadata_gate is not None:
            await self.metadata_gate.wait()
        model = await self._model(request.model_spec, context)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = model.version
        response.metadata["signature_def"].Pack(model.signature_map())
        return response

    async def GetModelStatus(self, request: Any, context: Any) -> Message:  # noqa: N802 - gRPC's name
        if self.status_gate is not None:
            await self.status_gate.wait()
        model = await self._model(request.model_spec, context)
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=model.version, state=model.state)
        return response


@pytest.fixture
async def serving() -> AsyncIterator[FakeServing]:
    """A running fake with one model, ``colors``."""
    fake = FakeServing({"colors": FakeModel()})
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def servings() -> AsyncIterator[Callable[[int], Awaitable[list[FakeServing]]]]:
    """Start as many fakes as are asked for, each with the model ``colors``."""
    started: list[FakeServing] = []

    async def start(count: int) -> list[FakeServing]:
        fakes = [FakeServing({"colors": FakeModel()}) for _ in range(count)]
        for fake in fakes:
            await fake.start()
        started.extend(fakes)
        return fakes

    yield start
    for fake in started:
        await fake.stop()


@pytest.fixture
def fake_model() -> type[FakeModel]:
    return FakeModel


@pytest.fixture
def decode_strings() -> Callable[[np.ndarray], Outputs]:
    return string_detections


@pytest.fixture
def photo() -> Callable[..., str]:
    """A picture of one colour, as base64 of an image file."""

    def make(
        color: tuple[int, int, int] = (30, 40, 50),
        size: tuple[int, int] = (64, 48),
        file_format: str = "PNG",
    ) -> str:
        file = io.BytesIO()
        Image.new("RGB", size, color).save(file, file_format)
        return base64.b64encode(file.getvalue()).decode()

    return make


class Process:
    """A running command; its standard error is read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self, pattern: str) -> re.Match[str]:
        """The first line from here on that has the pattern."""
        while line := (await self.process.stderr.readline()).decode():
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"ended without {pattern!r}: {''.join(self.lines)}")

    async def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        async for line in self.process.stderr:
            self.lines.append(line.decode())
        return await self.process.wait()

    async def url(self) -> str:
        """Where the gateway listens, once it does."""
        return (await self.line(r"listening on (https?://[\w.:]+)"))[1]

    def children(self) -> list[Path]:
        """What /proc has of its child processes: a path exists while its process does."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [Path(f"/proc/{pid}") for pid in pids.split()]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)


Spawn = Callable[..., Awaitable[Process]]


@pytest.fixture
async def spawn() -> AsyncIterator[Spawn]:
    """Start ``python -m gateway`` (or another module, or interpreter) with arguments."""
    started: list[asyncio.subprocess.Process] = []

    async def run(
        *argv: str,
        python: str = sys.executable,
        module: str = "gateway",
        stderr: Any = asyncio.subprocess.PIPE,
        **env: str,
    ) -> Process:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", module, *argv),
            env={**kept, **env},
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
        started.append(process)
        return Process(process)

    yield run
    for process in started:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()
