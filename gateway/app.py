"""The composition root: every part is made, joined and ended here."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from gateway import openapi
from gateway.access import Access, Key, read_keys
from gateway.admission import Admission
from gateway.clients import Clients
from gateway.connections import Runner
from gateway.cors import cors
from gateway.detector import Detector
from gateway.handlers import admin_routes, routes
from gateway.keys import (
    ACCESS,
    ADMISSION,
    CLIENT,
    CLIENTS,
    CREDENTIALS,
    DETECTOR,
    METRICS,
    MODELS,
    SETTINGS,
)
from gateway.metrics import Metrics
from gateway.middleware import answer_errors, observe
from gateway.models import ConfiguredModels
from gateway.settings import RELOADED, Settings
from gateway.tfserving import Credentials, Replicas, ServingClient
from gateway.threads import Threads
from gateway.tls import keep_fresh
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
        The keys, a label map or a file for TLS to TensorFlow Serving cannot be read; the message
        names each mistake, one a line.
    """
    allow = [cors(settings.origins)] if settings.origins else []
    app = web.Application(middlewares=[observe, *allow, answer_errors])
    app[SETTINGS] = settings
    app[MODELS] = ConfiguredModels(settings.models)
    if settings.tfserving_ca is not None:
        app[CREDENTIALS] = Credentials(
            settings.tfserving_ca, settings.tfserving_cert, settings.tfserving_key
        )
    app[ACCESS] = Access(_keys(settings))
    app[CLIENTS] = Clients(rate=settings.client_rate, places=settings.places(settings.client_share))
    app.add_routes([*routes(), openapi.route()])
    app.cleanup_ctx.append(_detector)
    if settings.admin_port is None:
        app.add_routes(admin_routes())
    else:
        app.cleanup_ctx.append(_admin)
    app.on_shutdown.append(drain)
    return app


def reload(app: web.Application, settings: Settings) -> None:
    """Take what may change while running from new settings: models, with their labels, and keys.

    Says in the log what else has changed, and takes effect after a restart only.

    Raises
    ------
    ValueError
        As for ``create_app``, or nobody would need a key any more; then all stays as it was.
    """
    if settings.api_keys is None and app[ACCESS].needed:
        raise ValueError("api_keys: is gone; only after a restart nobody needs a key any more")
    keys = _keys(settings)
    app[MODELS].replace(settings.models)
    app[ACCESS].replace(keys)
    old = app[SETTINGS]
    for name in Settings.model_fields:
        if name not in RELOADED and getattr(old, name) != getattr(settings, name):
            log.warning("%s has changed; it takes effect after a restart", name)


def _keys(settings: Settings) -> list[Key] | None:
    return read_keys(settings.api_keys) if settings.api_keys else None


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
        lambda address: _serving_client(app, address),
        hedge=settings.hedging,
        prepare=partial(warm_up, models, settings),
        longest_call=settings.request_timeout,
        changed=lambda gone: app[DETECTOR].servers_changed(gone),  # noqa: PLW0108 - is made later
    )
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
    metrics.learning(detector.learnt)
    await client.start()
    renewing = _renew(app)
    yield
    if renewing is not None:
        renewing.cancel()
    await detector.aclose(0)
    threads.close()
    await client.aclose()


async def _admin(app: web.Application) -> AsyncIterator[None]:
    """A port of its own for what is not for clients; workers share it, and any of them answers."""
    settings = app[SETTINGS]
    admin = web.Application(middlewares=[observe, answer_errors])
    admin[ADMISSION], admin[CLIENT], admin[METRICS] = app[ADMISSION], app[CLIENT], app[METRICS]
    admin[MODELS], admin[SETTINGS] = app[MODELS], settings
    admin.add_routes(admin_routes())
    runner = Runner(admin)
    await runner.setup()
    try:
        port = settings.admin_port
        await web.TCPSite(runner, settings.host, port, reuse_port=settings.workers > 1).start()
        log.info("metrics and health are on port %d", runner.addresses[0][1])
        yield
    finally:
        await runner.cleanup()


def _serving_client(app: web.Application, address: str) -> ServingClient:
    settings, credentials = app[SETTINGS], app.get(CREDENTIALS)
    most = settings.max_message_bytes
    if credentials is None:
        return ServingClient(address, max_message_bytes=most)
    return ServingClient(
        address,
        max_message_bytes=most,
        credentials=credentials.channel,
        server_name=settings.tfserving_server_name or app[CLIENT].name_of(address),
    )


def _renew(app: web.Application) -> asyncio.Task[None] | None:
    """Make new channels whenever the files that they are made with have changed."""
    credentials = app.get(CREDENTIALS)
    if credentials is None:
        return None
    fresh = keep_fresh("TLS to TensorFlow Serving", credentials.look, app[CLIENT].renew)
    return asyncio.get_running_loop().create_task(fresh)
