"""Which signature is chosen, how its input is read, and what is refused with which words."""

import pytest

from gateway.errors import ModelUnsupportedError
from gateway.models import ServedModel, served_model
from gateway.tfserving import ModelChoice, ModelMetadata, PredictCall, Signature, TensorInfo

DETECTION = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
FLOAT = TensorInfo("out:0", "float", None)


def signature(inputs, outputs=DETECTION) -> Signature:
    return Signature(inputs, dict.fromkeys(outputs, FLOAT))


def pixels(*shape, dtype="uint8", name="image_tensor:0") -> dict[str, TensorInfo]:
    return {"inputs": TensorInfo(name, dtype, shape)}


def read(*signatures) -> ServedModel:
    return served_model(ModelChoice("ssd"), ModelMetadata(3, dict(signatures)))


@pytest.mark.parametrize(
    ("inputs", "size", "batches", "encoded"),
    [
        (pixels(None, None, None, 3), None, True, False),
        (pixels(1, None, None, 3), None, False, False),
        (pixels(None, 300, 200, 3), (300, 200), True, False),
        (pixels(None, 300, 200, None), (300, 200), True, False),
        (pixels(1, 512, 512, 3), (512, 512), False, False),
        ({"inputs": TensorInfo("image_tensor:0", "uint8", None)}, None, True, False),
        (pixels(None, dtype="string"), None, True, True),
        (pixels(1, dtype="string"), None, False, True),
        ({"inputs": TensorInfo("encoded:0", "string", None)}, None, True, True),
    ],
    ids=str,
)
def test_inputs_that_are_fed(inputs, size, batches, encoded):
    """Open and fixed sizes and batches are told apart, for pixels and for encoded pictures."""
    model = read(("serving_default", signature(inputs)))
    assert model == ServedModel(
        PredictCall(ModelChoice("ssd"), "serving_default", "inputs", DETECTION),
        3,
        encoded,
        size,
        batches,
    )


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (pixels(None, None, None, 3, dtype="float"), "is of type float"),
        (pixels(8, None, None, 3), "batch dimension fixed at 8"),
        (pixels(8, dtype="string"), "batch dimension fixed at 8"),
        (pixels(None, 300, None, 3), "one side of the picture alone: [any, 300, any, 3]"),
        (pixels(None, 0, 0, 3), "one side of the picture alone"),
        (pixels(None, None, None, 1), "not [batch, height, width, 3]"),
        (pixels(None, None, 3), "not [batch, height, width, 3]"),
        (pixels(None, None, dtype="string"), "has the shape [any, any], not [batch]"),
        (pixels(None, dtype="string", name="tf_example:0"), "serialised tf.Example"),
        ({**pixels(None, None, None, 3), "mask": FLOAT}, "takes 2 inputs"),
        ({}, "takes 0 inputs"),
    ],
    ids=str,
)
def test_inputs_that_are_not(inputs, reason):
    """An input that cannot be fed is refused; the message names the model and what is wrong."""
    with pytest.raises(ModelUnsupportedError) as caught:
        read(("serving_default", signature(inputs)))
    assert reason in str(caught.value)
    assert "'ssd'" in str(caught.value)


def test_choice_of_the_signature():
    """serving_default first, then detection_signature, then any that detects objects."""
    good, other = signature(pixels(None, None, None, 3)), signature(pixels(1), ("classes",))
    assert read(("detection_signature", good), ("serving_default", good)).call.signature_name == (
        "serving_default"
    )
    assert read(("a", other), ("detection_signature", good), ("serving_default", other)) == (
        read(("detection_signature", good))
    )
    assert read(("a", other), ("b", good)).call.signature_name == "b"
    with pytest.raises(ModelUnsupportedError, match="detection_boxes"):
        read(("serving_default", other))


def test_outputs_that_are_asked_for():
    """num_detections is asked for where the model has it, and nothing that is not needed."""
    without = signature(pixels(None, None, None, 3), (*DETECTION[:3], "raw_detection_boxes"))
    assert read(("serving_default", without)).call.output_filter == DETECTION[:3]
