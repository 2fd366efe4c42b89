"""Several TensorFlow Servings with the same models, seen as one.

One channel each. Whoever asks may say which is asked first; one that cannot be reached, fails, or
lets calls run out of time, is left out until it answers again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from gateway.errors import (
    BackendAnswerInvalidError,
    BackendMemoryError,
    BackendUnavailableError,
    DeadlineExceededError,
    GatewayError,
    ModelNotFoundError,
)
from gateway.tfserving.client import ServingClient, cause
from gateway.tfserving.metadata import ModelMetadata, VersionStatus
from gateway.tfserving.names import Addresses
from gateway.tfserving.replica import FAILURES, Prepare, Replica
from gateway.tfserving.wire import ModelChoice, PredictAnswer

__all__ = ["Replicas"]

log = logging.getLogger("gateway")

RESOLVE_SECONDS = 2.0  # from one look at the DNS to the next
GRACE = 30.0
RETRY_SHARE = 0.1  # of all calls that may be retries, so that they never make an outage worse
RETRY_BURST = 10.0
RETRY_RESERVE = 5.0  # of them that is not for calls that are merely late
HALF = 0.5  # of its time that a call must have had, to be held against a replica when it runs out
CALLS = 256  # that tell what is late
CALLS_NEEDED = 64
LATE = 0.99  # of them were faster than a late one
LATE_AT_LEAST = 1.5  # times what such calls usually take

NO_ANSWER = (
    BackendAnswerInvalidError,
    BackendUnavailableError,
    DeadlineExceededError,
    ModelNotFoundError,
)
"""Another replica may well answer otherwise."""

T = TypeVar("T")


class Replicas:
    """What ``ServingClient`` is, for many addresses: ``host:port``, where a name may stand for many
    machines and is looked up again every two seconds, or ``unix:/path``.

    A call that could not be delivered, or got no sound answer, is tried once more on another
    replica, while its time lasts. Only if that one gives a sound answer, an unsound one is held
    against the first: else it may be the call that is at fault.

    With ``hedge``, a Predict call that takes longer than 99 of 100 is sent to another replica too,
    and the first answer counts. Both together are no more than a tenth of all calls. ``prepare`` is
    done with every replica before it gets calls, at the start as well as when it comes back.
    No call takes more than ``longest_call`` seconds: so long may those go on that run on a client
    which is replaced, and half a minute at least. ``changed`` is told whenever ``servers`` may have
    changed, with the address that the DNS does not know any more, if it is for that.

    Raises what ``ServingClient`` raises; BackendUnavailableError at once when no replica is left. A
    single replica is asked even then. Made and used on one event loop.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        make: Callable[[str], ServingClient],
        *,
        hedge: bool = True,
        prepare: Prepare | None = None,
        longest_call: float = 0.0,
        changed: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self._addresses = Addresses(addresses)
        self._make = make
        self._hedge = hedge
        self._prepare = prepare
        self._grace = max(GRACE, longest_call)
        self._changed = changed
        self._replicas: dict[str, Replica] = {}
        self._calls = 0
        self._retries = RETRY_BURST
        self._ratios: deque[float] = deque(maxlen=CALLS)
        self._late = 0.0
        self._resolver: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def count(self) -> int:
        """Replicas that are known."""
        return len(self._replicas)

    @property
    def left_out(self) -> int:
        """Those of them that get no calls now."""
        return sum(replica.left_out for replica in self._replicas.values())

    @property
    def tls_failure(self) -> str | None:
        """Why one of them cannot be reached, if that is for TLS."""
        failures = (replica.client.tls_failure for replica in self._replicas.values())
        return next(filter(None, failures), None)

    def servers(self, model: ModelChoice) -> list[str]:
        """The addresses that may be asked for Predict of a model now. There is always one, if only
        one that cannot be reached."""
        able = self._able(("predict", model), ())
        known = next(iter(self._replicas), self._addresses.given[0])
        return [replica.address for replica in able] or [known]

    def name_of(self, address: str) -> str | None:
        """See ``Addresses.name_of``."""
        return self._addresses.name_of(address)

    def renew(self) -> None:
        """Make a new client for each replica; calls that run end on its old one."""
        for replica in self._replicas.values():
            old, replica.client = replica.client, self._make(replica.address)
            self._close(old, self._grace)

    async def start(self) -> None:
        """Look the names up once, and keep doing so."""
        await self._resolve()
        if self._addresses.may_change:
            self._resolver = asyncio.get_running_loop().create_task(self._keep_resolving())

    async def aclose(self) -> None:
        """Close all channels; calls that still run end with BackendUnavailableError."""
        if self._resolver is not None:
            self._resolver.cancel()
        for address in list(self._replicas):
            self._drop(address, None)
        await asyncio.gather(*self._closing)

    async def predict(
        self,
        request: bytes,
        *,
        model: ModelChoice,
        timeout: float,
        read: Callable[[PredictAnswer], T],
        server: Hashable = None,
        usual: Callable[[str], float] = lambda _: 0.0,
    ) -> T:
        """See ``ServingClient.predict``. The replica at ``server`` is asked first, if it may be.

        ``usual`` tells what such a call takes at an address, in seconds; 0 if that is not known.
        Returns what ``read`` makes of the answer: if that raises BackendAnswerInvalidError, the
        answer counts as none.
        """
        slow: Replica | None = None

        async def ask_first(replica: Replica, left: float) -> T:
            nonlocal slow
            slow = replica
            return await ask(replica, left)

        async def ask(replica: Replica, left: float) -> T:
            started, usually = loop.time(), usual(replica.address)
            answer = await replica.client.predict(request, model=model, timeout=left)
            if usually:
                self._learn((loop.time() - started) / usually)
            return read(answer)

        loop = asyncio.get_running_loop()
        tried: list[Replica] = []
        what = ("predict", model)
        for replica in self._replicas.values():
            replica.look_again(what, model)
        first = self._choose(what, tried, server)
        patience = self._late * usual(first.address) if first else 0.0
        call = self._call(what, timeout, ask_first, tried, server=server)
        if not (self._hedge and 0 < patience < timeout and len(self._replicas) > 1):
            return await call
        tasks = [loop.create_task(call)]
        try:
            await asyncio.wait(tasks, timeout=patience)
            may = self._retries > RETRY_RESERVE and self._choose(what, tried) is not None
            if tasks[0].done() or not may:
                return await tasks[0]
            self._retries -= 1
            tasks.append(loop.create_task(self._call(what, timeout - patience, ask, tried)))
            best = await _first_answer(*tasks)
            if not tasks[0].done() and slow is not None:
                self._failed(slow, "another was asked later and answered first", silent=True)
            return best.result()
        finally:
            for task in tasks:
                task.cancel()

    async def metadata(self, model: ModelChoice, *, timeout: float) -> ModelMetadata:
        """See ``ServingClient.metadata``."""
        return await self._call(
            ("metadata", model),
            timeout,
            lambda replica, left: replica.client.metadata(model, timeout=left),
        )

    async def status(self, model_name: str, *, timeout: float) -> list[VersionStatus]:
        """See ``ServingClient.status``; what those that can be reached know of the model."""
        return await self._call(
            ("status", ModelChoice(model_name)),
            timeout,
            lambda replica, left: replica.client.status(model_name, timeout=left),
            enough=any,
        )

    async def _call(
        self,
        what: tuple[str, ModelChoice],
        timeout: float,
        ask: Callable[[Replica, float], Awaitable[T]],
        tried: list[Replica] | None = None,
        enough: Callable[[Iterable[bool]], bool] = all,
        server: Hashable = None,
    ) -> T:
        """Ask one replica, ``server`` if it may be, and others if it has not the model or, once, if
        it gave no answer.

        ``enough`` of the replicas must have said that they lack the model, for it to be not found.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        self._retries = min(RETRY_BURST, self._retries + RETRY_SHARE)
        tried = [] if tried is None else tried
        first: tuple[Replica, GatewayError] | None = None
        lacking: list[Replica] = []
        while (replica := self._choose(what, tried, server)) is not None:
            tried.append(replica)
            left = deadline - loop.time()
            try:
                answer = await self._ask(replica, what, ask, left, timeout)
            except ModelNotFoundError:
                replica.has_not(what, loop.time())
                lacking.append(replica)
                continue
            except BackendMemoryError:
                raise
            except (BackendUnavailableError, BackendAnswerInvalidError) as error:
                replica.may_have(what)
                late = loop.time() >= deadline
                if first is not None or self._retries < 1 or late:
                    raise
                self._retries -= 1
                first = replica, error
                continue
            if first is not None and isinstance(first[1], BackendAnswerInvalidError):
                self._unsound(*first)
            return answer
        now, known = loop.time(), self._replicas.values()
        if known and enough(one in lacking or one.lacks(what, now) for one in known):
            raise ModelNotFoundError(f"TensorFlow Serving has no {what[1]} ready to use")
        if first is not None:
            raise first[1]
        raise BackendUnavailableError(
            f"no TensorFlow Serving that may have {what[1]} can be reached"
        )

    async def _ask(
        self,
        replica: Replica,
        what: Hashable,
        ask: Callable[[Replica, float], Awaitable[T]],
        left: float,
        timeout: float,
    ) -> T:
        client = replica.client  # which may be another one when the call has ended
        self._calls += 1
        replica.used = self._calls
        replica.running += 1
        try:
            answer = await ask(replica, left)
        except DeadlineExceededError as error:
            if left >= HALF * timeout:
                self._failed(replica, str(error), silent=True)
            raise
        except BackendUnavailableError as error:
            if not isinstance(error, BackendMemoryError):
                self._failed(replica, cause(error), lost=not client.connected)
            raise
        except BackendAnswerInvalidError:
            raise  # whose fault that is shows when another is asked
        except GatewayError:
            replica.forgive()
            raise
        finally:
            replica.running -= 1
        replica.answered(what)
        return answer

    def _choose(
        self, what: Hashable, tried: Sequence[Replica], server: Hashable = None
    ) -> Replica | None:
        """Of those that may be asked the one at ``server``, else the one with the fewest calls."""
        able = self._able(what, tried)
        for replica in able:
            if replica.address == server:
                return replica
        return min(able, key=lambda replica: (replica.running, replica.used), default=None)

    def _able(self, what: Hashable, tried: Sequence[Replica]) -> list[Replica]:
        """Those that may be asked and were not ``tried`` yet."""
        left = [replica for replica in self._replicas.values() if replica not in tried]
        if len(self._replicas) <= 1:
            return left  # there is nobody else to ask
        # When all are left out, those that merely refused are better than none.
        able = [one for one in left if not one.left_out] or (
            [one for one in left if one.answers] if self.left_out == self.count else []
        )
        # When all lack the model, one is asked all the same: it may have it by now.
        now = asyncio.get_running_loop().time()
        return [one for one in able if not one.lacks(what, now)] or (able if not tried else [])

    def _unsound(self, replica: Replica, error: GatewayError) -> None:
        """It gave an unsound answer, and another a sound one to the same call."""
        replica.unsound += 1
        if replica.unsound >= FAILURES and self._replicas.get(replica.address) is replica:
            replica.leave_out(cause(error))

    def _failed(
        self, replica: Replica, why: str, *, lost: bool = False, silent: bool = False
    ) -> None:
        """A call got no answer: the connection is ``lost``, it was ``silent``, or it refused."""
        replica.failures += 1
        replica.answers = not (lost or silent)
        replica.lost = replica.lost or lost
        known = self._replicas.get(replica.address) is replica  # else it is gone from the DNS
        others = len(self._replicas) > 1
        if known and (lost or (others and replica.failures >= FAILURES)):
            replica.leave_out(why)

    def _learn(self, ratio: float) -> None:
        """A call took ``ratio`` times what such calls usually take."""
        self._ratios.append(ratio)
        if len(self._ratios) >= CALLS_NEEDED and self._calls % 16 == 0:
            late = sorted(self._ratios)[int(LATE * len(self._ratios))]
            self._late = max(late, LATE_AT_LEAST)

    async def _keep_resolving(self) -> None:
        while True:
            await asyncio.sleep(RESOLVE_SECONDS)
            await self._resolve()

    async def _resolve(self) -> None:
        """Make a replica of each address that is new, and end those that are gone."""
        wanted = await self._addresses.look()
        for address in wanted:
            if address not in self._replicas:
                replica = Replica(address, self._make(address), self._prepare)
                replica.changed = partial(self._changed, None)
                self._replicas[address] = replica
                self._changed(None)
                if self._prepare is not None:
                    replica.lost = True
                    replica.leave_out(None)
        for address in set(self._replicas) - set(wanted):
            self._drop(address, self._grace)
            self._changed(address)

    def _drop(self, address: str, grace: float | None) -> None:
        replica = self._replicas.pop(address)
        replica.forget()
        self._close(replica.client, grace)

    def _close(self, client: ServingClient, grace: float | None) -> None:
        closing = asyncio.get_running_loop().create_task(client.aclose(grace))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


async def _first_answer(first: asyncio.Task[T], second: asyncio.Task[T]) -> asyncio.Task[T]:
    """The one that answers first, or refuses what is asked; else the first, whose failure says
    more."""
    tasks = (first, second)
    for how in (asyncio.FIRST_COMPLETED, asyncio.ALL_COMPLETED):
        await asyncio.wait(tasks, return_when=how)
        for task in tasks:
            if task.done() and not isinstance(task.exception(), NO_ANSWER):
                return task
    return first
