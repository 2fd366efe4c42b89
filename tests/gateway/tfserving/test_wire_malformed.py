"""Answers made to mislead: read as the official classes read them, or refused; and never at the
price of more memory than an answer may have."""

import random
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from gateway.errors import BackendAnswerInvalidError
from gateway.tfserving import tfserving_pb2 as pb
from gateway.tfserving.wire import (
    MAX_CLAIMED,
    MAX_ELEMENTS,
    PredictAnswer,
    parse_predict,
    tensor_to_array,
)

KNOWN = [
    *(types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE, types_pb2.DT_HALF, types_pb2.DT_STRING),
    *(types_pb2.DT_INT8, types_pb2.DT_INT16, types_pb2.DT_INT32, types_pb2.DT_INT64),
    *(types_pb2.DT_UINT8, types_pb2.DT_UINT16, types_pb2.DT_UINT32, types_pb2.DT_UINT64),
    types_pb2.DT_BOOL,
]
SIZES = st.one_of(
    st.integers(0, 4), st.sampled_from([-1, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)])
)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
FEW = {"max_size": 5}


@st.composite
def tensors(draw: st.DrawFn) -> tensor_pb2.TensorProto:
    """Shape, type and values that know nothing of each other; often enough they fit."""
    tensor = tensor_pb2.TensorProto(dtype=draw(st.sampled_from([*KNOWN, *KNOWN, 0, 8, 23, 101])))
    for size in draw(st.lists(SIZES, max_size=4)):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_shape.unknown_rank = draw(st.integers(0, 20)) == 20
    if draw(st.booleans()):
        tensor.tensor_content = draw(st.binary(max_size=40))
    tensor.float_val.extend(draw(st.lists(st.floats(width=32), **FEW)))
    tensor.double_val.extend(draw(st.lists(st.floats(), **FEW)))
    tensor.int_val.extend(draw(st.lists(INT32 | st.integers(0, 255), **FEW)))
    tensor.half_val.extend(draw(st.lists(INT32 | st.integers(0, 65535), **FEW)))
    tensor.string_val.extend(draw(st.lists(st.binary(max_size=6), **FEW)))
    tensor.int64_val.extend(draw(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), **FEW)))
    tensor.bool_val.extend(draw(st.lists(st.booleans(), **FEW)))
    tensor.uint32_val.extend(draw(st.lists(st.integers(0, (1 << 32) - 1), **FEW)))
    tensor.uint64_val.extend(draw(st.lists(st.integers(0, (1 << 64) - 1), **FEW)))
    return tensor


@st.composite
def answers(draw: st.DrawFn) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    if draw(st.booleans()):
        response.model_spec.name = draw(st.text(max_size=5))
        response.model_spec.version.value = draw(st.integers(-(1 << 63), (1 << 63) - 1))
    for name in draw(st.lists(st.text(max_size=5), max_size=3)):
        response.outputs[name].CopyFrom(draw(tensors()))
    return response


def held_to(tensor: tensor_pb2.TensorProto, array: np.ndarray) -> None:
    """What was read is what TensorFlow reads; its shape is what the tensor claims."""
    assert array.shape == tuple(dim.size for dim in tensor.tensor_shape.dim)
    if array.dtype == object and tensor.tensor_content:
        return  # TensorFlow's Python does not read packed strings; test_wire.py shows that we do
    expected = tf.make_ndarray(tensor)
    assert array.dtype == expected.dtype
    if array.dtype == object:
        assert array.tolist() == expected.tolist()
    else:
        assert array.tobytes() == expected.tobytes()


def read(message: bytes) -> PredictAnswer | None:
    """None is a refusal; any other exception fails the test."""
    try:
        return parse_predict(message)
    except BackendAnswerInvalidError:
        return None


def check(message: bytes) -> None:
    answer = read(message)
    if answer is None:
        return
    try:
        official = predict_pb2.PredictResponse.FromString(message)
    except DecodeError:
        pytest.fail("read what is no PredictResponse")
    spec = official.model_spec
    assert answer.model_version == (spec.version.value if spec.HasField("version") else None)
    assert answer.outputs.keys() == official.outputs.keys()
    for name, array in answer.outputs.items():
        if array.size <= 1 << 16:
            held_to(official.outputs[name], array)


@settings(deadline=None, max_examples=600)
@given(tensors())
def test_a_tensor_is_read_as_officially_or_refused(tensor):
    """Whatever shape, type and values claim of each other, nothing is guessed."""
    try:
        array = tensor_to_array(pb.TensorProto.FromString(tensor.SerializeToString()))
    except BackendAnswerInvalidError:
        return
    if array.size <= 1 << 16:
        held_to(tensor, array)


