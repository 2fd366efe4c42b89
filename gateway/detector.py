"""The use case: a picture in base64 and the name of a model in, detections out."""

import asyncio
import logging
import sys
from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from batching import Batcher, BatcherClosedError, BatchFailedError, Inbound, JustInTime
from gateway.admission import Admission, Place
from gateway.errors import (
    BackendAnswerInvalidError,
    BackendRefusedError,
    GatewayError,
    ImageTooLargeError,
    ShuttingDownError,
)
from gateway.forecast import Forecast, Learnt, kind_of
from gateway.imaging import decode_base64, open_picture
from gateway.models import Catalog, ConfiguredModels, Detection, ServedModel
from gateway.predict import Backend, Lane, Picture, Predictor, Share
from gateway.settings import Settings
from gateway.tfserving import ModelChoice
from gateway.threads import Threads

__all__ = ["Detector", "Found", "Stages"]

log = logging.getLogger("gateway")


class Stages(Protocol):
    """Where the time of pictures goes, in seconds."""

    def decoded(self, model_name: str, seconds: float) -> None:
        """From when a request was read until its picture lay decoded."""

    def batched(self, model_name: str, waits: Sequence[float]) -> None:
        """A batch left; how long each of its pictures had waited for it."""

    def predicted(self, model_name: str, seconds: float) -> None:
        """One Predict call, whatever came of it."""


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
        models: ConfiguredModels,
        stages: Stages,
    ) -> None:
        self._backend = backend
        self._threads = threads
        self._settings = settings
        self._stages = stages
        self.catalog = Catalog(
            lambda choice: backend.metadata(choice, timeout=settings.request_timeout),
            renewed=models.read_labels,
        )
        self._dispatch = JustInTime(settings.max_in_flight, kind=kind_of, inbound=self._inbound)
        self._devices: dict[Hashable, tuple[str, int]] = {}
        self._predictor = Predictor(
            backend,
            settings,
            models,
            self.catalog,
            usual=self._usual,
            predicted=stages.predicted,
        )
        self.forecast = Forecast(
            admission,
            self._dispatch,
            servers=self._servers,
            max_batch_size=self._predictor.max_batch_size,
            inbound=self._inbound,
        )
        self._batcher: Batcher[Lane, Picture, Share] = Batcher(
            self._process,
            servers=self._servers,
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

    def learnt(self) -> dict[str, Learnt]:
        """What is known of the calls of each model that was used."""
        return self.forecast.all_learnt(asyncio.get_running_loop().time())

    async def detect(
        self, choice: ModelChoice, image: str, *, threshold: float, place: Place, deadline: float
    ) -> Found:
        """Find what the model sees in the picture above ``threshold``.

        Raises
        ------
        GatewayError
            The image or the model is at fault, TensorFlow Serving is, or there is no room. The
            deadline is the caller's to enforce; here it tells what it is too late for.
        """
        now = asyncio.get_running_loop().time()
        self.forecast.refuse_late(choice.name, place, deadline, now)
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
        try:
            payload, shape = await self._threads.run(self._prepare, model, image, place)
        except BaseException:
            self.forecast.given_up(model.call.model_name)
            raise
        self._stages.decoded(model.call.model_name, loop.time() - entered)
        lane = Lane(model, shape)
        self.forecast.decoded(lane, place)
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

    def servers_changed(self, gone: str | None) -> None:
        """Where calls may go has changed; one server is ``gone`` for good, or none."""
        if gone is not None:
            self._dispatch.forget(gone)
            self._predictor.forget(gone)
            self._devices.pop(gone, None)
        self._batcher.wake()

    def _servers(self, lane: Lane) -> Sequence[str]:
        return self._backend.servers(lane.model.call.model)

    def _inbound(self) -> Inbound:
        return Inbound(self._threads.waiting, self._threads.interval)

    def _usual(self, lane: Lane, size: int, server: Hashable) -> float:
        """Seconds that a call takes which finds the device free; 0 if that is not known."""
        cost = self._dispatch.cost(lane, server)
        return cost.transport_s + cost.service_s(size) if cost.known else 0.0

    async def _process(
        self, lane: Lane, pictures: list[Picture], server: Hashable
    ) -> Sequence[Share | Exception]:
        self._tell_of_device(lane, server)
        return await self._predictor(lane, pictures, server)

    def _tell_of_device(self, lane: Lane, server: Hashable) -> None:
        """Log what a server seems to be when that has changed, as calls before have shown."""
        learnt = self._dispatch.learnt(lane, server)
        seems = learnt.device, learnt.parallelism
        if self._devices.setdefault(server, seems) != seems:
            self._devices[server] = seems
            log.info(
                "TensorFlow Serving at %s, as its calls show: %s; best with %s at a time",
                server,
                learnt.device,
                learnt.parallelism or "any number",
            )

    def dispatched(self, key: Lane, waits: Sequence[float]) -> None:
        """See ``batching.Observer``."""
        self._stages.batched(key.model.call.model_name, waits)

    def finished(self, key: Lane, size: int, seconds: float, error: BaseException | None) -> None:
        """See ``batching.Observer``; the predictor tells of its calls itself."""

    def _prepare(
        self, model: ServedModel, image: str, place: Place
    ) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
        """Everything that is done to one picture alone; runs in a thread."""
        data = decode_base64(image)
        picture = open_picture(data, max_pixels=self._settings.max_pixels)
        # The text stays until the answer, for a second attempt; the rest only until the resize.
        working = picture.working_bytes(model.size, encoded=model.encoded)
        if len(image) + working > self._settings.max_pending_bytes:
            raise ImageTooLargeError(
                f"to decode this {picture.width}x{picture.height} picture takes {working} bytes of"
                f" memory; max_pending_bytes is {self._settings.max_pending_bytes}"
            )
        place.hold(len(image) + working)
        height, width = model.size or (picture.height, picture.width)
        if model.encoded:
            payload = np.frombuffer(picture.to_encoded(), np.uint8)
        else:
            payload = picture.to_rgb(model.size)
        place.hold(len(image) + payload.nbytes)
        return payload, (height, width, 3)
