"""What commands share of HTTP: the URL of a server, and a client's side of the gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, InvalidURL

from gateway.cli.errors import CommandError

__all__ = ["gateway_session", "read_json", "server_url"]


def server_url(host: str, port: int) -> str:
    """The URL of a server at ``host``, which may be an IPv6 address."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def gateway_session(url: str, timeout: ClientTimeout) -> AsyncIterator[ClientSession]:
    """A session with the gateway at ``url``; CommandError if nothing answers there."""
    try:
        async with ClientSession(url, timeout=timeout) as session:
            yield session
    except (InvalidURL, ValueError) as error:
        raise CommandError(f"{url} is not the URL of a gateway", status=2) from error
    except (ClientError, TimeoutError) as error:
        raise CommandError(f"no gateway answers at {url}: {error}") from error


async def read_json(response: ClientResponse) -> dict[str, Any]:
    """The JSON object of an answer; CommandError if it is something else."""
    try:
        answer = await response.json(content_type=None)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise CommandError(f"{response.url} is not a gateway: it answered HTTP {response.status}")
    return answer
