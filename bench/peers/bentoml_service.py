"""BentoML with adaptive batching in a single service, two workers.

A batchable endpoint takes one parameter, the list of requests, so the client sends a list of one.
"""

from typing import Any

import bentoml
from pydantic import BaseModel

from bench.peers import common


class Request(BaseModel):
    """The body of /imageDetection."""

    model_name: str
    image: str
    threshold: float = 0.4


@bentoml.service(workers=2, traffic={"timeout": 60})
class Detector:
    """Decode and predict, a batch at a time."""

    def __init__(self) -> None:
        self.predict = common.Predictor()

    @bentoml.api(
        batchable=True,
        max_batch_size=common.MAX_BATCH_SIZE,
        max_latency_ms=1000,
        route="/imageDetection",
    )
    def detect(self, requests: list[Request], /) -> list[dict[str, Any]]:
        """Return an answer for each request."""
        return self.predict([common.decode({"image": request.image}) for request in requests])


if __name__ == "__main__":
    bentoml.serve(
        "bench.peers.bentoml_service:Detector", host="127.0.0.1", port=common.PORT, blocking=True
    )
