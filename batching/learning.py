"""What a call costs, learnt from the calls themselves.

A device that runs ``slots`` calls at a time needs ``a + b * n`` seconds for a call of n items. What
else a call takes (transport, serialising) can pass while the device runs another call: ``overlap``.
So a call that finds the device ready ``e`` seconds after it left (0: at once) takes

    max(overlap, e) + a + b * n

seconds in all, and that is what is fitted to the last calls: for a given number of slots and a
given overlap by weighted least squares, and of several slots and overlaps the likeliest is taken.
Errors are taken relative to a call's time, since long calls vary more.
"""

import math
from collections import deque
from typing import NamedTuple

__all__ = ["CallCost", "Sample"]

WINDOW = 96  # calls that are looked at
HALF_LIFE = 48  # calls after which one counts half
REFIT_SECONDS = 0.25
FIRST_FITS = 8  # so many follow each call at once
CANDIDATES = 16  # overlaps that are tried, of up to the shortest call
REFINEMENTS = 4  # halvings around the best of them
EVIDENCE = 6.0  # log-likelihood ratio that changes the number of slots
DOUBT = 4.0  # twice the log-likelihood ratio within which the overlap stays as it was
KEEP_SHAPE = 0.3  # how strongly a noisy fit holds on to the ratio of a and b
EXACT = 0.01  # a relative error that needs no explanation
DEVIATION_OVER_MEDIAN = 1.4826  # of a normal distribution's absolute values
NEGLIGIBLE = 1e-5  # a difference between mean square relative errors
LITTLE_SPREAD = 1e-3  # of sizes, relative
ODD = 0.25  # relative error of an outlier, at least
ODD_IN_NOISE = 5.0  # and in standard deviations
SHORTEST = 1e-6  # seconds of a call, against division by zero
CHANGED = 3  # so many outliers to one side, one after another, are no outliers


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


_Row = tuple[int, float, float, float]
"""Size, seconds, seconds until a slot was free, weight."""


class CallCost:
    """The cost of calls of one kind, in seconds; use :meth:`learn` and read the rest."""

    def __init__(self) -> None:
        self.a = self.b = self.overlap = 0.0
        self.slots = 1
        self.noise = 0.3
        """Standard deviation of the device's time for a call, relative to it."""
        self._error = 0.3  # the same of a call's whole time, which is what is seen
        self.fits = 0
        self.deepest = 0
        """Most calls that one of those looked at found in flight when it left."""
        self._samples: deque[Sample] = deque(maxlen=WINDOW)
        self._odd: list[tuple[Sample, bool]] = []
        self._fitted_at = -math.inf

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
        if len(self._samples) > 5 and self._is_odd(sample):
            if len(self._odd) < CHANGED:
                return
            self._samples.clear()
            self._samples.extend(odd for odd, _ in self._odd)
            self._odd.clear()
            self._error = 0.1
            self._fit(now)
            return
        self._odd.clear()
        self._samples.append(sample)
        if self.fits < FIRST_FITS or now - self._fitted_at >= REFIT_SECONDS:
            self._fit(now)

    def _is_odd(self, sample: Sample) -> bool:
        expected = max(self.overlap, sample.ready(self.slots)) + self.service(sample.size)
        error = (sample.seconds - expected) / expected
        if abs(error) <= max(ODD, ODD_IN_NOISE * self._error):
            return False
        longer = error > 0
        self._odd = [odd for odd in self._odd if odd[1] is longer]
        self._odd.append((sample, longer))
        return True

    def _fit(self, now: float) -> None:
        self._fitted_at = now
        self.fits += 1
        count = len(self._samples)
        weights = [0.5 ** (age / HALF_LIFE) for age in range(count - 1, -1, -1)]
        weight = sum(weights)
        self.deepest = max(sample.ahead for sample in self._samples)
        longest = min(sample.seconds for sample in self._samples)
        steps = [longest * step / CANDIDATES for step in range(CANDIDATES)]
        rows, coarse = {}, {}
        for slots in range(max(1, self.slots - 1), self.slots + 2):
            rows[slots] = [
                (sample.size, sample.seconds, sample.ready(slots), weight)
                for sample, weight in zip(self._samples, weights, strict=True)
            ]
            coarse[slots] = [self._solve(rows[slots], overlap) for overlap in steps]
        slots = self.slots
        for other, others in coarse.items():
            ratio = (_least(coarse[slots]) + EXACT**2) / (_least(others) + EXACT**2)
            if weight * math.log(ratio) > EVIDENCE:
                slots = other
        fits = self._refine(rows[slots], coarse[slots], longest / CANDIDATES)
        least = _least(fits)
        good = [fit for fit in fits if fit.error <= least * (1 + DOUBT / weight) + NEGLIGIBLE]
        if slots != self.slots or self.fits <= FIRST_FITS:
            # Sending too early shows soon that it was; sending too late would never show.
            best = max(good, key=lambda fit: fit.overlap)
        else:
            best = min(good, key=lambda fit: abs(fit.overlap - self.overlap))
        self.slots, self._error = slots, max(EXACT, math.sqrt(least))
        self.overlap, self.a, self.b = best.overlap, best.a, best.b
        self.noise = self._deviation(rows[slots])

    def _refine(self, rows: list[_Row], fits: list[_Fit], step: float) -> list[_Fit]:
        """The same fits, one at the overlap as it was, and more of them around the best."""
        fits = [*fits, self._solve(rows, self.overlap)]
        for _ in range(REFINEMENTS):
            step /= 2
            best = min(fits, key=lambda fit: fit.error).overlap
            fits += [self._solve(rows, near) for near in (best - step, best + step) if near >= 0]
        return fits

    def _deviation(self, rows: list[_Row]) -> float:
        """Of the device's time: the rest of a call, however long, adds nothing to it.

        By the median, which a few calls that are not understood do not move.
        """
        missed = []
        for size, seconds, ready, _ in rows:
            service = self.service(size)
            missed.append(abs(seconds - max(ready, self.overlap) - service) / service)
        missed.sort()
        return min(1.0, max(EXACT, DEVIATION_OVER_MEDIAN * missed[len(missed) // 2]))

    def _solve(self, rows: list[_Row], overlap: float) -> _Fit:
        """The best a and b for this overlap, none of them negative."""
        w = wn = wnn = wy = wny = wyy = total = 0.0
        for size, seconds, ready, weight in rows:
            y = seconds - max(ready, overlap)
            v = weight / (seconds * seconds)
            total += weight
            w += v
            wn += v * size
            wnn += v * size * size
            wy += v * y
            wny += v * size * y
            wyy += v * y * y
        spread = w * wnn - wn * wn
        mean = max(wy / w, 0.0)
        scale = mean / before if (before := self.a + self.b * wn / w) > 0 else 0.0
        if spread > LITTLE_SPREAD * w * wnn:
            hold = KEEP_SHAPE * w * wnn * self.noise**2 if scale else 0.0
            b = (w * wny - wn * wy + hold * self.b * scale) / (spread + hold)
        else:  # all sizes are alike: how a and b share the time cannot be seen
            b = self.b * scale
        b = max(b, 0.0)
        a = mean - b * wn / w
        if a < 0:
            a, b = 0.0, max(wny / wnn, 0.0)
        error = wyy - 2 * a * wy - 2 * b * wny + a * a * w + 2 * a * b * wn + b * b * wnn
        return _Fit(max(error, 0.0) / total, overlap, a, b)


def _least(fits: list[_Fit]) -> float:
    return min(fit.error for fit in fits)
