"""The cost of one kind of calls on one server, kept up to date call by call."""

import math
from collections import deque
from dataclasses import replace

from batching.adaptive.changes import CusumDetector
from batching.adaptive.cost import UNKNOWN, CallRecord, CostModel
from batching.adaptive.fit import fit, window_factor
from batching.adaptive.tuning import TUNING

__all__ = ["CostEstimator"]


class CostEstimator:
    """Keeps the last calls, fits ``model`` to them now and then, and starts anew after a change."""

    def __init__(self, prior: CostModel = UNKNOWN) -> None:
        self.model = prior
        self.fits = 0
        longest = int(TUNING.window_calls * TUNING.window_longest_factor)
        self._records: deque[CallRecord] = deque(maxlen=longest)
        self._detectors = (CusumDetector[CallRecord](1.0), CusumDetector[CallRecord](-1.0))
        self._fitted_at = -math.inf
        self._news = 0

    def learn(self, record: CallRecord, now: float, *, usual: bool = True) -> bool:
        """Take in a call that succeeded; return whether costs have changed for good.

        Outliers are passed over until they are the rule. Of a call that is not ``usual``, since it
        met more others than was meant, it is not asked whether it took as long as expected.
        """
        record = record._replace(seconds=max(record.seconds, TUNING.shortest_s))
        error = self._error(record) if len(self._records) > TUNING.outlier else 0.0
        for detector in self._detectors if usual else ():
            if since := detector.update(record, error):
                self._start_with(since)
                self._fit(now)
                return True
        if abs(error) <= TUNING.outlier:
            self._records.append(record)
            self._news += 1
            often = now - self._fitted_at < TUNING.refit_interval_s
            enough = self._news >= TUNING.refit_news * len(self._records)
            if self.fits < TUNING.first_fits or (enough and not often):
                self._fit(now)
        return False

    def restart(self, model: CostModel) -> None:
        """Believe ``model``, and learn anew what is wrong with it."""
        self.model = model
        self.fits = max(self.fits, TUNING.first_fits)
        self._start_with([])

    def _start_with(self, records: list[CallRecord]) -> None:
        self._records = deque(records, self._records.maxlen)
        for detector in self._detectors:
            detector.clear()

    def _error(self, record: CallRecord) -> float:
        """Of what was expected, in the deviations that are usual.

        To the lower side by the logarithm: however noisy, to take far less time is to be seen.
        """
        service = self.model.service_s(record.size)
        expected = max(self.model.transport_s, record.ready_s) + service
        missed = record.seconds - expected
        if missed < 0:
            missed = expected * math.log(record.seconds / expected)
        return missed / max(TUNING.usual_error * expected, self.model.noise * service)

    def _fit(self, now: float) -> None:
        self._fitted_at, self._news = now, 0
        self.fits += 1
        while len(self._records) > TUNING.window_calls * window_factor(self.model.noise):
            self._records.popleft()
        model = fit(self._records, self.model, settled=self.fits > TUNING.first_fits)
        self.model = replace(model, known=self.model.known or self.fits >= TUNING.fits_to_know)
