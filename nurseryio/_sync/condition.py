"""Condition variable: wait, inside a lock, until another task notifies that something has changed.

Rule 1: ``notify`` does not wake a task. It moves the task to the queue of the lock. The task wakes
as owner of the lock when it is first in that queue.

Rule 2: ``wait`` returns or raises with the lock held, whatever happens, so that the ``async with``
around it can release the lock. The only exception is a lock that is broken.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from .._base import Cancelled
from .._base.exc_fields import is_a
from .._base.unsupported import Elsewhere
from .._base.util import Final, Frozen
from .._core import current_task
from .._core.wait_queue import park
from .._nursery import CancelScope
from .lock import Lock
from .parking_lot import ParkingLot

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from .._core import Task
    from .lock import LockStatistics

__all__ = ["Condition", "ConditionStatistics"]


class ConditionStatistics(Frozen):
    """The state of a :class:`Condition` at one moment.

    Attributes:
        tasks_waiting: How many tasks wait to be notified.
        lock_statistics: The state of the lock; notified tasks are counted there.

    Trio: ``trio.ConditionStatistics``.
    """

    __slots__ = ("tasks_waiting", "lock_statistics")

    tasks_waiting: int
    lock_statistics: LockStatistics


class Condition(metaclass=Final):
    """Lets tasks that share a lock wait for each other's changes.

    ::

        async with condition:
            while not ready():
                await condition.wait()

    Args:
        lock: The lock to use, a new one by default.

    Raises:
        TypeError: ``lock`` is not a :class:`Lock`.

    Trio: ``trio.Condition``.
    """

    __slots__ = ("__dict__", "__weakref__", "_lock", "_lot")

    def __init__(self, lock: Lock | None = None) -> None:
        if lock is None:
            lock = Lock()
        elif type(lock) is not Lock:
            raise TypeError("lock must be a nurseryio.Lock")
        self._lock = lock
        self._lot = ParkingLot()

    def __repr__(self) -> str:
        return f"<Condition at {id(self):#x}, {len(self._lot)} tasks waiting, with {self._lock!r}>"

    if not TYPE_CHECKING:
        wait_for = Elsewhere("use 'while not predicate(): await condition.wait()'")

    def locked(self) -> bool:
        """Say whether a task holds the lock.

        Trio: ``trio.Condition.locked``.
        """
        return self._lock.locked()

    def acquire_nowait(self) -> None:
        """Take the lock if it is free; see :meth:`Lock.acquire_nowait`.

        Raises:
            WouldBlock: Another task holds it.
            RuntimeError: This task holds it.

        Trio: ``trio.Condition.acquire_nowait``.
        """
        self._lock.acquire_nowait()

    async def acquire(self) -> None:
        """Take the lock, waiting for it; see :meth:`Lock.acquire`.

        Raises:
            BrokenResourceError: The owner ended without releasing the lock.
            RuntimeError: This task holds it.
            Cancelled: The task was cancelled; it does not hold the lock.

        Checkpoint: yes.

        Trio: ``trio.Condition.acquire``.
        """
        await self._lock.acquire()

    def release(self) -> None:
        """Release the lock; see :meth:`Lock.release`.

        Raises:
            RuntimeError: This task does not hold the lock.

        Trio: ``trio.Condition.release``.
        """
        self._lock.release()

    def _check_owner(self, what: str) -> Task:
        task = current_task()
        if task is not self._lock._owner:
            raise RuntimeError(f"must hold the lock to {what}")
        return task

    async def wait(self) -> None:
        """Release the lock, wait to be notified, and take the lock again.

        A cancelled task takes the lock again, too, before the cancellation is re-raised. So the
        ``async with`` around it finds the lock held. That may take as long as other tasks hold
        the lock.

        Raises:
            RuntimeError: This task does not hold the lock.
            BrokenResourceError: The owner of the lock ended without releasing it.
            Cancelled: The task was cancelled; it holds the lock.

        Checkpoint: yes.

        Trio: ``trio.Condition.wait``.
        """
        task = self._check_owner("wait")
        self._lock.release()
        interruption: BaseException | None = None
        try:
            await park(task, self._lot._queue())
        except GeneratorExit:
            raise  # the coroutine is being closed: it cannot wait for the lock
        except BaseException as error:
            interruption = error
        # Outside the handler, so that errors raised from here on do not get the interruption as
        # their context.
        if interruption is not None:
            native = await self._acquire_again(task)
            try:
                if native is not None and is_a(interruption, Cancelled):
                    # Raise the newer one, because asyncio code further out waits for it.
                    raise native
                raise interruption
            finally:
                del interruption, native

    async def _acquire_again(self, task: Task) -> Cancelled | None:
        """Take the lock, whatever happens meanwhile.

        Returns:
            The native cancellation that arrived meanwhile, if any.
        """
        native: Cancelled | None = None
        while self._lock._owner is not task:  # the owner already, if its wake-up failed
            try:
                with CancelScope(shield=True):
                    await self._lock.acquire()
            except Cancelled as error:
                # The shield keeps scopes out, so this is a native cancellation. Its request
                # stays in asyncio's count.
                native = error
        return native

    def notify(self, n: int = 1) -> None:
        """Let the tasks that have waited longest continue, one by one, as they get the lock.

        Args:
            n: How many at most.

        Raises:
            RuntimeError: This task does not hold the lock.

        Trio: ``trio.Condition.notify``.
        """
        self._check_owner("notify")
        self._lot.repark(self._lock._lot, count=n)

    def notify_all(self) -> None:
        """Let all waiting tasks continue, one by one, as each gets the lock.

        Raises:
            RuntimeError: This task does not hold the lock.

        Trio: ``trio.Condition.notify_all``.
        """
        self._check_owner("notify")
        self._lot.repark(self._lock._lot, count=inf)

    def statistics(self) -> ConditionStatistics:
        """Return the present state, for debugging.

        Trio: ``trio.Condition.statistics``.
        """
        return ConditionStatistics(
            tasks_waiting=len(self._lot), lock_statistics=self._lock.statistics()
        )

    def __aenter__(self) -> Awaitable[None]:
        return self._lock.acquire()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._lock.release()
        except BaseException as error:
            if not self._lock._release_failed(error, exc_value):
                raise
