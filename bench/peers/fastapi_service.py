"""FastAPI under uvicorn, one process a core, no batching.

The endpoint is a plain function, as FastAPI's documentation advises for work that blocks: it runs
in the thread pool, where decoding and the call to the model leave the event loop free.
"""

from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from bench.peers import common

app = FastAPI()
predict = common.Predictor()


class Request(BaseModel):
    """The body of /imageDetection."""

    model_name: str
    image: str
    threshold: float = 0.4


@app.post("/imageDetection")
def detect(request: Request) -> dict[str, Any]:
    """Answer one request with one call."""
    picture = common.decode({"image": request.image})
    return predict([picture])[0]


if __name__ == "__main__":
    uvicorn.run(
        "bench.peers.fastapi_service:app",
        port=common.PORT,
        workers=2,
        access_log=False,
        log_level="warning",
    )
