"""Certificates, keys and authorities in PEM files, which may change while the process runs."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Pem", "PemFiles", "keep_fresh"]

log = logging.getLogger("gateway")

LOOK_SECONDS = 2.0  # from one look at the files to the next


class Pem(NamedTuple):
    """What the files hold."""

    ca: bytes | None = None
    key: bytes | None = None
    cert: bytes | None = None


class PemFiles:
    """The files of one side: the authorities it trusts, its own certificate and the key of that."""

    def __init__(
        self, *, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
    ) -> None:
        self._ca, self._cert, self._key = ca, cert, key
        self.content = Pem()
        """As it was last loaded."""

    def load(self, context: ssl.SSLContext) -> bool:
        """Load the files into ``context``, if they are not what was loaded last: whether they were.

        Raises
        ------
        ValueError
            A file cannot be read, is not whole, or the key is not that of the certificate; the
            message names it, and ``content`` is as it was.
        """
        content = self._read()
        if content == self.content:
            return False
        if self._ca is not None:
            _load_authorities(context, self._ca)
        if self._cert is not None and self._key is not None:
            _load_pair(context, self._cert, self._key)
        if self._read() != content:
            raise ValueError(f"{self._ca or self._cert} is being written")
        self.content = content
        return True

    def _read(self) -> Pem:
        return Pem(_bytes(self._ca), _bytes(self._key), _bytes(self._cert))


def _bytes(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:  # of which OpenSSL's errors are some
        raise ValueError(f"{path} is no list of whole certificates in PEM") from error


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        # A key with a passphrase is refused: else OpenSSL would ask for it at the terminal.
        context.load_cert_chain(cert, key, password="")
    except OSError as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key} is not the key of {cert}") from error
        raise ValueError(
            f"{cert} and {key} are no certificate and key in PEM, whole and without a passphrase"
        ) from error


async def keep_fresh(
    what: str, look: Callable[[], bool], renewed: Callable[[], None] = lambda: None
) -> None:
    """Call ``look`` every two seconds, in a thread, and ``renewed`` when it says that there was
    something new; ends when it is cancelled.

    A ValueError of ``look`` is logged, once until it is another or over.
    """
    told = ""
    while True:
        try:
            if await asyncio.to_thread(look):
                renewed()
                log.info("%s: the new files are in use", what)
            told = ""
        except ValueError as error:
            if told != (told := str(error)):
                log.error("%s: all stays as it was: %s", what, told)
        await asyncio.sleep(LOOK_SECONDS)
