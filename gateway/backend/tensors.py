"""TensorProto to NumPy, and NumPy to TensorProto in either of TensorFlow Serving's encodings."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

__all__ = ["Array", "decode", "encode_as_content", "encode_as_values"]

Array = npt.NDArray[Any]


def decode(proto: tensor_pb2.TensorProto) -> Array:
    """The tensor in ``proto``, from ``tensor_content`` or from the values of its type.

    Values that are missing at the end repeat the last one, so a single value fills a tensor.
    ValueError: type, shape and data do not make a tensor.
    """
    shape = proto.tensor_shape
    if shape.unknown_rank or any(dim.size < 0 for dim in shape.dim):
        raise ValueError("the shape is not fully known")
    try:
        return tf.make_ndarray(proto)  # type: ignore[no-any-return]  # TensorFlow has no types
    except (TypeError, OverflowError, MemoryError) as error:
        raise ValueError(str(error)) from error


def encode_as_values(array: Array, dtype: tf.DType) -> tensor_pb2.TensorProto:
    """``array`` in the repeated field of its type, every value written out: the default."""
    proto = _empty(array, dtype)
    field, values = _FIELDS[dtype]
    getattr(proto, field).extend(values(array.ravel()))
    return proto


def encode_as_content(array: Array, dtype: tf.DType) -> tensor_pb2.TensorProto:
    """``array`` as the bytes of ``tensor_content``, little-endian and row by row.

    Strings are the lengths as varints, then the strings (``port::EncodeStringList``): TensorFlow
    Serving writes them so under ``--enable_serialization_as_tensor_content``.
    """
    proto = _empty(array, dtype)
    if dtype == tf.string:
        strings = array.ravel().tolist()
        proto.tensor_content = b"".join([*(_varint(len(s)) for s in strings), *strings])
    else:
        proto.tensor_content = array.tobytes()
    return proto


def _empty(array: Array, dtype: tf.DType) -> tensor_pb2.TensorProto:
    shape = tf.TensorShape(array.shape).as_proto()
    return tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape)


def _varint(number: int) -> bytes:
    low = bytearray()
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*low, number])


def _numbers(flat: Array) -> list[Any]:
    return list(flat.tolist())


def _bits(flat: Array) -> list[int]:
    return list(flat.view(np.uint16).tolist())


def _pairs(flat: Array) -> list[float]:
    return list(np.stack((flat.real, flat.imag), axis=-1).ravel().tolist())


# Where each type's values go: tensorflow/core/framework/tensor.proto.
_FIELDS: dict[tf.DType, tuple[str, Callable[[Array], list[Any]]]] = {
    tf.float32: ("float_val", _numbers),
    tf.float64: ("double_val", _numbers),
    tf.float16: ("half_val", _bits),
    tf.bfloat16: ("half_val", _bits),
    tf.int8: ("int_val", _numbers),
    tf.uint8: ("int_val", _numbers),
    tf.int16: ("int_val", _numbers),
    tf.uint16: ("int_val", _numbers),
    tf.int32: ("int_val", _numbers),
    tf.uint32: ("uint32_val", _numbers),
    tf.int64: ("int64_val", _numbers),
    tf.uint64: ("uint64_val", _numbers),
    tf.bool: ("bool_val", _numbers),
    tf.string: ("string_val", _numbers),
    tf.complex64: ("scomplex_val", _pairs),
    tf.complex128: ("dcomplex_val", _pairs),
}
