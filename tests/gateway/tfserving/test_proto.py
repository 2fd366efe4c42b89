"""The checked-in subset of the protocol: fresh from its source, and true to the official one."""

import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
)

from gateway.tfserving import tfserving_pb2 as pb

OFFICIAL = {
    "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
    "TensorProto": tensor_pb2.TensorProto,
    "ModelSpec": model_pb2.ModelSpec,
    "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse,
    "TensorInfo": meta_graph_pb2.TensorInfo,
    "SignatureDef": meta_graph_pb2.SignatureDef,
    "SignatureDefMap": get_model_metadata_pb2.SignatureDefMap,
    "GetModelMetadataRequest": get_model_metadata_pb2.GetModelMetadataRequest,
    "GetModelMetadataResponse": get_model_metadata_pb2.GetModelMetadataResponse,
    "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
    "ModelVersionStatus": get_model_status_pb2.ModelVersionStatus,
    "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
}
PACKED = {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE}


def test_generated_code_is_fresh(tmp_path):
    """tfserving_pb2.py describes exactly what tfserving.proto says."""
    root = importlib.resources.files("gateway").joinpath("..")
    target = tmp_path / "fresh"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", f"-o{target}"]
    subprocess.run([*command, "gateway/tfserving/tfserving.proto"], check=True)  # noqa: S603 - our own file
    fresh = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[0]
    for message in fresh.message_type:  # protoc writes json names, the generated module does not
        strip_json_names(message)
    checked_in = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(checked_in)
    for message in checked_in.message_type:
        strip_json_names(message)
    assert fresh == checked_in
    assert Path(str(root)).is_dir()


def strip_json_names(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        strip_json_names(nested)


def test_every_message_is_compared():
    """No message of the subset is missing from the comparison below."""
    assert set(pb.DESCRIPTOR.message_types_by_name) == {*OFFICIAL, "StatusProto"}


@pytest.mark.parametrize("name", OFFICIAL)
def test_fields_have_the_official_numbers_and_types(name):
    """Each field has its official number, type and repetition; packed floats are bytes here."""
    theirs = OFFICIAL[name].DESCRIPTOR.fields_by_name
    for field in pb.DESCRIPTOR.message_types_by_name[name].fields:
        original = theirs[field.name]
        assert field.number == original.number
        if field.name in {"float_val", "double_val"}:
            assert original.type in PACKED
            assert original.is_packed
            assert field.type == FieldDescriptor.TYPE_BYTES
        else:
            assert field.type == original.type
            assert field.is_repeated == original.is_repeated


def test_data_types_have_the_official_numbers():
    """The enum of data types is a subset of TensorFlow's."""
    official = tensor_pb2.TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type
    for value in pb.DataType.DESCRIPTOR.values:
        assert official.values_by_name[value.name].number == value.number
