"""The bench's hand-written messages are those of tensorflow-serving-api, in both directions."""

import numpy as np
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusResponse,
    ModelVersionStatus,
)
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from bench import marks, simulated_models, wire

PIXELS = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)


def official_request(pixels: np.ndarray, dtype: int = types_pb2.DT_UINT8) -> PredictRequest:
    request = PredictRequest()
    request.model_spec.name = "full"
    request.model_spec.signature_name = "serving_default"
    request.output_filter.extend(["detection_scores", "detection_boxes"])
    tensor = request.inputs["inputs"]
    tensor.dtype = dtype
    for size in pixels.shape:
        tensor.tensor_shape.dim.add().size = size
    tensor.tensor_content = pixels.tobytes()
    return request


def test_the_official_class_reads_our_request() -> None:
    """A request written by hand parses to the same message as one built with the stubs."""
    ours = wire.predict_request(
        "full",
        "inputs",
        PIXELS.shape,
        ["detection_scores", "detection_boxes"],
        [picture.data for picture in PIXELS],
    )
    assert PredictRequest.FromString(ours) == official_request(PIXELS)


def test_we_read_the_official_request() -> None:
    """Model, signature, filter, dtype, shape and pixels come out of a request of the stubs."""
    read = wire.read_predict(official_request(PIXELS).SerializeToString())
    assert (read.model, read.signature, read.input_name) == ("full", "serving_default", "inputs")
    assert read.output_filter == ["detection_scores", "detection_boxes"]
    assert (read.tensor.dtype, read.tensor.shape) == (wire.DT_UINT8, PIXELS.shape)
    assert bytes(read.tensor.content) == PIXELS.tobytes()


def test_the_official_class_reads_our_response() -> None:
    """Float rows arrive as float_val with dtype, shape and model spec."""
    rows = np.array([[0.25, -1.5], [3.0, 1e-9]], "<f4")
    ours = wire.predict_response(
        {"detection_scores": ((2, 2), [row.tobytes() for row in rows])},
        wire.spec("full", "serving_default", version=7),
    )
    response = PredictResponse.FromString(ours)
    assert (response.model_spec.name, response.model_spec.version.value) == ("full", 7)
    tensor = response.outputs["detection_scores"]
    assert tensor.dtype == types_pb2.DT_FLOAT
    assert [dim.size for dim in tensor.tensor_shape.dim] == [2, 2]
    assert np.array_equal(np.array(tensor.float_val, "f4"), rows.ravel())


@pytest.mark.parametrize("as_content", [False, True])
def test_we_read_the_official_response(as_content: bool) -> None:
    """Both encodings of TensorFlow Serving are read."""
    response = PredictResponse()
    tensor = TensorProto(dtype=types_pb2.DT_FLOAT)
    tensor.tensor_shape.dim.add().size = 3
    values = np.array([1.5, 2.5, -3], "<f4")
    if as_content:
        tensor.tensor_content = values.tobytes()
    else:
        tensor.float_val.extend(values)
    response.outputs["x"].CopyFrom(tensor)
    read = wire.read_outputs(response.SerializeToString())["x"]
    assert read.shape == (3,)
    assert np.array_equal(np.frombuffer(read.content, "<f4"), values)


@pytest.mark.parametrize("model", ["ssd", "full"])
def test_the_official_class_reads_our_metadata(model: str) -> None:
    """The signature is that of a TF Object Detection export, dynamic dimensions as -1."""
    response = GetModelMetadataResponse.FromString(simulated_models.metadata(model))
    assert response.model_spec.name == model
    signatures = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    signature = signatures.signature_def["serving_default"]
    info = signature.inputs["inputs"]
    assert info.dtype == types_pb2.DT_UINT8
    assert [dim.size for dim in info.tensor_shape.dim] == list(simulated_models.MODELS[model])
    boxes = signature.outputs["detection_boxes"]
    assert boxes.dtype == types_pb2.DT_FLOAT
    assert [dim.size for dim in boxes.tensor_shape.dim] == [-1, marks.ROWS, 4]
    assert set(signature.outputs) == set(simulated_models.OUTPUTS)


def test_the_official_class_reads_our_status() -> None:
    """Version 1 is AVAILABLE."""
    [version] = GetModelStatusResponse.FromString(simulated_models.status()).model_version_status
    assert (version.version, version.state) == (1, ModelVersionStatus.AVAILABLE)


def test_the_models_name_is_read_from_a_metadata_request() -> None:
    """GetModelMetadata asks for a model by its spec."""
    request = GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "ssd"
    assert wire.model_of(request.SerializeToString()) == "ssd"


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_message_that_ends_early_is_an_error(cut: int) -> None:
    """No answer is made up from half a request."""
    whole = official_request(PIXELS).SerializeToString()
    with pytest.raises(wire.WireError):
        wire.read_predict(whole[:-cut])
