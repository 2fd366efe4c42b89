"""The best that a dispatch can do which knows everything but the future, by dynamic programming.

A device runs one call at a time, whose time varies (log-normal, known deviation); items come at
random (Poisson, known rate). What is known at any moment is how many items the call that runs has,
for how long it has run, and how many wait. Whether to send the next batch then is a semi-Markov
decision process (Howard, *Dynamic Probabilistic Systems*, 1971), solved here by value iteration in
small steps of time: the cost is the number of items in the house, so that by Little's law its mean
over the rate is the mean latency, and no policy has a lower one.

No more than two calls are in flight, which is enough while a call takes longer than what overlaps:
:func:`applies`.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from batching.dispatch import Departure, Q, QueueView

__all__ = ["Optimum", "Setting", "applies", "leave_times"]

Array = npt.NDArray[np.float64]

STEPS = 20  # of time in the shortest call
LONGEST = 3.3  # deviations after which every call has ended
QUEUE = 160  # items; more count as so many, so that the mean is a little low near capacity
SWEEPS = 200
PRECISION = 1e-4  # of the mean latency, at which value iteration ends
PATIENCE = 1.0  # seconds for which a batch waits for another item beside an idle device
STRIDE = 0.7  # of the way to the gain that a sweep shows


@dataclass(frozen=True)
class Setting:
    """What is known; times in seconds, ``rate`` in items a second."""

    a: float
    b: float
    overlap: float
    sigma: float
    rate: float
    max_batch_size: int

    @property
    def cycle(self) -> float:
        """Seconds of a call when each carries what came during the one before."""
        full = self.a + self.b * self.max_batch_size
        return min(full, self.a / max(1 - self.rate * self.b, self.a / full))


def applies(setting: Setting) -> bool:
    """Whether two calls in flight are enough to keep the device busy."""
    return setting.cycle >= setting.overlap


class _Model:
    """The probabilities that the sweeps need, in steps of ``step`` seconds."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.way = max(1, math.ceil(setting.overlap / ((setting.a + setting.b) / STEPS)))
        self.step = setting.overlap / self.way
        self.sizes = np.arange(1, setting.max_batch_size + 1)
        times = setting.a + setting.b * self.sizes
        self.steps = int(times[-1] * math.exp(setting.sigma * LONGEST) / self.step) + 1
        ends = np.array([[self._ended(t * self.step, s) for t in range(self.steps)] for s in times])
        ends = np.hstack([ends, np.ones((len(times), 1))])
        within, left = np.diff(ends, axis=1), 1 - ends[:, :-1]
        self.hazard = np.where(left > 1e-9, within / np.maximum(left, 1e-9), 1.0).clip(0, 1)
        self.rest = np.zeros((len(times), self.steps, self.steps))
        """Size, steps it has run, steps until it ends: probability."""
        for t in range(self.steps):
            self.rest[:, t, : self.steps - t] = within[:, t:]
            self.rest[left[:, t] <= 1e-9, t, 0] = 1.0
        self.rest /= self.rest.sum(axis=2, keepdims=True)
        self.queue = np.arange(QUEUE + 1)
        self.batch = np.minimum(self.queue, setting.max_batch_size)
        self.after = (np.arange(self.steps) + 0.5) * self.step
        self.arrivals = self._arrivals(self.step)
        self.later = np.stack([self._arrivals(t)[self.queue - self.batch] for t in self.after])

    def _ended(self, t: float, service: float) -> float:
        """The probability that a call that takes ``service`` on average has ended by then."""
        if t <= 0:
            return 0.0
        sigma = self.setting.sigma
        return 0.5 * math.erfc(-(math.log(t / service) / sigma + sigma / 2) / math.sqrt(2))

    def _arrivals(self, seconds: float) -> Array:
        """From how many items that wait to how many, after ``seconds``: probability."""
        mean, rows = self.setting.rate * seconds, np.zeros((QUEUE + 1, QUEUE + 1))
        each = [math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(QUEUE + 1)]
        for q in range(QUEUE + 1):
            rows[q, q:] = each[: QUEUE + 1 - q]
            rows[q, QUEUE] += max(0.0, 1 - rows[q].sum())
        return rows


