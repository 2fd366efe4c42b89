"""The Predict call that carries a batch, and what is done when TensorFlow Serving refuses it."""

import asyncio
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gateway.admission import Place
from gateway.errors import (
    BackendMemoryError,
    DeadlineExceededError,
    GatewayError,
    InputRefusedError,
)
from gateway.models import Catalog, ConfiguredModels, DetectionRow, ServedModel, split_rows
from gateway.settings import Settings
from gateway.tfserving import (
    ModelChoice,
    ModelMetadata,
    PredictAnswer,
    encode_predict,
    encode_predict_strings,
)

__all__ = ["Backend", "Lane", "Picture", "Predictor", "Share", "largest_batch"]

CEILINGS = 1000  # that are remembered; the oldest goes
PROBE_SECONDS = 60.0  # after which twice a ceiling is tried again

T = TypeVar("T")


class Backend(Protocol):
    """What is needed of TensorFlow Serving; ``tfserving.Replicas`` is it."""

    def servers(self, model: ModelChoice) -> Sequence[str]:
        """Those that may be asked for the model now, one at least."""

    async def predict(
        self,
        request: bytes,
        *,
        model: ModelChoice,
        timeout: float,
        read: Callable[[PredictAnswer], T],
        server: Hashable,
        usual: Callable[[str], float],
    ) -> T:
        """Run a serialised PredictRequest, on ``server`` if that can be; ``usual`` tells of each
        the seconds that it takes (0: not known)."""

    async def metadata(self, model: ModelChoice, *, timeout: float) -> ModelMetadata:
        """Ask for a model's signatures."""


class Lane(NamedTuple):
    """What pictures must have in common to share a call; ``shape`` is that of one, [H, W, 3]."""

    model: ServedModel
    shape: tuple[int, ...]


class Picture(NamedTuple):
    """A picture on its way: its pixels [H, W, 3], or a file's bytes for a model that decodes."""

    payload: NDArray[np.uint8]
    deadline: float
    place: Place


class Share(NamedTuple):
    """What one picture gets of a call."""

    row: DetectionRow
    seconds: float
    model_version: int


Shares = list[Share | Exception]


@dataclass
class _Ceiling:
    """A batch size that TensorFlow Serving took after it had refused a larger one."""

    size: int
    since: float


