"""Capacity limiter: a fixed number of tokens, which borrowers acquire and release.

Rule 1: a token belongs to a borrower, by default the task that acquired it. A borrower holds at
most one token. Only a token that the borrower holds can be released in the borrower's name.

Rule 2: a waiting task is in ``_waiting``, with the borrower for which it acquires. A token that
becomes free is given to the first of these tasks at once; newcomers do not overtake.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING

from .._base import WouldBlock
from .._base.util import Final, Frozen
from .._core import Task, checkpoint_if_cancelled, current_task
from .._core.delivery import AGREED
from .._core.loop_state import is_swept
from .._core.wait_queue import maybe_yield, park, wake_first

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

__all__ = ["CapacityLimiter", "CapacityLimiterStatistics"]


class CapacityLimiterStatistics(Frozen):
    """The state of a :class:`CapacityLimiter` at one moment.

    Attributes:
        borrowed_tokens: How many tokens are borrowed.
        total_tokens: How many tokens there are altogether; less than are borrowed just after a
            reduction.
        borrowers: The holders of the borrowed tokens.
        tasks_waiting: How many tasks wait for a token.

    Trio: ``trio.CapacityLimiterStatistics``.
    """

    __slots__ = ("borrowed_tokens", "total_tokens", "borrowers", "tasks_waiting")

    borrowed_tokens: int
    total_tokens: int | float
    borrowers: list[Task | object]
    tasks_waiting: int


class CapacityLimiter(metaclass=Final):
    """Limits how many tasks do something at once: ``async with limiter:``.

    The limiter has a fixed number of tokens. A task takes one before it works, and waits if none
    is free. Each borrower can hold one token only.

    Args:
        total_tokens: How many tokens there are: an int, 0 included, or ``math.inf``.

    Raises:
        TypeError: ``total_tokens`` is something else.
        ValueError: ``total_tokens`` is negative.

    Trio: ``trio.CapacityLimiter``.
    """

    __slots__ = ("__dict__", "__weakref__", "_borrowers", "_total_tokens", "_waiting")

    def __init__(self, total_tokens: int | float) -> None:
        # A dict for its order: the statistics list borrowers in the order in which they came.
        self._borrowers: dict[Task | object, None] = {}
        self._waiting: OrderedDict[Task, Task | object] = OrderedDict()
        self.total_tokens = total_tokens

    def __repr__(self) -> str:
        return (
            f"<CapacityLimiter at {id(self):#x}, {len(self._borrowers)} of {self._total_tokens} "
            f"tokens borrowed, {len(self._waiting)} tasks waiting>"
        )

    @property
    def total_tokens(self) -> int | float:
        """How many tokens there are. It can be set.

        An increase wakes waiting tasks at once, one for each token that becomes free. After a
        reduction, borrowers keep their tokens, and no task gets a new one until enough of them
        have been released.
        """
        return self._total_tokens

    @total_tokens.setter
    def total_tokens(self, new_total_tokens: int | float) -> None:
        if not isinstance(new_total_tokens, int) and new_total_tokens != inf:
            raise TypeError("total_tokens must be an int or math.inf")
        if new_total_tokens < 0:
            raise ValueError("total_tokens must be >= 0")
        self._total_tokens = new_total_tokens
        self._hand_out()

    def _hand_out(self) -> None:
        """Give free tokens to the tasks that wait."""
        borrowers = self._borrowers
        while self._waiting and len(borrowers) < self._total_tokens:
            task, borrower = next(iter(self._waiting.items()))
            try:
                borrowers[borrower] = None
                wake_first(self._waiting)
            except BaseException:
                # Like traps.is_waiting(), but inline, because the stack may be too full for
                # another frame.
                future = task._park
                # inlined: _core.traps.is_waiting[1:]
                if future is not None and (
                    not future.done()
                    or (
                        future.cancelled() and task._abort is not None and task._abort is not AGREED
                    )
                ):
                    borrowers.pop(borrower, None)
                raise

    @property
    def borrowed_tokens(self) -> int:
        """How many tokens are borrowed."""
        return len(self._borrowers)

    @property
    def available_tokens(self) -> int | float:
        """How many tokens are free; negative just after a reduction below the borrowed number."""
        return self._total_tokens - len(self._borrowers)

    def _try(self, borrower: Task | object) -> bool:
        """Take a token for ``borrower`` if one is free and no task waits for it."""
        borrowers = self._borrowers
        if borrower in borrowers:
            raise RuntimeError(
                "this borrower is already holding one of this CapacityLimiter's tokens"
            )
        if self._waiting or len(borrowers) >= self._total_tokens:
            return False
        borrowers[borrower] = None
        return True

    def acquire_nowait(self) -> None:
        """Take a token for the current task if one is free.

        Raises:
            WouldBlock: No token is free.
            RuntimeError: This task holds one already.

        Trio: ``trio.CapacityLimiter.acquire_nowait``.
        """
        self.acquire_on_behalf_of_nowait(current_task())

    def acquire_on_behalf_of_nowait(self, borrower: Task | object) -> None:
        """Take a token for ``borrower`` if one is free.

        Args:
            borrower: Any hashable object. To release the token, pass the same object again.

        Raises:
            WouldBlock: No token is free.
            RuntimeError: ``borrower`` holds one already.

        Trio: ``trio.CapacityLimiter.acquire_on_behalf_of_nowait``.
        """
        if not self._try(borrower):
            raise WouldBlock("no token is free")

    async def acquire(self) -> None:
        """Take a token for the current task; wait until one is free and the task is first in line.

        Raises:
            RuntimeError: This task holds one already.
            Cancelled: The task was cancelled; it holds no token.

        Checkpoint: yes.

        Trio: ``trio.CapacityLimiter.acquire``.
        """
        await self.acquire_on_behalf_of(current_task())

    async def acquire_on_behalf_of(self, borrower: Task | object) -> None:
        """Take a token for ``borrower``; wait until one is free and the task is first in line.

        Args:
            borrower: Any hashable object. To release the token, pass the same object again.

        Raises:
            RuntimeError: ``borrower`` holds one already.
            Cancelled: The task was cancelled; no token was taken.

        Checkpoint: yes.

        Trio: ``trio.CapacityLimiter.acquire_on_behalf_of``.
        """
        task = current_task()
        # inlined: _core.traps.needs_checkpoint
        if task.scope._effective or task._deferred_cancel:
            await checkpoint_if_cancelled()
        if self._try(borrower):
            try:
                await maybe_yield(task)
            except BaseException:
                self.release_on_behalf_of(borrower)
                raise
            return
        await park(task, self._waiting, borrower)

    def release(self) -> None:
        """Release the current task's token.

        Raises:
            RuntimeError: This task does not hold a token.

        Trio: ``trio.CapacityLimiter.release``.
        """
        self.release_on_behalf_of(current_task())

    def release_on_behalf_of(self, borrower: Task | object) -> None:
        """Release the token of ``borrower``.

        Raises:
            RuntimeError: ``borrower`` does not hold a token.

        Trio: ``trio.CapacityLimiter.release_on_behalf_of``.
        """
        if borrower not in self._borrowers:
            raise RuntimeError("this borrower isn't holding any of this CapacityLimiter's tokens")
        borrowers = self._borrowers
        if self._waiting and len(borrowers) <= self._total_tokens:
            # Wake the new owner first: if that fails, the token was not released.
            new_owner = wake_first(self._waiting)[1]
            del borrowers[borrower]
            borrowers[new_owner] = None
        else:
            del borrowers[borrower]

    def statistics(self) -> CapacityLimiterStatistics:
        """Return the present state, for debugging.

        Trio: ``trio.CapacityLimiter.statistics``.
        """
        return CapacityLimiterStatistics(
            borrowed_tokens=len(self._borrowers),
            total_tokens=self._total_tokens,
            borrowers=list(self._borrowers),
            tasks_waiting=len(self._waiting),
        )

    def __aenter__(self) -> Awaitable[None]:
        # Not acquire(), so that ``async with`` has no frame in between.
        return self.acquire_on_behalf_of(current_task())

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            task = current_task()
            # inlined: _sync.limiter.CapacityLimiter.release_on_behalf_of
            if task not in self._borrowers:
                raise RuntimeError(
                    "this borrower isn't holding any of this CapacityLimiter's tokens"
                )
            borrowers = self._borrowers
            if self._waiting and len(borrowers) <= self._total_tokens:
                # Wake the new owner first: if that fails, the token was not released.
                new_owner = wake_first(self._waiting)[1]
                del borrowers[task]
                borrowers[new_owner] = None
            else:
                del borrowers[task]
        except RuntimeError:
            # If the loop is closed, a coroutine that is being closed has no current task.
            for borrower in self._borrowers:
                if isinstance(borrower, Task) and is_swept(exc_value, borrower._state):
                    return
            raise
