"""A capacity limiter: a bag of tokens that borrowers take and bring back.

Rule 1: a token belongs to a borrower, by default the task that took it. A borrower holds at most
one, and only the borrower's own can be brought back in its name.

Rule 2: a task that waits is in ``_waiting`` with the borrower that it asks for. A token that
comes free goes to the first of them there and then; newcomers do not overtake.
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
        borrowed_tokens: How many tokens are out.
        total_tokens: How many there are altogether; less than are out just after a reduction.
        borrowers: Who holds the tokens that are out.
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

    Think of a bag with a fixed number of tokens: who wants to work takes one, and waits if the
    bag is empty. Each borrower can hold one token only.

    Args:
        total_tokens: How many tokens there are: an int, 0 included, or ``math.inf``.

    Raises:
        TypeError: ``total_tokens`` is something else.
        ValueError: ``total_tokens`` is negative.

    Trio: ``trio.CapacityLimiter``.
    """

    __slots__ = ("__dict__", "__weakref__", "_borrowers", "_total_tokens", "_waiting")

    def __init__(self, total_tokens: int | float) -> None:
        # A dict for its order: statistics list borrowers as they came.
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

        More tokens wake those who wait for them at once. With fewer, those who hold one keep it,
        and nobody gets a new one until enough have been brought back.
        """
        return self._total_tokens

    @total_tokens.setter
    def total_tokens(self, new_total_tokens: int | float) -> None:
        if not isinstance(new_total_tokens, int) and new_total_tokens != inf:
            raise TypeError(f"total_tokens must be an int or math.inf, not {new_total_tokens!r}")
        if new_total_tokens < 0:
            raise ValueError("total_tokens must be >= 0")
        self._total_tokens = new_total_tokens
        self._hand_out()

    def _hand_out(self) -> None:
        """Give free tokens to those who wait."""
        borrowers = self._borrowers
        while self._waiting and len(borrowers) < self._total_tokens:
            task, borrower = next(iter(self._waiting.items()))
            try:
                borrowers[borrower] = None
                wake_first(self._waiting)
            except BaseException:
                # There may be no stack for a call.
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
        """How many tokens are out."""
        return len(self._borrowers)

    @property
    def available_tokens(self) -> int | float:
        """How many tokens are in the bag; negative just after a reduction below those out."""
        return self._total_tokens - len(self._borrowers)

    def _try(self, borrower: Task | object) -> bool:
        """Take a token for ``borrower`` if one is free and nobody else waits for it."""
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
            WouldBlock: None is free.
            RuntimeError: This task holds one.

        Trio: ``trio.CapacityLimiter.acquire_nowait``.
        """
        self.acquire_on_behalf_of_nowait(current_task())

    def acquire_on_behalf_of_nowait(self, borrower: Task | object) -> None:
        """Take a token for ``borrower`` if one is free.

        Args:
            borrower: Any hashable object; the token is brought back by naming it again.

        Raises:
            WouldBlock: None is free.
            RuntimeError: ``borrower`` holds one.

        Trio: ``trio.CapacityLimiter.acquire_on_behalf_of_nowait``.
        """
        if not self._try(borrower):
            raise WouldBlock

    async def acquire(self) -> None:
        """Take a token for the current task, waiting until it is its turn.

        Raises:
            RuntimeError: This task holds one.
            Cancelled: The task was cancelled; it has got no token.

        Checkpoint: yes.

        Trio: ``trio.CapacityLimiter.acquire``.
        """
        await self.acquire_on_behalf_of(current_task())

    async def acquire_on_behalf_of(self, borrower: Task | object) -> None:
        """Take a token for ``borrower``, waiting until it is its turn.

        Args:
            borrower: Any hashable object; the token is brought back by naming it again.

        Raises:
            RuntimeError: ``borrower`` holds one.
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
        """Bring back the current task's token.

        Raises:
            RuntimeError: This task holds none.

        Trio: ``trio.CapacityLimiter.release``.
        """
        self.release_on_behalf_of(current_task())

    def release_on_behalf_of(self, borrower: Task | object) -> None:
        """Bring back the token of ``borrower``.

        Raises:
            RuntimeError: ``borrower`` holds none.

        Trio: ``trio.CapacityLimiter.release_on_behalf_of``.
        """
        if borrower not in self._borrowers:
            raise RuntimeError("this borrower isn't holding any of this CapacityLimiter's tokens")
        borrowers = self._borrowers
        if self._waiting and len(borrowers) <= self._total_tokens:
            # Woken first: if that fails, the token was not brought back.
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
        # Not acquire(): ``async with`` pays for no frame in between.
        return self.acquire_on_behalf_of(current_task())

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.release_on_behalf_of(current_task())
        except RuntimeError:
            # The coroutine of a task whose loop is closed cannot tell which task that is.
            for borrower in self._borrowers:
                if isinstance(borrower, Task) and is_swept(exc_value, borrower._state):
                    return
            raise
