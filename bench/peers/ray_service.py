"""Ray Serve with request batching, a replica a core, and the throughput settings of its guide:
HAProxy as ingress and user code on the replica's own loop (which is why decoding goes to a thread).
"""

import os

os.environ |= {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

import asyncio
import signal
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray import serve
from starlette.requests import Request

from bench.peers import common


@serve.deployment(num_replicas=2, max_ongoing_requests=1000, ray_actor_options={"num_cpus": 1})
class Detector:
    """Decode, batch, predict."""

    def __init__(self) -> None:
        self.predict: common.AsyncPredictor | None = None

    @serve.batch(max_batch_size=common.MAX_BATCH_SIZE, batch_wait_timeout_s=0.01)
    async def detect(self, pictures: list[npt.NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Return an answer for each picture of the batch."""
        if self.predict is None:
            self.predict = common.AsyncPredictor()
        return await self.predict(pictures)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Answer one request."""
        picture = await asyncio.to_thread(common.decode, await request.json())
        return await self.detect(picture)


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": common.PORT})
    serve.run(Detector.bind(), route_prefix="/imageDetection")
    try:
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    finally:
        serve.shutdown()
        ray.shutdown()
