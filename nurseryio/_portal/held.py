"""An async context manager that a plain ``with`` block keeps open: :class:`Held`, :class:`Entered`.

Rule 1: one task enters and exits the manager, because nurseries, cancel scopes and anyio's task
groups need that. It has the context variables of the thread that enters the block.

Rule 2: the manager gets the error of the block, and may suppress or replace it.

Rule 3: the manager may end before its block, for example a nursery whose child has failed. Its
error is then raised at the end of the block. Code in the block is not interrupted, except in a call
that runs inside that nursery.

Rule 4: a cancellation that leaves the block is suppressed if it came from the manager, because a
call in its nursery was cancelled. Otherwise it goes on.

Rule 5: a block that is never left, such as one in a generator that was dropped, is cancelled by a
finalizer. Nothing waits for the finalizer.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._base import Cancelled, Error, Value
from .._base.errors import RunFinishedError
from .._base.exc_fields import class_name, is_a, set_traceback, traceback_of, without_own_frame
from .._base.exception_groups import bare_exit, is_cancelled, leaves, only_cancelled
from .._base.util import safe_repr
from .._nursery import TASK_STATUS_IGNORED, CancelScope, TaskStatus
from .._sync import Event

if TYPE_CHECKING:
    from types import TracebackType

    from .._base import Outcome
    from .._nursery import Nursery
    from .host import Host

T = TypeVar("T")


class Held(Generic[T]):
    """A manager and the task that keeps it open. The methods are called in the loop's thread."""

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self._scope = CancelScope()
        self._leaving = Event()
        self._over = Event()
        self.is_entered = False
        # The error of the block, and whether the manager got it.
        self._error: BaseException | None = None
        self.has_seen_error = False
        # Whether the manager was cancelled from within, before the block was left.
        self.has_ended_early = False
        # The outcome of the manager.
        self._outcome: Outcome[None] = Value(None)

    async def enter(self, nursery: Nursery) -> T:
        """Enter the manager, in a child of the nursery."""
        name = f"runs {class_name(type(self._manager))}"
        value: T = await nursery.start(self._hold, name=name)
        return value

    async def _hold(self, *, task_status: TaskStatus[T] = TASK_STATUS_IGNORED) -> None:
        try:
            with self._scope:
                async with self._manager as value:
                    self.is_entered = True
                    task_status.started(value)
                    del value
                    try:
                        await self._leaving.wait()
                    except BaseException:
                        self.has_ended_early = not self._leaving.is_set()
                        raise
                    if self._error is not None:
                        self.has_seen_error = True
                        raise self._error
        except BaseException as error:
            if not self.is_entered:
                raise
            self._outcome = Error(without_own_frame(error))
        finally:
            self._error = None
            self._over.set()

    async def leave(self, error: BaseException | None) -> Outcome[None]:
        """Exit the manager with the error of the block, and wait for the end.

        A cancellation that leaves the block cancels the manager. Given as an error, it would be
        taken for the nursery's own.
        """
        if error is not None and only_cancelled(error):
            self._scope.cancel(reason="a cancellation has left the block")
        else:
            self._error = error
        del error
        self._leaving.set()
        try:
            await self._over.wait()
        except Cancelled:
            self.abandon()
            with CancelScope(shield=True):
                await self._over.wait()
            raise
        outcome, self._outcome = self._outcome, Value(None)
        return outcome

    def abandon(self) -> None:
        """Cancel the task, because no thread will leave the block."""
        self._scope.cancel(reason="the block around the context manager was interrupted")
        self._leaving.set()


class Entered(AbstractContextManager[T]):
    """The plain context manager around an async one."""

    def __init__(self, host: Host, manager: AbstractAsyncContextManager[T]) -> None:
        if not issubclass(type(manager), AbstractAsyncContextManager):
            raise TypeError(
                f"a portal can enter an async context manager, not {safe_repr(manager)}"
            )
        self._host = host
        self._held: Held[T] | None = Held(manager)
        self._is_open = False

    def __enter__(self) -> T:
        """Enter the manager, and return its value."""
        if self._held is None or self._is_open:
            raise RuntimeError("this context manager was entered already: make another one")
        self._is_open = True
        held = self._held
        try:
            value: T = self._host.ask(self._host.nursery, held.enter, (self._host.nursery,))
        except BaseException as error:
            if held.is_entered:
                self._leave_early(held, error)
            self._held = None
            raise
        return value

    def _leave_early(self, held: Held[T], error: BaseException) -> None:
        """Exit the manager: a signal handler's error came when it was entered, before the block.

        As in a block, an error of the exit replaces that error.
        """
        outcome: Any = None
        try:
            outcome = self._host.ask(self._host.nursery, held.leave, (error,))
            if isinstance(outcome, Error):
                others = (e for e in leaves(outcome.error) if e is not error)
                if not all(map(is_cancelled, others)):
                    self._host.unwrap(outcome)
        except RunFinishedError:
            pass
        finally:
            del outcome, error  # no reference cycle

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Exit the manager with the error of the block, if any."""
        held = self._held
        if held is None or not self._is_open or self._host.is_inherited:
            self._held = None
            return False
        if is_a(exc_value, GeneratorExit) and self._host.is_here:
            return False  # the garbage collector runs in the loop's thread: see __del__
        before = None if exc_value is None else traceback_of(exc_value)
        outcome: Any = None
        try:
            outcome = self._host.ask(self._host.nursery, held.leave, (exc_value,))
            self._held = None
            if isinstance(outcome, Value):
                if exc_value is not None and only_cancelled(exc_value):
                    return held.has_ended_early  # the cancellation came from the manager
                return held.has_seen_error
            if bare_exit(outcome.error) is exc_value:
                return False
            if is_a(exc_value, GeneratorExit) and leaves(outcome.error) == [exc_value]:
                return False  # who closes a generator expects no group
            self._host.unwrap(outcome)
        except RunFinishedError:
            if self._host.over.is_set() and exc_value is not None:
                return False  # the error of the block says more
            raise
        finally:
            if exc_value is not None:
                set_traceback(exc_value, before)
            del exc_value, outcome, before, traceback
        return False

    def __del__(self) -> None:
        held = getattr(self, "_held", None)
        if held is not None and self._is_open and not self._host.is_inherited:
            with suppress(RunFinishedError):
                try:
                    self._host.token.run_sync_soon(held.abandon)
                except RunFinishedError:
                    raise
                except BaseException:
                    # A signal handler's error may have come before the loop got the request.
                    self._host.token.run_sync_soon(held.abandon)
                    raise
