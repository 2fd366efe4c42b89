"""What an answer will take, by what has been learnt of calls and by who is in the house."""

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

from batching import Backlog, Inbound, JustInTime
from gateway.admission import Admission, Place
from gateway.errors import OverloadedError
from gateway.predict import Lane

__all__ = ["Forecast", "Learnt", "LearntServer", "kind_of"]

TRIAL_SECONDS = 1.0  # so often one is let in on trial: only from calls is seen that they are fast
LATEST = 0.95  # of the time until the deadline: an answer that is expected later is refused
KINDS = 1024  # of calls that are known at a time
FEW_MODELS = 8  # for each of which a request is reckoned with before it has named its own
PICTURES = 64  # of a kind that are remembered, to see how many sizes they have
VOTES = 8  # pictures of another kind in a row, after which a model's usual kind is another


class LearntServer(NamedTuple):
    """What is known of a model's calls on one server. Such a call for n pictures takes
    ``transport_s + fixed_s + per_item_s * n`` seconds if it is alone there."""

    fixed_s: float
    per_item_s: float
    transport_s: float
    """What of a call passes while the device may run others."""
    noise: float
    """Relative standard deviation of the device's time for a call."""
    parallelism: int
    """Calls that are best at the device at a time; 0: as many as there are."""
    device: str
    """The kind of device that it seems to be, in words."""
    max_batch_size: int
    """Pictures a call, by the settings and by what the server has refused."""


class Learnt(NamedTuple):
    """What is known of a model's calls."""

    expected_s: float
    """Seconds after which a picture that comes now would be answered."""
    servers: dict[str, LearntServer]
    """By address, those that may be asked now."""


def kind_of(lane: Lane) -> Hashable:
    """What is learnt of calls is learnt for a version of a model and, to a factor of two, a size of
    picture."""
    name, version = lane.model.call.model_name, lane.model.version
    return name, version, math.prod(lane.shape).bit_length()


