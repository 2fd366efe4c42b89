"""What the batcher tells of itself while it works."""

from collections.abc import Hashable, Sequence
from typing import Protocol, TypeVar

__all__ = ["Observer"]


K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)


class Observer(Protocol[K_contra]):
    """Receives facts as plain values, synchronously, on the loop: be brief. What it raises goes to
    the loop's exception handler."""

    def dispatched(self, key: K_contra, waits: Sequence[float]) -> None:
        """A batch left; ``waits`` holds the seconds that each of its items had waited."""

    def finished(
        self, key: K_contra, size: int, seconds: float, error: BaseException | None
    ) -> None:
        """A call of ``size`` items ended after ``seconds``; ``error`` is what it, or one of its
        items, failed with."""
