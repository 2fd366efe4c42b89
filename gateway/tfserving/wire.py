"""PredictRequest and PredictResponse as bytes: the hot half of the protocol.

A request is written by hand, since the protobuf classes would copy every picture three times: all
that comes before the pixels is a short prefix, and the message is one join of that prefix and the
pictures as they lie in memory. (https://protobuf.dev/programming-guides/encoding/ for the format.)
Answers are small; the generated classes read them, and numpy looks at the values in place.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from gateway.errors import BackendAnswerInvalidError
from gateway.tfserving import tfserving_pb2 as pb

__all__ = [
    "MAX_ELEMENTS",
    "ModelChoice",
    "PredictAnswer",
    "PredictCall",
    "encode_predict",
    "encode_predict_strings",
    "parse_predict",
    "tensor_to_array",
]

MAX_ELEMENTS = 1 << 28
"""More elements than this in one output tensor are taken for damage, not for data."""

MAX_CLAIMED = 1 << 22
"""So many, where they are more than the values that were sent: 10,000 pictures of 100 boxes."""

_MAX_DIMENSIONS = 32  # that numpy has in every release

_DTYPES: Mapping[int, np.dtype[Any]] = {
    pb.DT_FLOAT: np.dtype("<f4"),
    pb.DT_DOUBLE: np.dtype("<f8"),
    pb.DT_INT32: np.dtype("<i4"),
    pb.DT_UINT8: np.dtype("u1"),
    pb.DT_INT16: np.dtype("<i2"),
    pb.DT_INT8: np.dtype("i1"),
    pb.DT_INT64: np.dtype("<i8"),
    pb.DT_BOOL: np.dtype("?"),
    pb.DT_UINT16: np.dtype("<u2"),
    pb.DT_HALF: np.dtype("<f2"),
    pb.DT_UINT32: np.dtype("<u4"),
    pb.DT_UINT64: np.dtype("<u8"),
}
_WIRE_DTYPES = {dtype: number for number, dtype in _DTYPES.items()}


class ModelChoice(NamedTuple):
    """A model by name and, if not the latest, by the number or the label of a version."""

    name: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"version {self.version} of model {self.name!r}"
        if self.label is not None:
            return f"version {self.label!r} of model {self.name!r}"
        return f"model {self.name!r}"


@dataclass(frozen=True)
class PredictCall:
    """What a Predict call says beside its pictures: the model, its signature, the tensors by name.

    Without ``output_filter`` the server sends every output, which for a detector is megabytes.
    """

    model: ModelChoice
    signature_name: str
    input_name: str
    output_filter: tuple[str, ...]

    @property
    def model_name(self) -> str:
        """The model's name, of whichever version."""
        return self.model.name


@dataclass(frozen=True)
class PredictAnswer:
    """The outputs by name, each with the batch as its first dimension, and who computed them."""

    model_version: int | None
    outputs: Mapping[str, NDArray[Any]]


def encode_predict(call: PredictCall, images: Sequence[NDArray[Any]]) -> bytes:
    """Serialise a PredictRequest whose input is ``images`` stacked: [N, *shape] of their dtype.

    All images have one shape and dtype, and are C-contiguous. They are copied once: here.
    """
    first = images[0]
    shape = (len(images), *first.shape)
    prefix = _tensor_prefix(call, _WIRE_DTYPES[first.dtype], shape, len(images) * first.nbytes)
    return b"".join((prefix, *(image.data for image in images)))


def encode_predict_strings(call: PredictCall, strings: Sequence[NDArray[np.uint8]]) -> bytes:
    """Serialise a PredictRequest whose input is a string tensor [N]; each string as its bytes."""
    head = b"\x08" + _varint(pb.DT_STRING) + _length_delimited(0x12, _shape((len(strings),)))
    parts: list[bytes | memoryview] = [head]
    for string in strings:
        parts += (b"\x42", _varint(len(string)), string.data)  # TensorProto.string_val
    return b"".join((_input_prefix(call, sum(map(len, parts))), *parts))


def parse_predict(message: bytes) -> PredictAnswer:
    """Read a PredictResponse.

    Raises
    ------
    BackendAnswerInvalidError
        The bytes are no PredictResponse, or one of its tensors contradicts itself.
    """
    try:
        answer = pb.PredictResponse.FromString(message)
    except DecodeError:
        raise BackendAnswerInvalidError(
            "TensorFlow Serving's answer is not a PredictResponse"
        ) from None
    spec = answer.model_spec
    version = spec.version.value if spec.HasField("version") else None
    return PredictAnswer(
        version, {name: tensor_to_array(tensor, name) for name, tensor in answer.outputs.items()}
    )


