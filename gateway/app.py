"""The composition root: every part is made, joined and ended here."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from gateway import openapi
from gateway.admission import Admission
from gateway.clients import Clients
from gateway.detector import Detector
from gateway.handlers import routes
from gateway.keys import ADMISSION, CLIENT, CLIENTS, DETECTOR, METRICS, MODELS, SETTINGS
from gateway.metrics import Metrics
from gateway.middleware import answer_errors, observe
from gateway.models import ConfiguredModels
from gateway.settings import Settings
from gateway.tfserving import Replicas, ServingClient
from gateway.threads import Threads
from gateway.warmup import warm_up

__all__ = ["create_app", "drain", "reload"]

log = logging.getLogger("gateway")

LAST_WORDS = 1.0


def create_app(settings: Settings) -> web.Application:
    """Build the application; its resources start and stop with it, on one event loop.

    To be run with ``handler_cancellation=True``: then a client that leaves takes its picture out of
    the queue.

    Raises
    ------
    ValueError
        A label map cannot be read; the message names each that is at fault, one a line.
    """
    app = web.Application(middlewares=[observe, answer_errors])
    app[SETTINGS] = settings
    app[MODELS] = ConfiguredModels(settings.models)
    share = settings.client_share
    app[CLIENTS] = Clients(
        rate=settings.client_rate,
        places=None if share is None else max(1, int(share * settings.max_queue_size)),
    )
    app.add_routes([*routes(), openapi.route()])
    app.cleanup_ctx.append(_detector)
    app.on_shutdown.append(drain)
    return app


def reload(app: web.Application, settings: Settings) -> None:
    """Take what may change while running from new settings: models, with their labels.

    Says in the log what else has changed, and takes effect after a restart only.

    Raises
    ------
    ValueError
        As for ``create_app``; then all stays as it was.
    """
    app[MODELS].replace(settings.models)
    old = app[SETTINGS]
    for name in Settings.model_fields:
        if name != "models" and getattr(old, name) != getattr(settings, name):
            log.warning("%s has changed; it takes effect after a restart", name)


async def drain(app: web.Application) -> None:
    """Be unready, then refuse new requests, let those inside finish, and answer 503 to who is left.

    Takes ``drain_delay`` and ``drain_timeout`` seconds and ``LAST_WORDS`` for the answers at most;
    again, no time.
    """
    admission = app[ADMISSION]
    if admission.closing:
        return
    admission.closing = True
    await asyncio.sleep(app[SETTINGS].drain_delay)
    admission.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(admission.emptied(), app[SETTINGS].drain_timeout)
        return
    await app[DETECTOR].aclose(0)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(admission.emptied(), LAST_WORDS)


async def _detector(app: web.Application) -> AsyncIterator[None]:
    settings, models = app[SETTINGS], app[MODELS]
    app[ADMISSION] = admission = Admission(
        max_queue_size=settings.max_queue_size, max_pending_bytes=settings.max_pending_bytes
    )
    app[CLIENT] = client = Replicas(
        settings.addresses,
        lambda address: ServingClient(address, max_message_bytes=settings.max_message_bytes),
        hedge=settings.hedging,
        prepare=partial(warm_up, models),
    )
    await client.start()
    threads = Threads(settings.decode_threads)
    app[METRICS] = metrics = Metrics(
        lambda name: name in models or name in app[DETECTOR].catalog.seen,
        shared=settings.workers > 1,
    )
    app[DETECTOR] = detector = Detector(client, threads, admission, settings, models, metrics)
    for name, text, read in (
        ("gateway_queue_depth", "Decoded pictures that wait.", lambda: detector.queue_depth),
        ("gateway_batches_in_flight", "Predict calls that run.", lambda: detector.in_flight),
        ("gateway_requests_inside", "Requests in the house.", lambda: admission.inside),
        ("gateway_pending_bytes", "Bytes of their pictures.", lambda: admission.pending_bytes),
        ("gateway_replicas", "TensorFlow Servings that are known.", lambda: client.count),
        ("gateway_replicas_left_out", "Those that get no calls now.", lambda: client.left_out),
    ):
        metrics.gauge(name, text, read)
    yield
    await detector.aclose(0)
    threads.close()
    await client.aclose()
