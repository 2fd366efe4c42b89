"""The wire to TensorFlow Serving: requests as bytes, answers as arrays, domain errors."""

from gateway.tfserving.client import ServingClient
from gateway.tfserving.credentials import Credentials
from gateway.tfserving.metadata import (
    ModelMetadata,
    Signature,
    TensorInfo,
    VersionState,
    VersionStatus,
)
from gateway.tfserving.replicas import Replicas
from gateway.tfserving.wire import (
    ModelChoice,
    PredictAnswer,
    PredictCall,
    encode_predict,
    encode_predict_strings,
)

__all__ = [
    "Credentials",
    "ModelChoice",
    "ModelMetadata",
    "PredictAnswer",
    "PredictCall",
    "Replicas",
    "ServingClient",
    "Signature",
    "TensorInfo",
    "VersionState",
    "VersionStatus",
    "encode_predict",
    "encode_predict_strings",
]
