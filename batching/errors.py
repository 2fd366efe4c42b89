"""The three ways in which a submit can end without a result."""

__all__ = ["BatchFailedError", "BatcherClosedError", "QueueFullError"]


class QueueFullError(Exception):
    """As many items wait as ``max_queue_size`` allows; this one was not taken in."""


class BatcherClosedError(Exception):
    """The batcher was closed before the item had its result."""


class BatchFailedError(Exception):
    """The call that carried the item failed whole; ``__cause__`` is what it failed with.

    Every caller of the batch gets an instance of its own.
    """
