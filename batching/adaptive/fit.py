"""Records of calls and what was believed before in, a cost model out.

A call that finds the device ready ``e`` seconds after it left (0: at once) takes

    max(transport_s, e) + fixed_s + per_item_s * n

seconds. For a given transport that is a straight line, fitted by weighted least squares; of several
transports the likeliest is taken. Errors are relative to the time that the device was expected to
need, since long calls vary more; relative to what was seen, those that happened to be short would
count for more. Before anything is expected nothing better is known; and a call that took many times
as long, as the first may that compiles, counts relative to its own time, so that it moves little.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from operator import mul, sub
from statistics import median
from typing import NamedTuple

from batching.adaptive.cost import CallRecord, CostModel
from batching.adaptive.tuning import TUNING

__all__ = ["fit", "window_factor"]

DEVIATION_OVER_MEDIAN = 1.4826  # of a normal distribution's absolute values


class _Line(NamedTuple):
    error: float
    """Mean square, relative."""
    transport_s: float
    fixed_s: float
    per_item_s: float


def window_factor(noise: float) -> float:
    """Times as many calls are looked at as without noise."""
    return min(TUNING.window_longest_factor, max(1.0, (noise / TUNING.window_noise) ** 2))


def fit(records: Sequence[CallRecord], prior: CostModel, *, settled: bool) -> CostModel:
    """The cost that explains ``records``, oldest first, best.

    Parameters
    ----------
    records
        At least one.
    prior
        What was believed before. It scales the errors, if it is known, and what the records do not
        tell stays as it was there: the transport, and the ratio of fixed and per-item time.
    settled
        Whether the prior's transport stays unless the records speak against it. If not, the
        shortest that explains them is taken: where calls share a device, leaving too early looks
        like more transport, so that a long guess would confirm itself. That it is too short is seen
        by calls that leave early.
    """
    sums = _Sums(_rows(records, prior), prior)
    shortest = min(record.seconds for record in records)
    if settled and not any(record.ready_s for record in records):
        # None met another: how transport and fixed time share what they took cannot be seen.
        return _model(records, sums.line(min(prior.transport_s, shortest)), prior)
    step = shortest / TUNING.transport_candidates
    lines = [sums.line(step * place) for place in range(TUNING.transport_candidates)]
    lines.append(sums.line(prior.transport_s))
    for _ in range(TUNING.transport_refinements):
        step /= 2
        best = min(lines).transport_s
        lines += [sums.line(near) for near in (best - step, best + step) if near >= 0]
    enough = min(lines).error * (1 + TUNING.transport_doubt / sums.weight)
    good = [line for line in lines if line.error <= enough + TUNING.negligible_square]
    if settled:
        line = min(good, key=lambda line: abs(line.transport_s - prior.transport_s))
    else:
        line = min(good, key=lambda line: line.transport_s)
    return _model(records, line, prior)


def _model(records: Sequence[CallRecord], line: "_Line", prior: CostModel) -> CostModel:
    model = CostModel(line.fixed_s, line.per_item_s, line.transport_s, prior.noise)
    return replace(model, noise=_noise(records, model))


_Row = tuple[float, int, float, float]
"""Seconds until the device was ready, size, seconds in all, weight."""


def _rows(records: Sequence[CallRecord], prior: CostModel) -> list[_Row]:
    half_life = TUNING.half_life_calls * window_factor(prior.noise)
    rows: list[_Row] = []
    for age, record in zip(reversed(range(len(records))), records, strict=True):
        scale = record.seconds
        if prior.known:
            took = record.seconds - max(record.ready_s, prior.transport_s)
            scale = max(prior.service_s(record.size), took / TUNING.cusum_clip)
        weight = 0.5 ** (age / half_life)
        rows.append((record.ready_s, record.size, record.seconds, weight / scale**2))
    rows.sort()
    return rows


def _noise(records: Sequence[CallRecord], model: CostModel) -> float:
    """Relative deviation of the device's time: the rest of a call, however long, adds none.

    By the median, which a few calls that are not understood do not move. A handful of calls, as
    after a change, always fits well: they do not yet tell that there is less of it.
    """
    missed = []
    for record in records:
        service = model.service_s(record.size)
        expected = max(record.ready_s, model.transport_s) + service
        missed.append(abs(record.seconds - expected) / service)
    seen = DEVIATION_OVER_MEDIAN * median(missed)
    before = TUNING.noise_prior_calls
    square = (len(missed) * seen**2 + before * model.noise**2) / (len(missed) + before)
    return min(1.0, max(TUNING.exact, math.sqrt(square)))


class _Sums:
    """Weighted sums over calls, which give the line for any transport without another pass."""

    def __init__(self, rows: list[_Row], prior: CostModel) -> None:
        self._prior = prior
        ready, sizes, seconds, weights = zip(*rows, strict=True)
        beyond = list(map(sub, seconds, ready))
        wn, wt, wy = (_products(weights, by) for by in (sizes, seconds, beyond))
        self._ready = ready
        # Of calls for which the device was ready within the transport the whole time is summed up,
        # of the others (y) what is left of it from then on.
        self._within = [
            _running(each)
            for each in (weights, wn, wt, _products(wn, seconds), _products(wt, seconds))
        ]
        self._beyond = [
            _running(each) for each in (wy, _products(wy, sizes), _products(wy, beyond))
        ]
        self._w, self._wn = self._within[0][-1], self._within[1][-1]
        self._wnn = sum(_products(wn, sizes))
        # As errors are relative, the weights' sum is a number of calls only after that is undone.
        half_life = TUNING.half_life_calls * window_factor(prior.noise)
        self.weight = sum(0.5 ** (age / half_life) for age in range(len(rows)))
        """Number of calls, each counted by its age."""

    def line(self, transport_s: float) -> _Line:
        """The best straight line for this transport, without a negative part."""
        w, wn, wnn = self._w, self._wn, self._wnn
        wy, wny, wyy = self._device(transport_s)
        prior, noise = self._prior, self._prior.noise
        spread = w * wnn - wn * wn
        mean = max(wy / w, 0.0)
        before = prior.fixed_s + prior.per_item_s * wn / w
        scale = mean / before if before > 0 else 0.0
        if spread > TUNING.least_spread * w * wnn:
            hold = TUNING.keep_shape * window_factor(noise) * w * wnn * noise**2 if scale else 0.0
            b = (w * wny - wn * wy + hold * prior.per_item_s * scale) / (spread + hold)
        else:  # all sizes are alike: how the parts share the time cannot be seen
            b = prior.per_item_s * scale
        b = max(b, 0.0)
        a = mean - b * wn / w
        if a < 0:
            a, b = 0.0, max(wny / wnn, 0.0)
        error = wyy - 2 * a * wy - 2 * b * wny + a * a * w + 2 * a * b * wn + b * b * wnn
        return _Line(max(error, 0.0) / self.weight, transport_s, a, b)

    def _device(self, transport_s: float) -> tuple[float, float, float]:
        """Sums of y, n y and y y: y is what the device took of a call, if that is the transport."""
        place = bisect_left(self._ready, transport_s)
        w, wn, wt, wnt, wtt = (sums[place] for sums in self._within)
        wy, wny, wyy = (sums[-1] - sums[place] for sums in self._beyond)
        return (
            wy + wt - transport_s * w,
            wny + wnt - transport_s * wn,
            wyy + wtt - 2 * transport_s * wt + transport_s * transport_s * w,
        )


def _products(some: Sequence[float], others: Sequence[float]) -> list[float]:
    return list(map(mul, some, others))


def _running(values: Iterable[float]) -> list[float]:
    return list(accumulate(values, initial=0.0))