def tensor_to_array(tensor: pb.TensorProto, name: str = "tensor") -> NDArray[Any]:
    """Make an array of a TensorProto, a view of its bytes where the encoding permits.

    Values come as ``tensor_content``, all of them, or in the field of their type; when there are
    fewer than the shape asks for, the last stands for all that are missing
    (tensorflow/core/framework/tensor.cc).
    A string tensor becomes an array of ``bytes`` objects. The array may be read-only.

    Raises
    ------
    BackendAnswerInvalidError
        The shape is unknown, negative, or larger than ``MAX_ELEMENTS``, or than ``MAX_CLAIMED``
        with fewer values; the type is none of those known; or there are more values than elements,
        or none for some.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise BackendAnswerInvalidError(f"output {name!r} has no definite shape")
    if len(shape) > _MAX_DIMENSIONS:
        raise BackendAnswerInvalidError(f"output {name!r} has {len(shape)} dimensions")
    count = math.prod(shape)
    # Strings are counted one by one as they are read; and numpy has a limit for what a zero hides.
    most = MAX_CLAIMED if tensor.dtype == pb.DT_STRING else MAX_ELEMENTS
    if math.prod(size or 1 for size in shape) > most:
        raise BackendAnswerInvalidError(f"output {name!r} claims a shape of {list(shape)}")
    values = _values(tensor, name)
    if len(values) == count:
        return values.reshape(shape)
    if len(values) == 0 or len(values) > count or tensor.tensor_content:
        raise BackendAnswerInvalidError(
            f"output {name!r} has {len(values)} values for a shape of {list(shape)}"
        )
    if count > MAX_CLAIMED:
        raise BackendAnswerInvalidError(f"output {name!r} claims a shape of {list(shape)}")
    if len(values) == 1:
        return np.broadcast_to(values.reshape(()), shape)
    return np.concatenate((values, np.full(count - len(values), values[-1]))).reshape(shape)


def _values(tensor: pb.TensorProto, name: str) -> NDArray[Any]:
    number = tensor.dtype
    if number == pb.DT_STRING:
        found = _packed_strings(tensor, name) if tensor.tensor_content else tensor.string_val
        strings = np.empty(len(found), dtype=object)
        strings[:] = list(found)
        return strings
    dtype = _DTYPES.get(number)
    if dtype is None:
        raise BackendAnswerInvalidError(f"output {name!r} has the unforeseen data type {number}")
    packed = tensor.tensor_content
    if not packed and number == pb.DT_FLOAT:
        packed = tensor.float_val
    elif not packed and number == pb.DT_DOUBLE:
        packed = tensor.double_val
    if packed:
        if len(packed) % dtype.itemsize:
            raise BackendAnswerInvalidError(f"output {name!r} ends in the middle of a value")
        return np.frombuffer(packed, dtype)
    wide = np.array(_integers(tensor, number), "u8" if number == pb.DT_UINT64 else "i8")
    # A half comes as the low 16 bits of an int32.
    values = wide.astype("<u2" if number == pb.DT_HALF else dtype)
    if np.any(values != wide):
        raise BackendAnswerInvalidError(f"output {name!r} has a value that {dtype} cannot hold")
    return values.view(dtype)


def _packed_strings(tensor: pb.TensorProto, name: str) -> list[bytes]:
    """Strings as a server packs them: all their lengths as varints, then all their bytes.

    (EncodeStringList in tensorflow/core/platform/tensor_coding.cc)
    """
    packed, at, lengths = tensor.tensor_content, 0, []
    damage = BackendAnswerInvalidError(f"output {name!r} ends in the middle of a value")
    for _ in range(math.prod(dim.size for dim in tensor.tensor_shape.dim)):
        length = shift = 0
        while True:
            if at >= len(packed) or shift > 56:
                raise damage
            length |= (packed[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if packed[at - 1] < 0x80:
                break
        lengths.append(length)
    strings = []
    for length in lengths:
        strings.append(packed[at : at + length])
        at += length
    if at != len(packed):
        raise damage
    return strings


def _integers(tensor: pb.TensorProto, number: int) -> Sequence[int]:
    if number == pb.DT_INT64:
        return tensor.int64_val
    if number == pb.DT_BOOL:
        return tensor.bool_val
    if number == pb.DT_UINT32:
        return tensor.uint32_val
    if number == pb.DT_UINT64:
        return tensor.uint64_val
    if number == pb.DT_HALF:
        return tensor.half_val
    return tensor.int_val if number not in (pb.DT_FLOAT, pb.DT_DOUBLE) else ()


@lru_cache(maxsize=1024)
def _tensor_prefix(call: PredictCall, dtype: int, shape: tuple[int, ...], nbytes: int) -> bytes:
    head = b"\x08" + _varint(dtype) + _length_delimited(0x12, _shape(shape))
    head += b"\x22" + _varint(nbytes)  # TensorProto.tensor_content, whose bytes end the message
    return _input_prefix(call, len(head) + nbytes) + head


def _input_prefix(call: PredictCall, tensor_size: int) -> bytes:
    """All of a PredictRequest up to the TensorProto of ``tensor_size`` bytes that ends it."""
    name, version, label = call.model
    spec = _length_delimited(0x0A, name.encode())
    if version is not None:
        spec += _length_delimited(0x12, b"\x08" + _varint(version) if version else b"")
    spec += _length_delimited(0x1A, call.signature_name.encode())
    if label is not None:
        spec += _length_delimited(0x22, label.encode())
    head = _length_delimited(0x0A, spec)
    for name in call.output_filter:
        head += _length_delimited(0x1A, name.encode())
    entry = _length_delimited(0x0A, call.input_name.encode()) + b"\x12" + _varint(tensor_size)
    return head + b"\x12" + _varint(len(entry) + tensor_size) + entry


def _shape(shape: tuple[int, ...]) -> bytes:
    return b"".join(
        _length_delimited(0x12, b"\x08" + _varint(size) if size else b"") for size in shape
    )


def _length_delimited(tag: int, payload: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
