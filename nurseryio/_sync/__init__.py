"""What tasks talk and wait through: locks, events, limits, channels, results.

===================  ============================================================
``parking_lot``      the fair queue that the others wait in
``event``            something that happens once
``lock``             one task at a time
``semaphore``        a number that never falls below zero
``condition``        waiting inside a lock for a change
``limiter``          tokens to borrow
``channel``          memory channels
``safe_channel``     async generators behind a channel
``unbounded_queue``  a queue emptied in batches
``results``          results of concurrent functions
===================  ============================================================

Each imports only those above it, and ``_core``. Everything waits by
``_core.wait_task_rescheduled`` and so keeps its contract: what was handed over stays handed
over, whatever cancels the task in that moment.
"""

from .channel import (
    MemoryChannelStatistics,
    MemoryReceiveChannel,
    MemorySendChannel,
    open_memory_channel,
)
from .condition import Condition, ConditionStatistics
from .event import Event, EventStatistics
from .limiter import CapacityLimiter, CapacityLimiterStatistics
from .lock import Lock, LockStatistics, StrictFIFOLock
from .parking_lot import (
    ParkingLot,
    ParkingLotStatistics,
    add_parking_lot_breaker,
    remove_parking_lot_breaker,
)
from .results import amap, gather, race
from .safe_channel import as_safe_channel
from .semaphore import Semaphore
from .unbounded_queue import UnboundedQueue, UnboundedQueueStatistics

__all__ = [
    "CapacityLimiter",
    "CapacityLimiterStatistics",
    "Condition",
    "ConditionStatistics",
    "Event",
    "EventStatistics",
    "Lock",
    "LockStatistics",
    "MemoryChannelStatistics",
    "MemoryReceiveChannel",
    "MemorySendChannel",
    "ParkingLot",
    "ParkingLotStatistics",
    "Semaphore",
    "StrictFIFOLock",
    "UnboundedQueue",
    "UnboundedQueueStatistics",
    "add_parking_lot_breaker",
    "amap",
    "as_safe_channel",
    "gather",
    "open_memory_channel",
    "race",
    "remove_parking_lot_breaker",
]
