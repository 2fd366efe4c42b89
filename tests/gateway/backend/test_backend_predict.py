"""PredictionService.Predict: what it answers, how that is encoded, and what it refuses."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest

Client = Any
Start = Any


def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as failure:
        call()
    return failure.value.code(), failure.value.details()


def test_the_answer_depends_on_the_pixels_and_names_who_gave_it(
    client: Client, images: np.ndarray
) -> None:
    """The newest version answers, for each row of the batch, and says name, version, signature."""
    response = client.predict(inputs=images)
    assert list(response.outputs["mean"].float_val) == [4.0, 20.0]
    assert list(response.outputs["word"].string_val) == [b"low", b"hi"]
    assert list(response.outputs["size"].int_val) == [2, 4, 5, 3]
    spec = ModelSpec(name="pixels", version=Int64Value(value=2), signature_name="serving_default")
    assert response.model_spec == spec


def test_only_the_outputs_asked_for_are_sent(client: Client, images: np.ndarray) -> None:
    """``output_filter`` limits the response; without it every output of the signature is there."""
    assert set(client.predict(inputs=images).outputs) == {"mean", "word", "size"}
    assert set(client.predict("mean", inputs=images).outputs) == {"mean"}


def test_a_string_tensor_goes_in(client: Client) -> None:
    """Strings of any bytes and length arrive as they are."""
    words = [b"", b"\x00\xff\x00", b"x" * 300]
    response = client.predict(signature="lengths", encoded=words)
    assert list(response.outputs["length"].int_val) == [0, 3, 300]
    assert list(response.outputs["same"].string_val) == words


def test_typed_values_are_read_and_one_stands_for_all(client: Client) -> None:
    """An input may come as values of its type, and a single value fills the whole tensor."""
    shape = tf.TensorShape([1, 2, 2, 3]).as_proto()
    every = TensorProto(dtype=tf.uint8.as_datatype_enum, tensor_shape=shape, int_val=range(12))
    one = TensorProto(dtype=tf.uint8.as_datatype_enum, tensor_shape=shape, int_val=[7])
    assert client.predict(inputs=every).outputs["mean"].float_val == [11.0]
    assert client.predict(inputs=one).outputs["mean"].float_val == [14.0]


FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "int8": "int_val",
    "uint8": "int_val",
    "int16": "int_val",
    "uint16": "int_val",
    "int32": "int_val",
    "uint32": "uint32_val",
    "int64": "int64_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "string": "string_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
}


def test_outputs_are_typed_values_by_default(client: Client) -> None:
    """Every type goes to its own field, whole, and TensorFlow reads the same values back."""
    x = np.array([1, 1, 5, 5], np.float32)
    outputs = client.predict(signature="every_type", x=x).outputs
    filled = {
        name: {field.name for field, _ in proto.ListFields()} - {"dtype", "tensor_shape"}
        for name, proto in outputs.items()
    }
    assert filled == {name: {field} for name, field in FIELDS.items()}
    assert len(outputs["float32"].float_val) == 4
    assert list(outputs["float16"].half_val) == [0x3C00, 0x3C00, 0x4500, 0x4500]
    assert list(outputs["complex64"].scomplex_val) == [1, 0, 1, 0, 5, 0, 5, 0]
    for name in FIELDS.keys() - {"string", "bool"}:
        np.testing.assert_array_equal(tf.make_ndarray(outputs[name]), x.astype(name))


def test_outputs_are_content_when_the_server_is_told(
    start: Start, exports: dict[int, Path]
) -> None:
    """With the option, outputs are ``tensor_content`` and nothing else, strings too."""
    options = {"model_name": "pixels", "enable_serialization_as_tensor_content": True}
    _, client = start(exports[1].parent, **options)
    x = np.array([1, 1, 5, 5], np.float32)
    outputs = client.predict(signature="every_type", x=x).outputs
    for name, proto in outputs.items():
        present = {field.name for field, _ in proto.ListFields()}
        assert present == {"dtype", "tensor_shape", "tensor_content"}, name
    np.testing.assert_array_equal(tf.make_ndarray(outputs["float32"]), x)
    np.testing.assert_array_equal(tf.make_ndarray(outputs["uint16"]), x.astype(np.uint16))
    encoded = [b"", b"ab", b"x" * 300]
    same = client.predict("same", signature="lengths", encoded=encoded).outputs["same"]
    assert same.tensor_content == b"\x00\x02\xac\x02" + b"ab" + b"x" * 300


def test_a_tf1_export_is_served_under_both_its_signatures(
    start: Start, tf1_export: Path, images: np.ndarray
) -> None:
    """A TF1 graph with variables answers by ``serving_default`` and ``detection_signature``."""
    _, client = start(tf1_export.parent, model_name="ssd")
    for signature in ("", "detection_signature"):
        response = client.predict(
            "detection_scores", name="ssd", signature=signature, inputs=images
        )
        assert list(response.outputs["detection_scores"].float_val) == [6.0, 30.0]
        assert response.model_spec.signature_name == (signature or "serving_default")


def test_messages_have_no_limit(client: Client) -> None:
    """A request beyond gRPC's default of 4 MiB is answered."""
    response = client.predict("mean", inputs=np.ones((4, 700, 700, 3), np.uint8))
    assert list(response.outputs["mean"].float_val) == [2.0] * 4


