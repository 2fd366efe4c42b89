"""What every peer does alike, so that they differ in serving and batching only.

In one of two styles (``BENCH_STYLE``). "documented": what the tutorials of such services and of
TensorFlow Serving's client show, Pillow and the protobuf classes. "tuned": the decoder and the
request writer of this project's gateway. One Predict call for a batch in both.
"""

import base64
import io
import os
import runpy
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import grpc
import numpy as np
import numpy.typing as npt
import pybase64
import simplejpeg
from PIL import Image

from bench import wire
from bench.peers import answers
from bench.peers.answers import BACKEND, MODEL, OUTPUTS, PORT

__all__ = ["MAX_BATCH_SIZE", "PORT", "AsyncPredictor", "Predictor", "decode"]

TUNED = os.environ.get("BENCH_STYLE") == "tuned"
MAX_BATCH_SIZE = 32
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
SIDE = 300  # of the model's input, unless it takes any size

Picture = npt.NDArray[np.uint8]

cv2.setNumThreads(1)

# The protobuf classes of TensorFlow Serving, without the gateway among which they lie.
pb = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).parents[2] / "gateway" / "tfserving" / "tfserving_pb2.py"))
)


def decode(request: dict[str, Any]) -> Picture:
    """Return the request's picture as RGB, 300 x 300 unless the model takes any size."""
    if not TUNED:
        image = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB")
        if MODEL != "full":
            image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return np.asarray(image)
    pixels: Picture = simplejpeg.decode_jpeg(pybase64.b64decode(request["image"]))
    if MODEL == "full":
        return pixels
    return np.asarray(cv2.resize(pixels, (SIDE, SIDE)), np.uint8)


def encode(pictures: Sequence[Picture]) -> bytes:
    """Return the PredictRequest for pictures of one shape."""
    dims = (len(pictures), *pictures[0].shape)
    if TUNED:
        return wire.predict_request(MODEL, "inputs", dims, OUTPUTS, [p.data for p in pictures])
    request = pb.PredictRequest(output_filter=OUTPUTS)
    request.model_spec.name = MODEL
    tensor = request.inputs["inputs"]
    tensor.dtype = pb.DT_UINT8
    for size in dims:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_content = np.stack(pictures).tobytes()  # as tf.make_tensor_proto does it
    return bytes(request.SerializeToString())


class Predictor:
    """One channel, kept; for a peer whose handler is a plain function."""

    def __init__(self) -> None:
        channel = grpc.insecure_channel(BACKEND, OPTIONS)
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(wire.PREDICT)

    def __call__(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        """Return one answer a picture; pictures of different shapes take a call each."""
        if len({picture.shape for picture in pictures}) > 1:
            return [self([picture])[0] for picture in pictures]
        return answers.read(self._call(encode(pictures), timeout=30))


class AsyncPredictor:
    """The same for a peer whose handler is a coroutine; make it on the running loop."""

    def __init__(self) -> None:
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        self._call = grpc.aio.insecure_channel(BACKEND, OPTIONS).unary_unary(wire.PREDICT)

    async def __call__(self, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
        """Return one answer a picture; pictures of different shapes take a call each."""
        if len({picture.shape for picture in pictures}) > 1:
            return [(await self([picture]))[0] for picture in pictures]
        return answers.read(await self._call(encode(pictures), timeout=30))
