"""The one sink of the gateway's facts: Prometheus."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from gateway.forecast import Learnt

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
UNKNOWN = "unknown"

SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
)  # fmt: skip
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


LEARNT = {
    "fixed_s": ("fixed_seconds", "What a Predict call takes, apart from its pictures."),
    "per_item_s": ("per_item_seconds", "What each picture adds to a Predict call."),
    "transport_s": ("transport_seconds", "What of a Predict call passes while others may run."),
    "noise": ("noise", "Relative standard deviation of a Predict call's time."),
    "parallelism": ("parallelism", "Predict calls that are best at a time; 0: any number."),
    "max_batch_size": ("max_batch_size", "Pictures that a Predict call may carry."),
}
"""Of each field of ``LearntServer`` that is a number, the end of its metric's name and the text."""


class Learning(Collector):
    """What is known of calls, as it is when Prometheus asks: ``read`` tells it for each model.

    So servers that are gone are not shown any more, and nothing is reckoned while nobody asks.
    """

    def __init__(self, read: Callable[[], Mapping[str, Learnt]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See ``Collector``."""
        models = self._read()
        servers = [
            (model, server, known)
            for model, learnt in models.items()
            for server, known in learnt.servers.items()
        ]
        expected = GaugeMetricFamily(
            "gateway_learnt_expected_seconds",
            "What a request that comes now has to expect.",
            labels=["model"],
        )
        for model, learnt in models.items():
            expected.add_metric([model], learnt.expected_s)
        yield expected
        for field, (name, text) in LEARNT.items():
            family = GaugeMetricFamily(f"gateway_learnt_{name}", text, labels=["model", "server"])
            for model, server, known in servers:
                family.add_metric([model, server], getattr(known, field))
            yield family
        device = GaugeMetricFamily(
            "gateway_learnt_device",
            "1 for the kind of device that a server seems to be.",
            labels=["model", "server", "device"],
        )
        for model, server, known in servers:
            device.add_metric([model, server, known.device], 1)
        yield device


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
        self._learning: list[Learning] = []
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

    def learning(self, read: Callable[[], Mapping[str, Learnt]]) -> None:
        """Show what is known of each model's calls, by its name. Of several processes the one that
        answers shows what it knows itself."""
        self._learning.append(Learning(read))
        self._registry.register(self._learning[-1])

    def expose(self) -> bytes:
        """Everything, in Prometheus' text format."""
        if not self._shared:
            return generate_latest(self._registry)
        self._publish()
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]  # it has no types
        for learning in self._learning:
            everybody.register(learning)
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
