"""What the tests of many TensorFlow Servings share."""

import asyncio

import numpy as np

from gateway.errors import BackendAnswerInvalidError
from gateway.tfserving import ModelChoice, PredictCall, Replicas, ServingClient, encode_predict

COLORS = ModelChoice("colors")


async def replicas_of(addresses, **options) -> Replicas:
    """Replicas that have been started; the caller closes them."""

    def make(address: str) -> ServingClient:
        return ServingClient(address, max_message_bytes=1 << 20)

    replicas = Replicas(addresses, make, **options)
    await replicas.start()
    return replicas


async def predict(replicas, *, timeout: float = 5.0, usual: float = 0.0, model=COLORS, server=None):
    """Ask for one small picture; ``usual`` is what that takes, whoever is asked."""

    def read(answer):
        if "detection_scores" not in answer.outputs:
            raise BackendAnswerInvalidError("no scores")
        return answer

    call = PredictCall(model, "serving_default", "inputs", ("detection_scores",))
    message = encode_predict(call, [np.zeros((4, 5, 3), np.uint8)])
    return await replicas.predict(
        message,
        model=model,
        timeout=timeout,
        read=read,
        server=server,
        usual=usual if callable(usual) else lambda _: usual,
    )


async def until(condition) -> None:
    """Look at the state of another task until it is as wanted."""
    while not condition():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)


def asked(fakes) -> list[int]:
    """How many pictures each was asked for."""
    return [len(fake.requests) for fake in fakes]
