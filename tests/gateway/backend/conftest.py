"""Tiny SavedModels, and embedded servers of this process to serve them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.model_service_pb2_grpc import ModelServiceStub
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

from gateway.backend.server import BackendOptions, Server

v1 = tf.compat.v1


class Pixels(tf.Module):
    """A TF2 model whose answers depend on the pixels, and signatures for the rarer cases."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = tf.Variable(scale)
        words = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1]), tf.constant(["low", "hi"]))
        self.words = tf.lookup.StaticHashTable(words, "?")

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="inputs")])
    def detect(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        mean = tf.reduce_mean(tf.cast(inputs, tf.float32), [1, 2, 3])
        return {
            "mean": mean * self.scale,
            "word": self.words.lookup(tf.cast(mean > 9, tf.int32)),
            "size": tf.shape(inputs),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="encoded")])
    def lengths(self, encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"length": tf.strings.length(encoded), "same": tf.identity(encoded)}

    @tf.function(input_signature=[tf.TensorSpec([1, 2], tf.float32, name="x")])
    def fixed(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": x * self.scale}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def every_type(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        names = "float32 float64 float16 bfloat16 int8 uint8 int16 uint16 int32 uint32 int64 uint64"
        types = [*names.split(), "bool", "complex64", "complex128"]
        return {name: tf.cast(x, name) for name in types} | {"string": tf.strings.as_string(x)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int64, name="count")])
    def fill(self, count: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"zeros": tf.reduce_sum(tf.fill([count], self.scale))}


def export(path: Path, scale: float) -> None:
    model = Pixels(scale)
    tf.saved_model.save(
        model,
        str(path),
        signatures={
            "serving_default": model.detect,
            "lengths": model.lengths,
            "fixed": model.fixed,
            "every_type": model.every_type,
            "fill": model.fill,
        },
    )


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """TF2 SavedModels; the mean that number N answers is N times that of the pixels."""
    base = tmp_path_factory.mktemp("exports")
    for number in (1, 2):
        export(base / str(number), float(number))
    return {number: base / str(number) for number in (1, 2)}


@pytest.fixture(scope="session")
def tf1_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen-style TF1 export with a variable and two signatures, one of them by its old name."""
    path = tmp_path_factory.mktemp("tf1") / "1"
    with tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.uint8, [None, None, None, 3], name="image_tensor")
        scale = v1.get_variable("scale", initializer=3.0, use_resource=False)
        pixels = tf.cast(image, tf.float32)
        scores = tf.multiply(tf.reduce_mean(pixels, [1, 2, 3]), scale, name="detection_scores")
        raw = tf.reshape(pixels, [-1, 12], name="raw_scores")
        session.run(v1.global_variables_initializer())
        info = v1.saved_model.build_tensor_info
        signature = v1.saved_model.build_signature_def(
            {"inputs": info(image)},
            {"detection_scores": info(scores), "raw_scores": info(raw)},
            "tensorflow/serving/predict",
        )
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {"serving_default": signature, "detection_signature": signature},
        )
        builder.save()
    return path


class Client:
    """The official stubs on one server."""

    def __init__(self, address: str) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(address, options=options)
        self.prediction = PredictionServiceStub(self.channel)
        self.model = ModelServiceStub(self.channel)

    def predict(
        self, *output_filter: str, name: str = "pixels", signature: str = "", **inputs: Any
    ) -> PredictResponse:
        """One Predict; inputs are TensorProtos, or what makes them."""
        request = PredictRequest(output_filter=output_filter)
        request.model_spec.name = name
        request.model_spec.signature_name = signature
        for alias, value in inputs.items():
            is_proto = hasattr(value, "tensor_shape")
            request.inputs[alias].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
        return self.prediction.Predict(request)


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Two pictures; their means are 2 and 10."""
    return np.stack([np.full((4, 5, 3), 2, np.uint8), np.full((4, 5, 3), 10, np.uint8)])


Start = Callable[..., tuple[Server, Client]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers on free ports that look for versions only when told; stops them after."""
    running: list[tuple[Server, Client]] = []

    def start_server(base_path: Path, **options: Any) -> tuple[Server, Client]:
        report = options.pop("report", lambda _: None)
        options = {"port": 0, "file_system_poll_wait_seconds": 0, **options}
        server = Server(BackendOptions(base_path, **options), report=report)
        running.append((server, Client(server.start())))
        return running[-1]

    yield start_server
    for server, client in running:
        client.channel.close()
        server.stop()


@pytest.fixture(scope="session")
def client(exports: dict[int, Path]) -> Iterator[Client]:
    """A client of a server that all tests share: model ``pixels``, versions 1 and 2 on disk."""
    options = BackendOptions(
        exports[1].parent, model_name="pixels", port=0, file_system_poll_wait_seconds=0
    )
    server = Server(options)
    client = Client(server.start())
    yield client
    client.channel.close()
    server.stop()


@pytest.fixture
def base_path(tmp_path: Path, exports: dict[int, Path]) -> Path:
    """A base path of model ``pixels`` with version 1 in it, for a test to change."""
    shutil.copytree(exports[1], tmp_path / "pixels" / "1")
    return tmp_path / "pixels"
