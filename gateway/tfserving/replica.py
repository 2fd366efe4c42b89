"""One TensorFlow Serving among several: what is known of it, and whether it gets calls."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from gateway.errors import BackendUnavailableError, DeadlineExceededError, GatewayError
from gateway.tfserving.client import ServingClient, cause
from gateway.tfserving.wire import ModelChoice

__all__ = ["Prepare", "Replica"]

log = logging.getLogger("gateway")

PROBE_SECONDS = 0.3  # from one probe of a replica that is left out to the next
PROBE_TIMEOUT = 1.0
LONGEST_PAUSE = 5.0  # before the first probe of one that was let in again and again, in vain
FAILURES = 3  # calls in a row without an answer, until a replica is left out
FORGIVEN = 0.1  # of an unsound answer by each sound one: one in five is too many, one in twenty not
LACKS_SECONDS = 5.0  # after which a replica that had not a model may have it
LACKS_KEPT = 1000

Prepare = Callable[[ServingClient], Awaitable[None]]
"""What is done with a replica before it gets calls; must end."""


@dataclass(eq=False)
class Replica:
    """A replica, with the calls that run on it. Made and used on one event loop."""

    address: str
    client: ServingClient
    prepare: Prepare | None = None
    changed: Callable[[], None] = lambda: None
    """Told when it may be asked for something, or no longer."""
    running: int = 0
    used: int = 0
    """When it was last used, as a running number of calls."""
    failures: int = 0
    """Calls in a row that ended without an answer."""
    unsound: float = 0.0
    """Answers that another replica did better, less what sound ones have made good."""
    answers: bool = True
    """Whether it can be reached, though it may refuse: not lost, and not silent."""
    lost: bool = False
    """Whether its connection was lost: what comes back may be another process, and cold."""
    _relapses: int = 0
    _probe: asyncio.Task[None] | None = None
    _lacks: dict[Hashable, float] = field(default_factory=dict)
    """Until when it is not asked for what it had not."""
    _looks: dict[Hashable, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def left_out(self) -> bool:
        """Whether it gets no calls."""
        return self._probe is not None

    def lacks(self, what: Hashable, now: float) -> bool:
        """Whether it is not to be asked for ``what``, which it had not when last asked."""
        return self._lacks.get(what, now) > now

    def has_not(self, what: Hashable, now: float) -> None:
        """It was asked for ``what`` and had it not."""
        self._lacks.pop(what, None)
        if len(self._lacks) >= LACKS_KEPT:  # names are the clients' to make up
            del self._lacks[next(iter(self._lacks))]
        self._lacks[what] = now + LACKS_SECONDS
        self.changed()

    def may_have(self, what: Hashable) -> None:
        """What was known of ``what`` is old."""
        if self._lacks.pop(what, None) is not None:
            self.changed()

    def look_again(self, what: Hashable, model: ModelChoice) -> None:
        """If it had not ``what``, for want of ``model``, see in a moment whether it has it by now,
        and until then have no call of a client find out."""
        if what in self._lacks and what not in self._looks:
            self._lacks[what] = math.inf
            look = asyncio.get_running_loop().create_task(self._look(what, model))
            self._looks[what] = look
            look.add_done_callback(lambda _: self._looks.pop(what))

    async def _look(self, what: Hashable, model: ModelChoice) -> None:
        await asyncio.sleep(LACKS_SECONDS)
        try:
            await self.client.metadata(model, timeout=PROBE_TIMEOUT)
        except GatewayError:
            return
        except Exception:
            log.exception("a defect of the gateway: a replica could not be asked for a model")
            return
        self.may_have(what)

    def answered(self, what: Hashable) -> None:
        """It was asked for ``what`` and answered."""
        self.answers = True
        self.may_have(what)
        self.forgive()

    def forgive(self) -> None:
        """It gave an answer, be it a refusal."""
        self.failures = 0
        self.unsound = max(0.0, self.unsound - FORGIVEN)
        if not self.unsound:
            self._relapses = 0

    def leave_out(self, why: str | None) -> None:
        """Give it no calls until it answers again and, if it was ``lost``, ``prepare`` is done.

        ``why`` is for the log; None where it is new and has not failed, and is looked at at once.
        """
        if self._probe is None:
            pause = 0.0
            if why is not None:
                log.warning("TensorFlow Serving at %s gets no calls: %s", self.address, why)
                pause = min(PROBE_SECONDS * 2**self._relapses, LONGEST_PAUSE)
            self._relapses = min(self._relapses + 1, 8)
            loop = asyncio.get_running_loop()
            probe = self._until_it_answers(pause, told=why is not None)
            self._probe = loop.create_task(probe)
            self.changed()

    def forget(self) -> None:
        """It will not be used any more; its client is the caller's to close."""
        if self._probe is not None:
            self._probe.cancel()
        for look in self._looks.values():
            look.cancel()

    async def _until_it_answers(self, pause: float, *, told: bool) -> None:
        while True:
            await asyncio.sleep(pause)
            pause = PROBE_SECONDS
            client = self.client
            if (failure := await self._failure(client)) is not None:
                if not told:
                    told = True
                    log.warning("TensorFlow Serving at %s is not there: %s", self.address, failure)
                continue
            self.answers = True  # from here on it is better than none
            self.changed()
            if self.lost and self.prepare is not None:
                try:
                    await self.prepare(client)
                except Exception:
                    log.exception("a defect of the gateway: a replica could not be prepared")
                if client is not self.client or not client.connected:
                    continue  # what was prepared is gone meanwhile
            # Until it has answered a call, one failure is enough.
            self._probe, self.failures, self.lost = None, FAILURES - 1, False
            self.unsound = min(self.unsound, FAILURES - 1)
            log.info("TensorFlow Serving at %s gets calls", self.address)
            self.changed()
            return

    async def _failure(self, client: ServingClient) -> str | None:
        """Why it is not reached; None if it is."""
        try:
            await client.status("", timeout=PROBE_TIMEOUT)
        except BackendUnavailableError as error:
            self.lost = self.lost or not client.connected
            return cause(error)
        except DeadlineExceededError as error:
            return str(error)
        except GatewayError:
            pass  # that there is no model without a name, proves that it is there
        except Exception:
            log.exception("a defect of the gateway: a replica could not be probed")
            return "see above"
        return None
