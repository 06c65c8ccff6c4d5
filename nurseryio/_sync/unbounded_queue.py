"""Unbounded queue: emptied in batches, for producers that cannot wait. It is deprecated.

Rule: ``_ready`` means that no woken task owns the items yet. Once the first item has woken a task,
the batch belongs to that task, including all items that arrive before it runs.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Generic, TypeVar

from .._base import TrioDeprecationWarning, WouldBlock
from .._base.util import Final, Frozen
from .._base.watchers import made, watchers
from .._core import checkpoint_if_cancelled, current_task
from .._core.wait_queue import maybe_yield, park
from .parking_lot import ParkingLot

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["UnboundedQueue", "UnboundedQueueStatistics"]

T = TypeVar("T")


class UnboundedQueueStatistics(Frozen):
    """The state of an :class:`UnboundedQueue` at one moment.

    Attributes:
        qsize: How many items are in the queue.
        tasks_waiting: How many tasks wait for a batch.

    Trio: ``trio.lowlevel.UnboundedQueueStatistics``.
    """

    __slots__ = ("qsize", "tasks_waiting")

    qsize: int
    tasks_waiting: int


class UnboundedQueue(Generic[T], metaclass=Final):
    """A queue whose ``put_nowait`` always succeeds and whose reader takes everything at once.

    Nothing limits the producer. Memory stays bounded only if the reader processes each batch
    faster than the next one grows. ``async for batch in queue`` gives one batch after the other.

    Making a queue issues a :class:`TrioDeprecationWarning`, as in Trio: use a memory channel, with
    ``open_memory_channel(math.inf)`` if the producer cannot wait.

    Trio: ``trio.lowlevel.UnboundedQueue``.
    """

    __slots__ = ("__dict__", "__weakref__", "_items", "_lot", "_ready")

    def __init__(self) -> None:
        warnings.warn(
            "nurseryio.lowlevel.UnboundedQueue is deprecated; "
            "use nurseryio.open_memory_channel(math.inf)",
            TrioDeprecationWarning,
            stacklevel=2,
        )
        self._lot = ParkingLot()
        self._items: list[T] = []
        self._ready = False
        if watchers:
            made(self)

    def __repr__(self) -> str:
        return (
            f"<UnboundedQueue at {id(self):#x}, {len(self._items)} items, "
            f"{len(self._lot)} tasks waiting>"
        )

    def qsize(self) -> int:
        """Return how many items are in the queue.

        Trio: ``trio.lowlevel.UnboundedQueue.qsize``.
        """
        return len(self._items)

    def empty(self) -> bool:
        """Say whether no item is in the queue.

        Even if there are items, they may be promised to a task that was woken for them.

        Trio: ``trio.lowlevel.UnboundedQueue.empty``.
        """
        return not self._items

    def put_nowait(self, obj: T) -> None:
        """Add an item. This always succeeds, and at once.

        Trio: ``trio.lowlevel.UnboundedQueue.put_nowait``.
        """
        if not self._items:
            if self._lot:
                self._lot._wake_first()
            else:
                self._ready = True
        self._items.append(obj)

    def _take(self) -> list[T]:
        batch, self._items = self._items, []
        self._ready = False
        return batch

    def get_batch_nowait(self) -> list[T]:
        """Take all items, if there are any.

        Returns:
            The items in order, at least one.

        Raises:
            WouldBlock: The queue is empty, or its items are promised to a woken task.

        Trio: ``trio.lowlevel.UnboundedQueue.get_batch_nowait``.
        """
        if not self._ready:
            raise WouldBlock("the queue is empty")
        return self._take()

    async def get_batch(self) -> list[T]:
        """Take all items; wait until there is at least one.

        Returns:
            The items in order, at least one.

        Raises:
            Cancelled: The task was cancelled; it has taken no items.

        Checkpoint: yes.

        Trio: ``trio.lowlevel.UnboundedQueue.get_batch``.
        """
        task = current_task()
        # inlined: _core.traps.needs_checkpoint
        if task.scope._effective or task._deferred_cancel:
            await checkpoint_if_cancelled()
        if self._ready:
            batch = self._take()
            await maybe_yield(task)
            return batch
        await park(task, self._lot._queue())
        return self._take()

    def statistics(self) -> UnboundedQueueStatistics:
        """Return the present state, for debugging.

        Trio: ``trio.lowlevel.UnboundedQueue.statistics``.
        """
        return UnboundedQueueStatistics(qsize=len(self._items), tasks_waiting=len(self._lot))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[T]:
        return await self.get_batch()
