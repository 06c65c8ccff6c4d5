"""Parking lot: the fair queue in which the primitives' waiters sleep, safe to cancel.

This module has :class:`ParkingLot` and its breakers, which are tasks whose end breaks a lot.

Rule 1: a task is in at most one lot. Code that moves a sleeping task to another lot must call
``_core.wait_queue.move``, which records the new queue. A cancelled task is removed from the
recorded queue.

Rule 2: a task leaves the lot in the same step in which it is woken, moved or cancelled. So a woken
task has got what it waited for, and no second task can be woken for the same thing.

Rule 3: the lots that a task breaks when it ends are in the ``breakers`` of its ``Extra``. The field
is None until the first lot is added. The end of the task calls ``break_lot`` on each lot.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from .._base import BrokenResourceError, Error
from .._base.util import Final, Frozen
from .._core import current_task
from .._core.task_extra import NO_EXTRA
from .._core.wait_queue import move, park, wake_all, wake_first, wake_some

if TYPE_CHECKING:
    from .._core import Task

__all__ = [
    "ParkingLot",
    "ParkingLotStatistics",
    "add_parking_lot_breaker",
    "remove_parking_lot_breaker",
]


class ParkingLotStatistics(Frozen):
    """The state of a :class:`ParkingLot` at one moment.

    Attributes:
        tasks_waiting: How many tasks are parked.

    Trio: ``trio.lowlevel.ParkingLotStatistics``.
    """

    __slots__ = ("tasks_waiting",)

    tasks_waiting: int


class ParkingLot(metaclass=Final):
    """A fair queue of sleeping tasks, from which you can build your own primitives.

    ``len(lot)`` is the number of tasks parked in it, and an empty lot is false.

    Attributes:
        broken_by: The tasks that broke the lot; empty while it works.

    Trio: ``trio.lowlevel.ParkingLot``.
    """

    __slots__ = ("__weakref__", "_parked", "broken_by")

    broken_by: list[Task]
    # An OrderedDict for its popitem(last=False). With a plain dict, removing the first of n tasks
    # n times takes time proportional to n squared.
    _parked: OrderedDict[Task, None]

    def __init__(self) -> None:
        self._parked = OrderedDict()
        self.broken_by = []

    def __len__(self) -> int:
        return len(self._parked)

    def __bool__(self) -> bool:
        return bool(self._parked)

    def __repr__(self) -> str:
        state = f"broken by {self.broken_by}" if self.broken_by else f"{len(self)} tasks parked"
        return f"<ParkingLot at {id(self):#x}, {state}>"

    async def park(self) -> None:
        """Sleep until woken by :meth:`unpark` or :meth:`unpark_all`.

        Raises:
            BrokenResourceError: The lot is broken, or breaks meanwhile.
            Cancelled: The task was cancelled; it has left the queue.

        Checkpoint: yes.

        Trio: ``trio.lowlevel.ParkingLot.park``.
        """
        task = current_task()
        await park(task, self._queue())

    def _queue(self) -> OrderedDict[Task, None]:
        """Return the queue to pass to ``_core.wait_queue.park``, or raise if the lot is broken.

        Separate from :meth:`park`, so that other primitives need one coroutine less.
        """
        if self.broken_by:
            raise BrokenResourceError(
                f"Attempted to park in parking lot broken by {self.broken_by}"
            )
        return self._parked

    def _wake_first(self) -> Task:
        """Wake the task that has waited longest. The lot must not be empty."""
        return wake_first(self._parked)[0]

    def _first(self, count: int | float) -> list[Task]:
        """Return up to ``count`` tasks from the head of the queue."""
        if count == inf:
            return list(self._parked)
        if not isinstance(count, int):
            raise ValueError("Cannot pop a non-integer number of tasks.")
        return list(islice(self._parked, max(count, 0)))

    def unpark(self, *, count: int | float = 1) -> list[Task]:
        """Wake the tasks that have waited longest.

        Args:
            count: How many at most; ``math.inf`` for all.

        Returns:
            The woken tasks, in the order in which they came; fewer than ``count`` if fewer were
            parked.

        Raises:
            ValueError: ``count`` is a fraction.
            RuntimeError: The caller is in another thread or event loop than the tasks.

        Trio: ``trio.lowlevel.ParkingLot.unpark``.
        """
        tasks = self._first(count)
        wake_some(self._parked, tasks)
        return tasks

    def unpark_all(self) -> list[Task]:
        """Wake every parked task, and return them in the order in which they came.

        Trio: ``trio.lowlevel.ParkingLot.unpark_all``.
        """
        return self.unpark(count=inf)

    def repark(self, new_lot: ParkingLot, *, count: int | float = 1) -> None:
        """Move the tasks that have waited longest to another lot, in order, without waking them.

        Args:
            new_lot: The lot in which they continue to wait, behind the tasks that are there.
            count: How many at most; ``math.inf`` for all.

        Raises:
            TypeError: ``new_lot`` is not a ParkingLot.
            ValueError: ``count`` is a fraction.

        Trio: ``trio.lowlevel.ParkingLot.repark``.
        """
        if not isinstance(new_lot, ParkingLot):
            raise TypeError("new_lot must be a ParkingLot")
        for task in self._first(count):
            # In this order the task is in a queue at each moment, and its record names a queue
            # that it is in.
            new_lot._parked[task] = None
            move(task, new_lot._parked)
            if new_lot is not self:
                del self._parked[task]
            else:
                self._parked.move_to_end(task)

    def repark_all(self, new_lot: ParkingLot) -> None:
        """Move every parked task to another lot; see :meth:`repark`.

        Trio: ``trio.lowlevel.ParkingLot.repark_all``.
        """
        self.repark(new_lot, count=inf)

    def break_lot(self, task: Task | None = None) -> None:
        """Make parking in this lot fail, for the tasks parked now and for all that try later.

        Breaking a broken lot again only adds the task to ``broken_by``.

        Args:
            task: The task to blame, the current one by default.

        Trio: ``trio.lowlevel.ParkingLot.break_lot``.
        """
        if task is None:
            task = current_task()
        message = f"Parking lot broken by {task}"
        wake_all(self._parked, lambda: Error(BrokenResourceError(message)))
        self.broken_by.append(task)

    def statistics(self) -> ParkingLotStatistics:
        """Return the present state, for debugging.

        Trio: ``trio.lowlevel.ParkingLot.statistics``.
        """
        return ParkingLotStatistics(tasks_waiting=len(self._parked))


def add_parking_lot_breaker(task: Task, lot: ParkingLot) -> None:
    """Have ``lot`` break when ``task`` ends; see :meth:`ParkingLot.break_lot`.

    A task may be added several times; it then has to be removed as often.

    Raises:
        BrokenResourceError: The task has ended already.

    Trio: ``trio.lowlevel.add_parking_lot_breaker``.
    """
    # inlined: _asyncio.compat.is_over
    if task.asyncio_task is None or task.asyncio_task.done():
        raise BrokenResourceError("Attempted to add already exited task as lot breaker.")
    extra = task._extra
    if extra is NO_EXTRA:
        extra = task._own_extra()
    if extra.breakers is None:
        extra.breakers = [lot]
    else:
        extra.breakers.append(lot)


def remove_parking_lot_breaker(task: Task, lot: ParkingLot) -> None:
    """Undo one call of :func:`add_parking_lot_breaker`.

    Raises:
        RuntimeError: The task is not registered for this lot.

    Trio: ``trio.lowlevel.remove_parking_lot_breaker``.
    """
    if not stop_breaking(task, lot):
        raise RuntimeError("Attempted to remove task as breaker for a lot it is not registered for")


def stop_breaking(task: Task, lot: ParkingLot) -> bool:
    """Do the same for a task that may not be registered; return whether it was."""
    breaks = task._extra.breakers
    if breaks is None or lot not in breaks:
        return False
    breaks.remove(lot)
    return True
