"""The door: how many pictures, and how many bytes of them, may be in the house at once."""

import asyncio
import threading
from collections import Counter
from collections.abc import Hashable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Literal, Self, get_args

from gateway.errors import OverloadedError, ShuttingDownError

__all__ = ["PRIORITIES", "Admission", "Place", "Priority"]

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)

# What a request may use of each limit. Whoever may use less is refused first as the house fills,
# and leaves room to those who may use more.
SHARES: dict[Priority, float] = {"high": 1.0, "normal": 0.9, "low": 0.5}


class Admission:
    """Counts the requests in the house and refuses those for which there is no room.

    ``max_queue_size`` limits those that wait: being read, decoded or queued, but not those that
    TensorFlow Serving works on. ``max_pending_bytes`` limits the memory of all: bodies as they
    arrive, pictures once decoded.
    """

    def __init__(self, *, max_queue_size: int, max_pending_bytes: int) -> None:
        self._max_queue_size = max_queue_size
        self._max_pending_bytes = max_pending_bytes
        self._lock = threading.Lock()  # bytes are also counted from decoding threads
        self._bytes = 0
        self._waiting = 0
        self._inside = 0
        self.waiting_for: Counter[Hashable] = Counter()
        """The requests that wait and have said what for, by that."""
        self._closed = False
        self.closing = False
        """Whether the house will soon take nobody in any more; nobody new should be sent."""
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def waiting(self) -> int:
        """Requests that are read, decoded or queued."""
        return self._waiting

    @property
    def inside(self) -> int:
        """Requests that have entered and not left."""
        return self._inside

    @property
    def pending_bytes(self) -> int:
        """Bytes of bodies and pictures held."""
        return self._bytes

    @property
    def closed(self) -> bool:
        """Whether the house takes nobody in any more."""
        return self._closed

    def enter(self, nbytes: int, priority: Priority = "normal") -> "Place":
        """Take a request of ``nbytes`` in; the place is given back when its ``with`` block ends.

        A request of low priority may use half of each limit, a normal one nine tenths.

        Raises
        ------
        ShuttingDownError
            After ``close``.
        OverloadedError
            With the reason ``max_queue_size`` or ``max_pending_bytes``.
        """
        if self._closed:
            raise ShuttingDownError("the gateway is shutting down")
        share = SHARES[priority]
        if self._waiting >= self._max_queue_size * share:
            raise OverloadedError(
                f"{self._waiting} requests wait, as many as the gateway allows",
                reason="max_queue_size",
            )
        place = Place(self, share)
        place.hold(nbytes)
        self._waiting += 1
        self._inside += 1
        self._empty.clear()
        return place

    def close(self) -> None:
        """Refuse everybody from now on."""
        self._closed = self.closing = True

    async def emptied(self) -> None:
        """Return when nobody is inside."""
        await self._empty.wait()


class Place:
    """One request's place in the house, a context manager."""

    def __init__(self, admission: Admission, share: float) -> None:
        self._admission = admission
        self.share = share
        """What it may use of each limit, 0..1."""
        self._what: Hashable = None
        self._bytes = 0
        self._waiting = True
        self._left = False

    def hold(self, nbytes: int) -> None:
        """From now on the request holds ``nbytes``; may be called from a decoding thread.

        Raises
        ------
        OverloadedError
            There is no room for them; what was held before is still held.
        concurrent.futures.CancelledError
            The request has left meanwhile: nobody waits for what the thread is about to do.
        """
        house = self._admission
        with house._lock:
            if self._left:
                raise CancelledError
            others = house._bytes - self._bytes
            # Alone in the house, a request may hold whatever its own limits let pass.
            limit = house._max_pending_bytes * self.share
            if others and nbytes > self._bytes and others + nbytes > limit:
                raise OverloadedError(
                    "the pictures that wait fill the memory that the gateway allows them",
                    reason="max_pending_bytes",
                )
            house._bytes = others + nbytes
            self._bytes = nbytes

    def waits_for(self, what: Hashable) -> None:
        """From now on it is known what the request waits for; it may become better known."""
        if self._waiting:
            self._forget_what()
            self._what = what
            self._admission.waiting_for[what] += 1

    def sent(self) -> None:
        """The picture is with TensorFlow Serving: it waits no longer."""
        if self._waiting:
            self._waiting = False
            self._admission._waiting -= 1
            self._forget_what()

    def _forget_what(self) -> None:
        waiting, what = self._admission.waiting_for, self._what
        if what is not None:
            waiting[what] -= 1
            if not waiting[what]:
                del waiting[what]
            self._what = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.sent()
        house = self._admission
        with house._lock:
            self._left = True
            house._bytes -= self._bytes
        house._inside -= 1
        if not house._inside:
            house._empty.set()
