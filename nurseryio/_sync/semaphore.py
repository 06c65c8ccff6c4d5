"""Semaphore: a number that tasks decrement and increment, and that never falls below zero.

Rule: while a task waits, the value is zero. A release then wakes the first task in the queue
instead of raising the value, so that a newcomer cannot overtake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._base import WouldBlock
from .._base.unsupported import Elsewhere
from .._base.util import Final
from .._core import checkpoint_if_cancelled, current_task
from .._core.wait_queue import maybe_yield, park
from .parking_lot import ParkingLot

if TYPE_CHECKING:
    from types import TracebackType

    from .parking_lot import ParkingLotStatistics

__all__ = ["Semaphore"]


class Semaphore(metaclass=Final):
    """A number that tasks decrement and increment; at zero they wait instead of decrementing.

    ``async with semaphore:`` decrements on entry and increments on exit. To limit how many tasks
    use something at once, prefer :class:`CapacityLimiter`, which detects more mistakes.

    Args:
        initial_value: The number to start with, 0 or more.
        max_value: If given, incrementing beyond it is an error.

    Raises:
        TypeError: One of the two is not an int.
        ValueError: ``initial_value`` is negative, or ``max_value`` is less than it.

    Trio: ``trio.Semaphore``.
    """

    __slots__ = ("__dict__", "__weakref__", "_lot", "_max_value", "_value")

    def __init__(self, initial_value: int, *, max_value: int | None = None) -> None:
        if not isinstance(initial_value, int):
            raise TypeError("initial_value must be an int")
        if initial_value < 0:
            raise ValueError("initial value must be >= 0")
        if max_value is not None:
            if not isinstance(max_value, int):
                raise TypeError("max_value must be None or an int")
            if max_value < initial_value:
                raise ValueError("max_values must be >= initial_value")
        self._lot = ParkingLot()
        self._value = initial_value
        self._max_value = max_value

    def __repr__(self) -> str:
        limit = "" if self._max_value is None else f" of {self._max_value}"
        return (
            f"<Semaphore at {id(self):#x}, value {self._value}{limit}, "
            f"{len(self._lot)} tasks waiting>"
        )

    if not TYPE_CHECKING:
        locked = Elsewhere("use semaphore.value == 0")

    @property
    def value(self) -> int:
        """The present number."""
        return self._value

    @property
    def max_value(self) -> int | None:
        """The highest number allowed, None for no limit."""
        return self._max_value

    def acquire_nowait(self) -> None:
        """Decrement the value if it is not zero.

        Raises:
            WouldBlock: The value is zero.

        Trio: ``trio.Semaphore.acquire_nowait``.
        """
        if self._value == 0:
            raise WouldBlock("the value is zero")
        self._value -= 1

    async def acquire(self) -> None:
        """Decrement the value; wait while it is zero.

        Raises:
            Cancelled: The task was cancelled; it has not decremented the value.

        Checkpoint: yes.

        Trio: ``trio.Semaphore.acquire``.
        """
        task = current_task()
        # inlined: _core.traps.needs_checkpoint
        if task.scope._effective or task._deferred_cancel:
            await checkpoint_if_cancelled()
        if self._value > 0:
            self._value -= 1
            try:
                await maybe_yield(task)
            except BaseException:
                self.release()
                raise
        else:
            await park(task, self._lot._queue())

    def release(self) -> None:
        """Increment the value, or wake the task that has waited longest if one waits.

        Any task may do this, even one that never acquired.

        Raises:
            ValueError: The value would rise above ``max_value``.

        Trio: ``trio.Semaphore.release``.
        """
        if self._lot:
            self._lot._wake_first()
        elif self._value == self._max_value:
            raise ValueError("semaphore released too many times")
        else:
            self._value += 1

    def statistics(self) -> ParkingLotStatistics:
        """Return the present state, for debugging: ``tasks_waiting`` in ``acquire``.

        Trio: ``trio.Semaphore.statistics``.
        """
        return self._lot.statistics()

    # The same function, so that ``async with`` has no frame in between.
    __aenter__ = acquire

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
