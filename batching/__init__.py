"""Micro-batching for asyncio: many callers, one call.

    batcher = Batcher(process, max_batch_size=32)
    result = await batcher.submit("model-a", item)     # in any number of tasks
    await batcher.aclose(timeout=10)

Items that wait under one key leave together, in one ``await process(key, items)``; each caller
gets the result of its own item. Standard library only: the package does not know what an item is.
"""

from batching.adaptive.policy import JustInTime
from batching.batcher import Batcher, Process
from batching.dispatch import Departure, Dispatch, FreeSlot, QueueView
from batching.errors import BatcherClosedError, BatchFailedError, QueueFullError
from batching.observer import Observer