def test_calls_side_by_side_each_get_their_own_answer(client: Client) -> None:
    """Many callers at once: every answer belongs to its own pixels."""

    def mean(value: int) -> float:
        response = client.predict("mean", inputs=np.full((1, 9, 9, 3), value, np.uint8))
        return float(response.outputs["mean"].float_val[0])

    with ThreadPoolExecutor(16) as callers:
        assert list(callers.map(mean, range(100))) == [2.0 * value for value in range(100)]


def test_a_request_must_name_a_model(client: Client) -> None:
    """No ModelSpec, and a ModelSpec without a name, are invalid."""
    predict = client.prediction.Predict
    assert refused(lambda: predict(PredictRequest())) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Missing ModelSpec",
    )
    nameless = PredictRequest(model_spec=ModelSpec(signature_name="serving_default"))
    assert refused(lambda: predict(nameless)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "ModelSpec has no name specified.",
    )


def test_what_is_not_loaded_is_not_found(client: Client, images: np.ndarray) -> None:
    """An unknown model, and a version on disk that is not the newest, are NOT_FOUND."""
    assert refused(lambda: client.predict(name="other", inputs=images)) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Latest(other)",
    )
    old = ModelSpec(name="pixels", version=Int64Value(value=1))
    assert refused(lambda: client.prediction.Predict(PredictRequest(model_spec=old))) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(pixels, 1)",
    )


def test_a_loaded_version_may_be_asked_for_by_number(client: Client, images: np.ndarray) -> None:
    """``version`` picks that version."""
    request = PredictRequest(model_spec=ModelSpec(name="pixels", version=Int64Value(value=2)))
    request.inputs["inputs"].CopyFrom(tf.make_tensor_proto(images))
    assert list(client.prediction.Predict(request).outputs["mean"].float_val) == [4.0, 20.0]


def test_no_version_has_a_label(client: Client) -> None:
    """A version label is known to nobody here, and is refused as TensorFlow Serving does."""
    spec = ModelSpec(name="pixels", version_label="stable")
    assert refused(lambda: client.prediction.Predict(PredictRequest(model_spec=spec))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Unrecognized servable version label: stable",
    )


def test_an_unknown_signature_fails_the_precondition(client: Client, images: np.ndarray) -> None:
    """The message names the signature."""
    assert refused(lambda: client.predict(signature="nope", inputs=images)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        'Serving signature key "nope" not found.',
    )


def test_a_long_message_is_cut(client: Client, images: np.ndarray) -> None:
    """A message has 1024 characters at most, so that it fits in gRPC's trailers."""
    _, details = refused(lambda: client.predict(signature="n" * 9000, inputs=images))
    assert len(details.removesuffix("...TRUNCATED")) == 1024


def test_a_signature_that_is_not_for_prediction_is_refused(client: Client) -> None:
    """The initialisation op is a signature in the file, and no model."""
    code, details = refused(lambda: client.predict(signature="__saved_model_init_op"))
    assert code is grpc.StatusCode.INTERNAL
    assert details.startswith("Expected prediction signature method_name to be one of {")


def test_inputs_must_be_those_of_the_signature(client: Client, images: np.ndarray) -> None:
    """Missing, extra and misnamed inputs are invalid, and the message lists both sides."""
    assert refused(client.predict) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        (
            "input size does not match signature: 0!=1 len({}) != len({inputs})."
            " Sent extra: {}. Missing but required: {inputs}."
        ),
    )
    assert refused(lambda: client.predict(inputs=images, more=images)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        (
            "input size does not match signature: 2!=1 len({inputs,more}) != len({inputs})."
            " Sent extra: {more}. Missing but required: {}."
        ),
    )
    assert refused(lambda: client.predict(images=images)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        (
            "input tensor alias not found in signature: images."
            " Inputs expected to be in the set {inputs}."
        ),
    )


