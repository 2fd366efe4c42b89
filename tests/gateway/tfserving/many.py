"""What the tests of many TensorFlow Servings share."""

import asyncio

import numpy as np

from gateway.tfserving import ModelChoice, PredictCall, Replicas, ServingClient, encode_predict

CALL = PredictCall(ModelChoice("colors"), "serving_default", "inputs", ("detection_scores",))
MESSAGE = encode_predict(CALL, [np.zeros((4, 5, 3), np.uint8)])


async def replicas_of(addresses, **options) -> Replicas:
    """Replicas that have been started; the caller closes them."""

    def make(address: str) -> ServingClient:
        return ServingClient(address, max_message_bytes=1 << 20)

    replicas = Replicas(addresses, make, **options)
    await replicas.start()
    return replicas


async def predict(replicas, *, timeout: float = 5.0, usual: float = 0.0):
    """Ask for one small picture."""
    return await replicas.predict(MESSAGE, model=CALL.model, timeout=timeout, usual=usual)


async def until(condition) -> None:
    """Look at the state of another task until it is as wanted."""
    while not condition():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)


def asked(fakes) -> list[int]:
    """How many pictures each was asked for."""
    return [len(fake.requests) for fake in fakes]
