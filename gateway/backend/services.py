"""The official services, ``tensorflow.serving.PredictionService`` and ``ModelService``.

Codes and messages are those of TensorFlow Serving's ``predict_util.cc``, ``server_core.cc``,
``get_model_metadata_impl.cc`` and ``get_model_status_impl.cc``. Predict, GetModelMetadata and
GetModelStatus are here; every other method is UNIMPLEMENTED.
"""

import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import (
    GetModelStatusRequest,
    GetModelStatusResponse,
)
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse

from gateway.backend.status import StatusError, from_tensorflow
from gateway.backend.tensors import Array, decode, encode_as_content, encode_as_values
from gateway.backend.versions import Model, ModelVersion

__all__ = ["add_to_server"]

_INVALID_ARGUMENT = grpc.StatusCode.INVALID_ARGUMENT
_METHOD_NAMES = (
    "tensorflow/serving/predict",
    "tensorflow/serving/classify",
    "tensorflow/serving/regress",
)


def add_to_server(server: grpc.Server, model: Model, *, as_tensor_content: bool) -> None:
    """Answer for ``model`` on ``server``; outputs as ``tensor_content`` or as typed values."""
    services = _Services(model, as_tensor_content=as_tensor_content)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.PredictionService",
                {
                    "Predict": _unary(services.predict, PredictRequest),
                    "GetModelMetadata": _unary(services.metadata, GetModelMetadataRequest),
                },
            ),
            grpc.method_handlers_generic_handler(
                "tensorflow.serving.ModelService",
                {"GetModelStatus": _unary(services.status, GetModelStatusRequest)},
            ),
        )
    )


