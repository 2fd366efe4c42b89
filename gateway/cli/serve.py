"""``serve``: the gateway's process, from its first line to its exit status."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator

from aiohttp import web

from gateway.app import create_app, drain
from gateway.cli.errors import CommandError
from gateway.cli.http import server_url
from gateway.logs import configure_logs
from gateway.memory import keep_freed_memory
from gateway.settings import Settings

__all__ = ["run", "serve"]

log = logging.getLogger("gateway")


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then let requests finish; returns 0.

    Raises
    ------
    CommandError
        A label map cannot be read, or the address cannot be listened on.
    """
    keep_freed_memory()
    configure_logs(settings.log_format)
    asyncio.run(serve(settings, ready=lambda url: log.info("listening on %s", url)))
    return 0


async def serve(settings: Settings, *, ready: Callable[[str], None]) -> None:
    """Run the gateway on this event loop until a signal asks it to stop.

    ``ready`` is given the URL once it accepts connections. While requests finish, for at most
    ``drain_timeout`` seconds, /readyz and new requests are answered with 503. A second signal has
    its usual effect, which is to end the process.
    """
    try:
        app = create_app(settings)
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    runner = web.AppRunner(
        app,
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        shutdown_timeout=1.0,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            raise CommandError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
            ) from error
        host, port = runner.addresses[0][:2]
        with _stop_signal() as stop:
            ready(server_url(host, port))
            await stop.wait()
        log.info(
            "stopping: requests are taken for %g s more, and then have %g s to finish",
            settings.drain_delay,
            settings.drain_timeout,
        )
        await drain(app)
    finally:
        await runner.cleanup()
    log.info("stopped")


@contextlib.contextmanager
def _stop_signal() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set, before anybody is told that there is one to stop."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
