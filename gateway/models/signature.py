"""From the signatures of a model to how it is asked for detections.

The exports of the TensorFlow Object Detection API are understood: TF1 (input ``inputs``) and TF2
(input ``input_tensor``), pictures as a uint8 tensor [N, H, W, 3] or as a string tensor [N] of
encoded pictures, under ``serving_default`` or, in some older exports, ``detection_signature``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.errors import ModelUnsupportedError
from gateway.tfserving import ModelChoice, ModelMetadata, PredictCall, Signature, TensorInfo

__all__ = ["NUM_DETECTIONS", "REQUIRED_OUTPUTS", "ServedModel", "served_model"]

REQUIRED_OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes")
NUM_DETECTIONS = "num_detections"
PREFERRED_SIGNATURES = ("serving_default", "detection_signature")


@dataclass(frozen=True)
class ServedModel:
    """How one version of a model wants its pictures.

    ``encoded``: as the bytes of image files rather than as pixels. ``size``: the fixed (height,
    width) of its input, None when it takes pictures as they are. ``batches``: whether one call may
    carry more than one picture; exports of TF2 fix their batch dimension at 1.
    """

    call: PredictCall
    version: int
    encoded: bool
    size: tuple[int, int] | None
    batches: bool


def served_model(model: ModelChoice, metadata: ModelMetadata) -> ServedModel:
    """Choose the signature that detects objects, and read how its input is shaped.

    Raises
    ------
    ModelUnsupportedError
        No signature has the outputs of an object detector, or its input is of another kind.
    """
    signature_name, signature = _choose(str(model), metadata.signatures)
    if len(signature.inputs) != 1:
        raise ModelUnsupportedError(
            f"{model} takes {len(signature.inputs)} inputs, not one picture tensor"
        )
    ((input_name, tensor),) = signature.inputs.items()
    outputs = [*REQUIRED_OUTPUTS]
    if NUM_DETECTIONS in signature.outputs:
        outputs.append(NUM_DETECTIONS)
    call = PredictCall(model, signature_name, input_name, tuple(outputs))
    where = f"input {input_name!r} of {model}"
    if tensor.dtype == "string":
        size, batch = None, _string_batch(where, tensor)
    else:
        batch, size = _pixel_batch_and_size(where, tensor)
    if batch not in (1, None):
        raise ModelUnsupportedError(f"{where} has a batch dimension fixed at {batch}")
    return ServedModel(
        call, metadata.version, tensor.dtype == "string", size, batches=batch is None
    )


def _choose(model: str, signatures: Mapping[str, Signature]) -> tuple[str, Signature]:
    for name in (*PREFERRED_SIGNATURES, *signatures):
        signature = signatures.get(name)
        if signature is not None and signature.outputs.keys() >= set(REQUIRED_OUTPUTS):
            return name, signature
    raise ModelUnsupportedError(
        f"{model} has no signature with the outputs {', '.join(REQUIRED_OUTPUTS)}"
    )


def _string_batch(where: str, tensor: TensorInfo) -> int | None:
    if tensor.name.startswith("tf_example"):
        raise ModelUnsupportedError(f"{where} takes serialised tf.Example records, not pictures")
    shape = (None,) if tensor.shape is None else tensor.shape
    if len(shape) != 1:
        raise ModelUnsupportedError(f"{where} has the shape {_show(shape)}, not [batch]")
    return shape[0]


def _pixel_batch_and_size(
    where: str, tensor: TensorInfo
) -> tuple[int | None, tuple[int, int] | None]:
    if tensor.dtype != "uint8":
        raise ModelUnsupportedError(f"{where} is of type {tensor.dtype}, neither uint8 nor string")
    shape = (None, None, None, 3) if tensor.shape is None else tensor.shape
    if len(shape) != 4 or shape[3] not in (3, None):
        raise ModelUnsupportedError(
            f"{where} has the shape {_show(shape)}, not [batch, height, width, 3]"
        )
    batch, height, width, _ = shape
    if height and width:
        return batch, (height, width)
    if height is None and width is None:
        return batch, None
    raise ModelUnsupportedError(f"{where} fixes one side of the picture alone: {_show(shape)}")


def _show(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
