"""A handle of one child: its result or error, waiting for it, cancelling it: :class:`TaskHandle`.

Rule 1: an error of the child always reaches the nursery. The handle shows the error, and never
takes it. Otherwise it would depend on timing, which code is responsible for the error: the waiter
if it happens to wait already, the nursery if not.

Rule 2: the handle ends in any case, also if the asyncio task was cancelled before its first step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._asyncio.compat import running_loop_or_none
from .._base.errors import Cancelled
from .._base.exception_groups import without_cancelled
from .._base.util import NoPublicConstructor, blank, coroutine_or_error, safe_repr
from .._nursery import CancelScope, Nursery
from .event import Event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import TypeVarTuple, Unpack

    PosArgsT = TypeVarTuple("PosArgsT")

__all__ = ["TaskHandle"]

T = TypeVar("T")
# Of the method alone: the class that it is called on has no parameter yet.
R = TypeVar("R")

# The placeholder until the child has returned, because None may be a result.
_MISSING: Any = object()


class TaskHandle(Generic[T], metaclass=NoPublicConstructor):
    """One child of a nursery: wait for it, get its result, cancel it alone.

    Made by :meth:`start_soon`::

        async with open_nursery() as nursery:
            user = TaskHandle.start_soon(nursery, load_user, 7)
            ...
            await user.wait()
            print(user.result())

    An error of the child is raised by the nursery, as always. Asking the handle does not change
    that.

    Trio: none. The methods are named as those of :class:`asyncio.Task`.
    """

    __slots__ = ("__weakref__", "_coro", "_ended", "_error", "_name", "_result", "_scope")

    # The coroutine until it has begun to run.
    _coro: Any
    _name: object
    _scope: CancelScope
    _ended: Event
    _result: T
    _error: BaseException | None

    @classmethod
    def start_soon(
        cls,
        nursery: Nursery,
        async_fn: Callable[[Unpack[PosArgsT]], Awaitable[R]],
        *args: Unpack[PosArgsT],
        name: object = None,
    ) -> TaskHandle[R]:
        """Start a child task that runs ``await async_fn(*args)``, and return its handle.

        Args:
            nursery: The nursery.
            async_fn: An async function; for keyword arguments use ``functools.partial``.
            args: Its positional arguments.
            name: The name of the task in debugging output, a string or a function.

        Raises:
            TypeError: ``nursery`` is not a nursery, or ``async_fn`` is not an async function.
            RuntimeError: The nursery is closed, or the caller is in another thread or event loop.

        Checkpoint: no.

        Trio: none.
        """
        if not isinstance(nursery, Nursery):
            raise TypeError(f"a task handle needs a nursery, not {safe_repr(nursery)}")
        if nursery._closed or running_loop_or_none() is not nursery._state.loop:
            nursery._refuse()
        handle: TaskHandle[R] = blank(TaskHandle)
        handle._scope = CancelScope()
        handle._ended = Event()
        handle._result = _MISSING
        handle._error = None
        handle._name = async_fn if name is None else name
        handle._coro = coroutine_or_error(async_fn, *args)
        try:
            task = nursery._spawn(handle._run(), async_fn, handle._name)
            task.asyncio_task.add_done_callback(handle._settle)
        except BaseException:
            if handle._coro is not None:
                handle._coro.close()
            raise
        return handle

    def __repr__(self) -> str:
        if not self._ended.is_set():
            state = "being cancelled" if self._scope.cancel_called else "running"
        elif self._error is not None:
            state = f"failed: {safe_repr(self._error)}"
        else:
            state = "cancelled" if self._result is _MISSING else "done"
        return f"<nurseryio.TaskHandle of {safe_repr(self._name)}, {state}>"

    async def _run(self) -> None:
        coro, self._coro = self._coro, None
        try:
            with self._scope:
                self._result = await coro
        except Cancelled:
            raise
        except BaseException as error:
            # A nursery in the child raises a group of Cancelled, which is not an error either.
            self._error = next(iter(without_cancelled([error])), None)
            raise
        finally:
            self._ended.set()
            del self, coro  # no reference cycle: the error's traceback holds this frame

    def _settle(self, _asyncio_task: object) -> None:
        """Done-callback: end the handle if the function has not been run (rule 2)."""
        coro, self._coro = self._coro, None
        if coro is not None:
            coro.close()
        if not self._ended.is_set():
            self._ended.set()

    async def wait(self) -> None:
        """Wait until the child has ended, in whichever way.

        Raises:
            Cancelled: if the waiting task is cancelled. The child continues.

        Checkpoint: yes.
        """
        await self._ended.wait()

    def done(self) -> bool:
        """Whether the child has ended."""
        return self._ended.is_set()

    def cancelled(self) -> bool:
        """Whether the child has ended by a cancellation."""
        return self._ended.is_set() and self._result is _MISSING and self._error is None

    def result(self) -> T:
        """The value that the function has returned.

        Raises:
            RuntimeError: The child has not ended, was cancelled, or has failed. Then the error of
                the child is the ``__cause__``.
        """
        self._must_have_ended()
        if self._error is not None:
            raise RuntimeError(
                f"the task of {safe_repr(self._name)} has failed and has no result"
            ) from self._error
        if self._result is _MISSING:
            raise RuntimeError(
                f"the task of {safe_repr(self._name)} was cancelled and has no result"
            )
        return self._result

    def exception(self) -> BaseException | None:
        """The error that the child has raised; None if it has returned or was cancelled.

        Raises:
            RuntimeError: The child has not ended.
        """
        self._must_have_ended()
        return self._error

    def _must_have_ended(self) -> None:
        if not self._ended.is_set():
            raise RuntimeError(
                f"the task of {safe_repr(self._name)} is still running: call wait() first"
            )

    def cancel(self, reason: str | None = None) -> None:
        """Cancel this child alone. If it has ended, nothing happens.

        Args:
            reason: A text for people, as for :meth:`CancelScope.cancel`.

        Raises:
            TypeError: ``reason`` is not a string.
            RuntimeError: The caller is in another thread or event loop.

        Checkpoint: no.
        """
        if not self._ended.is_set():
            self._scope.cancel(reason)
