"""Requests and answers, held against the messages of tensorflow-serving-api in both directions."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from gateway.errors import BackendAnswerInvalidError
from gateway.tfserving import ModelChoice, PredictCall, encode_predict, encode_predict_strings
from gateway.tfserving import tfserving_pb2 as pb
from gateway.tfserving.wire import parse_predict, tensor_to_array

CALL = PredictCall(
    ModelChoice("ssd"), "serving_default", "inputs", ("detection_boxes", "detection_scores")
)


def official(call: PredictCall, tensor: tensor_pb2.TensorProto) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest(output_filter=call.output_filter)
    name, version, label = call.model
    request.model_spec.name = name
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    request.model_spec.signature_name = call.signature_name
    request.inputs[call.input_name].CopyFrom(tensor)
    return request


@pytest.mark.parametrize("shape", [(1, 1, 3), (300, 300, 3), (7, 130, 3), (2,), ()])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("count", [1, 2, 33])
def test_request_is_what_the_official_classes_write(shape, dtype, count):
    """The hand-written request parses, with the official classes, to the one they would make."""
    rng = np.random.default_rng(count)
    images = [rng.integers(0, 256, shape).astype(dtype) for _ in range(count)]
    message = encode_predict(CALL, images)
    expected = official(CALL, tf.make_tensor_proto(np.stack(images)))
    if count * images[0].size == 1:  # TensorFlow writes a lone value in its typed field
        parsed = predict_pb2.PredictRequest.FromString(message)
        assert tf.make_ndarray(parsed.inputs["inputs"]) == images[0]
    else:
        assert predict_pb2.PredictRequest.FromString(message) == expected
        assert len(message) == expected.ByteSize()


@given(
    call=st.builds(
        PredictCall,
        model=st.one_of(
            st.builds(ModelChoice, st.text(max_size=200), st.none(), st.none()),
            st.builds(ModelChoice, st.text(), st.integers(0, 2**63 - 1), st.none()),
            st.builds(ModelChoice, st.text(), st.none(), st.text(min_size=1, max_size=200)),
        ),
        signature_name=st.text(max_size=20),
        input_name=st.text(min_size=1, max_size=200),
        output_filter=st.lists(st.text(max_size=150), max_size=4).map(tuple),
    ),
    strings=st.lists(st.binary(max_size=300), min_size=1, max_size=5),
)
def test_string_request_is_what_the_official_classes_write(call, strings):
    """Encoded pictures of any length go out as a string tensor of shape [N], under any names."""
    tensor = tf.make_tensor_proto(np.array(strings, object), dtype=tf.string)
    parsed = predict_pb2.PredictRequest.FromString(
        encode_predict_strings(call, [np.frombuffer(string, np.uint8) for string in strings])
    )
    assert parsed == official(call, tensor)


def test_our_classes_read_what_the_official_ones_write_and_the_reverse():
    """Both sets of classes agree on every field that the gateway uses."""
    request = official(CALL, tf.make_tensor_proto(np.zeros((2, 3), np.uint8)))
    request.model_spec.version.value = 7
    ours = pb.PredictRequest.FromString(request.SerializeToString())
    assert ours.model_spec.version.value == 7
    again = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert again == request
    request.model_spec.version_label = "canary"
    ours = pb.PredictRequest.FromString(request.SerializeToString())
    assert ours.model_spec.version_label == "canary"
    assert not ours.model_spec.HasField("version")


ARRAYS = st.sampled_from(
    [*map(np.dtype, ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])]
).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, max_side=6)))


@given(array=ARRAYS)
def test_tensor_content_of_every_type_is_read(array):
    """What TensorFlow packs as tensor_content comes back equal, bit for bit."""
    tensor = tensor_pb2.TensorProto(
        dtype=tf.as_dtype(array.dtype).as_datatype_enum, tensor_content=array.tobytes()
    )
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    same_bits(read(tensor), array)


@given(array=ARRAYS)
def test_typed_values_of_every_type_are_read(array):
    """What a server writes into float_val and its kin comes back equal, bit for bit."""
    same_bits(read(typed(array)), array)


def typed(array: np.ndarray) -> tensor_pb2.TensorProto:
    dtype = tf.as_dtype(array.dtype)
    tensor = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    field = {
        "float32": "float_val",
        "float64": "double_val",
        "float16": "half_val",
        "int64": "int64_val",
        "bool": "bool_val",
        "uint32": "uint32_val",
        "uint64": "uint64_val",
    }.get(dtype.name, "int_val")
    values = array.ravel().view(np.uint16) if dtype == tf.float16 else array.ravel()
    getattr(tensor, field).extend(values.tolist())
    return tensor


def read(tensor: tensor_pb2.TensorProto) -> np.ndarray:
    return tensor_to_array(pb.TensorProto.FromString(tensor.SerializeToString()))


def same_bits(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    assert got.tobytes() == expected.tobytes()


def test_strings_are_read():
    """A string tensor becomes an array of bytes objects in its shape."""
    array = np.array([[b"a", b"\xff\x00"], [b"", b"long" * 99]], object)
    tensor = tf.make_tensor_proto(array, dtype=tf.string)
    assert read(tensor).tolist() == array.tolist()
    # As tensor_content: the lengths as varints (396 is 0x8c 0x03), then the bytes.
    del tensor.string_val[:]
    tensor.tensor_content = b"\x01\x02\x00\x8c\x03" + b"".join(array.ravel())
    assert read(tensor).tolist() == array.tolist()
    for damaged in (tensor.tensor_content[:-1], tensor.tensor_content[:4], b"\xff" * 20):
        tensor.tensor_content = damaged
        with pytest.raises(BackendAnswerInvalidError, match="middle of a value"):
            read(tensor)


def test_the_last_value_stands_for_those_missing():
    """One value fills a whole tensor; of several the last fills the rest, as in TensorFlow."""
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[0.5])
    for size in (3, 100):
        tensor.tensor_shape.dim.add(size=size)
    assert read(tensor).shape == (3, 100)
    assert np.all(read(tensor) == 0.5)
    tensor.float_val[:] = [1, 2, 3]
    np.testing.assert_array_equal(read(tensor), tf.make_ndarray(tensor))


def broken(**change) -> pb.TensorProto:
    tensor = pb.TensorProto(dtype=pb.DT_FLOAT, float_val=b"\0" * 8)
    tensor.tensor_shape.dim.add(size=2)
    for name, value in change.items():
        if name == "dims":
            del tensor.tensor_shape.dim[:]
            for size in value:
                tensor.tensor_shape.dim.add(size=size)
        elif name == "unknown_rank":
            tensor.tensor_shape.unknown_rank = value
        else:
            setattr(tensor, name, value)
    return tensor


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unknown_rank": True}, "no definite shape"),
        ({"dims": [-1]}, "no definite shape"),
        ({"dims": [1 << 40, 1 << 40]}, "claims a shape"),
        ({"dims": [1]}, "2 values for a shape of [1]"),
        ({"dims": [0]}, "2 values for a shape of [0]"),
        ({"float_val": b""}, "0 values for a shape of [2]"),
        ({"float_val": b"\0" * 7}, "middle of a value"),
        ({"dtype": 8}, "data type 8"),
        ({"dtype": 0}, "data type 0"),
        ({"dtype": pb.DT_INT32, "tensor_content": b"\0" * 5}, "middle of a value"),
        ({"dtype": pb.DT_DOUBLE}, "0 values for a shape of [2]"),
    ],
    ids=str,
)
def test_a_tensor_that_contradicts_itself_is_refused(change, reason):
    """Where shape, type and values do not fit, the answer is invalid; the output is named."""
    with pytest.raises(BackendAnswerInvalidError) as caught:
        tensor_to_array(broken(**change), "scores")
    assert reason in str(caught.value)
    assert "'scores'" in str(caught.value)


def test_values_that_do_not_fit_their_type_are_refused():
    """An int_val out of the range of a uint8 is damage, not something to wrap around."""
    tensor = pb.TensorProto(dtype=pb.DT_UINT8, int_val=[300])
    with pytest.raises(BackendAnswerInvalidError, match="cannot hold"):
        tensor_to_array(tensor)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_an_error_of_ours(data):
    """Garbage in place of an answer never raises anything but BackendAnswerInvalidError."""
    with contextlib.suppress(BackendAnswerInvalidError):
        parse_predict(data)


def test_answer_tells_the_version():
    """The version in the answer is read; an answer without one has None."""
    response = predict_pb2.PredictResponse()
    assert parse_predict(response.SerializeToString()).model_version is None
    response.model_spec.version.value = 3
    response.outputs["scores"].CopyFrom(tf.make_tensor_proto([0.25, 0.5]))
    answer = parse_predict(response.SerializeToString())
    assert answer.model_version == 3
    assert answer.outputs["scores"].tolist() == [0.25, 0.5]
