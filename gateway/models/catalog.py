"""Which models are known, and how each is asked; learnt at first use."""

import asyncio
from collections.abc import Awaitable, Callable, Set

from gateway.errors import DeadlineExceededError, GatewayError, ShuttingDownError
from gateway.models.signature import ServedModel, served_model
from gateway.tfserving import ModelChoice, ModelMetadata

__all__ = ["Catalog"]


class Catalog:
    """Remembers what ``fetch`` (a choice of model to its metadata) found, until told to forget.

    ``renewed`` is told the name of a model that was found to be served in another version.

    Callers who ask for one model at the same time share one fetch; one that leaves does not end it
    for the others, and each gets an error of its own when it fails.
    """

    def __init__(
        self,
        fetch: Callable[[ModelChoice], Awaitable[ModelMetadata]],
        renewed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._fetch = fetch
        self._renewed = renewed
        self._versions: dict[ModelChoice, int] = {}
        self._models: dict[ModelChoice, ServedModel] = {}
        self._fetches: dict[ModelChoice, asyncio.Task[ServedModel]] = {}
        self._seen: set[str] = set()

    @property
    def seen(self) -> Set[str]:
        """Every model that was ever found: names that TensorFlow Serving vouches for."""
        return self._seen

    async def get(self, choice: ModelChoice) -> ServedModel:
        """How the model is asked.

        Raises
        ------
        ModelUnsupportedError
            Its signatures are not those of an object detector.
        ShuttingDownError
            ``aclose`` came while it waited.
        GatewayError
            Whatever the fetch raised: no such model, TensorFlow Serving unreachable, and so on.
        """
        model = self._models.get(choice)
        if model is not None:
            return model
        task = self._fetches.get(choice)
        joined = task is not None
        if task is None:
            task = asyncio.get_running_loop().create_task(self._discover(choice))
            self._fetches[choice] = task
            task.add_done_callback(lambda done: self._settle(choice, done))
        try:
            return await asyncio.shield(task)
        except GatewayError as error:
            if joined and isinstance(error, DeadlineExceededError):
                return await self.get(choice)  # its time began before ours
            raise error.renew() from error
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not task.cancelled() or caller is None or caller.cancelling():
                raise
            raise ShuttingDownError("the gateway is shutting down") from None

    def forget(self, model: ServedModel) -> None:
        """Read the model's signature anew at its next use, unless that has happened already."""
        choice = model.call.model
        if self._models.get(choice) == model:
            del self._models[choice]

    async def changed(self, model: ServedModel) -> bool:
        """Whether the model is another, or asked in another way, by what is said of it now."""
        self.forget(model)
        try:
            return await self.get(model.call.model) != model
        except GatewayError:
            return False  # that is not known

    async def aclose(self) -> None:
        """End the fetches that run; who waits for one is told that the gateway is shutting down."""
        tasks = list(self._fetches.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _discover(self, choice: ModelChoice) -> ServedModel:
        return served_model(choice, await self._fetch(choice))

    def _settle(self, choice: ModelChoice, task: asyncio.Task[ServedModel]) -> None:
        del self._fetches[choice]
        # Asking for the exception marks it as seen, even if everybody who waited has left.
        if not task.cancelled() and task.exception() is None:
            self._models[choice] = model = task.result()
            self._seen.add(choice.name)
            if self._versions.setdefault(choice, model.version) != model.version:
                self._versions[choice] = model.version
                self._renewed(choice.name)
