"""Primitives that tasks wait for and communicate through: locks, events, limits, channels, results.

``parking_lot``: the fair queue that most of the others wait in, and its breakers.
``event``, and ``compiled_event``: events, and these in C. ``lock``, ``semaphore``, ``condition``.
``limiter``: a capacity limiter. ``channel``: memory channels. ``compiled_channel``: these in C.
``safe_channel``: async generators behind a channel.
``unbounded_queue``: a queue that is emptied in batches, deprecated.
``results``: ``gather``, ``race`` and ``amap``. ``children``: waiting for all children.
``task_handle``: a handle of one child. ``supervisor``: children that are restarted.

A module imports only from those before it and from the rooms below. Tasks sleep in
``_core.wait_queue.park``: an item or lock that was handed to a task stays with it, even if the
task is cancelled at that moment. Wake-up and cancellation themselves are in ``_core``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .channel import (
    MemoryChannelStatistics,
    MemoryReceiveChannel,
    MemorySendChannel,
    open_memory_channel,
)
from .compiled_channel import put_in_place as put_in_place
from .compiled_event import put_events_in_place as put_events_in_place
from .event import Event, EventStatistics
from .lock import Lock, LockStatistics, StrictFIFOLock
from .parking_lot import (
    ParkingLot,
    ParkingLotStatistics,
    add_parking_lot_breaker,
    remove_parking_lot_breaker,
)
from .semaphore import Semaphore

# For type checkers only: not every program needs these, so they are loaded on first use.
if TYPE_CHECKING:
    from .children import wait_children as wait_children
    from .condition import Condition as Condition, ConditionStatistics as ConditionStatistics
    from .limiter import (
        CapacityLimiter as CapacityLimiter,
        CapacityLimiterStatistics as CapacityLimiterStatistics,
    )
    from .results import amap as amap, gather as gather, race as race
    from .safe_channel import as_safe_channel as as_safe_channel
    from .supervisor import (
        ChildFailure as ChildFailure,
        Supervisor as Supervisor,
        SupervisorStatistics as SupervisorStatistics,
        open_supervisor as open_supervisor,
    )
    from .task_handle import TaskHandle as TaskHandle

__all__ = [
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
    "add_parking_lot_breaker",
    "open_memory_channel",
    "remove_parking_lot_breaker",
]
