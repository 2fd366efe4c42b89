"""The models that the simulated server has: their signatures, and their answers to pictures.

``ssd`` takes [N,300,300,3], ``tiny`` [N,64,64,3], ``full`` any height and width; all carry the
names and shapes of a TF Object Detection API export (TF1): uint8 ``inputs``, and boxes as ymin,
xmin, ymax, xmax.
"""

import struct
from functools import lru_cache

import grpc

from bench import marks, wire

__all__ = ["INPUT", "MODELS", "OUTPUTS", "Refusal", "answer", "metadata", "status"]

INPUT, SIGNATURE = "inputs", "serving_default"
MODELS = {"ssd": (-1, 300, 300, 3), "tiny": (-1, 64, 64, 3), "full": (-1, -1, -1, 3)}
OUTPUTS = {
    "detection_boxes": (marks.ROWS, 4),
    "detection_classes": (marks.ROWS,),
    "detection_scores": (marks.ROWS,),
    "num_detections": (),
}
AVAILABLE = 30  # ModelVersionStatus.State


class Refusal(Exception):  # noqa: N818 - a status that the server gives, not a fault of ours
    """A call is answered with ``status`` and this text."""

    def __init__(self, status: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.status = status


@lru_cache(maxsize=marks.CODES + 1)
def _rows(code: int | None) -> dict[str, bytes]:
    """Return one picture's row of each output; a picture without a code has nothing in it."""
    seen = [] if code is None else marks.detections(code)
    padding = marks.ROWS - len(seen)
    boxes = [side for row in seen for side in (row.y1, row.x1, row.y2, row.x2)]
    return {
        "detection_boxes": struct.pack(f"<{4 * marks.ROWS}f", *boxes, *[0.0] * 4 * padding),
        "detection_classes": struct.pack(
            f"<{marks.ROWS}f", *[row.class_id for row in seen], *[1.0] * padding
        ),
        "detection_scores": struct.pack(
            f"<{marks.ROWS}f", *[row.score for row in seen], *[0.01] * padding
        ),
        "num_detections": struct.pack("<f", marks.ROWS),
    }


def check(request: wire.Predict, max_batch_size: int) -> None:
    """Raise Refusal, with TensorFlow Serving's code, for a call that it would not run."""
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    known(request.model)
    if request.signature not in {"", SIGNATURE}:
        text = f'Serving signature key "{request.signature}" not found.'
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, text)
    dtype, dims, content = request.tensor
    wanted = MODELS[request.model]
    if request.input_name != INPUT:
        raise Refusal(invalid, f"input {request.input_name}, expected {INPUT}")
    fits = len(dims) == 4 and all(w in {-1, d} for w, d in zip(wanted, dims, strict=True))
    if dtype != wire.DT_UINT8 or not fits:
        raise Refusal(invalid, f"input of dtype {dtype} and shape {dims}, expected uint8 {wanted}")
    if len(content) != dims[0] * dims[1] * dims[2] * 3:
        raise Refusal(invalid, f"tensor_content of {len(content)} bytes for shape {dims}")
    if unknown := set(request.output_filter) - OUTPUTS.keys():
        raise Refusal(invalid, f"output tensor alias not found in signature: {sorted(unknown)}")
    if dims[0] > max_batch_size:
        raise Refusal(invalid, f"Task size {dims[0]} is larger than maximum {max_batch_size}")


def known(model: str) -> None:
    """Raise Refusal unless there is such a model."""
    if model not in MODELS:
        raise Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: Latest({model})")


def answer(request: wire.Predict) -> bytes:
    """Return the PredictResponse to a checked request: what each picture's code stands for."""
    n, height, width, _ = request.tensor.shape
    size = height * width * 3
    pixels = request.tensor.content
    rows = [_rows(marks.read(pixels, size * i, height, width)) for i in range(n)]
    names = request.output_filter or list(OUTPUTS)
    outputs = {name: ((n, *OUTPUTS[name]), [row[name] for row in rows]) for name in names}
    return wire.predict_response(outputs, wire.spec(request.model, SIGNATURE, version=1))


def metadata(model: str) -> bytes:
    """Return the GetModelMetadataResponse, the signature of ``model``."""

    def info(name: str, dtype: int, dims: tuple[int, ...]) -> bytes:
        return wire.block(1, f"{name}:0") + wire.number(2, dtype) + wire.block(3, wire.shape(dims))

    def pair(key: str, value: bytes) -> bytes:
        return wire.block(1, key) + wire.block(2, value)

    inputs = wire.block(1, pair(INPUT, info("image_tensor", wire.DT_UINT8, MODELS[model])))
    outputs = b"".join(
        wire.block(2, pair(name, info(name, wire.DT_FLOAT, (-1, *dims))))
        for name, dims in OUTPUTS.items()
    )
    signature = inputs + outputs + wire.block(3, "tensorflow/serving/predict")
    any_value = wire.block(1, "type.googleapis.com/tensorflow.serving.SignatureDefMap")
    any_value += wire.block(2, wire.block(1, pair(SIGNATURE, signature)))
    return wire.block(1, wire.spec(model, version=1)) + wire.block(
        2, pair("signature_def", any_value)
    )


def status() -> bytes:
    """Return the GetModelStatusResponse: version 1 is available."""
    fine = wire.number(1, 0)  # error_code OK
    return wire.block(1, wire.number(1, 1) + wire.number(2, AVAILABLE) + wire.block(3, fine))
