"""The batcher: its state, and the one function that moves it."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from batching.adaptive.policy import JustInTime
from batching.dispatch import Dispatch
from batching.errors import BatcherClosedError, BatchFailedError, QueueFullError
from batching.observer import Observer

__all__ = ["Batcher", "Process"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")

Process = Callable[[K, list[T], Hashable], Coroutine[Any, Any, Sequence[R | Exception]]]
"""``async def process(key, items, server)``: turns the items of one key into as many results, in
the same order, with one call of ``server`` (one of those that :class:`Batcher` was told of; None
if it was told of none).

An exception *returned* in place of a result goes to the caller of that item alone; an exception
*raised* fails the whole batch.
"""

ONE_SERVER = (None,)


@dataclass(eq=False)
class _Queue(Generic[K, T, R]):
    """The items of one key: ``waiting`` maps a caller's future to (item, loop time of arrival)."""

    key: K
    limit: Callable[[K, Hashable], int]
    all_servers: Callable[[K], Sequence[Hashable]]
    waiting: OrderedDict[asyncio.Future[R], tuple[T, float]] = field(default_factory=OrderedDict)
    in_flight: int = 0

    @property
    def servers(self) -> Sequence[Hashable]:
        return self.all_servers(self.key)

    def max_batch_size(self, server: Hashable) -> int:
        return max(1, self.limit(self.key, server))

    @property
    def depth(self) -> int:
        return len(self.waiting)

    @property
    def oldest(self) -> float:
        return next(iter(self.waiting.values()))[1]


