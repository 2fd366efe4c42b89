"""Several TensorFlow Servings with the same models, seen as one.

One channel each. A call goes to the replica that has the fewest calls running; one that cannot be
reached, or lets calls run out of time, is left out until it answers again.
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.errors import (
    BackendMemoryError,
    BackendUnavailableError,
    DeadlineExceededError,
    GatewayError,
    ModelNotFoundError,
)
from gateway.tfserving.client import ServingClient
from gateway.tfserving.metadata import ModelMetadata, VersionStatus
from gateway.tfserving.wire import ModelChoice, PredictAnswer

__all__ = ["Replicas"]

PROBE_SECONDS = 0.3  # from one probe of a replica that is left out to the next
PROBE_TIMEOUT = 1.0
RESOLVE_SECONDS = 2.0  # from one look at the DNS to the next
LACKS_SECONDS = 5.0  # for which a replica that has not a model is not asked for it
LATE_CALLS = 2  # one after another that ran out of time, until a replica is left out
LATE_SECONDS = 1.0  # that a call must have had for this; less may have been the client's haste
LACKS_KEPT = 1000
GRACE = 30.0  # seconds for the calls of a replica that is gone from the DNS
RETRY_SHARE = 0.1  # of all calls that may be retries, so that retries never make an outage worse
RETRY_BURST = 10.0

T = TypeVar("T")


@dataclass(eq=False)
class _Replica:
    address: str
    client: ServingClient
    running: int = 0
    used: int = 0
    """When it was last used, as a running number of calls."""
    late: int = 0
    """Calls that ran out of time since the last one that did not."""
    probe: asyncio.Task[None] | None = None
    """Runs while the replica is left out."""
    lacks: dict[str, float] = field(default_factory=dict)
    """Models that it did not have, and the loop's time until which it is not asked again."""

    def serves(self, what: str, now: float) -> bool:
        return self.probe is None and self.lacks.get(what, now) <= now


