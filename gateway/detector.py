"""The use case: a picture in base64 and the name of a model in, detections out."""

import asyncio
import math
import sys
from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from batching import (
    Ahead,
    Batcher,
    BatcherClosedError,
    BatchFailedError,
    JustInTime,
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
from gateway.models import Catalog, Detection, ServedModel
from gateway.predict import Backend, Lane, Picture, Predictor, Share
from gateway.settings import Settings
from gateway.tfserving import ModelChoice
from gateway.threads import Threads

__all__ = ["Detector", "Found", "Learnt", "Stages"]


TRIAL_SECONDS = 1.0  # so often one is let in on trial: only from calls is seen that they are fast
LATEST = 0.95  # of the time until the deadline: an answer that is expected later is refused


class Learnt(NamedTuple):
    """What is known of a model's calls: ``a + b * n`` seconds for n pictures, of which ``slots``
    calls run at once, and ``overlap`` more that can pass while others run."""

    a: float
    b: float
    overlap: float
    slots: int
    noise: float
    """Relative standard deviation of a call's time."""
    max_batch_size: int
    """Pictures a call, by the settings and by what TensorFlow Serving has refused."""
    expected: float
    """Seconds after which a picture that comes now would be answered."""


class Stages(Protocol):
    """Where the time of pictures goes, in seconds, and what that teaches."""

    def decoded(self, model_name: str, seconds: float) -> None:
        """From the admission of a request until its picture lay decoded."""

    def batched(self, model_name: str, waits: Sequence[float]) -> None:
        """A batch left; how long each of its pictures had waited for it."""

    def predicted(self, model_name: str, seconds: float) -> None:
        """One Predict call, whatever came of it."""

    def learnt(self, model_name: str, learnt: Learnt) -> None:
        """What is known after another batch."""


class Found(NamedTuple):
    """Detections, best first, the seconds of the Predict call that carried the picture, and the
    version of the model that answered."""

    detections: list[Detection]
    tfserve_time: float
    model_version: int


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
        self._admission = admission
        self._threads = threads
        self._settings = settings
        self._stages = stages
        self.catalog = Catalog(
            lambda choice: backend.metadata(choice, timeout=settings.request_timeout)
        )
        self._lanes: dict[str, Lane] = {}  # of each model the one that was last used
        self._admitted: dict[str, float] = {}  # when a request for each of them last was
        self._dispatch = JustInTime(settings.max_in_flight, kind=_kind, upcoming=self._upcoming)
        self._predictor = Predictor(
            backend,
            settings,
            self.catalog,
            usual=self._usual,
            predicted=stages.predicted,
        )
        self._batcher: Batcher[Lane, Picture, Share] = Batcher(
            self._predictor,
            max_batch_size=self._predictor.max_batch_size,
            max_queue_size=sys.maxsize,  # admission is the limit, and has the same name
            dispatch=self._dispatch,
            observer=self,
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
        self, choice: ModelChoice, image: str, *, threshold: float, place: Place, deadline: float
    ) -> Found:
        """Find what the model sees in the picture above ``threshold``.

        Raises
        ------
        GatewayError
            The image or the model is at fault, TensorFlow Serving is, or there is no room. The
            deadline is the caller's to enforce; here it only limits the call.
        """
        self._refuse_what_would_be_late(choice.name, place, deadline)
        place.waits_for(choice.name)
        model = await self.catalog.get(choice)
        try:
            return await self._detect(model, image, threshold, place, deadline)
        except (BackendRefusedError, BackendAnswerInvalidError):
            # Perhaps another version serves meanwhile, and wants to be asked in another way.
            changed = await self.catalog.get(choice)
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
            share = await self._batcher.submit(lane, Picture(payload, deadline, place))
            return Found(share.row.above(threshold), share.seconds, share.model_version)
        except BatcherClosedError:
            raise ShuttingDownError("the gateway is shutting down") from None
        except BatchFailedError as failure:
            self.catalog.forget(model)
            if isinstance(failure.__cause__, GatewayError):
                raise failure.__cause__.renew() from failure
            raise
        except (BackendAnswerInvalidError, BackendRefusedError):
            self.catalog.forget(model)
            raise

    async def aclose(self, timeout: float) -> None:
        """Answer what is in, within ``timeout`` seconds, and refuse what is not."""
        await self._batcher.aclose(timeout)
        await self.catalog.aclose()

    def _upcoming(self) -> Upcoming:
        return Upcoming(self._threads.waiting, self._threads.interval)

    def _usual(self, lane: Lane, size: int) -> float:
        """Seconds that a call takes which finds the device free; 0 if that is not known."""
        cost = self._dispatch.cost(lane)
        return cost.overlap + cost.service(size) if cost.known else 0.0

    def expected(self, model_name: str, now: float) -> float:
        """When a picture that comes now would be answered; -inf if nothing is known yet."""
        upcoming = self._upcoming()
        decoded = now + (upcoming.items + self._threads.count) * upcoming.interval
        lane = self._lanes.get(model_name)
        if lane is None:
            return -math.inf
        waiting = self._admission.waiting_for
        own = Ahead(lane, waiting.get(model_name, 0), self._predictor.max_batch_size(lane))
        others = [
            Ahead(other, items, self._predictor.max_batch_size(other))
            for name, items in waiting.items()
            if name != model_name and (other := self._lanes.get(name)) is not None
        ]
        ready = decoded + (upcoming.company() - 1) * upcoming.interval
        return self._dispatch.expected(own, others, ready, now)

    def learnt(self, model_name: str) -> Learnt | None:
        """What is known of a model's calls, those for its last picture's size; None if nothing."""
        lane = self._lanes.get(model_name)
        cost = self._dispatch.cost(lane) if lane else None
        if lane is None or cost is None or not cost.known:
            return None
        now = asyncio.get_running_loop().time()
        most = self._predictor.max_batch_size(lane)
        expected = self.expected(model_name, now) - now
        return Learnt(cost.a, cost.b, cost.overlap, cost.slots, cost.noise, most, expected)

    def dispatched(self, key: Lane, waits: Sequence[float]) -> None:
        """See ``batching.Observer``."""
        self._stages.batched(key.model.call.model_name, waits)

    def finished(self, key: Lane, size: int, seconds: float, error: BaseException | None) -> None:
        """See ``batching.Observer``."""
        name = key.model.call.model_name
        if (learnt := self.learnt(name)) is not None:
            self._stages.learnt(name, learnt)

    def _refuse_what_would_be_late(self, model_name: str, place: Place, deadline: float) -> None:
        now = asyncio.get_running_loop().time()
        latest = now + (deadline - now) * LATEST * place.share
        expected = self.expected(model_name, now)
        trial = now - self._admitted.get(model_name, -math.inf) >= TRIAL_SECONDS
        if expected > latest and not trial:
            raise OverloadedError(
                f"an answer would take {expected - now:.1f} s, longer than the request may wait",
                reason="deadline",
                retry_after=expected - latest,
            )
        if model_name in self._lanes:
            self._admitted[model_name] = now

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


def _kind(lane: Lane) -> Hashable:
    """What is learnt of calls is learnt for a version of a model and, to a factor of two, a size of
    picture."""
    name, version = lane.model.call.model_name, lane.model.version
    return name, version, math.prod(lane.shape).bit_length()
