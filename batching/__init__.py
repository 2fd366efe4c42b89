"""Micro-batching for asyncio: many callers, one call.

    batcher = Batcher(process, max_batch_size=32)
    result = await batcher.submit("model-a", item)     # in any number of tasks
    await batcher.aclose(timeout=10)

Items that wait under one key leave together, in one ``await process(key, items, server)``; each
caller gets the result of its own item. Standard library only: the package does not know what an
item is. How it decides is told in ``batching/README.md``.
"""

from batching.adaptive.coalescing import Inbound
from batching.adaptive.cost import CostModel
from batching.adaptive.forecast import Backlog
from batching.adaptive.policy import JustInTime, Learnt
from batching.batcher import Batcher, Process
from batching.dispatch import Departure, Dispatch, FreeSlot, QueueView
from batching.errors import BatcherClosedError, BatchFailedError, QueueFullError
from batching.observer import Observer

__all__ = [
    "Backlog",
    "BatchFailedError",
    "Batcher",
    "BatcherClosedError",
    "CostModel",
    "Departure",
    "Dispatch",
    "FreeSlot",
    "Inbound",
    "JustInTime",
    "Learnt",
    "Observer",
    "Process",
    "QueueFullError",
    "QueueView",
]
