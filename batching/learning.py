"""What a call costs, learnt from the calls themselves.

A device that runs ``slots`` calls at a time needs ``a + b * n`` seconds for a call of n items. What
else a call takes (transport, serialising) can pass while the device runs another call: ``overlap``.
So a call that finds the device ready ``e`` seconds after it left (0: at once) takes

    max(overlap, e) + a + b * n

seconds in all, and that is what is fitted to the last calls: for a given number of slots and a
given overlap by weighted least squares, and of several slots and overlaps the likeliest is taken.
Errors are taken relative to the time that the device was expected to need, since long calls vary
more; relative to what was seen, those that happened to be short would count for more. The first
fits, before which nothing is expected, know no better; and a call that took many times as long, as
the first may that compiles, counts relative to its own time, so that it moves little.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate
from operator import mul, sub
from statistics import median
from typing import NamedTuple

__all__ = ["CallCost", "Sample"]

WINDOW = 96  # calls that are looked at
HALF_LIFE = 48  # calls after which one counts half
NOISY = 0.1  # noise above which both grow with its square, as what is needed for a mean does
LONGEST = 8.0  # times as many, at most
REFIT_SECONDS = 0.25
NEWS = 64  # a fit follows when one in so many of the calls looked at is new
FIRST_FITS = 8  # so many follow each call at once
CANDIDATES = 16  # overlaps that are tried, of up to the shortest call
REFINEMENTS = 4  # halvings around the best of them
EVIDENCE = 6.0  # log-likelihood ratio that changes the number of slots
DOUBT = 4.0  # twice the log-likelihood ratio within which the overlap stays as it was
KEEP_SHAPE = 0.3  # how strongly a noisy fit holds on to the ratio of a and b
EXACT = 0.01  # a relative error that needs no explanation
HANDFUL = 10.0  # calls that the noise as it was counts for
DEVIATION_OVER_MEDIAN = 1.4826  # of a normal distribution's absolute values
NEGLIGIBLE = 1e-5  # a difference between mean square relative errors
LITTLE_SPREAD = 1e-3  # of sizes, relative
SHORTEST = 1e-6  # seconds of a call, against division by zero
USUAL = 0.05  # relative error of a call that is no news, however exact the others are
# In such errors, or deviations of the device's time where these are more:
ODD = 5.0  # an outlier, which is not learnt from
COUNTS = 4.0  # the most that one call counts for; in a fit, times what was expected
SLACK = 1.0  # what is taken off for each call
CHANGED = 8.0  # a sum beyond which the calls that made it are the new truth


class Sample(NamedTuple):
    """One call: ``waits`` holds the seconds from its departure to each end of a call before it."""

    size: int
    seconds: float
    ahead: int
    """Calls in flight when it left."""
    waits: tuple[float, ...]

    def ready(self, slots: int) -> float:
        """Seconds after its departure at which one of ``slots`` was free for it."""
        if self.ahead < slots:
            return 0.0
        place = self.ahead - slots
        return self.waits[place] if place < len(self.waits) else self.seconds


class _Fit(NamedTuple):
    error: float
    """Mean square, relative."""
    overlap: float
    a: float
    b: float


_Row = tuple[float, int, float, float]
"""Seconds until a slot was free, size, seconds in all, weight."""


class _Sums:
    """Weighted sums over calls, for any overlap without another pass over them."""

    def __init__(self, rows: list[_Row], weight: float) -> None:
        rows.sort()
        ready, sizes, seconds, weights = zip(*rows, strict=True)
        beyond = list(map(sub, seconds, ready))
        wn, wt, wy = (_products(weights, by) for by in (sizes, seconds, beyond))
        self.rows, self._ready = rows, ready
        self.weight = weight
        """Of the calls as such, however long they are."""
        # Of calls whose slot was free within the overlap the whole time is summed up, of the others
        # (y) what is left of it from then on.
        self._within = [
            _running(each)
            for each in (weights, wn, wt, _products(wn, seconds), _products(wt, seconds))
        ]
        self._beyond = [
            _running(each) for each in (wy, _products(wy, sizes), _products(wy, beyond))
        ]
        self.w, self.wn = self._within[0][-1], self._within[1][-1]
        self.wnn = sum(_products(wn, sizes))

    def device(self, overlap: float) -> tuple[float, float, float]:
        """Sums of y, n y and y y: y is what the device took of a call, if that is the overlap."""
        place = bisect_left(self._ready, overlap)
        w, wn, wt, wnt, wtt = (sums[place] for sums in self._within)
        wy, wny, wyy = (sums[-1] - sums[place] for sums in self._beyond)
        return (
            wy + wt - overlap * w,
            wny + wnt - overlap * wn,
            wyy + wtt - 2 * overlap * wt + overlap * overlap * w,
        )


def _products(some: Sequence[float], others: Sequence[float]) -> list[float]:
    return list(map(mul, some, others))


def _running(values: Iterable[float]) -> list[float]:
    return list(accumulate(values, initial=0.0))


class _Run:
    """Page's test (1954) for a change of the mean, to one side.

    Errors add up beyond what each may have; the calls since the sum was last zero are what the
    change has to be learnt from. If it is but a few of them, it is no change.
    """

    def __init__(self, sign: float) -> None:
        self._sign = sign
        self._sum = 0.0
        self._calls: deque[tuple[Sample, float]] = deque(maxlen=WINDOW)

    def changed(self, sample: Sample, error: float) -> list[Sample]:
        """The calls from which on all is different; none if it is not."""
        error = min(self._sign * error, COUNTS)
        self._calls.append((sample, error))
        self._sum += error - SLACK
        if 0 < self._sum <= CHANGED:
            return []
        calls = list(self._calls)
        alarm = self._sum > CHANGED and median(error for _, error in calls) > SLACK
        self.clear()
        return [sample for sample, _ in calls] if alarm else []

    def clear(self) -> None:
        self._sum = 0.0
        self._calls.clear()


class CallCost:
    """The cost of calls of one kind, in seconds; use :meth:`learn` and read the rest."""

    def __init__(self) -> None:
        self.a = self.b = self.overlap = 0.0
        self.slots = 1
        self.noise = 0.3
        """Standard deviation of the device's time for a call, relative to it."""
        self.fits = 0
        self.deepest = 0
        """Most calls that one of those looked at found in flight when it left."""
        self._samples: deque[Sample] = deque(maxlen=int(WINDOW * LONGEST))
        self._runs = (_Run(1.0), _Run(-1.0))
        self._fitted_at = -math.inf
        self._news = 0  # calls since then

    @property
    def _longer(self) -> float:
        """Times as many calls are looked at as without noise."""
        return min(LONGEST, max(1.0, (self.noise / NOISY) ** 2))

    @property
    def known(self) -> bool:
        """Whether enough calls were seen to rely on it."""
        return self.fits >= 3

    def service(self, size: int) -> float:
        """Seconds that the device needs for a call of ``size`` items."""
        return max(self.a + self.b * size, SHORTEST)

    def learn(self, sample: Sample, now: float) -> None:
        """Take in a call that succeeded. Outliers are passed over until they are the rule."""
        sample = sample._replace(seconds=max(sample.seconds, SHORTEST))
        error = self._error(sample) if len(self._samples) > 5 else 0.0
        for run in self._runs:
            if since := run.changed(sample, error):
                self._samples = deque(since, self._samples.maxlen)
                for each in self._runs:
                    each.clear()
                self._fit(now)
                return
        if abs(error) > ODD:
            return
        self._samples.append(sample)
        self._news += 1
        due = now - self._fitted_at >= REFIT_SECONDS and self._news * NEWS >= len(self._samples)
        if self.fits < FIRST_FITS or due:
            self._fit(now)

    def _error(self, sample: Sample) -> float:
        """Of what was expected, in the deviations that are usual.

        To the lower side by the logarithm: however noisy, to take far less time is to be seen.
        """
        service = self.service(sample.size)
        expected = max(self.overlap, sample.ready(self.slots)) + service
        missed = sample.seconds - expected
        if missed < 0:
            missed = expected * math.log(sample.seconds / expected)
        return missed / max(USUAL * expected, self.noise * service)

    def _fit(self, now: float) -> None:
        self._fitted_at = now
        self._news = 0
        self.fits += 1
        weights = self._weights()
        self.deepest = max(sample.ahead for sample in self._samples)
        step = min(sample.seconds for sample in self._samples) / CANDIDATES
        slots, other = self.slots, self.slots + (-1 if self.slots > 1 and self.fits % 2 else 1)
        sums = {number: self._sums(number, weights) for number in (slots, other)}
        coarse = {
            number: [self._solve(sums[number], step * place) for place in range(CANDIDATES)]
            for number in (slots, other)
        }
        ratio = (_least(coarse[slots]) + EXACT**2) / (_least(coarse[other]) + EXACT**2)
        if sums[slots].weight * math.log(ratio) > EVIDENCE:
            slots = other
        fits = self._refine(sums[slots], coarse[slots], step)
        enough = _least(fits) * (1 + DOUBT / sums[slots].weight) + NEGLIGIBLE
        good = [fit for fit in fits if fit.error <= enough]
        if slots != self.slots or self.fits <= FIRST_FITS:
            # Sending too early shows soon that it was; sending too late would never show.
            best = max(good, key=lambda fit: fit.overlap)
        else:
            best = min(good, key=lambda fit: abs(fit.overlap - self.overlap))
        self.slots, self.overlap, self.a, self.b = slots, best.overlap, best.a, best.b
        self.noise = self._deviation(sums[slots])

    def _weights(self) -> list[float]:
        """Of the calls that are looked at; the others are dropped."""
        longer = self._longer
        while len(self._samples) > WINDOW * longer:
            self._samples.popleft()
        ages = reversed(range(len(self._samples)))
        return [0.5 ** (age / HALF_LIFE / longer) for age in ages]

    def _sums(self, slots: int, weights: list[float]) -> _Sums:
        rows: list[_Row] = []
        for sample, weight in zip(self._samples, weights, strict=True):
            scale = sample.seconds
            if self.known:  # whatever number is tried: errors are to be compared
                scale = (scale - max(sample.ready(self.slots), self.overlap)) / COUNTS
                scale = max(self.service(sample.size), scale)
            rows.append((sample.ready(slots), sample.size, sample.seconds, weight / scale**2))
        return _Sums(rows, sum(weights))

    def _refine(self, sums: _Sums, fits: list[_Fit], step: float) -> list[_Fit]:
        """The same fits, one at the overlap as it was, and more of them around the best."""
        fits = [*fits, self._solve(sums, self.overlap)]
        for _ in range(REFINEMENTS):
            step /= 2
            best = min(fits, key=lambda fit: fit.error).overlap
            fits += [self._solve(sums, near) for near in (best - step, best + step) if near >= 0]
        return fits

    def _deviation(self, sums: _Sums) -> float:
        """Of the device's time: the rest of a call, however long, adds nothing to it.

        By the median, which a few calls that are not understood do not move. A handful of calls,
        as after a change, always fits well: they do not yet tell that there is less of it.
        """
        missed = []
        for ready, size, seconds, _ in sums.rows:
            service = self.service(size)
            missed.append(abs(seconds - max(ready, self.overlap) - service) / service)
        seen = DEVIATION_OVER_MEDIAN * median(missed)
        squares = len(missed) * seen * seen + HANDFUL * self.noise**2
        return min(1.0, max(EXACT, math.sqrt(squares / (len(missed) + HANDFUL))))

    def _solve(self, sums: _Sums, overlap: float) -> _Fit:
        """The best a and b for this overlap, none of them negative."""
        w, wn, wnn = sums.w, sums.wn, sums.wnn
        wy, wny, wyy = sums.device(overlap)
        spread = w * wnn - wn * wn
        mean = max(wy / w, 0.0)
        scale = mean / before if (before := self.a + self.b * wn / w) > 0 else 0.0
        if spread > LITTLE_SPREAD * w * wnn:
            hold = KEEP_SHAPE * self._longer * w * wnn * self.noise**2 if scale else 0.0
            b = (w * wny - wn * wy + hold * self.b * scale) / (spread + hold)
        else:  # all sizes are alike: how a and b share the time cannot be seen
            b = self.b * scale
        b = max(b, 0.0)
        a = mean - b * wn / w
        if a < 0:
            a, b = 0.0, max(wny / wnn, 0.0)
        error = wyy - 2 * a * wy - 2 * b * wny + a * a * w + 2 * a * b * wn + b * b * wnn
        return _Fit(max(error, 0.0) / sums.weight, overlap, a, b)


def _least(fits: list[_Fit]) -> float:
    return min(fit.error for fit in fits)