class Batcher(Generic[K, T, R]):
    """Groups what is submitted under one key into calls of ``process``.

    Relied upon: every ``submit`` ends exactly once, with the result of its own item or one
    exception of its own · no call carries more than ``max_batch_size`` items · items of a key leave
    in the order in which they came · a caller that is cancelled frees its place and changes nothing
    for the others; once its item is in flight, the result is dropped · when nothing waits and
    nothing runs, no task, no timer and no queue is left. To be used from one event loop.

    Parameters
    ----------
    process
        See :data:`Process`. It runs in a task; it is not cancelled when its callers leave, only by
        :meth:`aclose`.
    servers
        Tells for a key where its calls may go now: any hashable names, at least one. Call
        :meth:`wake` when it has changed. By default there is one server, None.
    max_batch_size
        Items of one call, or a function that tells it for a key and a server whenever it matters.
    max_queue_size
        Items that may wait, over all keys; one more is refused with ``QueueFullError``.
    dispatch
        Decides when a batch leaves, of which key, and where to; by default :class:`JustInTime`. It
        keeps what it learns, so each batcher needs its own.
    observer
        Notified of each batch.
    """

    # The state, all of it:
    #   _queues     key -> queue; a queue is there while something of it waits or is in flight
    #   _depth     items waiting, over all queues
    #   _calls     the tasks in flight -> the futures of the callers that each carries
    #   _wakeup    the one pending call of _advance, due at _wakeup_at
    #   _idle      set while closing: the future that ends when nothing is left
    # _advance alone moves items from waiting to in flight; it runs after a submit, after the end of
    # a call, when a time that dispatch named has come, and on close.

    def __init__(
        self,
        process: Process[K, T, R],
        *,
        servers: Callable[[K], Sequence[Hashable]] = lambda _: ONE_SERVER,
        max_batch_size: int | Callable[[K, Hashable], int] = 32,
        max_queue_size: int = 1024,
        dispatch: Dispatch | None = None,
        observer: Observer[K] | None = None,
    ) -> None:
        if isinstance(max_batch_size, int) and max_batch_size < 1:
            raise ValueError("max_batch_size must be at least 1")
        if max_queue_size < 1:
            raise ValueError("max_queue_size must be at least 1")
        self._process = process
        self._servers = servers
        self._limit = (
            (lambda *_: max_batch_size) if isinstance(max_batch_size, int) else max_batch_size
        )
        self._max_queue_size = max_queue_size
        self._dispatch: Dispatch = JustInTime() if dispatch is None else dispatch
        self._observer = observer
        self._queues: dict[K, _Queue[K, T, R]] = {}
        self._depth = 0
        self._calls: dict[asyncio.Task[Sequence[R | Exception]], list[asyncio.Future[R]]] = {}
        self._wakeup: asyncio.Handle | None = None
        self._wakeup_at = math.inf
        self._idle: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        state = "open" if self._idle is None else "closing" if self._queues else "closed"
        return (
            f"<Batcher {state} waiting={self._depth} in_flight={len(self._calls)}"
            f" queues={len(self._queues)}>"
        )

    @property
    def depth(self) -> int:
        """Items that wait, without those in flight and without those whose caller has left."""
        return self._depth

    @property
    def in_flight(self) -> int:
        """Calls of ``process`` that have not ended."""
        return len(self._calls)

    async def submit(self, key: K, item: T) -> R:
        """Wait for the result of ``item``, which shares a call with others of the same ``key``.

        Raises
        ------
        QueueFullError
            ``max_queue_size`` items wait already; raised at once.
        BatcherClosedError
            ``aclose`` was called before, or its time ran out first.
        BatchFailedError
            ``process`` raised, or returned a wrong number of results.
        Exception
            Whatever ``process`` returned in place of this item's result.
        """
        if self._idle is not None:
            raise BatcherClosedError("the batcher is closed")
        if self._depth >= self._max_queue_size:
            raise QueueFullError(f"{self._depth} items wait, as many as max_queue_size allows")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        queue = self._queues.get(key) or self._open_queue(key)
        queue.waiting[future] = (item, loop.time())
        self._depth += 1
        self._dispatch.submitted(queue, loop.time())
        self._wake_at(-math.inf)
        try:
            return await future
        finally:
            if queue.waiting.pop(future, None) is not None:
                self._depth -= 1
                self._drop_if_empty(queue)

    def wake(self) -> None:
        """Decide anew: something that ``servers``, ``max_batch_size`` or ``dispatch`` looks at has
        changed from outside."""
        if self._queues:
            self._wake_at(-math.inf)

    async def aclose(self, timeout: float | None = None) -> None:
        """Refuse new items, send what waits, and return when every caller has its answer.

        After ``timeout`` seconds, or when this call is itself cancelled, whoever is left gets
        ``BatcherClosedError`` and the running calls are cancelled. May be called again.
        """
        loop = asyncio.get_running_loop()
        if self._idle is None:
            self._idle = loop.create_future()
        self._wake_at(-math.inf)
        try:
            await asyncio.wait((self._idle,), timeout=timeout)
        finally:
            for queue in list(self._queues.values()):
                self._fail(queue.waiting, BatcherClosedError)
                self._depth -= len(queue.waiting)
                queue.waiting.clear()
                self._drop_if_empty(queue)
            for call, futures in self._calls.items():
                self._fail(futures, BatcherClosedError)
                call.cancel()
        while self._calls:
            await asyncio.wait(self._calls)

    def _open_queue(self, key: K) -> _Queue[K, T, R]:
        self._queues[key] = queue = _Queue[K, T, R](key, self._limit, self._servers)
        return queue

    def _drop_if_empty(self, queue: _Queue[K, T, R]) -> None:
        if not queue.waiting and not queue.in_flight:
            self._queues.pop(queue.key, None)

    def _wake_at(self, when: float) -> None:
        """Have ``_advance`` run at loop time ``when``, or in the next tick if that is past."""
        if self._wakeup is not None:
            if self._wakeup_at <= when:
                return
            self._wakeup.cancel()
        loop = asyncio.get_running_loop()
        self._wakeup_at = when
        if when <= loop.time():
            self._wakeup = loop.call_soon(self._advance)
        else:
            self._wakeup = loop.call_at(when, self._advance)

    def _advance(self) -> None:
        """Send every batch that may leave now, and set the clock for the next one."""
        self._wakeup = None
        now = asyncio.get_running_loop().time()
        while waiting := [queue for queue in self._queues.values() if queue.waiting]:
            queue, server, at, size = self._dispatch.next(waiting, now)
            if at > now and (at == math.inf or self._idle is None):
                if at < math.inf:
                    self._wake_at(at)
                break
            self._send(queue, server, size, now)
            self._drop_if_empty(queue)
        if self._idle is not None and not self._queues and not self._idle.done():
            self._idle.set_result(None)

    def _send(self, queue: _Queue[K, T, R], server: Hashable, size: int, now: float) -> None:
        futures: list[asyncio.Future[R]] = []
        items: list[T] = []
        waits: list[float] = []
        limit = max(1, min(size, queue.max_batch_size(server)))
        while queue.waiting and len(items) < limit:
            future, (item, since) = queue.waiting.popitem(last=False)
            self._depth -= 1
            if not future.done():  # else its caller was cancelled within this very tick
                futures.append(future)
                items.append(item)
                waits.append(now - since)
        if not items:
            return
        queue.in_flight += 1
        call = asyncio.get_running_loop().create_task(self._process(queue.key, items, server))
        self._calls[call] = futures
        sent = self._dispatch.sent(queue, server, len(items), now)
        call.add_done_callback(partial(self._finish, queue, now, sent))
        if self._observer is not None:
            self._tell(self._observer.dispatched, queue.key, waits)

    def _finish(
        self,
        queue: _Queue[K, T, R],
        started: float,
        sent: Any,
        call: asyncio.Task[Sequence[R | Exception]],
    ) -> None:
        futures = self._calls.pop(call)
        queue.in_flight -= 1
        error = self._deliver(futures, call)
        now = asyncio.get_running_loop().time()
        self._dispatch.ended(sent, now, failed=error is not None)
        self._drop_if_empty(queue)
        self._wake_at(-math.inf)
        if self._observer is not None:
            self._tell(self._observer.finished, queue.key, len(futures), now - started, error)

    @staticmethod
    def _tell(fact: Callable[..., None], *values: Any) -> None:
        """Whatever an observer does, batches go on."""
        try:
            fact(*values)
        except Exception as error:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "an observer of the batcher raised", "exception": error}
            )

    def _deliver(
        self, futures: list[asyncio.Future[R]], call: asyncio.Task[Sequence[R | Exception]]
    ) -> BaseException | None:
        """Give each caller its own outcome; return what the call, or one of them, failed with."""
        if call.cancelled():
            error: BaseException | None = asyncio.CancelledError("the call was cancelled")
        else:
            error = call.exception()
        if error is None:
            try:
                outcomes = list(zip(futures, call.result(), strict=True))
            except (TypeError, ValueError):
                error = TypeError(f"process did not return a sequence of {len(futures)} results")
        if error is not None:
            self._fail(futures, BatchFailedError, cause=error)
            return error
        for future, result in outcomes:
            if isinstance(result, Exception):
                error = error or result
                if not future.done():
                    future.set_exception(result)
            elif not future.done():
                future.set_result(result)
        return error

    @staticmethod
    def _fail(
        futures: Iterable[asyncio.Future[R]],
        kind: type[BatchFailedError | BatcherClosedError],
        *,
        cause: BaseException | None = None,
    ) -> None:
        for future in futures:
            if not future.done():
                error = kind("the batcher was closed" if cause is None else repr(cause))
                error.__cause__ = cause
                future.set_exception(error)
