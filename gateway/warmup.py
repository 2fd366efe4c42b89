"""The first calls to a TensorFlow Serving: before clients wait for what they take."""

import asyncio
import logging

import numpy as np

from gateway.errors import GatewayError
from gateway.imaging import blank_jpeg
from gateway.models import ConfiguredModels, ServedModel, served_model
from gateway.tfserving import ModelChoice, ServingClient, encode_predict, encode_predict_strings

__all__ = ["warm_up"]

log = logging.getLogger("gateway")

SECONDS = 60.0  # for all models of one TensorFlow Serving
CALL_SECONDS = 30.0
USUAL_SIZE = (480, 640)  # height and width of the picture for a model that takes any


async def warm_up(models: ConfiguredModels, client: ServingClient) -> None:
    """Ask each configured model once with a blank picture, or once for each of its batch sizes.

    What goes wrong is logged: the calls of clients will tell them in their turn. Ends within a
    minute.
    """
    try:
        async with asyncio.timeout(SECONDS):
            for name in list(models):
                await _warm_up_model(name, models.settings(name).batch_sizes or (1,), client)
    except TimeoutError:
        log.warning(
            "TensorFlow Serving was not warm after %g s, and gets calls all the same", SECONDS
        )


async def _warm_up_model(name: str, sizes: tuple[int, ...], client: ServingClient) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    choice = ModelChoice(name)
    try:
        model = served_model(choice, await client.metadata(choice, timeout=CALL_SECONDS))
        for size in sizes if model.batches else (1,):
            await client.predict(_blank(model, size), model=choice, timeout=CALL_SECONDS)
    except GatewayError as error:
        log.warning("model %r could not be warmed up: %s", name, error)
        return
    seconds = loop.time() - started
    log.info("model %r is warm at batches of %s after %.1f s", name, _list(sizes), seconds)


def _blank(model: ServedModel, size: int) -> bytes:
    height, width = model.size or USUAL_SIZE
    if model.encoded:
        picture = np.frombuffer(blank_jpeg(height, width), np.uint8)
        return encode_predict_strings(model.call, [picture] * size)
    return encode_predict(model.call, [np.zeros((height, width, 3), np.uint8)] * size)


def _list(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))
