"""What TensorFlow Serving says of a model, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError

from gateway.errors import BackendAnswerInvalidError
from gateway.tfserving import tfserving_pb2 as pb

__all__ = [
    "ModelMetadata",
    "Signature",
    "TensorInfo",
    "VersionState",
    "VersionStatus",
    "parse_metadata",
    "parse_status",
]


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    ``name`` is the tensor's name in the graph; ``dtype`` TensorFlow's word for its type in lower
    case ("uint8", "string", "float"); ``shape`` holds None for a size that is left open, and is
    itself None when not even the number of dimensions is known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """The tensors that a signature takes and gives, by the names that a request uses."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]


@dataclass(frozen=True)
class ModelMetadata:
    """The signatures of the version that answers when no version is asked for."""

    version: int
    signatures: Mapping[str, Signature]


class VersionState(IntEnum):
    """Where a version is in its life (tensorflow_serving/apis/get_model_status.proto)."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(frozen=True)
class VersionStatus:
    """One version of a model; ``error`` says why it failed to load and is empty if it did not."""

    version: int
    state: VersionState
    error: str


def parse_metadata(message: bytes) -> ModelMetadata:
    """Read a GetModelMetadataResponse; raises BackendAnswerInvalidError if it is none."""
    try:
        answer = pb.GetModelMetadataResponse.FromString(message)
        packed = answer.metadata["signature_def"].value
        signatures = pb.SignatureDefMap.FromString(packed).signature_def
    except DecodeError:
        raise BackendAnswerInvalidError(
            "TensorFlow Serving's answer is not a GetModelMetadataResponse"
        ) from None
    return ModelMetadata(
        answer.model_spec.version.value,
        {
            name: Signature(
                {key: _tensor_info(info) for key, info in signature.inputs.items()},
                {key: _tensor_info(info) for key, info in signature.outputs.items()},
            )
            for name, signature in sorted(signatures.items())
        },
    )


def _tensor_info(info: pb.TensorInfo) -> TensorInfo:
    shape = info.tensor_shape
    dims = tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)
    known = pb.DataType.DESCRIPTOR.values_by_number.get(info.dtype)
    dtype = f"type {info.dtype}" if known is None else known.name.removeprefix("DT_").lower()
    return TensorInfo(info.name, dtype, None if shape.unknown_rank else dims)


def parse_status(message: bytes) -> list[VersionStatus]:
    """Read a GetModelStatusResponse, newest first; BackendAnswerInvalidError if it is none."""
    try:
        answer = pb.GetModelStatusResponse.FromString(message)
    except DecodeError:
        raise BackendAnswerInvalidError(
            "TensorFlow Serving's answer is not a GetModelStatusResponse"
        ) from None
    known = {state.value for state in VersionState}
    found = [
        VersionStatus(
            status.version,
            VersionState(status.state if status.state in known else 0),
            status.status.error_message if status.status.error_code else "",
        )
        for status in answer.model_version_status
    ]
    return sorted(found, key=lambda status: status.version, reverse=True)
