"""TLS to TensorFlow Serving: what the channels are made with, and why a handshake failed."""

import re
import ssl
from pathlib import Path

import grpc

from gateway.tls import PemFiles

__all__ = ["Credentials", "handshake_failure"]


class Credentials:
    """The authorities that TensorFlow Serving's certificate must come from; for mutual TLS, the
    gateway's own certificate and key.

    Raises
    ------
    ValueError
        A file cannot be used; the message names it.
    """

    def __init__(self, ca: Path, cert: Path | None = None, key: Path | None = None) -> None:
        self._files = PemFiles(ca=ca, cert=cert, key=key)
        self.look()

    def look(self) -> bool:
        """Take the files over if their content has changed; whether it had. Channels that were made
        before stay as they are.

        Raises
        ------
        ValueError
            As above; then all stays as it was.
        """
        # gRPC would take anything, and fail with it when it connects.
        changed = self._files.load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        if changed:
            self.channel = grpc.ssl_channel_credentials(*self._files.content)
        return changed


_FAILURES = (
    (r"Hostname Verification Check failed", "its certificate is for another name"),
    (r"CERTIFICATE_VERIFY_FAILED: ([a-z ]+)", r"its certificate is not trusted: \1"),
    (r"WRONG_VERSION_NUMBER", "it does not speak TLS"),
    (r"handshake failed|security handshaker", "the handshake failed"),
    # In TLS 1.3 that is all that a client sees of it.
    (r"failed to connect.*Socket closed", "it hung up, as if it wanted another certificate of us"),
)


def handshake_failure(details: str) -> str | None:
    """Why no connection could be made, if that was for TLS, from the details of gRPC's status.

    Fit for clients: it holds no name and no address.
    """
    for pattern, reason in _FAILURES:
        if found := re.search(pattern, details, re.DOTALL):
            return found.expand(reason)
    return None
