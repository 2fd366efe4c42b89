"""PredictionService.GetModelMetadata."""

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow.core.framework.types_pb2 import DT_UINT8
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    SignatureDefMap,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec

Client = Any


def ask(client: Client, spec: ModelSpec | None, *fields: str) -> Any:
    request = GetModelMetadataRequest(model_spec=spec, metadata_field=fields)
    return client.prediction.GetModelMetadata(request)


def signatures(response: Any) -> dict[str, Any]:
    unpacked = SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(unpacked)
    return dict(unpacked.signature_def)


def test_every_signature_is_told_with_shapes_and_types(client: Client) -> None:
    """The SignatureDefs are those of the file, dynamic sizes as -1, from the newest version."""
    response = ask(client, ModelSpec(name="pixels"), "signature_def")
    assert response.model_spec == ModelSpec(name="pixels", version=Int64Value(value=2))
    found = signatures(response)
    assert {"serving_default", "fixed", "__saved_model_init_op"} <= set(found)
    pixels = found["serving_default"].inputs["inputs"]
    assert pixels.dtype == DT_UINT8
    assert [dim.size for dim in pixels.tensor_shape.dim] == [-1, -1, -1, 3]
    assert set(found["serving_default"].outputs) == {"mean", "word", "size"}


def test_a_tf1_export_tells_both_its_signatures(start: Any, tf1_export: Path) -> None:
    """``detection_signature`` is there for those who look for it by its old name."""
    _, client = start(tf1_export.parent, model_name="ssd")
    found = signatures(ask(client, ModelSpec(name="ssd"), "signature_def"))
    assert set(found) == {"serving_default", "detection_signature"}
    assert found["detection_signature"].inputs["inputs"].name == "image_tensor:0"


@pytest.mark.parametrize(
    ("spec", "fields", "code", "details"),
    [
        (None, ["signature_def"], grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec"),
        (
            ModelSpec(name="pixels"),
            [],
            grpc.StatusCode.INVALID_ARGUMENT,
            "GetModelMetadataRequest must specify at least one metadata_field",
        ),
        (
            ModelSpec(name="pixels"),
            ["signature_def", "assets"],
            grpc.StatusCode.INVALID_ARGUMENT,
            "Metadata field assets is not supported",
        ),
        (
            ModelSpec(name="other"),
            ["signature_def"],
            grpc.StatusCode.NOT_FOUND,
            "Servable not found for request: Latest(other)",
        ),
    ],
    ids=["no model", "no field", "unknown field", "unknown model"],
)
def test_what_is_refused(
    client: Client, spec: ModelSpec, fields: list[str], code: grpc.StatusCode, details: str
) -> None:
    """A request must name a loaded model and the one field there is."""
    with pytest.raises(grpc.RpcError) as failure:
        ask(client, spec, *fields)
    assert (failure.value.code(), failure.value.details()) == (code, details)