def _unary(answer: Callable[[Any], Any], request_type: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    def handle(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return answer(request)
        except StatusError as error:
            status = error
        except tf.errors.OpError as error:
            status = from_tensorflow(error)
        except Exception:  # a defect here: the whole story on stderr, none of it to the client
            traceback.print_exc()
            status = StatusError(grpc.StatusCode.INTERNAL, "internal error")
        return context.abort(status.code, status.message)

    return grpc.unary_unary_rpc_method_handler(
        handle,
        request_deserializer=request_type.FromString,
        response_serializer=lambda response: response.SerializeToString(),
    )


class _Services:
    def __init__(self, model: Model, *, as_tensor_content: bool) -> None:
        self._model = model
        self._encode = encode_as_content if as_tensor_content else encode_as_values

    def predict(self, request: PredictRequest) -> PredictResponse:
        _require_spec(request)
        key = request.model_spec.signature_name or "serving_default"
        with self._lend(request.model_spec) as version:
            signature = _predict_signature(version, key)
            feeds = _feeds(version, signature, request)
            aliases = _outputs(signature, request.output_filter)
            names = [signature.outputs[alias].name for alias in aliases]
            values = version.run(feeds, names)
            dtypes = [version.tensor(name).dtype for name in names]
        response = PredictResponse(model_spec=self._spec(version, key))
        for alias, value, dtype in zip(aliases, values, dtypes, strict=True):
            response.outputs[alias].CopyFrom(self._encode(value, dtype))
        return response

    def metadata(self, request: GetModelMetadataRequest) -> GetModelMetadataResponse:
        _require_spec(request)
        if not request.metadata_field:
            raise StatusError(
                _INVALID_ARGUMENT,
                "GetModelMetadataRequest must specify at least one metadata_field",
            )
        for field in request.metadata_field:
            if field != "signature_def":
                raise StatusError(_INVALID_ARGUMENT, f"Metadata field {field} is not supported")
        signatures = SignatureDefMap()
        with self._lend(request.model_spec) as version:
            for key, signature in version.signatures.items():
                signatures.signature_def[key].CopyFrom(signature)
        response = GetModelMetadataResponse(model_spec=self._spec(version, ""))
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status(self, request: GetModelStatusRequest) -> GetModelStatusResponse:
        _require_spec(request)
        spec = request.model_spec
        states = self._model.states() if spec.name == self._model.name else {}
        if spec.HasField("version"):
            number = spec.version.value
            if number not in states:
                raise StatusError(
                    grpc.StatusCode.NOT_FOUND,
                    f"Could not find version {number} of model {spec.name}",
                )
            states = {number: states[number]}
        if not states:
            raise StatusError(
                grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}"
            )
        response = GetModelStatusResponse()
        for number, state in states.items():
            status = response.model_version_status.add(version=number, state=state.state)
            status.status.error_code = state.code.value[0]
            status.status.error_message = state.message
        return response

    def _lend(self, spec: ModelSpec) -> AbstractContextManager[ModelVersion]:
        if not spec.name:
            raise StatusError(_INVALID_ARGUMENT, "ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            raise StatusError(
                _INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
            )
        return self._model.lend(spec.name, spec.version.value if choice == "version" else None)

    def _spec(self, version: ModelVersion, signature_name: str) -> ModelSpec:
        spec = ModelSpec(name=self._model.name, signature_name=signature_name)
        spec.version.value = version.number
        return spec


def _require_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise StatusError(_INVALID_ARGUMENT, "Missing ModelSpec")


def _predict_signature(version: ModelVersion, key: str) -> SignatureDef:
    signature = version.signatures.get(key)
    if signature is None:
        raise StatusError(
            grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{key}" not found.'
        )
    if signature.method_name not in _METHOD_NAMES:
        raise StatusError(
            grpc.StatusCode.INTERNAL,
            "Expected prediction signature method_name to be one of "
            f"{{{', '.join(_METHOD_NAMES)}}}. Was: {signature.method_name}",
        )
    return signature


def _feeds(
    version: ModelVersion, signature: SignatureDef, request: PredictRequest
) -> dict[str, Array]:
    sent, known = set(request.inputs), set(signature.inputs)
    if len(sent) != len(known):
        raise StatusError(
            _INVALID_ARGUMENT,
            f"input size does not match signature: {len(sent)}!={len(known)}"
            f" len({_braced(sent)}) != len({_braced(known)})."
            f" Sent extra: {_braced(sent - known)}."
            f" Missing but required: {_braced(known - sent)}.",
        )
    feeds = {}
    for alias, proto in request.inputs.items():
        if alias not in known:
            raise StatusError(
                _INVALID_ARGUMENT,
                f"input tensor alias not found in signature: {alias}."
                f" Inputs expected to be in the set {_braced(known)}.",
            )
        try:
            array = decode(proto)
        except ValueError as error:
            raise StatusError(_INVALID_ARGUMENT, f"tensor parsing error: {alias}") from error
        name = signature.inputs[alias].name
        _check_fit(alias, proto.dtype, array, version.tensor(name))
        feeds[name] = array
    return feeds


def _check_fit(alias: str, datatype: int, array: Array, tensor: tf.Tensor) -> None:
    dtype = tf.dtypes.as_dtype(datatype)
    if dtype != tensor.dtype:
        raise StatusError(
            _INVALID_ARGUMENT,
            f"Expects input {alias} to be {tensor.dtype.name} but {dtype.name} is provided",
        )
    if not tensor.shape.is_compatible_with(array.shape):
        raise StatusError(
            _INVALID_ARGUMENT,
            f"Expects input {alias} to have shape {tensor.shape}"
            f" but shape {tf.TensorShape(array.shape)} is provided",
        )


def _outputs(signature: SignatureDef, output_filter: Iterable[str]) -> list[str]:
    aliases: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise StatusError(
                _INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {alias}"
                f" Outputs expected to be in the set {_braced(signature.outputs)}.",
            )
        if alias in aliases:
            raise StatusError(_INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
        aliases.append(alias)
    return aliases or list(signature.outputs)


def _braced(names: Iterable[str]) -> str:
    return f"{{{','.join(sorted(names))}}}"