@settings(deadline=None, max_examples=200)
@given(answers(), st.randoms(use_true_random=False))
def test_a_damaged_answer_is_read_as_officially_or_refused(response, chance):
    """Truncated, bits flipped, spans repeated or dropped: as the official classes, or an error."""
    message = response.SerializeToString()
    check(message)
    for _ in range(10):
        check(damaged(message, chance))


def damaged(message: bytes, chance: random.Random) -> bytes:
    changed = bytearray(message)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(changed) + 1)
        end = at + chance.randrange(1, 9)
        change = chance.randrange(4)
        if change == 0:
            del changed[at:]
        elif change == 1 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif change == 2:
            changed[at:at] = changed[at:end]
        else:
            del changed[at:end]
    return bytes(changed)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_as_officially_or_refused(data):
    """Noise is no answer; where it happens to be one, it is the same to both."""
    check(data)


def claiming(shape: list[int], **values) -> bytes:
    response = predict_pb2.PredictResponse()
    tensor = response.outputs["scores"]
    tensor.CopyFrom(tensor_pb2.TensorProto(**values))
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return response.SerializeToString()


@pytest.mark.parametrize(
    "message",
    [
        claiming([MAX_ELEMENTS], dtype=types_pb2.DT_FLOAT, float_val=[1]),
        claiming([MAX_ELEMENTS], dtype=types_pb2.DT_FLOAT, float_val=[1, 2]),
        claiming([MAX_ELEMENTS], dtype=types_pb2.DT_STRING, string_val=[b"a", b"b"]),
        claiming([MAX_ELEMENTS], dtype=types_pb2.DT_STRING, tensor_content=b"\0" * 100),
        claiming([MAX_ELEMENTS], dtype=types_pb2.DT_INT64, int64_val=[]),
        claiming([1 << 62, 1 << 62], dtype=types_pb2.DT_STRING, tensor_content=b"\0"),
        claiming([MAX_ELEMENTS, 0], dtype=types_pb2.DT_STRING, tensor_content=b"\0"),
        claiming([0, 1 << 40, 1 << 40], dtype=types_pb2.DT_FLOAT),
        claiming([1] * 1000, dtype=types_pb2.DT_FLOAT, float_val=[1]),
    ],
    ids=range(9),
)
def test_an_answer_that_claims_more_than_it_carries_takes_no_memory(message):
    """A message of some bytes is not made into gigabytes, whether it is read or refused."""
    tracemalloc.start()
    try:
        read(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_what_is_claimed_is_limited():
    """One element more than MAX_CLAIMED from fewer values is refused; sent in full it is read."""
    one_more = MAX_CLAIMED + 1
    few = claiming([MAX_CLAIMED], dtype=types_pb2.DT_UINT8, int_val=[1, 2])
    assert read(few).outputs["scores"][-1] == 2
    for values in ([1], [1, 2]):
        too_few = claiming([one_more], dtype=types_pb2.DT_UINT8, int_val=values)
        with pytest.raises(BackendAnswerInvalidError, match="claims a shape"):
            parse_predict(too_few)
    whole = claiming([one_more], dtype=types_pb2.DT_UINT8, tensor_content=b"a" * one_more)
    assert read(whole).outputs["scores"].shape == (one_more,)


def test_dimensions_are_limited():
    """More of them than numpy has are refused, though they hold a single value."""
    read_all = claiming([1] * 32, dtype=types_pb2.DT_FLOAT, float_val=[1])
    assert read(read_all).outputs["scores"].shape == (1,) * 32
    with pytest.raises(BackendAnswerInvalidError, match="33 dimensions"):
        parse_predict(claiming([1] * 33, dtype=types_pb2.DT_FLOAT, float_val=[1]))


def test_content_that_is_cut_is_not_filled_up():
    """The last value stands for those missing in the field of a type, never in tensor_content."""
    for kind, content in ((types_pb2.DT_FLOAT, b"\0" * 8), (types_pb2.DT_UINT8, b"ab")):
        with pytest.raises(BackendAnswerInvalidError, match=r"2 values for a shape of \[3\]"):
            parse_predict(claiming([3], dtype=kind, tensor_content=content))


def test_one_string_for_all_stays_a_bytes_object():
    """Filled up or not, strings are bytes objects and keep the zeros at their ends."""
    message = claiming([2], dtype=types_pb2.DT_STRING, string_val=[b"a\0"])
    assert read(message).outputs["scores"].tolist() == [b"a\0", b"a\0"]
