"""``enter_in_task``: an async context manager in a separate task, which any task may close.

Rule 1: one task enters and exits the manager. Cancel scopes, nurseries and anyio's task groups
inside the manager need that.

Rule 2: each error is raised in one place. An error while the manager is entered is raised by
:func:`enter_in_task`. An error while it is exited because of :meth:`EnteredContext.aclose` is
raised by the first of those calls that still waits. At any other time the nursery gets the error,
and also if no such call waits any more.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Generic, TypeVar

from .._base import AsyncResource, Cancelled
from .._base.exc_fields import class_name, is_a
from .._base.exception_groups import is_own_cancelled
from .._base.util import safe_repr
from .._nursery import TASK_STATUS_IGNORED, CancelScope, TaskStatus
from .._sync import Event

if TYPE_CHECKING:
    from .._nursery import Nursery

__all__ = ["EnteredContext", "enter_in_task"]

T = TypeVar("T")


class EnteredContext(AsyncResource, Generic[T]):
    """A context manager that was entered in a separate task; made by :func:`enter_in_task`.

    Attributes:
        value: the value that entering the manager returned.
    """

    value: T

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self._closing = Event()
        self._closed = Event()
        self._scope = CancelScope()
        # The number of aclose() calls that wait for the end.
        self._closers = 0
        # The error of exiting, for the first aclose() call that wakes.
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self._closing.is_set() else "open"
        return f"<EnteredContext at {id(self):#x}, {state}, {safe_repr(self._manager)}>"

    @property
    def closed(self) -> bool:
        """Whether the manager has been exited."""
        return self._closed.is_set()

    async def aclose(self) -> None:
        """Exit the manager, in its own task, and wait until that is done.

        This may be called from any task of the loop, any number of times.

        Raises:
            BaseException: the error of exiting the manager; only the first waiting call raises it.
            Cancelled: if the task is cancelled. Then the manager is cancelled too. It is exited
                all the same before this raises.

        Checkpoint: yes.
        """
        self._closing.set()
        self._closers += 1
        try:
            try:
                await self._closed.wait()
            except Cancelled:
                self._scope.cancel(reason="the task that closes it was cancelled")
                with CancelScope(shield=True):
                    await self._closed.wait()
                raise
        finally:
            self._closers -= 1
            if self._closed.is_set():
                self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    async def _run(self, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        try:
            with self._scope:
                async with self._manager as self.value:
                    task_status.started()
                    await self._closing.wait()
        except BaseException as exc:
            if not self._closers or _is_ours(exc):
                raise
            self._error = exc
        finally:
            self._closing.set()
            self._closed.set()


def _is_ours(exc: BaseException) -> bool:
    return is_a(exc, Cancelled) and is_own_cancelled(exc)


async def enter_in_task(
    nursery: Nursery, manager: AbstractAsyncContextManager[T]
) -> EnteredContext[T]:
    """Enter an async context manager in a separate task, which a nursery owns.

    Some managers must be exited in the task that entered them: those with a nursery, a task group
    or a cancel scope inside. Fixtures, and clients that are opened in one function and closed in
    another, cannot promise that. :meth:`EnteredContext.aclose` closes the manager from any task.
    While the manager is open the nursery's block does not end. If the nursery is cancelled, the
    manager is closed.

    Args:
        nursery: owns the task. If the manager fails in the background, the nursery gets its error.
        manager: any async context manager.

    Returns:
        An :class:`EnteredContext`. Its ``value`` is that of ``async with manager as value``.

    Raises:
        TypeError: ``manager`` is not an async context manager.
        RuntimeError: the nursery is closed.
        BaseException: the error of entering the manager.
        Cancelled: if the task is cancelled before the manager is entered.

    Checkpoint: yes.
    """
    if not issubclass(type(manager), AbstractAsyncContextManager):
        hint = "; call the function to get the manager" if callable(manager) else ""
        raise TypeError(
            f"enter_in_task() takes an async context manager, not {safe_repr(manager)}{hint}"
        )
    entered = EnteredContext(manager)
    await nursery.start(entered._run, name=f"runs {class_name(type(manager))}")
    return entered
