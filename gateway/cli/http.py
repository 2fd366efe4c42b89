"""What commands share of HTTP: the URL of a server, and a client's side of the gateway."""

import ipaddress
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, InvalidURL

from gateway.cli.errors import CommandError
from gateway.settings import Settings

__all__ = ["fetch_models", "gateway_session", "read_json", "server_url", "warn_if_open"]

log = logging.getLogger("gateway")


def server_url(host: str, port: int, *, tls: bool = False) -> str:
    """The URL of a server at ``host``, which may be an IPv6 address."""
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def warn_if_open(settings: Settings) -> None:
    """Say in the log, once at the start, that everybody on the network may ask."""
    try:
        loopback = ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        loopback = settings.host == "localhost"
    if settings.api_keys is None and not loopback:
        log.warning(
            "no api_keys are set: everybody who reaches %s may ask for detections", settings.host
        )


@asynccontextmanager
async def gateway_session(
    url: str, timeout: ClientTimeout, key_file: Path | None = None
) -> AsyncIterator[ClientSession]:
    """A session with the gateway at ``url``, with the key that the file holds.

    Raises
    ------
    CommandError
        Nothing answers there, or the file holds no key.
    """
    headers = {"Authorization": f"Bearer {_read_key(key_file)}"} if key_file else None
    try:
        async with ClientSession(url, timeout=timeout, headers=headers) as session:
            yield session
    except InvalidURL as error:
        raise CommandError(f"{url} is not the URL of a gateway", status=2) from error
    except (ClientError, TimeoutError) as error:  # a certificate at fault is a ValueError, too
        raise CommandError(f"no gateway answers at {url}: {error}") from error
    except ValueError as error:
        raise CommandError(f"{url} is not the URL of a gateway", status=2) from error


def _read_key(path: Path) -> str:
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise CommandError(f"cannot read the key from {path}: {reason}", status=2) from error
    if not (key.isascii() and key.isprintable() and key and " " not in key):
        raise CommandError(f"{path} does not hold one key and nothing else", status=2)
    return key


async def fetch_models(session: ClientSession, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """What the gateway says of these models, or of all; CommandError if it says nothing of any."""
    async with session.get("/models", params=[("name", name) for name in names]) as response:
        answer = await read_json(response)
        if response.status != 200:
            raise CommandError(f"the gateway refuses: {answer.get('message')}")
    models: list[dict[str, Any]] = answer["models"]
    return models


async def read_json(response: ClientResponse) -> dict[str, Any]:
    """The JSON object of an answer; CommandError if it is something else."""
    try:
        answer = await response.json(content_type=None)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CommandError(f"{response.url} is not a gateway: it answered HTTP {response.status}")
    return answer
