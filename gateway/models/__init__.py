"""What is known of models: signatures, what their outputs mean, labels of their classes."""

from gateway.models.catalog import Catalog
from gateway.models.configured import ConfiguredModels
from gateway.models.detections import Detection, DetectionRow, split_rows
from gateway.models.signature import ServedModel, served_model

__all__ = [
    "Catalog",
    "ConfiguredModels",
    "Detection",
    "DetectionRow",
    "ServedModel",
    "served_model",
    "split_rows",
]
