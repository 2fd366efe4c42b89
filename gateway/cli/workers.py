"""``serve --workers N``: gunicorn keeps N processes of the gateway behind one port."""

import asyncio
import contextlib
import math
import multiprocessing
import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from aiohttp import GunicornWebWorker, web
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from gateway.cli.errors import CommandError
from gateway.cli.http import server_url, warn_if_open
from gateway.cli.tls import ServerTls, server_tls
from gateway.logs import configure_logs
from gateway.memory import keep_freed_memory, spare_what_stays
from gateway.settings import RELOADED, Settings, SettingsInvalidError

__all__ = ["run"]

START_SECONDS = 5.0
BOOT_ERROR = 4  # gunicorn ends for good when a worker exits with it


def run(settings: Settings, load: Callable[[], Settings]) -> int:
    """Serve until SIGTERM or SIGINT, then let requests finish; returns 0. On SIGHUP each worker has
    ``load`` read the settings again.

    Each worker has limits of its own; unless told otherwise, they share the CPUs' decoding threads
    out among them. /metrics, whichever worker answers it, is the sum over all.

    Raises
    ------
    CommandError
        A file for TLS cannot be read, or there is no room for temporary files.
    """
    settings = _shared_out(settings)
    tls = server_tls(settings)
    keep_freed_memory()
    configure_logs(settings.log_format)
    warn_if_open(settings)
    # To be set before prometheus_client is imported, which happens in the workers.
    try:
        counts = tempfile.mkdtemp(prefix="gateway-metrics-")
    except OSError as error:
        raise CommandError(
            "workers need a directory for temporary files that can be written to: a tmpfs on /tmp,"
            " or another one that TMPDIR names"
        ) from error
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", counts)
    try:
        _Gateways(
            settings,
            lambda: _shared_out(load()),
            tls,
            on_exit=lambda _: shutil.rmtree(counts, ignore_errors=True),
        ).run()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _shared_out(settings: Settings) -> Settings:
    """What each worker is given of the CPUs' decoding threads."""
    if "decode_threads" in settings.model_fields_set:
        return settings
    threads = max(1, settings.decode_threads // settings.workers)
    return settings.model_copy(update={"decode_threads": threads})


class _Gateways(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """Nothing of the gateway is imported before the fork: channels do not survive one."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        tls: ServerTls | None,
        *,
        on_exit: Callable[[Arbiter], None],
    ) -> None:
        self._settings = settings
        self._load = load
        self.tls = tls
        self._on_exit = on_exit
        self._together = multiprocessing.get_context("fork").Barrier(settings.workers)
        super().__init__()

    def run(self) -> None:
        _Arbiter(self).run()

    def renew(self) -> None:
        """Have workers that start from now on begin with what has changed meanwhile."""
        with contextlib.suppress(SettingsInvalidError):  # of which the workers tell
            new = self._load()
            changed = {name: getattr(new, name) for name in RELOADED}
            self._settings = self._settings.model_copy(update=changed)

    def load_config(self) -> None:
        settings = self._settings
        options: dict[str, Any] = {
            "bind": server_url(settings.host, settings.port).removeprefix("http://"),
            "workers": settings.workers,
            "worker_class": _Worker,
            "certfile": settings.tls_cert and str(settings.tls_cert),
            "keyfile": settings.tls_key and str(settings.tls_key),
            "graceful_timeout": math.ceil(settings.drain_delay + settings.drain_timeout + 3),
            "logger_class": _Logger,
            "when_ready": _announce,
            "post_fork": _take_turns,
            "child_exit": _forget,
            "on_exit": self._on_exit,
            "control_socket_disable": True,
        }
        for name, value in options.items():
            if name in self.cfg.settings:  # older releases have no control socket to disable
                self.cfg.set(name, value)

    def load(self) -> Callable[[], Any]:
        return self._runner

    async def _runner(self) -> web.AppRunner:
        from gateway.app import create_app  # noqa: PLC0415 - see above
        from gateway.cli.serve import reload_logged  # noqa: PLC0415 - see above
        from gateway.connections import Runner  # noqa: PLC0415 - see above

        try:
            app = create_app(self._settings)
        except ValueError as error:
            print(f"tfserving-gateway: {error}", file=sys.stderr)
            if self._together.broken:  # the others have long been up, and go on
                await asyncio.sleep(START_SECONDS)
                raise SystemExit(1) from error  # so that it is tried again
            raise SystemExit(BOOT_ERROR) from error
        if self.tls is not None:
            app.cleanup_ctx.append(self.tls.keep_fresh)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, reload_logged, app, self._load)
        with contextlib.suppress(TimeoutError):  # it hangs if another was killed holding its lock
            await asyncio.wait_for(asyncio.to_thread(self._wait_for_the_others), 2 * START_SECONDS)
        spare_what_stays()
        return Runner(app)

    def _wait_for_the_others(self) -> None:
        """At the start, so that the first to be up does not get all who keep their connections."""
        with contextlib.suppress(threading.BrokenBarrierError):
            self._together.wait(START_SECONDS)
        self._together.abort()  # who starts later, in the place of one that died, waits for nobody


class _Worker(GunicornWebWorker):
    """Listens with our own context, whose certificate can be renewed."""

    def _create_ssl_context(self, _: Any) -> ssl.SSLContext:  # type: ignore[override]  # no self
        context: ssl.SSLContext = self.app.tls.context
        return context


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """Passes SIGHUP on: workers take new settings over where they stand, and drop no connection."""

    def handle_hup(self) -> None:
        self.app.renew()
        self.kill_workers(signal.SIGHUP)


class _Logger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's lines in our format: they go up to the root's handler."""

    def setup(self, cfg: Any) -> None:
        self.error_log.propagate = True


def _announce(arbiter: Arbiter) -> None:
    host, port = arbiter.LISTENERS[0].sock.getsockname()[:2]
    arbiter.log.info("listening on %s", server_url(host, port, tls=arbiter.cfg.is_ssl))


def _forget(_: Arbiter, worker: Any) -> None:
    """Drop what only a living worker counts, such as its queue."""
    from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415 - see above

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # it has no types


def _take_turns(_: Arbiter, worker: Any) -> None:
    worker.sockets = [_TurnSocket(fileno=os.dup(one.fileno())) for one in worker.sockets]


class _TurnSocket(socket.socket):
    """Gives one connection each time the event loop looks.

    asyncio would accept all that are pending, and one worker would get the whole of a burst.
    """

    _taken = False

    def accept(self) -> tuple[socket.socket, Any]:
        self._taken = not self._taken
        if not self._taken:
            raise BlockingIOError
        try:
            return super().accept()
        except OSError:
            self._taken = False
            raise
