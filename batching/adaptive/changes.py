"""Whether what is observed has changed for good."""

from collections import deque
from statistics import median
from typing import Generic, TypeVar

from batching.adaptive.tuning import TUNING

__all__ = ["CusumDetector"]

T = TypeVar("T")


class CusumDetector(Generic[T]):
    """Page's cumulative sum test for a shift of a mean to one side (Biometrika 41, 1954).

    Errors add up beyond what each may have; the observations since the sum was last zero are those
    from which the change has to be learnt. If it is but a few of them that err, it is no change.

    Parameters
    ----------
    sign
        1 to look for larger values, -1 for smaller ones.
    slack, alarm, clip
        What is taken off for each observation, the sum beyond which there is an alarm, and the most
        that one observation counts for.
    window
        Observations that are kept at most.

    >>> detector = CusumDetector(1.0, slack=1.0, alarm=8.0, clip=4.0, window=96)
    >>> [detector.update(name, error) for name, error in zip("abcd", [0.1, 5.0, 5.0, 5.0])]
    [[], [], [], ['b', 'c', 'd']]
    """

    def __init__(
        self,
        sign: float,
        *,
        slack: float = TUNING.cusum_slack,
        alarm: float = TUNING.cusum_alarm,
        clip: float = TUNING.cusum_clip,
        window: int = TUNING.window_calls,
    ) -> None:
        self._sign, self._slack, self._alarm, self._clip = sign, slack, alarm, clip
        self._sum = 0.0
        self._seen: deque[tuple[T, float]] = deque(maxlen=window)

    def update(self, what: T, error: float) -> list[T]:
        """Take in an observation and its error, expected around zero; return those from which on
        all is different, none if it is not."""
        error = min(self._sign * error, self._clip)
        self._seen.append((what, error))
        self._sum += error - self._slack
        if 0 < self._sum <= self._alarm:
            return []
        seen = list(self._seen)
        alarm = self._sum > self._alarm and median(error for _, error in seen) > self._slack
        self.clear()
        return [what for what, _ in seen] if alarm else []

    def clear(self) -> None:
        """Forget what was seen."""
        self._sum = 0.0
        self._seen.clear()
