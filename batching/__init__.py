"""Micro-batching for asyncio: many callers, one call.

    batcher = Batcher(process, max_batch_size=32)
    result = await batcher.submit("model-a", item)     # in any number of tasks
    await batcher.aclose(timeout=10)

Items that wait under one key leave together, in one ``await process(key, items)``; each caller
gets the result of its own item. Standard library only: the package does not know what an item is.
"""

from batching.batcher import Batcher, Process
from batching.dispatch import Dispatch, FreeSlot, Lane
from batching.errors import BatcherClosedError, BatchFailedError, QueueFullError
from batching.justintime import Ahead, JustInTime, Upcoming
from batching.learning import CallCost
from batching.observer import Observer

__all__ = [
    "Ahead",
    "BatchFailedError",
    "Batcher",
    "BatcherClosedError",
    "CallCost",
    "Dispatch",
    "FreeSlot",
    "JustInTime",
    "Lane",
    "Observer",
    "Process",
    "QueueFullError",
    "Upcoming",
]
