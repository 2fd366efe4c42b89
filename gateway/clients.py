"""Limits for each client, so that one cannot starve the others."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gateway.errors import ClientLimitError

__all__ = ["Clients"]

REMEMBERED = 10_000
"""Clients that are known at a time; who was here longest ago is forgotten, unless inside."""


@dataclass(slots=True)
class _Client:
    tokens: float
    since: float
    inside: int = 0


class Clients:
    """Counts what each client does.

    ``rate`` is in requests a second, of which as many may come at once (a token bucket); ``places``
    how many requests of one client may be in the house. None of either means no limit.
    """

    def __init__(
        self,
        *,
        rate: float | None,
        places: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._places = places
        self._clock = clock
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    @contextmanager
    def enter(
        self, name: str, *, rate: float | None = None, places: int | None = None
    ) -> Iterator[None]:
        """Take in one request of the client ``name``, until the block ends.

        ``rate`` and ``places`` are limits of this client's own, in the place of those of all.

        Raises
        ------
        ClientLimitError
            It has sent too many lately, or has too many inside.
        """
        rate = self._rate if rate is None else rate
        places = self._places if places is None else places
        if rate is None and places is None:
            yield
            return
        client = self._look_up(name, rate or 0.0)
        if places is not None and client.inside >= places:
            raise ClientLimitError(
                f"{client.inside} requests of this client are being worked on, as many as it may"
                " have at a time",
                reason="client_share",
            )
        if rate is not None:
            self._take_token(client, rate)
        client.inside += 1
        try:
            yield
        finally:
            client.inside -= 1

    def _look_up(self, name: str, rate: float) -> _Client:
        client = self._clients.get(name)
        if client is None:
            if len(self._clients) >= REMEMBERED:
                self._forget_one()
            client = self._clients[name] = _Client(max(1.0, rate), self._clock())
        self._clients.move_to_end(name)
        return client

    def _forget_one(self) -> None:
        oldest = next((name for name, one in self._clients.items() if not one.inside), None)
        if oldest is not None:
            del self._clients[oldest]

    def _take_token(self, client: _Client, rate: float) -> None:
        now = self._clock()
        client.tokens = min(max(1.0, rate), client.tokens + (now - client.since) * rate)
        client.since = now
        if client.tokens < 1:
            raise ClientLimitError(
                f"this client may send {rate:g} requests a second",
                reason="client_rate",
                retry_after=(1 - client.tokens) / rate,
            )
        client.tokens -= 1
