"""Where a request's CPU goes in the gateway: each of its own stages, run alone in one thread.

    python -m bench.stages

What a whole request costs above their sum (``python -m bench.load`` measures it) is the event loop,
aiohttp, gRPC and the hand-over between the loop and the decoding threads.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
import pybase64

from bench import photos, wire
from gateway.imaging import decode_base64, open_picture
from gateway.logs import configure_logs
from gateway.metrics import Metrics
from gateway.models import split_rows
from gateway.schema import detections_json, parse_request
from gateway.tfserving import ModelChoice, PredictCall, encode_predict
from gateway.tfserving.wire import parse_predict

__all__ = ["main", "stages"]

FIXED = (300, 300)
BATCH = 16
CALL = PredictCall(
    ModelChoice("ssd"),
    "serving_default",
    "inputs",
    ("detection_boxes", "detection_scores", "detection_classes"),
)


def answer() -> bytes:
    """A PredictResponse for one batch, as the simulated server writes it: 100 rows a picture."""
    scores = np.zeros((BATCH, 100), np.float32)
    scores[:, :3] = (0.9, 0.8, 0.7)
    outputs = {
        "detection_boxes": np.full((BATCH, 100, 4), 0.5, np.float32),
        "detection_scores": scores,
        "detection_classes": np.ones((BATCH, 100), np.float32),
    }
    return wire.predict_response(
        {name: (value.shape, [value.tobytes()]) for name, value in outputs.items()},
        wire.spec("ssd", version=1),
    )


def stages(size: str, *, fixed: bool = True, seconds: float = 0.5) -> dict[str, float]:
    """Return CPU ms a picture by stage; what is done once a batch is shared by its pictures."""
    jpegs = [jpeg for _, jpeg in photos.load([size])][:BATCH]
    bodies = [
        json.dumps({"model_name": "ssd", "image": pybase64.b64encode(jpeg).decode()}).encode()
        for jpeg in jpegs
    ]
    requests = [parse_request(body) for body in bodies]
    pixels = [
        open_picture(jpeg, max_pixels=1 << 30).to_rgb(FIXED if fixed else None) for jpeg in jpegs
    ]
    message = answer()
    rows = split_rows(parse_predict(message).outputs, BATCH)
    found = rows[0].above(0.4)
    metrics, logger = Metrics(lambda _: True), silent_log()
    fields = {"request_id": "0" * 32, "method": "POST", "path": "/imageDetection", "status": 200}

    def each(items: list[Any], stage: Callable[[Any], Any]) -> Callable[[], None]:
        def run() -> None:
            for item in items:
                stage(item)

        return run

    def count() -> None:
        metrics.decoded("ssd", 0.1)
        metrics.predicted("ssd", 0.1)
        metrics.request("ssd", 200, 0.1)

    work: dict[str, Callable[[], Any]] = {
        "parse JSON": each(bodies, parse_request),
        "base64": each(requests, lambda request: decode_base64(request.image)),
        "decode and resize": each(
            jpegs,
            lambda jpeg: open_picture(jpeg, max_pixels=1 << 30).to_rgb(FIXED if fixed else None),
        ),
        "assemble the call": lambda: encode_predict(CALL, pixels),
        "read the answer": lambda: split_rows(parse_predict(message).outputs, BATCH),
        "threshold": each(rows, lambda row: row.above(0.4)),
        "write JSON": each(
            rows,
            lambda _: detections_json(
                found, {}, controller_time=0.1, tfserve_time=0.1, model_version=1
            ),
        ),
        "metrics": each(rows, lambda _: count()),
        "log line": each(rows, lambda _: logger.info("request", extra={"request": fields})),
    }
    return {name: cpu_ms(stage, seconds) / BATCH for name, stage in work.items()}


def cpu_ms(stage: Callable[[], Any], seconds: float) -> float:
    """Return this thread's CPU ms for one run of ``stage``, warmed up."""
    until = time.monotonic() + seconds / 3
    while time.monotonic() < until:
        stage()
    runs, began, until = 0, time.thread_time(), time.monotonic() + seconds
    while time.monotonic() < until:
        stage()
        runs += 1
    return 1000 * (time.thread_time() - began) / runs


def silent_log() -> logging.Logger:
    """The gateway's log in JSON, written to memory."""
    configure_logs("json")
    handler = logging.getLogger().handlers[0]
    if isinstance(handler, logging.StreamHandler):
        handler.setStream(StringIO())
    return logging.getLogger("gateway")


def main() -> None:
    """Print a table for each size and kind of input."""
    argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0]).parse_args()
    for size in ("640x480", "1920x1080"):
        for fixed in (True, False):
            table = stages(size, fixed=fixed)
            sys.stdout.write(f"{size}, {'300x300' if fixed else 'full size'}\n")
            for name, spent in [*table.items(), ("sum", sum(table.values()))]:
                sys.stdout.write(f"  {name:<20} {spent:8.4f} ms\n")


if __name__ == "__main__":
    main()
