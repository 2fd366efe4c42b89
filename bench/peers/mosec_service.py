"""mosec: preprocessing in a stage of its own with a process a core, then batches of inference.

The shape of the project's own image example (multi-stage pipeline, dynamic batching by size and
wait); 10 ms is mosec's default wait.
"""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from mosec import Server, Worker

from bench.peers import common


class Preprocess(Worker):
    """Decodes one picture."""

    def forward(self, data: dict[str, Any]) -> npt.NDArray[np.uint8]:
        """Return the pixels, which travel to the next stage."""
        return common.decode(data)


class Inference(Worker):
    """Calls the model with a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.predict = common.Predictor()

    def forward(self, data: list[npt.NDArray[np.uint8]]) -> list[dict[str, Any]]:
        """Return an answer for each picture."""
        return self.predict(data)


if __name__ == "__main__":
    sys.argv += ["--port", str(common.PORT), "--address", "127.0.0.1", "--timeout", "30000"]
    sys.argv += ["--log-level", "warning"]
    server = Server()
    route = "/imageDetection"
    server.append_worker(Preprocess, num=2, route=route)
    server.append_worker(
        Inference, num=2, max_batch_size=common.MAX_BATCH_SIZE, max_wait_time=10, route=route
    )
    server.run()
