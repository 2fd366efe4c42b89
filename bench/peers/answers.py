"""Where a peer's backend is, and how its answer becomes JSON; needs NumPy only.

Settings come from the environment, for each peer's framework starts its processes in its own way.
"""

import os
from typing import Any

import numpy as np

from bench import wire

__all__ = ["BACKEND", "MODEL", "OUTPUTS", "PORT", "read"]

BACKEND = os.environ.get("BENCH_BACKEND", "127.0.0.1:8500")
PORT = int(os.environ.get("BENCH_PORT", "8080"))
MODEL = os.environ.get("BENCH_MODEL", "ssd")
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes")
SIDES = ("y1", "x1", "y2", "x2")


def read(response: bytes, threshold: float = 0.4) -> list[dict[str, Any]]:
    """Return each picture's detections above the threshold, as /imageDetection answers them."""
    outputs = {
        name: np.frombuffer(tensor.content, "<f4").reshape(tensor.shape)
        for name, tensor in wire.read_outputs(response).items()
    }
    boxes, scores, classes = (outputs[name] for name in OUTPUTS)
    return [
        {
            "detections": [
                {
                    "class_id": int(classes[i, k]),
                    "score": float(scores[i, k]),
                    "class_label": None,
                    "hit_box": dict(zip(SIDES, map(float, boxes[i, k]), strict=True)),
                }
                for k in np.flatnonzero(scores[i] > threshold)
            ]
        }
        for i in range(len(scores))
    ]
