"""LitServe with request batching, two workers and an API server for each, as its guides have it."""

from typing import Any

import litserve as ls
import numpy as np
import numpy.typing as npt

from bench.peers import common


class Detector(ls.LitAPI):
    """Decode, batch, predict."""

    def setup(self, device: str) -> None:
        """Open the channel once a worker."""
        self.predictor = common.Predictor()

    def decode_request(self, request: dict[str, Any], **_: object) -> npt.NDArray[np.uint8]:
        """Return the pixels of one request."""
        return common.decode(request)

    def batch(self, inputs: list[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
        """Keep a list: stacking would copy every picture once more."""
        return inputs

    def predict(self, x: list[npt.NDArray[np.uint8]], **_: object) -> list[dict[str, Any]]:
        """Return an answer for each picture of the batch."""
        return self.predictor(x)


if __name__ == "__main__":
    api = Detector(
        max_batch_size=common.MAX_BATCH_SIZE, batch_timeout=0.01, api_path="/imageDetection"
    )
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=2, timeout=60)
    server.run(
        host="127.0.0.1",
        port=common.PORT,
        num_api_servers=2,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
