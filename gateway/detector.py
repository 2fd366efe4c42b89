"""The use case: a picture in base64 and the name of a model in, detections out."""

import asyncio
import math
import sys
from collections.abc import Hashable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from batching import (
    Ahead,
    Batcher,
    BatcherClosedError,
    BatchFailedError,
    JustInTime,
    Observer,
    Upcoming,
)
from gateway.admission import Admission, Place
from gateway.errors import (
    BackendAnswerInvalidError,
    BackendRefusedError,
    GatewayError,
    OverloadedError,
    ShuttingDownError,
)
from gateway.imaging import decode_base64, open_picture
from gateway.models import Catalog, Detection, DetectionRow, ServedModel, split_rows
from gateway.settings import Settings
from gateway.tfserving import (
    ModelMetadata,
    PredictAnswer,
    encode_predict,
    encode_predict_strings,
)
from gateway.threads import Threads

__all__ = ["Backend", "Detector", "Found", "Lane", "Stages"]


LATEST = 0.95  # of the time until the deadline: an answer that is expected later is refused


class Backend(Protocol):
    """What the detector needs of TensorFlow Serving; ``tfserving.ServingClient`` is it."""

    async def predict(self, request: bytes, *, model_name: str, timeout: float) -> PredictAnswer:
        """Run a serialised PredictRequest."""

    async def metadata(self, model_name: str, *, timeout: float) -> ModelMetadata:
        """Ask for a model's signatures."""


class Lane(NamedTuple):
    """What pictures must have in common to share a call; ``shape`` is that of one, [H, W, 3]."""

    model: ServedModel
    shape: tuple[int, ...]


class Stages(Observer[Lane], Protocol):
    """Where the time of a picture goes, in seconds; beside what the batcher tells of batches."""

    def decoded(self, model_name: str, seconds: float) -> None:
        """From the admission of a request until its picture lay decoded."""

    def predicted(self, model_name: str, seconds: float) -> None:
        """One Predict call, whatever came of it."""


class _Picture(NamedTuple):
    """A picture on its way: its pixels [H, W, 3], or a file's bytes for a model that decodes."""

    payload: NDArray[np.uint8]
    deadline: float
    place: Place


class _Share(NamedTuple):
    """What one picture gets of a call."""

    row: DetectionRow
    seconds: float


class Found(NamedTuple):
    """Detections, best first, and the seconds of the Predict call that carried the picture."""

    detections: list[Detection]
    tfserve_time: float


