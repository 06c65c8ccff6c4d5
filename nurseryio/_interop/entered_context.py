"""Context managers that live in a task of their own, and can be closed from any task.

Rule 1: one task enters and exits the manager; that is what cancel scopes, nurseries and anyio's
task groups inside it need.

Rule 2: an error has one place to go. What is raised while the manager is entered comes out of
:func:`enter_in_task`. What is raised while it is exited because of :meth:`EnteredContext.aclose`
comes out of the first of those calls that still waits. At any other time, and if no call waits any
more, the nursery gets the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from .._base import AsyncResource, Cancelled
from .._base.exc_fields import class_name, is_a
from .._base.exception_groups import is_own_cancelled
from .._base.util import safe_repr
from .._nursery import TASK_STATUS_IGNORED, CancelScope, TaskStatus
from .._sync import Event

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from .._nursery import Nursery

__all__ = ["EnteredContext", "enter_in_task"]

T = TypeVar("T")


class EnteredContext(AsyncResource, Generic[T]):
    """A context manager that has been entered in a task of its own; made by :func:`enter_in_task`.

    Attributes:
        value: what entering the manager gave.
    """

    value: T

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self._closing = Event()
        self._closed = Event()
        self._scope = CancelScope()
        # How many calls of aclose() wait for the end.
        self._closers = 0
        # What exiting raised, for the first of them to wake.
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self._closing.is_set() else "open"
        return f"<Hosted at {id(self):#x}, {state}, {safe_repr(self._manager)}>"

    @property
    def closed(self) -> bool:
        """Whether the manager has been exited."""
        return self._closed.is_set()

    async def aclose(self) -> None:
        """Exit the manager, in its own task, and wait until that is done.

        May be called from any task of the loop, any number of times.

        Raises:
            BaseException: what exiting the manager raises, for the first who closes.
            Cancelled: if the task is cancelled. Then the manager is cancelled too, and is exited
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
    """Enter an async context manager in a task of its own, which a nursery owns.

    Some managers must be exited in the task that entered them: those with a nursery, a task group
    or a cancel scope inside. Clients that are opened in one function and closed in another, and
    fixtures, cannot promise that. A hosted manager is closed by :meth:`Hosted.aclose` from wherever
    it is convenient, and at the latest with the nursery: while it is open the nursery's block does
    not end, unless it is cancelled.

    Args:
        nursery: owns the task; if the manager fails in the background, its error goes there.
        manager: any async context manager.

    Returns:
        A :class:`Hosted`; its ``value`` is what ``async with manager as value`` gives.

    Raises:
        TypeError: ``manager`` is no async context manager.
        RuntimeError: the nursery is closed.
        BaseException: what entering the manager raises.
        Cancelled: if the task is cancelled before the manager is entered.

    Checkpoint: yes.
    """
    if not (hasattr(type(manager), "__aenter__") and hasattr(type(manager), "__aexit__")):
        hint = "; call the function to get the manager" if callable(manager) else ""
        raise TypeError(f"host() takes an async context manager, not {safe_repr(manager)}{hint}")
    hosted = EnteredContext(manager)
    await nursery.start(hosted._run, name=f"hosts {class_name(type(manager))}")
    return hosted