def leave_times(setting: Setting) -> tuple[Array, float]:
    """When the next batch is best sent, and the mean latency that this gives, both in seconds.

    The times have a row for each size of the call that runs (0: none) and a column for the number
    that waits, in seconds since the device began that call; inf: not before something happens.
    Raises ``ValueError`` if there is no overlap, noise or rate, and ``ArithmeticError`` if no
    optimum is found.
    """
    if min(setting.overlap, setting.sigma, setting.rate) <= 0:
        raise ValueError("overlap, sigma and rate must be more than 0")
    model = _Model(setting)
    # values[i]: a call of n has i steps to go before it starts; q wait. Relative to the first.
    values = np.zeros((model.way + 1, setting.max_batch_size + 1, QUEUE + 1))
    gain = setting.rate * (1.5 * setting.cycle + setting.overlap)  # items in the house
    turn = setting.cycle + 1 / setting.rate  # about the seconds of one sweep
    for _ in range(SWEEPS):
        values, leave = _sweep(model, values, gain)
        missed = values[0, 1, 0]
        values -= missed
        gain += STRIDE * missed / turn
        if abs(missed) < PRECISION * gain * turn:
            return leave, gain / setting.rate
    raise ArithmeticError(f"no optimum found in {SWEEPS} sweeps: {setting}")


def _sweep(model: _Model, values: Array, gain: float) -> tuple[Array, Array]:
    """One step of value iteration: the same one call later, and when the next batch leaves."""
    rate, step, sizes = model.setting.rate, model.step, model.sizes[:, None]
    sent = _sent(model, values, gain)
    ended, leave = _idle(model, values, gain)
    ended_soon = model.arrivals @ ended
    in_house = (sizes + model.queue - gain) * step + rate * step**2 / 2
    value = np.broadcast_to(ended, (len(sizes), QUEUE + 1))
    for t in reversed(range(model.steps)):
        hazard = model.hazard[:, t, None]
        wait = in_house + (1 - hazard) * (value @ model.arrivals.T) + hazard * ended_soon
        better = sent[:, t] < wait
        value = np.where(better, sent[:, t], wait)
        leave[1:][better] = t * step
    new = np.zeros_like(values)
    new[0, 1:] = value
    for way in range(1, model.way + 1):
        new[way, 1:] = in_house + new[way - 1, 1:] @ model.arrivals.T
    return new, leave


def _idle(model: _Model, values: Array, gain: float) -> tuple[Array, Array]:
    """What it costs when a call has ended, by how many wait; and when they leave: now or never."""
    ended = values[model.way, model.batch, model.queue - model.batch]
    ended[0] = math.inf  # there is nothing to send
    leave = np.full((len(model.sizes) + 1, QUEUE + 1), math.inf)
    for q in reversed(range(QUEUE)):
        another = ended[q + 1] + (q - gain) / model.setting.rate
        leave[0, q] = 0.0 if ended[q] <= another else math.inf
        ended[q] = min(ended[q], another)
    leave[0, QUEUE] = 0.0
    return ended, leave


def _sent(model: _Model, values: Array, gain: float) -> Array:
    """What it costs to send all that wait now: by the size that runs, for how long, and how many.

    Nothing is decided until the call that runs has ended.
    """
    rate = model.setting.rate
    then = np.empty((model.steps, QUEUE + 1))
    for t, later in enumerate(model.later):
        start = values[max(0, model.way - t - 1), model.batch]
        then[t] = (later * start).sum(axis=1)
    until = model.after[:, None]
    then += (model.queue - gain) * until + rate * until**2 / 2
    sent = np.stack(
        [model.rest[n - 1] @ (then + n * until) for n in model.sizes],
    )
    sent[:, :, 0] = math.inf
    return sent


class Optimum:
    """A dispatch by :func:`leave_times`."""

    def __init__(self, setting: Setting) -> None:
        self._overlap = setting.overlap
        self._most = min(2 * setting.max_batch_size, QUEUE)  # more make no difference
        self._leave, self.mean = leave_times(setting)
        self._calls: list[tuple[int, float]] = []
        self._ended = -math.inf

    def next(self, queues: Sequence[Q], now: float) -> Departure[Q]:
        """See :meth:`Dispatch.next`."""
        queue = queues[0]
        return Departure(queue, queue.servers[0], self._leave_at(queue, now))

    def submitted(self, queue: QueueView, now: float) -> None:
        """See :meth:`Dispatch.submitted`."""

    def sent(self, queue: QueueView, server: Hashable, size: int, now: float) -> tuple[int, float]:
        """See :meth:`Dispatch.sent`."""
        self._calls.append((size, now + self._overlap))
        return self._calls[-1]

    def ended(self, call: Any, now: float, *, failed: bool) -> None:
        """See :meth:`Dispatch.ended`."""
        self._calls.remove(call)
        self._ended = now

    def _leave_at(self, queue: QueueView, now: float) -> float:
        if len(self._calls) > 1:
            return math.inf
        size, arrives = self._calls[0] if self._calls else (0, now)
        after = float(self._leave[size, min(queue.depth, self._most)])
        if not self._calls and after:  # "never" is not to be said where nothing is in flight
            return queue.oldest + PATIENCE
        return max(arrives, self._ended) + after