@pytest.mark.parametrize(
    "proto",
    [
        TensorProto(dtype=tf.uint8.as_datatype_enum, tensor_content=b"12"),
        TensorProto(dtype=tf.uint8.as_datatype_enum, int_val=[1, 2]),
        TensorProto(dtype=tf.uint8.as_datatype_enum, int_val=[300]),
        TensorProto(int_val=[1]),
        TensorProto(
            dtype=tf.uint8.as_datatype_enum,
            tensor_shape=tf.TensorShape([None, 2, 2, 3]).as_proto(),
            tensor_content=bytes(12),
        ),
        TensorProto(dtype=tf.uint8.as_datatype_enum, tensor_shape=tf.TensorShape(None).as_proto()),
    ],
    ids=["short content", "too many values", "value out of range", "no type", "no size", "no rank"],
)
def test_a_tensor_that_is_none_is_invalid(client: Client, proto: TensorProto) -> None:
    """Shape, type and data that do not fit one another are a parsing error of that input."""
    assert refused(lambda: client.predict(inputs=proto)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "tensor parsing error: inputs",
    )


def test_another_type_than_the_signatures_is_invalid(client: Client, images: np.ndarray) -> None:
    """The pixels are not cast in silence."""
    assert refused(lambda: client.predict(inputs=images.astype(np.float32))) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Expects input inputs to be uint8 but float32 is provided",
    )


def test_another_shape_than_the_signatures_is_invalid(client: Client) -> None:
    """A batch of two is too many where the signature fixes one."""
    x = np.ones((2, 2), np.float32)
    assert refused(lambda: client.predict(signature="fixed", x=x)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Expects input x to have shape (1, 2) but shape (2, 2) is provided",
    )
    assert list(client.predict(signature="fixed", x=x[:1]).outputs["y"].float_val) == [2.0, 2.0]


def test_outputs_must_be_those_of_the_signature(client: Client, images: np.ndarray) -> None:
    """An unknown and a doubled alias in ``output_filter`` are invalid."""
    assert refused(lambda: client.predict("scores", inputs=images)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        (
            "output tensor alias not found in signature: scores"
            " Outputs expected to be in the set {mean,size,word}."
        ),
    )
    assert refused(lambda: client.predict("mean", "mean", inputs=images)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "duplicate output tensor alias: mean",
    )


def test_an_error_of_the_graph_keeps_its_code_and_tells_nothing_of_us(
    start: Start, tf1_export: Path
) -> None:
    """The runtime's INVALID_ARGUMENT and message, without the traceback of the process."""
    _, client = start(tf1_export.parent, model_name="ssd")
    odd = np.ones((1, 3, 3, 3), np.uint8)
    code, details = refused(lambda: client.predict("raw_scores", name="ssd", inputs=odd))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("Input to reshape is a tensor with 27 values")
    assert ".py" not in details
    response = client.predict("detection_scores", name="ssd", inputs=odd)
    assert response.outputs["detection_scores"].float_val == [3.0]


def test_too_little_memory_is_resource_exhausted(client: Client) -> None:
    """Out of memory in the graph is told by its own code, and the server lives on."""
    code, _ = refused(lambda: client.predict(signature="fill", count=np.int64(1) << 50))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.predict(signature="fill", count=np.int64(3)).outputs["zeros"].float_val == [6.0]


def test_a_defect_of_the_server_is_internal_and_says_no_more(
    start: Start, base_path: Path, images: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    """An exception nobody foresaw: INTERNAL to the client, the traceback on the server's stderr."""
    server, client = start(base_path)
    with server.model.lend("pixels", None) as version:
        version.run = lambda feeds, fetches: 1 / 0
        outcome = refused(lambda: client.predict(inputs=images))
    assert outcome == (grpc.StatusCode.INTERNAL, "internal error")
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_the_rest_of_the_service_is_not_implemented(client: Client) -> None:
    """Classify is a method of the official service that this server has not."""
    code, _ = refused(lambda: client.prediction.Classify(ClassificationRequest()))
    assert code is grpc.StatusCode.UNIMPLEMENTED
