"""The least that any gateway must do, measured alone.

    python -m bench.floor                                # CPU a picture, in one thread
    python -m bench.floor --backend 127.0.0.1:8500       # and the backend without a gateway

Floor: base64, JPEG decode into memory that is used again, resize where the model has a fixed size,
one copy into the message. Decoding is exact (libjpeg-turbo's default DCT and upsampling), for a
gateway may not change the pixels; the faster inexact one is given beside it.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import cv2
import grpc
import numpy as np
import numpy.typing as npt
import pybase64
import simplejpeg

from bench import photos, wire

__all__ = ["alone", "direct", "floor", "main"]

FIXED = 300
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
Pixels = npt.NDArray[np.uint8]
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes")


class Worker:
    """The stages of one thread; every picture goes through the same memory."""

    def __init__(self, size: str, *, fixed: bool, exact: bool) -> None:
        width, height = photos.SIZES[size]
        self.fast = not exact
        self.decoded = np.empty((height, width, 3), np.uint8)
        self.resized = np.empty((FIXED, FIXED, 3), np.uint8)
        self.message = np.empty(64 + (self.resized if fixed else self.decoded).size, np.uint8)
        self.stages: dict[str, Callable[[Any], Any]] = {
            "base64": pybase64.b64decode,
            "decode": self.decode,
            "resize": self.resize,
            "copy": self.copy,
        }
        if not fixed:
            del self.stages["resize"]

    def decode(self, jpeg: bytes) -> Pixels:
        """JPEG to RGB."""
        simplejpeg.decode_jpeg(jpeg, buffer=self.decoded, fastdct=self.fast, fastupsample=self.fast)
        return self.decoded

    def resize(self, picture: Pixels) -> Pixels:
        """To the model's fixed size, bilinear without antialiasing."""
        cv2.resize(picture, (FIXED, FIXED), dst=self.resized)
        return self.resized

    def copy(self, picture: Pixels) -> None:
        """Into the message, behind its prefix."""
        self.message[64:] = picture.reshape(-1)


def floor(
    size: str, *, fixed: bool = True, exact: bool = True, seconds: float = 1
) -> dict[str, Any]:
    """Return CPU ms a picture of ``size``, in all and by stage, warmed up for half of the time."""
    cv2.setNumThreads(1)
    worker = Worker(size, fixed=fixed, exact=exact)
    bodies = [pybase64.b64encode(jpeg) for _, jpeg in photos.load([size])]
    spent = dict.fromkeys(worker.stages, 0)
    pictures, began, warm = 0, time.monotonic(), False
    while (took := time.monotonic() - began) < seconds * 1.5:
        if not warm and took > seconds / 2:
            spent, pictures, warm = dict.fromkeys(worker.stages, 0), 0, True
        for body in bodies:
            value: Any = body
            for name, stage in worker.stages.items():
                before = time.thread_time_ns()
                value = stage(value)
                spent[name] += time.thread_time_ns() - before
        pictures += len(bodies)
    stages = {name: nanos / pictures / 1e6 for name, nanos in spent.items()}
    return {
        "size": size,
        "fixed": fixed,
        "exact": exact,
        "cpu_ms": sum(stages.values()),
        "stages": stages,
    }


def alone(address: str, *, size: str = "640x480", seconds: float = 3) -> dict[str, float]:
    """Return p50 and p99 in ms of decode plus Predict of one picture after the other.

    What a client at concurrency 1 would see of a gateway that cost nothing.
    """
    worker = Worker(size, fixed=True, exact=True)
    bodies = [pybase64.b64encode(jpeg) for _, jpeg in photos.load([size])]
    times = []
    with grpc.insecure_channel(address, OPTIONS) as channel:
        predict: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(wire.PREDICT)
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            for body in bodies:
                before = time.perf_counter()
                picture = worker.resize(worker.decode(pybase64.b64decode(body)))
                dims = (1, *picture.shape)
                predict(wire.predict_request("ssd", "inputs", dims, OUTPUTS, [picture.data]))
                times.append(1000 * (time.perf_counter() - before))
    times = times[len(bodies) :]
    return {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}


def direct(
    address: str, *, batch: int = 32, in_flight: int = 2, seconds: float = 3
) -> dict[str, float]:
    """Return pictures a second that the backend gives to full batches, and this client's CPU."""
    pictures = np.zeros((batch, FIXED, FIXED, 3), np.uint8)
    request = wire.predict_request("ssd", "inputs", pictures.shape, OUTPUTS, [pictures.data])

    async def drive() -> tuple[int, float]:
        done = 0
        async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
            predict: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            predict = channel.unary_unary(wire.PREDICT)
            await predict(request)
            began = time.monotonic()

            async def client() -> None:
                nonlocal done
                while time.monotonic() < began + seconds:
                    await predict(request)
                    done += batch

            await asyncio.gather(*(client() for _ in range(in_flight)))
            return done, time.monotonic() - began

    before = time.process_time()
    done, took = asyncio.run(drive())
    cpu_ms = 1000 * (time.process_time() - before) / done
    return {"throughput": done / took, "batch": batch, "in_flight": in_flight, "cpu_ms": cpu_ms}


def main() -> None:
    """Print the floors, and with ``--backend`` the backend's own figures, as JSON lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backend", help="address of the simulated server")
    parser.add_argument("--seconds", type=float, default=1.0)
    flags = parser.parse_args()
    for size in photos.SIZES:
        for fixed, exact in ((True, True), (False, True), (True, False)):
            row = floor(size, fixed=fixed, exact=exact, seconds=flags.seconds)
            sys.stdout.write(json.dumps(row) + "\n")
    if flags.backend:
        sys.stdout.write(json.dumps({"alone_ms": alone(flags.backend)}) + "\n")
        sys.stdout.write(json.dumps({"direct": direct(flags.backend)}) + "\n")


if __name__ == "__main__":
    main()
