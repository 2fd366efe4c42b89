"""TLS on the gateway's own port."""

import asyncio
import ssl
from collections.abc import AsyncIterator

from aiohttp import web

from gateway.cli.errors import CommandError
from gateway.settings import Settings
from gateway.tls import PemFiles, keep_fresh

__all__ = ["ServerTls", "server_tls"]


def server_tls(settings: Settings) -> "ServerTls | None":
    """What the settings ask for, if anything.

    Raises
    ------
    CommandError
        A file cannot be used; the message names it.
    """
    if settings.tls_cert is None:
        return None
    try:
        return ServerTls(
            PemFiles(ca=settings.tls_client_ca, cert=settings.tls_cert, key=settings.tls_key),
            ask_clients=settings.tls_client_ca is not None,
        )
    except ValueError as error:
        raise CommandError(str(error), status=2) from error


class ServerTls:
    """A certificate that may change while the port is open.

    With ``ask_clients`` every client must prove a certificate of the authorities in ``files``, each
    time that it connects. Raises ValueError when the files cannot be used.
    """

    def __init__(self, files: PemFiles, *, ask_clients: bool) -> None:
        self._files = files
        self._ask_clients = ask_clients
        self.context = self._current = self._new_context()
        """To listen with."""
        files.load(self.context)
        # New files make a new context: authorities can be added to a context but not taken away.
        self.context.sni_callback = self._use_current

    def look(self) -> bool:
        """Take the files over for new connections, if their content has changed; whether it had.

        Raises
        ------
        ValueError
            They cannot be used; then all stays as it was.
        """
        context = self._new_context()
        changed = self._files.load(context)
        if changed:
            self._current = context
        return changed

    async def keep_fresh(self, _: web.Application) -> AsyncIterator[None]:
        """Look at the files while the application runs: for its ``cleanup_ctx``."""
        task = asyncio.get_running_loop().create_task(keep_fresh("TLS of the port", self.look))
        yield
        task.cancel()

    def _new_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._ask_clients:
            # A session that is resumed proves no certificate, and TLS 1.2 cannot be kept from it.
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.num_tickets = 0
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _use_current(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _: ssl.SSLContext
    ) -> None:
        """Called by OpenSSL for each handshake, with a name in it or without."""
        connection.context = self._current
