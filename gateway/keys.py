"""What the application, and each request, carry to the handlers."""

from typing import Final

from aiohttp import web

from gateway.access import Access
from gateway.admission import Admission
from gateway.clients import Clients
from gateway.detector import Detector
from gateway.metrics import Metrics
from gateway.models import ConfiguredModels
from gateway.settings import Settings
from gateway.tfserving import Credentials, Replicas

__all__ = [
    "ACCESS",
    "ADMISSION",
    "ARRIVED",
    "CLIENT",
    "CLIENTS",
    "CREDENTIALS",
    "DETECTOR",
    "LOG_FIELDS",
    "METRICS",
    "MODELS",
    "REQUEST_ID",
    "SETTINGS",
]

ACCESS: Final = web.AppKey("access", Access)
ADMISSION: Final = web.AppKey("admission", Admission)
CLIENT: Final = web.AppKey("client", Replicas)
CLIENTS: Final = web.AppKey("clients", Clients)
CREDENTIALS: Final = web.AppKey("credentials", Credentials)
"""There is none without TLS to TensorFlow Serving."""
DETECTOR: Final = web.AppKey("detector", Detector)
METRICS: Final = web.AppKey("metrics", Metrics)
MODELS: Final = web.AppKey("models", ConfiguredModels)
SETTINGS: Final = web.AppKey("settings", Settings)

ARRIVED: Final = web.RequestKey("arrived", float)
"""The loop's time at which the request's headers had been read."""
REQUEST_ID: Final = web.RequestKey("request_id", str)
LOG_FIELDS: Final = web.RequestKey("log_fields", dict[str, object])
"""What the request's log line says beside the usual."""