class Replicas:
    """What ``ServingClient`` is, for many addresses: ``host:port``, where a name may stand for many
    machines and is looked up again every two seconds, or ``unix:/path``.

    A call that could not be delivered is tried once more on another replica, while its time lasts
    and as long as retries are no more than a tenth of all calls. Raises what ``ServingClient``
    raises; BackendUnavailableError at once when no replica is left. A single replica is never left
    out. Made and used on one event loop.
    """

    def __init__(self, addresses: Sequence[str], make: Callable[[str], ServingClient]) -> None:
        self._addresses = addresses
        self._make = make
        self._replicas: dict[str, _Replica] = {}
        self._found: dict[str, list[str]] = {}
        self._calls = 0
        self._retries = RETRY_BURST
        self._resolver: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """Replicas that are known."""
        return len(self._replicas)

    @property
    def left_out(self) -> int:
        """Those of them that get no calls now."""
        return sum(replica.probe is not None for replica in self._replicas.values())

    async def start(self) -> None:
        """Look the names up once, and keep doing so."""
        await self._resolve()
        if any(map(_is_name, self._addresses)):
            self._resolver = asyncio.get_running_loop().create_task(self._keep_resolving())

    async def aclose(self) -> None:
        """Close all channels; calls that still run end with BackendUnavailableError."""
        if self._resolver is not None:
            self._resolver.cancel()
        for address in list(self._replicas):
            self._drop(address, None)
        await asyncio.gather(*self._closing)

    async def predict(self, request: bytes, *, model_name: str, timeout: float) -> PredictAnswer:
        """See ``ServingClient.predict``."""
        return await self._call(
            str(ModelChoice(model_name)),
            timeout,
            lambda client, left: client.predict(request, model_name=model_name, timeout=left),
        )

    async def metadata(self, model: ModelChoice, *, timeout: float) -> ModelMetadata:
        """See ``ServingClient.metadata``."""
        return await self._call(
            str(model), timeout, lambda client, left: client.metadata(model, timeout=left)
        )

    async def status(self, model_name: str, *, timeout: float) -> list[VersionStatus]:
        """See ``ServingClient.status``; what those that can be reached know of the model."""
        return await self._call(
            str(ModelChoice(model_name)),
            timeout,
            lambda client, left: client.status(model_name, timeout=left),
            enough=any,
        )

    async def _call(
        self,
        what: str,
        timeout: float,
        ask: Callable[[ServingClient, float], Awaitable[T]],
        enough: Callable[[Iterable[bool]], bool] = all,
    ) -> T:
        """``enough`` of the replicas must be there and lack the model, for it to be not found."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._retries = min(RETRY_BURST, self._retries + RETRY_SHARE)
        tried: list[_Replica] = []
        failure: BackendUnavailableError | None = None
        while (replica := self._choose(what, tried)) is not None:
            tried.append(replica)
            try:
                return await self._ask(replica, ask, deadline - loop.time())
            except ModelNotFoundError:
                if len(replica.lacks) >= LACKS_KEPT:
                    replica.lacks.clear()  # names are the clients' to make up
                replica.lacks[what] = loop.time() + LACKS_SECONDS
            except BackendMemoryError:
                raise
            except BackendUnavailableError as error:
                replica.lacks.pop(what, None)
                self._leave_out(replica)
                if failure is not None or self._retries < 1 or loop.time() >= deadline:
                    raise
                self._retries -= 1
                failure = error
        lacking = [one.probe is None and what in one.lacks for one in self._replicas.values()]
        if lacking and enough(lacking):
            raise _not_found(what)
        raise failure or BackendUnavailableError(
            f"no TensorFlow Serving that may have {what} can be reached"
        )

    async def _ask(
        self, replica: _Replica, ask: Callable[[ServingClient, float], Awaitable[T]], left: float
    ) -> T:
        self._calls += 1
        replica.used = self._calls
        replica.running += 1
        try:
            answer = await ask(replica.client, left)
        except DeadlineExceededError:
            replica.late += left >= LATE_SECONDS
            if replica.late >= LATE_CALLS:
                self._leave_out(replica)
            raise
        finally:
            replica.running -= 1
        replica.late = 0
        return answer

    def _choose(self, what: str, tried: Iterable[_Replica]) -> _Replica | None:
        """Of those that may be asked, the one with the fewest calls running."""
        now = asyncio.get_running_loop().time()
        if len(self._replicas) == 1:
            [only] = self._replicas.values()
            return None if only in tried else only
        able = [
            replica
            for replica in self._replicas.values()
            if replica not in tried and replica.serves(what, now)
        ]
        return min(able, key=lambda replica: (replica.running, replica.used), default=None)

    def _leave_out(self, replica: _Replica) -> None:
        known = self._replicas.get(replica.address) is replica  # else it is gone from the DNS
        if known and replica.probe is None and len(self._replicas) > 1:
            replica.probe = asyncio.get_running_loop().create_task(self._probe(replica))

    async def _probe(self, replica: _Replica) -> None:
        """Ask until it answers, whatever: then it is there again."""
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await replica.client.status("", timeout=PROBE_TIMEOUT)
            except (BackendUnavailableError, DeadlineExceededError):
                continue
            except GatewayError:
                pass
            replica.probe, replica.late = None, 0
            return

    async def _keep_resolving(self) -> None:
        while True:
            await asyncio.sleep(RESOLVE_SECONDS)
            await self._resolve()

    async def _resolve(self) -> None:
        """Make a replica of each address that is new, and end those that are gone."""
        for address in self._addresses:
            with contextlib.suppress(OSError):  # then it keeps what was found before
                self._found[address] = await _look_up(address)
        wanted = dict.fromkeys(found for many in self._found.values() for found in many)
        for address in wanted:
            if address not in self._replicas:
                self._replicas[address] = _Replica(address, self._make(address))
        for address in set(self._replicas) - set(wanted):
            self._drop(address, GRACE)

    def _drop(self, address: str, grace: float | None) -> None:
        replica = self._replicas.pop(address)
        if replica.probe is not None:
            replica.probe.cancel()
        closing = asyncio.get_running_loop().create_task(replica.client.aclose(grace))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _not_found(what: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"TensorFlow Serving has no {what} ready to use")


def _is_name(address: str) -> bool:
    """Whether it must be looked up: neither a path nor the number of a machine."""
    if address.startswith("unix:"):
        return False
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
        return False
    return True


async def _look_up(address: str) -> list[str]:
    """The addresses, in numbers, that a name stands for; OSError if it stands for none now."""
    if not _is_name(address):
        return [address]
    host, _, port = address.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    old = [f"{place[0]}:{port}" for family, *_, place in found if family == socket.AF_INET]
    new = [f"[{place[0]}]:{port}" for family, *_, place in found if family == socket.AF_INET6]
    return old or new  # a machine that has both is one replica, not two