class _Kind:
    """The last pictures of a kind: the lane of the last, and over how many sizes they spread."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._last: deque[tuple[int, ...]] = deque()
        self._counts: Counter[tuple[int, ...]] = Counter()
        self._squares = 0

    def add(self, lane: Lane) -> None:
        """There was one more, of ``lane``."""
        self.lane, shape = lane, lane.shape
        self._last.append(shape)
        self._counts[shape] += 1
        self._squares += 2 * self._counts[shape] - 1
        if len(self._last) > PICTURES:
            oldest = self._last.popleft()
            self._squares -= 2 * self._counts[oldest] - 1
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]

    @property
    def effective(self) -> float:
        """As many equally frequent ones would be as diverse (the inverse of Simpson's index)."""
        return len(self._last) ** 2 / max(1, self._squares)


class Forecast:
    """Reckons for a house (``admission``) whose calls leave as ``dispatch`` says, for one of
    ``servers`` and with ``max_batch_size`` pictures, while ``inbound`` ones are being decoded.

    Who is decoded counts with those of its kind; who is not yet, with those that are usual for its
    model: most clients of a model send pictures of about the same size. Those of a kind share
    calls only if they have the very same size, as often as they had it lately.
    """

    def __init__(
        self,
        admission: Admission,
        dispatch: JustInTime,
        *,
        servers: Callable[[Lane], Sequence[str]],
        max_batch_size: Callable[[Lane, str], int],
        inbound: Callable[[], Inbound],
    ) -> None:
        self._admission = admission
        self._dispatch = dispatch
        self._servers = servers
        self._max_batch_size = max_batch_size
        self._inbound = inbound
        self._kinds: OrderedDict[Hashable, _Kind] = OrderedDict()
        self._usual: dict[str, tuple[Hashable, int]] = {}
        self._let_in: dict[str, float] = {}
        self._refused_at = -math.inf

    def decoded(self, lane: Lane, place: Place) -> None:
        """A picture is decoded, and waits for a call of ``lane``."""
        kind, name = kind_of(lane), lane.model.call.model_name
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind(lane)
        known.add(lane)
        self._kinds.move_to_end(kind)
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        usual, votes = self._usual.get(name, (kind, 0))
        if kind == usual:
            self._usual[name] = kind, min(votes + 1, VOTES)
        else:
            self._usual[name] = (usual, votes - 1) if votes > 1 else (kind, 1)
        place.waits_for(kind)

    def given_up(self, model_name: str) -> None:
        """A request came to nothing before its picture was decoded: it was no trial."""
        self._let_in.pop(model_name, None)

    def usual(self, model_name: str) -> Lane | None:
        """The lane of the model's pictures as they usually are; None before the first."""
        kind, _ = self._usual.get(model_name, (None, 0))
        known = self._kinds.get(kind)
        return None if known is None else known.lane

    def expected(self, model_name: str, now: float) -> float:
        """When a picture that comes now would be answered; -inf if nothing is known yet."""
        lane = self.usual(model_name)
        if lane is None:
            return -math.inf
        inbound = self._inbound()
        waiting: Counter[Hashable] = Counter()
        for what, items in self._admission.waiting_for.items():
            kind, _ = self._usual.get(what, (what, 0)) if isinstance(what, str) else (what, 0)
            waiting[kind] += items
        own_kind = kind_of(lane)
        own = self._backlog(self._kinds[own_kind], waiting.pop(own_kind, 0))
        others = [
            self._backlog(other, items)
            for kind, items in waiting.items()
            if (other := self._kinds.get(kind)) is not None
        ]
        ready = now + (inbound.items + inbound.target_batch_size()) * inbound.interval_s
        return self._dispatch.expected(own, others, ready, now)

    def _backlog(self, known: _Kind, items: int) -> Backlog:
        keys, servers = min(known.effective, max(1, items)), self._servers(known.lane)
        # Where one takes less than others, this may say too little: nothing is refused for that.
        most = max(self._max_batch_size(known.lane, server) for server in servers)
        return Backlog(known.lane, items, most, keys, servers)

    def learnt(self, model_name: str, now: float) -> Learnt | None:
        """What is known of a model's calls, those for its usual pictures; None if nothing."""
        lane = self.usual(model_name)
        if lane is None:
            return None
        servers = {
            server: LearntServer(
                cost.fixed_s,
                cost.per_item_s,
                cost.transport_s,
                cost.noise,
                known.parallelism,
                known.device,
                self._max_batch_size(lane, server),
            )
            for server in self._servers(lane)
            if (cost := (known := self._dispatch.learnt(lane, server)).cost).known
        }
        return Learnt(self.expected(model_name, now) - now, servers) if servers else None

    def all_learnt(self, now: float) -> dict[str, Learnt]:
        """The same of each model that was used, by its name."""
        found = {name: self.learnt(name, now) for name in self._usual}
        return {name: learnt for name, learnt in found.items() if learnt is not None}

    def refuse_late(self, model_name: str, place: Place, deadline: float, now: float) -> None:
        """Refuse a request that would be late, but for one a second and model: it is let in on
        trial, since a model that has become fast again is only seen to be by its calls.

        Raises
        ------
        OverloadedError
            With the reason ``deadline``.
        """
        trial = now - self._let_in.get(model_name, -math.inf) >= TRIAL_SECONDS
        if not trial:
            self._refuse(self.expected(model_name, now), place, deadline, now)
        if model_name in self._usual:
            self._let_in[model_name] = now

    def refuse_any(self, place: Place, deadline: float, now: float) -> None:
        """Refuse a request that would be late whichever of the models in use it is for.

        To be asked before a body is read, which tells the model. Answers only while others are
        refused as well, and where few models are in use: it must cost next to nothing.

        Raises
        ------
        OverloadedError
            With the reason ``deadline``.
        """
        lately = now - self._refused_at < TRIAL_SECONDS
        if lately and 0 < len(self._usual) <= FEW_MODELS:
            if any(now - self._let_in.get(one, -math.inf) >= TRIAL_SECONDS for one in self._usual):
                return
            soonest = min(self.expected(name, now) for name in self._usual)
            self._refuse(soonest, place, deadline, now)

    def _refuse(self, expected: float, place: Place, deadline: float, now: float) -> None:
        latest = now + (deadline - now) * LATEST * place.share
        if expected > latest:
            self._refused_at = now
            raise OverloadedError(
                f"an answer would take {expected - now:.1f} s, longer than the request may wait",
                reason="deadline",
                retry_after=expected - latest,
            )