class Detector:
    """Decodes, queues, batches and asks. Deadlines are times of the event loop's clock."""

    def __init__(
        self,
        backend: Backend,
        threads: Threads,
        admission: Admission,
        settings: Settings,
        stages: Stages,
    ) -> None:
        self._backend = backend
        self._admission = admission
        self._threads = threads
        self._settings = settings
        self._stages = stages
        self.catalog = Catalog(
            lambda name: backend.metadata(name, timeout=settings.request_timeout)
        )
        self._lanes: dict[str, Lane] = {}  # of each model the one that was last used
        self._dispatch = JustInTime(settings.max_in_flight, kind=_kind, upcoming=self._upcoming)
        self._batcher: Batcher[Lane, _Picture, _Share] = Batcher(
            self._predict,
            max_batch_size=self._max_batch_size,
            max_queue_size=sys.maxsize,  # admission is the limit, and has the same name
            dispatch=self._dispatch,
            observer=stages,
        )

    @property
    def queue_depth(self) -> int:
        """Decoded pictures that wait for a batch."""
        return self._batcher.depth

    @property
    def in_flight(self) -> int:
        """Predict calls that run."""
        return self._batcher.in_flight

    async def detect(
        self, model_name: str, image: str, *, threshold: float, place: Place, deadline: float
    ) -> Found:
        """Find what ``model_name`` sees in the picture above ``threshold``.

        Raises
        ------
        GatewayError
            The image or the model is at fault, TensorFlow Serving is, or there is no room. The
            deadline is the caller's to enforce; here it only limits the call.
        """
        place.waits_for(model_name)
        self._refuse_what_would_be_late(model_name, place, deadline)
        model = await self.catalog.get(model_name)
        try:
            return await self._detect(model, image, threshold, place, deadline)
        except (BackendRefusedError, BackendAnswerInvalidError):
            # Perhaps another version serves meanwhile, and wants to be asked in another way.
            changed = await self.catalog.get(model_name)
            if changed == model:
                raise
        return await self._detect(changed, image, threshold, place, deadline)

    async def _detect(
        self, model: ServedModel, image: str, threshold: float, place: Place, deadline: float
    ) -> Found:
        loop = asyncio.get_running_loop()
        entered = loop.time()
        payload, shape = await self._threads.run(self._prepare, model, image, place)
        self._stages.decoded(model.call.model_name, loop.time() - entered)
        lane = Lane(model, shape)
        self._lanes[model.call.model_name] = lane
        try:
            share = await self._batcher.submit(lane, _Picture(payload, deadline, place))
            return Found(share.row.above(threshold), share.seconds)
        except BatcherClosedError:
            raise ShuttingDownError("the gateway is shutting down") from None
        except BatchFailedError as failure:
            self.catalog.forget(model)
            if isinstance(failure.__cause__, GatewayError):
                raise failure.__cause__.renew() from failure
            raise
        except BackendAnswerInvalidError:
            self.catalog.forget(model)
            raise

    async def aclose(self, timeout: float) -> None:
        """Answer what is in, within ``timeout`` seconds, and refuse what is not."""
        await self._batcher.aclose(timeout)
        await self.catalog.aclose()

    def _upcoming(self) -> Upcoming:
        return Upcoming(self._threads.waiting, self._threads.interval)

    def expected(self, model_name: str, now: float) -> float:
        """When a picture that comes now would be answered; -inf if nothing is known yet."""
        upcoming = self._upcoming()
        decoded = now + (upcoming.items + self._threads.count) * upcoming.interval
        waiting = dict(self._admission.waiting_for)
        ahead = {
            name: Ahead(lane, waiting.get(name, 0), self._max_batch_size(lane))
            for name, lane in self._lanes.items()
        }
        own = ahead.pop(model_name, None)
        if own is None:
            return -math.inf
        ready = decoded + (upcoming.company() - 1) * upcoming.interval
        return self._dispatch.expected(own, ahead.values(), ready, now)

    def _refuse_what_would_be_late(self, model_name: str, place: Place, deadline: float) -> None:
        now = asyncio.get_running_loop().time()
        latest = now + (deadline - now) * LATEST * place.share
        expected = self.expected(model_name, now)
        if expected > latest:
            raise OverloadedError(
                f"an answer would take {expected - now:.1f} s, longer than the request may wait",
                reason="deadline",
                retry_after=expected - latest,
            )

    def _prepare(
        self, model: ServedModel, image: str, place: Place
    ) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        """Everything that is done to one picture alone; runs in a thread."""
        data = decode_base64(image)
        picture = open_picture(data, max_pixels=self._settings.max_pixels)
        # The text stays until the answer, for a second attempt; all pixels only until the resize.
        place.hold(len(image) + picture.height * picture.width * 3)
        height, width = model.size or (picture.height, picture.width)
        if model.encoded:
            payload = np.frombuffer(picture.to_encoded(), np.uint8)
        else:
            payload = picture.to_rgb(model.size)
        place.hold(len(image) + payload.nbytes)
        return payload, (height, width, 3)

    def _max_batch_size(self, lane: Lane) -> int:
        if not lane.model.batches:
            return 1
        return min(
            self._settings.max_batch_size, self._settings.max_message_bytes // math.prod(lane.shape)
        )

    async def _predict(self, lane: Lane, pictures: list[_Picture]) -> list[_Share]:
        loop = asyncio.get_running_loop()
        for picture in pictures:
            picture.place.sent()
        call = lane.model.call
        encode = encode_predict_strings if lane.model.encoded else encode_predict
        message = encode(call, [picture.payload for picture in pictures])
        timeout = max(picture.deadline for picture in pictures) - loop.time()
        started = loop.time()
        try:
            answer = await self._backend.predict(
                message, model_name=call.model_name, timeout=timeout
            )
        finally:
            seconds = loop.time() - started
            self._stages.predicted(call.model_name, seconds)
        if answer.model_version not in (None, lane.model.version):
            self.catalog.forget(lane.model)
        rows = split_rows(answer.outputs, len(pictures))
        return [_Share(row, seconds) for row in rows]


def _kind(lane: Lane) -> Hashable:
    """What is learnt of calls is learnt for a model and, to a factor of two, a size of picture."""
    return lane.model.call.model_name, math.prod(lane.shape).bit_length()
