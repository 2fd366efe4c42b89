"""What every peer does alike, so that they differ in serving and batching only.

JPEG by the fastest libraries, one Predict call for a batch, the answer as plain objects.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import grpc
import numpy as np
import numpy.typing as npt
import pybase64
import simplejpeg

from bench import wire
from bench.peers import answers
from bench.peers.answers import BACKEND, MODEL, OUTPUTS, PORT

__all__ = ["MAX_BATCH_SIZE", "PORT", "AsyncPredictor", "Predictor", "decode"]

MAX_BATCH_SIZE = 32
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

Picture = npt.NDArray[np.uint8]

cv2.setNumThreads(1)


def decode(request: dict[str, Any]) -> Picture:
    """Return the request's picture as RGB, 300 x 300 unless the model takes any size."""
    pixels: Picture = simplejpeg.decode_jpeg(pybase64.b64decode(request["image"]))
    if MODEL == "full":
        return pixels
    return np.asarray(cv2.resize(pixels, (300, 300)), np.uint8)


def encode(pictures: Sequence[Picture]) -> bytes:
    """Return the PredictRequest for pictures of one shape."""
    dims = (len(pictures), *pictures[0].shape)
    return wire.predict_request(MODEL, "inputs", dims, OUTPUTS, [p.data for p in pictures])


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
