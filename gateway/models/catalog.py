"""Which models are known, and how each is asked; learnt at first use."""

import asyncio
from collections.abc import Awaitable, Callable, Set

from gateway.errors import GatewayError
from gateway.models.signature import ServedModel, served_model
from gateway.tfserving import ModelMetadata

__all__ = ["Catalog"]


class Catalog:
    """Remembers what ``fetch`` (a model's name to its metadata) found, until told to forget.

    Callers who ask for one model at the same time share one fetch; one that leaves does not end it
    for the others, and each gets an error of its own when it fails.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[ModelMetadata]]) -> None:
        self._fetch = fetch
        self._models: dict[str, ServedModel] = {}
        self._fetches: dict[str, asyncio.Task[ServedModel]] = {}
        self._seen: set[str] = set()

    @property
    def seen(self) -> Set[str]:
        """Every model that was ever found: names that TensorFlow Serving vouches for."""
        return self._seen

    async def get(self, model_name: str) -> ServedModel:
        """How the model is asked.

        Raises
        ------
        ModelUnsupportedError
            Its signatures are not those of an object detector.
        GatewayError
            Whatever the fetch raised: no such model, TensorFlow Serving unreachable, and so on.
        """
        model = self._models.get(model_name)
        if model is not None:
            return model
        task = self._fetches.get(model_name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._discover(model_name))
            self._fetches[model_name] = task
            task.add_done_callback(lambda done: self._settle(model_name, done))
        try:
            return await asyncio.shield(task)
        except GatewayError as error:
            raise error.renew() from error

    def forget(self, model: ServedModel) -> None:
        """Read the model's signature anew at its next use, unless that has happened already."""
        name = model.call.model_name
        if self._models.get(name) == model:
            del self._models[name]

    async def aclose(self) -> None:
        """End the fetches that run."""
        tasks = list(self._fetches.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _discover(self, model_name: str) -> ServedModel:
        return served_model(model_name, await self._fetch(model_name))

    def _settle(self, model_name: str, task: asyncio.Task[ServedModel]) -> None:
        del self._fetches[model_name]
        # Asking for the exception marks it as seen, even if everybody who waited has left.
        if not task.cancelled() and task.exception() is None:
            self._models[model_name] = task.result()
            self._seen.add(model_name)
