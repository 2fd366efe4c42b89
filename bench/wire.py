"""TensorFlow Serving's wire, the few messages the bench needs, written and read by hand.

Importing the official stubs costs 550 MB and seconds a process, and parsing tens of megabytes a
second into protobuf objects would take the CPU from the gateway under test. Field numbers are those
of tensorflow/core/framework/{tensor,tensor_shape}.proto and tensorflow_serving/apis/*.proto;
tests hold every message against tensorflow-serving-api in both directions.
Standard library only.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

DT_FLOAT, DT_UINT8 = 1, 4
PREDICT = "/tensorflow.serving.PredictionService/Predict"


class WireError(ValueError):
    """The bytes are not the message that they should be."""


class Tensor(NamedTuple):
    """A TensorProto: ``content`` are the bytes of tensor_content or of the packed float_val."""

    dtype: int
    shape: tuple[int, ...]
    content: memoryview


class Predict(NamedTuple):
    """A PredictRequest with one input."""

    model: str
    signature: str
    input_name: str
    tensor: Tensor
    output_filter: list[str]


def varint(value: int) -> bytes:
    """Return ``value`` as a base-128 varint; a negative one takes ten bytes, as int64 does."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """Return a field of wire type varint."""
    return varint(field << 3) + varint(value)


def block(field: int, *parts: bytes | str) -> bytes:
    """Return a length-delimited field: a string, or a message made of ``parts``."""
    body = b"".join(part.encode() if isinstance(part, str) else part for part in parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def head(field: int, size: int) -> bytes:
    """Return the tag and length of a length-delimited field whose ``size`` bytes follow."""
    return varint(field << 3 | 2) + varint(size)


def fields(data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield (field, number, bytes) of a message; the number is 0 where there are bytes.

    Raises WireError for a message that ends early or has a wire type of no known message.
    """
    at, end, none = 0, len(data), data[:0]
    try:
        while at < end:
            tag, at = _read_varint(data, at)
            kind = tag & 7
            if kind == 0:
                value, at = _read_varint(data, at)
                yield tag >> 3, value, none
                continue
            if kind == 2:
                size, at = _read_varint(data, at)
            elif kind in {1, 5}:
                size = 8 if kind == 1 else 4
            else:
                raise WireError(f"wire type {kind}")
            if at + size > end:
                raise WireError("the message ends early")
            yield tag >> 3, 0, data[at : at + size]
            at += size
    except IndexError as error:
        raise WireError("the message ends early") from error


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def entries(data: memoryview, field: int) -> Iterator[tuple[str, memoryview]]:
    """Yield the (key, message) pairs of the map ``field``."""
    for found, _, entry in fields(data):
        if found == field:
            pair = {key: value for key, _, value in fields(entry)}
            yield str(pair.get(1, entry[:0]), "utf-8"), pair.get(2, entry[:0])


def shape(dims: Sequence[int]) -> bytes:
    """Return the body of a TensorShapeProto; -1 is an unknown dimension."""
    return b"".join(block(2, number(1, dim)) for dim in dims)


def read_tensor(data: memoryview) -> Tensor:
    """Read a TensorProto's dtype, shape and either its tensor_content or its packed float_val."""
    dtype, dims, content = 0, [], data[:0]
    for field, value, body in fields(data):
        if field == 1:
            dtype = value
        elif field == 2:
            sizes = [{f: v for f, v, _ in fields(dim)} for f, _, dim in fields(body) if f == 2]
            dims = [size.get(1, 0) for size in sizes]
        elif field in {4, 5}:
            content = body
    return Tensor(dtype, tuple(dims), content)


def read_spec(data: memoryview) -> tuple[str, str]:
    """Return the name and signature name of a ModelSpec."""
    found = {field: body for field, _, body in fields(data)}
    none = data[:0]
    return str(found.get(1, none), "utf-8"), str(found.get(3, none), "utf-8")


def model_of(request: bytes) -> str:
    """Return the model's name in a GetModelMetadata or GetModelStatus request."""
    return next((read_spec(body)[0] for f, _, body in fields(memoryview(request)) if f == 1), "")


def read_predict(request: bytes) -> Predict:
    """Read a PredictRequest without copying its tensor; WireError unless it has just one input."""
    model = signature = ""
    inputs: list[tuple[str, memoryview]] = []
    output_filter = []
    data = memoryview(request)
    for field, _, body in fields(data):
        if field == 1:
            model, signature = read_spec(body)
        elif field == 3:
            output_filter.append(str(body, "utf-8"))
    inputs = list(entries(data, 2))
    if len(inputs) != 1:
        raise WireError(f"{len(inputs)} inputs, not 1")
    name, tensor = inputs[0]
    return Predict(model, signature, name, read_tensor(tensor), output_filter)


def spec(model: str, signature: str = "", version: int | None = None) -> bytes:
    """Return the body of a ModelSpec."""
    body = block(1, model)
    if version is not None:
        body += block(2, number(1, version))
    return body + (block(3, signature) if signature else b"")


def predict_request(
    model: str, name: str, dims: Sequence[int], outputs: Sequence[str], images: Sequence[memoryview]
) -> bytes:
    """Return a PredictRequest of uint8 ``images``, each C-contiguous and of ``dims[1:]``.

    The pictures are copied once, into the message.
    """
    size = sum(image.nbytes for image in images)
    before = number(1, DT_UINT8) + block(2, shape(dims)) + head(4, size)
    entry = block(1, name) + head(2, len(before) + size) + before
    prefix = block(1, spec(model, "serving_default"))
    prefix += b"".join(block(3, output) for output in outputs)
    return b"".join((prefix, head(2, len(entry) + size), entry, *images))


def predict_response(
    outputs: Mapping[str, tuple[Sequence[int], Sequence[bytes]]], model_spec: bytes
) -> bytes:
    """Return a PredictResponse of float outputs: name to dims and little-endian float32 rows."""
    parts = []
    for name, (dims, rows) in outputs.items():
        size = sum(map(len, rows))
        before = number(1, DT_FLOAT) + block(2, shape(dims)) + head(5, size)
        entry = block(1, name) + head(2, len(before) + size) + before
        parts += [head(1, len(entry) + size), entry, *rows]
    return b"".join((*parts, block(2, model_spec)))


def read_outputs(response: bytes) -> dict[str, Tensor]:
    """Return the outputs of a PredictResponse by name."""
    return {name: read_tensor(body) for name, body in entries(memoryview(response), 1)}
