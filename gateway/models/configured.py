"""The models that the settings name, and the labels of their classes; may change while running."""

import logging
from collections.abc import Iterator, Mapping

from gateway.models.labels import load_labels
from gateway.settings import ModelSettings

__all__ = ["ConfiguredModels"]

log = logging.getLogger("gateway")
NOTHING = ModelSettings(labels=None, batch_sizes=())
NO_LABELS: Mapping[int, str] = {}


class ConfiguredModels:
    """What is configured of each model, and its labels.

    Raises
    ------
    ValueError
        Label maps cannot be read; the message names each that is at fault, one a line.
    """

    def __init__(self, models: Mapping[str, ModelSettings]) -> None:
        self.replace(models)

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __contains__(self, name: object) -> bool:
        return name in self._models

    def settings(self, name: str) -> ModelSettings:
        """Those of the model; those of a model without any, if it is not configured."""
        return self._models.get(name, NOTHING)

    def labels(self, name: str) -> Mapping[int, str]:
        """The labels of the model's classes by id; empty if it has none."""
        return self._labels.get(name, NO_LABELS)

    def replace(self, models: Mapping[str, ModelSettings]) -> None:
        """Take others in their place, and read all labels; ValueError as above changes nothing."""
        labels, problems = {}, []
        for name, model in models.items():
            if model.labels:
                try:
                    labels[name] = load_labels(model.labels)
                except ValueError as error:
                    problems.append(f"labels of model {name!r}: {error}")
        if problems:
            raise ValueError("\n".join(problems))
        self._models, self._labels = dict(models), labels

    def read_labels(self, name: str) -> None:
        """Read the labels of one model again, since another version of it serves."""
        source = self.settings(name).labels
        if source:
            try:
                self._labels[name] = load_labels(source)
            except ValueError as error:
                log.warning("the labels of model %r stay as they were: %s", name, error)
