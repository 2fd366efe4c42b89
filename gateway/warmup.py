"""The first calls to a TensorFlow Serving: before clients wait for what they take."""

import asyncio
import logging

import numpy as np

from gateway.errors import GatewayError
from gateway.imaging import blank_jpeg
from gateway.models import ConfiguredModels, ServedModel, served_model
from gateway.predict import largest_batch
from gateway.settings import Settings
from gateway.tfserving import ModelChoice, ServingClient, encode_predict, encode_predict_strings

__all__ = ["warm_up"]

log = logging.getLogger("gateway")

SECONDS = 60.0  # for all models of one TensorFlow Serving
CALL_SECONDS = 30.0
USUAL_SIZE = (480, 640)  # height and width of the picture for a model that takes any


async def warm_up(models: ConfiguredModels, settings: Settings, client: ServingClient) -> None:
    """Ask each configured model once with a blank picture, or once for each of its batch sizes that
    calls may have by the settings.

    What goes wrong is logged: the calls of clients will tell them in their turn. Ends within a
    minute.
    """
    try:
        async with asyncio.timeout(SECONDS):
            for name in list(models):
                sizes = models.settings(name).batch_sizes or (1,)
                await _warm_up_model(ModelChoice(name), sizes, settings, client)
    except TimeoutError:
        log.warning(
            "TensorFlow Serving was not warm after %g s, and gets calls all the same", SECONDS
        )


async def _warm_up_model(
    choice: ModelChoice, sizes: tuple[int, ...], settings: Settings, client: ServingClient
) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        model = served_model(choice, await client.metadata(choice, timeout=CALL_SECONDS))
        height, width = model.size or USUAL_SIZE
        largest = largest_batch(settings, sizes, height * width * 3) if model.batches else 1
        sizes = tuple(size for size in sizes if size <= largest) or (1,)
        for size in sizes:
            await client.predict(_blank(model, size), model=choice, timeout=CALL_SECONDS)
    except GatewayError as error:
        log.warning("%s could not be warmed up: %s", choice, error)
        return
    seconds = loop.time() - started
    log.info(
        "%s is warm at batches of %s after %.1f s", choice, ", ".join(map(str, sizes)), seconds
    )


def _blank(model: ServedModel, size: int) -> bytes:
    height, width = model.size or USUAL_SIZE
    if model.encoded:
        picture = np.frombuffer(blank_jpeg(height, width), np.uint8)
        return encode_predict_strings(model.call, [picture] * size)
    return encode_predict(model.call, [np.zeros((height, width, 3), np.uint8)] * size)