def largest_batch(settings: Settings, sizes: tuple[int, ...], nbytes: int) -> int:
    """Pictures of ``nbytes`` that a call may carry by the settings and by the model's ``sizes``."""
    most = min(settings.max_batch_size, max(1, settings.max_message_bytes // nbytes))
    return max((size for size in sizes if size <= most), default=sizes[0]) if sizes else most


class Predictor:
    """Runs batches on the servers that it is told; to be a batcher's ``process``.

    A batch that is refused for what is in it, or for want of memory, is asked again in parts,
    unless the model has changed: then all of it is refused. If all parts succeed it was too large:
    batches for that server are cut to what succeeded, until after a minute twice as much is tried.
    If not, the pictures that are refused alone are at fault, alone.

    ``usual`` tells the seconds that a call for so many pictures takes on a server, 0 if that is not
    known.
    ``predicted`` is told the model's name and the seconds of each call, and ``catalog`` is told to
    forget a model when another version of it has answered.

    A call may take ``request_timeout`` from when it leaves, even if all who wait for it have less
    time: what it took is learnt all the same.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        models: ConfiguredModels,
        catalog: Catalog,
        *,
        usual: Callable[[Lane, int, Hashable], float],
        predicted: Callable[[str, float], None],
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._models = models
        self._catalog = catalog
        self._usual = usual
        self._predicted = predicted
        self._ceilings: dict[tuple[Lane, Hashable], _Ceiling] = {}

    def max_batch_size(self, lane: Lane, server: Hashable) -> int:
        """Pictures that one call of ``server`` for ``lane`` may carry now."""
        most = self._most(lane)
        ceiling = self._ceilings.get((lane, server))
        if ceiling is None:
            return most
        age = asyncio.get_running_loop().time() - ceiling.since
        return min(most, ceiling.size * (2 if age > PROBE_SECONDS else 1))

    def forget(self, server: Hashable) -> None:
        """A server is gone for good."""
        for lane, one in list(self._ceilings):
            if one == server:
                del self._ceilings[lane, one]

    def _most(self, lane: Lane) -> int:
        """What is allowed, whatever was learnt."""
        if not lane.model.batches:
            return 1
        return largest_batch(self._settings, self._sizes(lane), math.prod(lane.shape))

    def _sizes(self, lane: Lane) -> tuple[int, ...]:
        return self._models.settings(lane.model.call.model_name).batch_sizes

    def _padded(self, lane: Lane, size: int) -> int:
        """What a call for ``size`` pictures carries."""
        if not lane.model.batches:
            return size
        return min((one for one in self._sizes(lane) if one >= size), default=size)

    async def __call__(self, lane: Lane, pictures: list[Picture], server: Hashable) -> Shares:
        """A share or an error for each picture, in their order.

        Raises
        ------
        GatewayError
            What all of them failed with.
        """
        for picture in pictures:
            picture.place.sent()
        if self._too_long(lane, pictures):
            return (await self._in_parts(lane, pictures, server))[0]
        try:
            shares = await self._call(lane, pictures, server)
        except (InputRefusedError, BackendMemoryError):
            if len(pictures) == 1 or await self._catalog.changed(lane.model):
                raise
            shares, largest = await self._in_parts(lane, pictures, server)
            if not any(isinstance(share, Exception) for share in shares):
                self._learn_ceiling(lane, server, largest)
            return shares
        ceiling = self._ceilings.get((lane, server))
        if ceiling is not None and len(pictures) > ceiling.size:
            self._learn_ceiling(lane, server, len(pictures))
        return shares

    def _too_long(self, lane: Lane, pictures: list[Picture]) -> bool:
        """Whether files, whose length says nothing of their pixels, would fill too long a call."""
        length = sum(picture.payload.nbytes for picture in pictures) if lane.model.encoded else 0
        return length > self._settings.max_message_bytes and len(pictures) > 1

    async def _in_parts(
        self, lane: Lane, pictures: list[Picture], server: Hashable
    ) -> tuple[Shares, int]:
        """What came of the parts, and the size of the largest that succeeded."""
        largest = 0
        loop = asyncio.get_running_loop()

        async def ask(part: list[Picture]) -> Shares:
            nonlocal largest
            if all(picture.deadline <= loop.time() for picture in part):
                late = "the batch was refused until it was late"
                return [DeadlineExceededError(late) for _ in part]
            if self._too_long(lane, part):
                return await parts(part)
            try:
                shares = await self._call(lane, part, server)
            except (InputRefusedError, BackendMemoryError) as error:
                return [error] if len(part) == 1 else await parts(part)
            except GatewayError as error:
                return [error.renew() for _ in part]
            largest = max(largest, len(part))
            return shares

        async def parts(part: list[Picture]) -> Shares:
            half = (len(part) + 1) // 2
            first = max((size for size in self._sizes(lane) if size < len(part)), default=half)
            return await ask(part[:first]) + await ask(part[first:])

        return await parts(pictures), largest

    def _learn_ceiling(self, lane: Lane, server: Hashable, size: int) -> None:
        size = self._padded(lane, size)
        if size >= self._most(lane):
            self._ceilings.pop((lane, server), None)
        else:
            self._ceilings[lane, server] = _Ceiling(size, asyncio.get_running_loop().time())
            if len(self._ceilings) > CEILINGS:  # clients choose the shapes of some models
                del self._ceilings[next(iter(self._ceilings))]

    async def _call(self, lane: Lane, pictures: list[Picture], server: Hashable) -> Shares:
        loop = asyncio.get_running_loop()
        call = lane.model.call
        encode = encode_predict_strings if lane.model.encoded else encode_predict
        payloads = [picture.payload for picture in pictures]
        size = self._padded(lane, len(payloads))
        payloads += payloads[-1:] * (size - len(payloads))
        message = encode(call, payloads)
        started = loop.time()

        def read(answer: PredictAnswer) -> tuple[int | None, list[DetectionRow]]:
            return answer.model_version, split_rows(answer.outputs, size)

        try:
            answered, rows = await self._backend.predict(
                message,
                model=call.model,
                timeout=self._settings.request_timeout,
                read=read,
                server=server,
                usual=partial(self._usual, lane, len(pictures)),
            )
        finally:
            seconds = loop.time() - started
            self._predicted(call.model_name, seconds)
        version = lane.model.version if answered is None else answered
        if version != lane.model.version:
            self._catalog.forget(lane.model)
        return [Share(row, seconds, version) for row, _ in zip(rows, pictures, strict=False)]
