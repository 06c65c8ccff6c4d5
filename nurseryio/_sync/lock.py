"""Locks: one task at a time holds a lock, in the order of arrival, and only the owner may release.

Rule 1: releasing a lock that other tasks wait for makes the first of them the owner at once. The
lock is never free while a task waits, so a newcomer cannot overtake.

Rule 2: the owner is registered as a breaker of the lock's lot. A task that ends as owner breaks
the lot: tasks that wait, or come later, get an error instead of waiting for ever.

Rule 3: a task that waits for the lock is parked in ``_lot``, and nothing more. ``Condition``
relies on that: it moves its waiters into this lot, and they wake as owners.

Rule 4: the end of an ``async with`` block releases the lock, whatever fails. If the release raises,
the next iteration of the loop completes it. If the task's loop is closed, its coroutine is closed
without a loop. The end of the block then does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._asyncio.compat import current_task as current_asyncio_task, is_over
from .._base import BrokenResourceError, WouldBlock
from .._base.exc_fields import explained
from .._base.util import Final, Frozen
from .._core import checkpoint_if_cancelled, current_task
from .._core.loop_state import is_swept
from .._core.wait_queue import maybe_yield, other_loop, park, wake_first
from .parking_lot import ParkingLot, add_parking_lot_breaker, stop_breaking

if TYPE_CHECKING:
    from types import TracebackType

    from .._core import Task

__all__ = ["Lock", "LockStatistics", "StrictFIFOLock"]


class LockStatistics(Frozen):
    """The state of a lock at one moment.

    Attributes:
        locked: Whether a task holds the lock.
        owner: The task that holds it; None if the lock is free.
        tasks_waiting: How many tasks wait in ``acquire``.

    Trio: ``trio.LockStatistics``.
    """

    __slots__ = ("locked", "owner", "tasks_waiting")

    locked: bool
    owner: Task | None
    tasks_waiting: int


class _Lock:
    """The code that the two kinds of locks share, which at present is all of it."""

    __slots__ = ("__dict__", "__weakref__", "_lot", "_owner")

    def __init__(self) -> None:
        self._lot = ParkingLot()
        # Invariant: if it is None, no task is parked.
        self._owner: Task | None = None

    def __repr__(self) -> str:
        state = "unlocked"
        if self._owner is not None:
            state = f"held by {self._owner!r}, {len(self._lot)} tasks waiting"
        return f"<{type(self).__name__} at {id(self):#x}, {state}>"

    def locked(self) -> bool:
        """Say whether a task holds the lock.

        Trio: ``trio.Lock.locked``.
        """
        return self._owner is not None

    def _try(self, task: Task) -> bool:
        """Take the lock for ``task`` if it is free."""
        owner = self._owner
        if owner is None:
            try:
                self._owner = task
                add_parking_lot_breaker(task, self._lot)
                return True
            except BaseException:
                self._let_go(task)
                raise
        if owner is task:
            raise explained(
                RuntimeError("attempt to re-acquire an already held Lock"),
                "this task holds it, and locks do not count how often they were acquired",
            )
        if owner._state is not task._state:
            raise other_loop("holds")
        return False

    def _let_go(self, task: Task) -> None:
        """Undo an acquisition that has failed half-way."""
        breakers = task._extra.breakers
        if breakers and self._lot in breakers:
            self.release()
        else:
            self._owner = None

    def acquire_nowait(self) -> None:
        """Take the lock if it is free.

        Raises:
            WouldBlock: Another task holds it.
            RuntimeError: This task holds it.

        Trio: ``trio.Lock.acquire_nowait``.
        """
        if not self._try(current_task()):
            raise WouldBlock("another task holds the lock")

    async def acquire(self) -> None:
        """Take the lock, waiting until it is this task's turn.

        Raises:
            BrokenResourceError: The owner ended without releasing the lock.
            RuntimeError: This task holds it, or a task of another event loop does.
            Cancelled: The task was cancelled; it does not hold the lock.

        Checkpoint: yes.

        Trio: ``trio.Lock.acquire``.
        """
        task = current_task()
        # inlined: _core.traps.needs_checkpoint
        if task.scope._effective or task._deferred_cancel:
            await checkpoint_if_cancelled()
        if self._try(task):
            try:
                await maybe_yield(task)
            except BaseException:
                self._let_go(task)
                raise
            return
        try:
            await park(task, self._lot._queue())
        except BrokenResourceError:
            raise BrokenResourceError(
                f"Owner of this lock exited without releasing: {self._owner}"
            ) from None

    def release(self) -> None:
        """Release the lock. If tasks wait, the one that has waited longest becomes the owner.

        Raises:
            RuntimeError: This task does not hold the lock.

        Trio: ``trio.Lock.release``.
        """
        task = current_task()
        if task is not self._owner:
            raise RuntimeError("can't release a Lock you don't own")
        self._hand_on(task)

    def _hand_on(self, task: Task) -> None:
        """Make the next task the owner, if one waits.

        If this fails, the lock has either its old owner or a complete new one.
        """
        lot = self._lot
        parked = lot._parked
        if parked:
            self._owner = new_owner = next(iter(parked))
            try:
                wake_first(parked)
            finally:
                if new_owner in parked:
                    self._owner = task  # the new owner still sleeps
                else:
                    stop_breaking(task, lot)
                    add_parking_lot_breaker(new_owner, lot)
        else:
            stop_breaking(task, lot)
            self._owner = None

    def _release_failed(self, error: BaseException, exc: BaseException | None) -> bool:
        """Complete the release of a block's lock later, because ``release`` failed.

        ``release`` cannot be repeated at once.

        Args:
            error: the exception of the release.
            exc: the exception of the block.

        Returns:
            True if the error does not matter: the block's coroutine is being closed, and the lock
            is free or its owner's loop is closed, so that the owner makes no further step.
        """
        owner = self._owner
        if type(error) is RuntimeError and type(exc) is GeneratorExit:
            return owner is None or is_swept(exc, owner._state)
        if owner is not None and type(error) is not RuntimeError:
            ended = owner.asyncio_task is current_asyncio_task()
            owner._state.finish_later(self._finish_release, owner, ended)
        return False

    def _finish_release(self, owner: Task, ended: bool) -> None:
        if self._owner is owner:
            if ended:
                self._hand_on(owner)
            elif is_over(owner.asyncio_task):
                self._lot.break_lot(owner)
            elif self._lot not in (owner._extra.breakers or ()):
                add_parking_lot_breaker(owner, self._lot)

    def statistics(self) -> LockStatistics:
        """Return the present state, for debugging.

        Trio: ``trio.Lock.statistics``.
        """
        return LockStatistics(
            locked=self._owner is not None, owner=self._owner, tasks_waiting=len(self._lot)
        )

    # The same function, so that ``async with`` has no frame in between.
    __aenter__ = acquire

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            # inlined: _sync.lock._Lock.release
            task = current_task()
            if task is not self._owner:
                raise RuntimeError("can't release a Lock you don't own")
            self._hand_on(task)
        except BaseException as error:
            if not self._release_failed(error, exc_value):
                raise


class Lock(_Lock, metaclass=Final):
    """A lock that one task at a time can hold: ``async with lock:``.

    The task that acquired the lock must release it. Tasks get the lock in the order in which they
    asked. Entering the block waits for the lock; leaving the block does not wait.

    Trio: ``trio.Lock``.
    """

    __slots__ = ()


class StrictFIFOLock(_Lock, metaclass=Final):
    """A :class:`Lock` that promises to serve tasks in the order in which they asked, always.

    Today every lock does so. Use this class where your program is wrong without that order. For
    example, the order of messages on a connection may depend on which task asks for a lock first.
    The class states the requirement in the code, and the promise holds even if ``Lock`` gets
    priorities one day.

    Trio: ``trio.StrictFIFOLock``.
    """

    __slots__ = ()
