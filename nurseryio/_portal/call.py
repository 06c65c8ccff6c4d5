"""A call of an async function that a thread makes through a portal: :class:`PortalCall`.

Rule 1: a call is a child of a nursery, so it ends before the nursery does. Its error is raised in
the thread that waits, and the nursery does not see it.

Rule 2: the thread may cancel the call, also before it has begun and after it has ended. It gets an
answer in each case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .._base import Value
from .._base.errors import Cancelled, RunFinishedError
from .._nursery import CancelScope
from .._system.from_thread import AsyncRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from queue import SimpleQueue

    from .._base import Outcome
    from .._nursery import Nursery

RetT = TypeVar("RetT")

# The error of a call that comes too late.
CLOSED = "the portal is closed: its event loop has ended, or is ending"


class PortalCall(AsyncRequest[RetT]):
    """A call of an async function in a nursery of a portal's loop.

    Args:
        nursery: The nursery whose child makes the call.
        fn: The async function.
        args: Its positional arguments.
        answers: The queue for the answer.
    """

    __slots__ = ("_nursery", "_queue", "_scope")

    def __init__(
        self,
        nursery: Nursery,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        answers: SimpleQueue[Outcome[RetT]],
    ) -> None:
        self._nursery = nursery
        self._queue = answers
        # None until the call begins.
        self._scope: CancelScope | None = None
        super().__init__(fn, args, answers)

    def serve_in_callback(self) -> None:
        """Start the task that makes the call."""
        if self._answers is None:
            return  # cancelled before it could begin
        nursery = self._nursery
        try:
            check_open(nursery)
            self._scope = CancelScope()
            task = nursery._spawn(self._serve_in_scope(), self._fn, self._fn, context=self._context)
            # The task may end before its first step.
            task.asyncio_task.add_done_callback(self._task_ended)
        except BaseException as error:
            self.refuse(error)

    async def _serve_in_scope(self) -> None:
        assert self._scope is not None
        with self._scope:
            await self._serve_in_own_task()

    def cancel(self) -> None:
        """Cancel the call, or refuse it if it has not begun. To be called in the loop's thread."""
        if self._answers is None:
            # The error of a signal handler may have come between the end of the thread's wait and
            # the next line. The thread has lost the answer then, and waits for another one.
            self._queue.put(Value(None))  # type: ignore[arg-type]  # nothing reads it
        elif self._scope is None:
            self.refuse()
        else:
            self._scope.cancel(reason="the thread that waits for the call was interrupted")


def check_open(nursery: Nursery) -> None:
    """Raise an error if a nursery has ended: ``Cancelled`` if it was cancelled."""
    if nursery._closed:
        scope = nursery.cancel_scope
        if scope.cancel_called:
            raise Cancelled(scope._reason)
        raise RunFinishedError(CLOSED)
