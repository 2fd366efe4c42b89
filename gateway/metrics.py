"""The one sink of the gateway's facts: Prometheus."""

from collections.abc import Callable, Sequence
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.forecast import Learnt

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
UNKNOWN = "unknown"

SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counts and times, in a registry of its own.

    ``is_known`` tells which models may appear as a label; every other name, which a client may have
    made up, is counted as "unknown". ``shared`` says that other processes count into the same
    figures, in prometheus_client's multiprocess mode: each exposes the sum of all.
    """

    def __init__(self, is_known: Callable[[str], bool], *, shared: bool = False) -> None:
        self._is_known = is_known
        self._shared = shared
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        # Each is kept as the function that finds the metric's child for its labels, once.
        self._requests = cache(Counter(
            "gateway_requests", "Requests for detections, by their end.", ["model", "status"],
            registry=registry,
        ).labels)  # fmt: skip
        self._rejected = Counter(
            "gateway_rejected", "Requests refused at the door, by the limit.", ["reason"],
            registry=registry,
        )  # fmt: skip
        self._controller = self._seconds(
            "gateway_controller_seconds", "From the arrival of a request to its answer."
        )
        self._tfserve = self._seconds("gateway_tfserve_seconds", "A Predict call.")
        self._decode = self._seconds(
            "gateway_decode_seconds", "From when a request was read until its picture is decoded."
        )
        self._queue = self._seconds("gateway_queue_seconds", "A decoded picture's wait.")
        self._batch_size = cache(Histogram(
            "gateway_batch_size", "Pictures in a Predict call.", ["model"],
            registry=registry, buckets=SIZES,
        ).labels)  # fmt: skip

        # In the order of Learnt. Workers each learn for themselves; the latest is shown.
        self._learnt = [
            cache(Gauge(
                f"gateway_learnt_{name}", text, ["model"],
                registry=registry, multiprocess_mode="mostrecent",
            ).labels)
            for name, text in (
                ("call_seconds", "What a Predict call takes, apart from its pictures."),
                ("picture_seconds", "What each picture adds to a Predict call."),
                ("overlap_seconds", "What more passes while other calls run."),
                ("slots", "Predict calls that run at once."),
                ("noise", "Relative standard deviation of a Predict call's time."),
                ("max_batch_size", "Pictures that a Predict call may carry."),
                ("expected_seconds", "What a request had to expect after the last batch."),
            )
        ]  # fmt: skip

    def _seconds(self, name: str, text: str) -> Callable[[str], Histogram]:
        return cache(
            Histogram(name, text, ["model"], registry=self._registry, buckets=SECONDS).labels
        )

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show a value: ``read`` when Prometheus asks or, when shared, after each request."""
        gauge = Gauge(name, text, registry=self._registry, multiprocess_mode="livesum")
        if self._shared:
            self._gauges.append((gauge, read))
        else:
            gauge.set_function(read)

    def expose(self) -> bytes:
        """Everything, in Prometheus' text format."""
        if not self._shared:
            return generate_latest(self._registry)
        self._publish()
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]  # it has no types
        return generate_latest(everybody)

    def _publish(self) -> None:
        for gauge, read in self._gauges:
            gauge.set(read())

    def request(self, model_name: str | None, status: int, seconds: float) -> None:
        """A request for detections ended with an HTTP status; 499 when its client left."""
        model = model_name if model_name and self._is_known(model_name) else UNKNOWN
        self._requests(model, str(status)).inc()
        self._controller(model).observe(seconds)
        self._publish()

    def rejected(self, reason: str) -> None:
        """A request was refused because of the limit ``reason``."""
        self._rejected.labels(reason).inc()

    # What the detector tells; these models were found, so their names are bounded.

    def decoded(self, model_name: str, seconds: float) -> None:
        """See ``detector.Stages``."""
        self._decode(model_name).observe(seconds)

    def predicted(self, model_name: str, seconds: float) -> None:
        """See ``detector.Stages``."""
        self._tfserve(model_name).observe(seconds)

    def batched(self, model_name: str, waits: Sequence[float]) -> None:
        """See ``detector.Stages``."""
        self._batch_size(model_name).observe(len(waits))
        queue = self._queue(model_name)
        for wait in waits:
            queue.observe(wait)

    def learnt(self, model_name: str, learnt: Learnt) -> None:
        """See ``detector.Stages``."""
        for gauge, value in zip(self._learnt, learnt, strict=True):
            gauge(model_name).set(value)
