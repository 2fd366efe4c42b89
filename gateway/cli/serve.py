"""``serve``: the gateway's process, from its first line to its exit status."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator

from aiohttp import web

from gateway.app import create_app, drain, reload
from gateway.cli.errors import CommandError
from gateway.cli.http import server_url, warn_if_open
from gateway.cli.tls import server_tls
from gateway.connections import Runner
from gateway.logs import configure_logs
from gateway.memory import keep_freed_memory, spare_what_stays
from gateway.settings import Settings, SettingsInvalidError

__all__ = ["reload_logged", "run", "serve"]

log = logging.getLogger("gateway")


def run(settings: Settings, load: Callable[[], Settings]) -> int:
    """Serve until SIGTERM or SIGINT, then let requests finish; returns 0. On SIGHUP ``load`` reads
    the settings again.

    Raises
    ------
    CommandError
        A label map or a file for TLS cannot be read, or the address cannot be listened on.
    """
    keep_freed_memory()
    configure_logs(settings.log_format)
    warn_if_open(settings)
    asyncio.run(serve(settings, load, ready=lambda url: log.info("listening on %s", url)))
    return 0


async def serve(
    settings: Settings, load: Callable[[], Settings], *, ready: Callable[[str], None]
) -> None:
    """Run the gateway on this event loop until a signal asks it to stop.

    ``ready`` is given the URL once it accepts connections. While requests finish, for at most
    ``drain_timeout`` seconds, /readyz and new requests are answered with 503. A second signal has
    its usual effect, which is to end the process.
    """
    try:
        app = create_app(settings)
    except ValueError as error:
        raise CommandError(str(error), status=2) from error
    with _on((signal.SIGHUP,), lambda: reload_logged(app, load)):
        await _serve(app, settings, ready)
    log.info("stopped")


async def _serve(app: web.Application, settings: Settings, ready: Callable[[str], None]) -> None:
    tls = server_tls(settings)
    if tls is not None:
        app.cleanup_ctx.append(tls.keep_fresh)
    runner = Runner(app)
    try:
        try:
            await runner.setup()
        except OSError as error:
            if settings.admin_port is None:
                raise
            raise CommandError(
                f"cannot listen on {settings.host}:{settings.admin_port}: {error.strerror}"
            ) from error
        site = web.TCPSite(
            runner,
            settings.host,
            settings.port,
            backlog=1024,
            ssl_context=None if tls is None else tls.context,
        )
        try:
            await site.start()
        except OSError as error:
            raise CommandError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
            ) from error
        host, port = runner.addresses[0][:2]
        stop = asyncio.Event()
        # Before anybody is told that there is a gateway to stop; a second signal ends it at once.
        with _on((signal.SIGTERM, signal.SIGINT), stop.set):
            spare_what_stays()
            ready(server_url(host, port, tls=tls is not None))
            await stop.wait()
        log.info(
            "stopping: requests are taken for %g s more, and then have %g s to finish",
            settings.drain_delay,
            settings.drain_timeout,
        )
        await drain(app)
    finally:
        await runner.cleanup()


def reload_logged(app: web.Application, load: Callable[[], Settings]) -> None:
    """Take over what ``load`` reads, as far as it may change while running; or say in the log what
    is wrong with it, and change nothing."""
    try:
        reload(app, load())
    except (SettingsInvalidError, ValueError) as error:
        log.error("the settings stay as they were: %s", "; ".join(str(error).splitlines()))
    else:
        log.info("the settings were read again")


@contextlib.contextmanager
def _on(signals: tuple[signal.Signals, ...], react: Callable[[], None]) -> Iterator[None]:
    """Call ``react`` on the event loop at each of these signals, while the block lasts."""
    loop = asyncio.get_running_loop()
    for number in signals:
        loop.add_signal_handler(number, react)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
