"""Nurseries: ``open_nursery()``, ``start_soon()``, ``start()``, and waiting for the child tasks.

Rule 1: a child is an asyncio task around one wrapper coroutine, :meth:`Nursery._run_child`. The
wrapper catches every exception, because asyncio's step function re-raises a ``SystemExit`` and that
would stop the loop while the siblings run. The wrapper also does the bookkeeping at the end of the
child, which is cheaper than a done-callback.

A loop may have a task factory or a ``create_task`` that was replaced. Then every child is made by
it, and a done-callback notices a task that ends without the wrapper. Such an end is an error of the
child.

Rule 2: the end of the block waits for the children and for the calls of ``start()`` under way.
Nothing interrupts this wait. Cancelling the nursery's scope cancels the children, not the wait.

The end of a block has to let other tasks run, so it first yields once. If all children end in that
iteration of the loop, the wait needs no future. If not, the yield was wasted. So after a nursery
that took longer, the next ``SLOW_EXIT_PREDICTION`` nurseries with running children on the same loop
wait for a future at once. Then the yield is tried again.

Rule 3: errors of the body and the children are kept until the block is left, and leave as
described in ``nursery_exit``. For a ``Cancelled`` equal to the error before it, that same error
object is appended again. So the count is right, but ten thousand ``Cancelled`` with all their
frames are not kept only to be dropped when the scope is left.

Rule 4: no child outlives the block, whatever fails while the block is left or a child ends. The
failure is among the errors that the block raises.
"""

from __future__ import annotations

import sys
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NoReturn, overload

from .._asyncio import compat
from .._asyncio.compat import (
    BARE_YIELD,
    ChildTask,
    NativeTask,
    asyncio_tasks,
    current_task as current_asyncio_task,
    note_who_awaits,
    running_loop_or_none,
)
from .._base.errors import ENGINE_ERRORS, Cancelled, CancelReason, TrioInternalError, not_entered
from .._base.exc_fields import explained, is_a, without_own_frame
from .._base.exception_groups import (
    FAILED,
    NATIVE,
    failure,
    is_lone_child_cancel,
    leave_block,
    raise_keeping_context,
    same_arguments,
    warn_loose,
)
from .._base.unsupported import Elsewhere, NeverHere, explain_keyword
from .._base.util import (
    NoPublicConstructor,
    blank,
    checked_coroutine,
    coroutine_or_error,
    ensure_stack,
    qualname_of,
    reject_non_functions,
)
from .._core.delivery import EndlessWait, deliver_changes
from .._core.ki import calls_users, place_of, user_code_boundary
from .._core.loop_state import check_home
from .._core.task import INITIAL_YIELD_CREDIT, Task, make_task, records, wake_future
from .._core.task_extra import NO_EXTRA
from . import child_notes, nursery_exit
from .scope import new_scope
from .task_exit import end_broken_off, end_child, make_elsewhere, report_orphan, settle_in, unmake
from .task_status import NOT_STARTED, Starting

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from typing_extensions import TypeVarTuple, Unpack

    from .._core.loop_state import LoopState
    from .scope import CancelScope
    from .task_status import A, AsyncFn, B, C, Starts, Starts1, Starts2, Starts3, T, TakesAll

    PosArgsT = TypeVarTuple("PosArgsT")


# After a nursery whose children took longer than one yield, how many nurseries skip the yield.
SLOW_EXIT_PREDICTION = 8
# On the compiled build, a function in C that waits for the children of a block that has no error,
# and leaves it. Awaiting it gives None; if leaving is not ordinary and remains to be done, True.
wait_and_leave: Callable[[Nursery], Awaitable[bool | None]] | None = None
# The value of Nursery._pending_starts before the first start(); never written to.
NO_STARTS: dict[Nursery, None] = {}

CLOSED = "Nursery is closed to new arrivals"
CLOSED_NOTE = "its block has ended: start the task before, or in a nursery that is still open"
ENTER_FIRST = "enter the nursery first: 'async with open_nursery() as nursery:'"


class Nursery(EndlessWait, metaclass=NoPublicConstructor):
    """A block that is left only when its child tasks have ended; made by :func:`open_nursery`.

    Attributes:
        cancel_scope: the scope around the block and all children; cancel it to stop them all.

    Trio: ``trio.Nursery``.
    """

    __slots__ = (
        "__dict__",  # libraries add methods to the nurseries that they hand out
        "__weakref__",
        "_body_running",
        "_children",
        "_closed",
        "_errors",
        "_parent_task",
        "_pending_starts",
        "_state",
        "_strict",
        "_waiter",
        "cancel_scope",
    )

    cancel_scope: CancelScope
    # The task that entered the nursery, and the state of its loop; unset before entry.
    _parent_task: Task
    _state: LoopState
    # The children that have not ended, as keys in the order of their start. Children of start()
    # that are still in their temporary nursery are not included. A dict, because iterating a set
    # visits the records in random memory order.
    _children: dict[Task, None]
    # The errors of the children and the body so far, in order; None while there are none.
    _errors: list[BaseException] | None
    # The temporary nurseries of the calls of start() under way, which keep the nursery open.
    _pending_starts: dict[Nursery, None]
    _body_running: bool
    # Whether no more children are accepted. Once True, _children is empty.
    _closed: bool
    # The future that the parent task waits for at the end of the block, while it waits.
    _waiter: asyncio.Future[None] | None
    # None if unspecified: errors leave in groups, but a lone SystemExit or KeyboardInterrupt leaves
    # the outermost nursery of a task bare, for asyncio.
    _strict: bool | None
    # The errors of children that get a note, with names (see child_notes). No slot: few have any.
    _named_failures: list[tuple[BaseException, str]] | None = None

    @property
    def child_tasks(self) -> frozenset[Task]:
        """The child tasks that are still running."""
        return frozenset(self._children)

    @property
    def parent_task(self) -> Task:
        """The task that opened the nursery.

        Raises:
            RuntimeError: The nursery has not been entered yet.
        """
        if not self.cancel_scope._entered:
            raise RuntimeError(ENTER_FIRST)
        return self._parent_task

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"open, {len(self._children)} children"
        if not self.cancel_scope._entered:
            state = "not entered"
        return f"<nurseryio.Nursery at {id(self):#x}, {state}>"

    # -- spawning ---------------------------------------------------------------

    # This calls the user's function before it changes anything, so Ctrl-C may interrupt that call.
    @calls_users
    def start_soon(
        self,
        async_fn: Callable[[Unpack[PosArgsT]], Awaitable[object]],
        *args: Unpack[PosArgsT],
        name: object = None,
    ) -> None:
        """Start a child task that runs ``await async_fn(*args)``.

        Returns at once, before the child has made its first step (also under asyncio's eager
        task factory). The child runs in a copy of the caller's context variables and inside the
        nursery's cancel scope.

        Args:
            async_fn: an async function; for keyword arguments use ``functools.partial``.
            args: its positional arguments.
            name: the name of the task in debugging output, a string or a function.

        Raises:
            TypeError: ``async_fn`` is not an async function; the message says what it is.
            RuntimeError: the nursery is closed, or the caller is in another thread or event loop.
            Exception: any error that the loop's task factory raises.

        Checkpoint: no.

        Trio: ``trio.Nursery.start_soon``.
        """
        if self._closed or running_loop_or_none() is not self._state.loop:
            self._refuse()
        # inlined: _base.util.coroutine_or_error
        try:
            coro: Any = async_fn(*args)
        except TypeError:
            reject_non_functions((async_fn,))
            raise
        if type(coro) is not CoroutineType:
            coro = checked_coroutine(async_fn, coro)
        state, scope = self._state, self.cancel_scope
        making = state.making
        if (
            name is not None
            or scope._effective
            or state.step_hooks is not None
            # inlined: _asyncio.compat.TaskMaking.is_plain
            or not (
                making.factory() is None
                and type(found := making.loop.create_task) is type(making.bound)
                and found == making.bound
                and (making.code is None or making.create_task.__code__ is making.code)
                and asyncio_tasks.Task is NativeTask
            )
        ):
            self._spawn(coro, async_fn, name)
            return
        # Without three calls spawning is a tenth cheaper.
        # inlined: _nursery.nursery.Nursery._spawn, the ordinary case
        made = runner = None
        task = blank(Task)
        try:
            # inlined: _core.task.make_task[1:-2]
            task._state = state
            task._coro = coro
            task._name = async_fn
            task._parent_nursery = self
            task.scope = scope
            task._started = task._recheck_queued = task._shielded_step = False
            task._owns_cancel_request = task._deferred_cancel = False
            task._yield_credit = INITIAL_YIELD_CREDIT
            task._park = task._last_interrupted = task._swallowed_cancels = task._wakeup = None
            task._extra = NO_EXTRA
            runner = self._run_child(task, coro)
            made = ChildTask(runner, loop=state.loop, name=getattr(coro, "__qualname__", None))
            made.shown = coro
            task.asyncio_task = made
            records[made] = task
            self._children[task] = None
            if note_who_awaits is not None:
                note_who_awaits(made, self._parent_task.asyncio_task)
        except BaseException:
            unmake(task, made, runner, coro)
            raise

    def _refuse(self) -> NoReturn:
        """Raise the error that explains why no child can be started."""
        if not self.cancel_scope._entered:
            raise RuntimeError(ENTER_FIRST)
        check_home(self._state)
        if self._closed:
            raise explained(RuntimeError(CLOSED), CLOSED_NOTE)
        raise RuntimeError("no event loop is running")

    def _spawn(
        self,
        coro: Any,
        async_fn: Any,
        name: object,
        context: contextvars.Context | None = None,
        system: bool = False,
    ) -> Task:
        """Start a child in the general way; for ``start_soon`` and for other modules."""
        scope = self.cancel_scope
        state = self._state
        hooks = state.step_hooks
        task = make_task(state, coro, async_fn if name is None else name, self, scope)
        asyncio_task = runner = None
        try:
            ensure_stack()
            asyncio_name = qualname_of(coro if name is None else name) or task.name
            if system:
                task._own_extra().is_system = True
            if context is not None:
                task._own_extra().context = context
            if hooks is not None:
                hooks.hold()
            runner = self._run_child(task, coro)
            if state.making.is_plain():
                asyncio_task = compat.make_child(state.loop, runner, coro, asyncio_name, context)
            else:
                asyncio_task = make_elsewhere(task, runner, asyncio_name, context)
            if task.asyncio_task is None:
                task.asyncio_task = asyncio_task
            records[asyncio_task] = task
            self._children[task] = None
            if note_who_awaits is not None:
                note_who_awaits(asyncio_task, self._parent_task.asyncio_task)
            if scope._effective:
                deliver_changes((task,))
        except BaseException:
            if hooks is not None:
                hooks.release()
            unmake(task, asyncio_task, runner, coro)
            raise
        if hooks is not None:
            hooks.spawned(task)
        return task

    @user_code_boundary
    async def _run_child(self, task: Task, coro: Any, error: BaseException | None = None) -> None:
        try:
            if type(task.asyncio_task) is not ChildTask:
                if task.asyncio_task is None:
                    # An eager task factory runs this inside start_soon(), which must return first.
                    await BARE_YIELD
                settle_in(task)
            task._started = True
            try:
                await coro
            except BaseException as exc:
                # Drop this frame: the traceback should begin in the user's function.
                if type(exc) is Cancelled:
                    exc.__traceback__ = exc.__traceback__.tb_next  # type: ignore[union-attr]
                    error = exc
                else:
                    error = without_own_frame(exc)
                if type(exc) is GeneratorExit and task._state.loop.is_closed():
                    return  # on a closed loop nothing is to be changed any more
            end_child(task, error)
        except BaseException as failure:
            end_broken_off(task, coro, error, failure)
        finally:
            del error, task, coro  # no reference cycle: the error's traceback holds this frame

    def _child_ended(self, task: Task, error: BaseException | None) -> None:
        children = self._children
        children.pop(task, None)
        if error is not None:
            last = self._errors[-1] if self._errors else None
            if type(error) is type(last) is Cancelled and same_arguments(error.args, last.args):
                self._errors.append(last)  # type: ignore[union-attr]  # rule 3
            elif not is_lone_child_cancel(error, self.cancel_scope._effective):
                self._fail(error, task)
        if not children and not self._body_running:
            self._wake()

    def _fail(self, error: BaseException, task: Task) -> None:
        """Record an error and cancel the nursery because of it."""
        parent = self._parent_task.asyncio_task
        if parent is None or parent.done():
            report_orphan(task, error)  # the block's task has ended without leaving the block
            return
        if self._errors is None:
            self._errors = [error]
        else:
            self._errors.append(error)
        # Asked here, because a function is replaced by its name when that is first read.
        is_named = type(task._name) is str and task is not self._parent_task
        scope = self.cancel_scope
        if not scope._called:
            if self._children or self._body_running or self._pending_starts:
                scope._cancel(failure(error, task._repr_later(), task is self._parent_task))
            elif self._parent_task.scope is scope:
                scope._cancel_alone(FAILED)  # no task is left to deliver to
            else:
                scope._cancel(FAILED)
        if is_named:
            child_notes.remember(self, task, error)
        if type(error) is TypeError:
            explain_keyword(error)

    def _wake(self) -> None:
        if not self._children and not self._pending_starts and not self._body_running:
            self._closed = True
            waiter = self._waiter
            if waiter is not None:
                wake_future(waiter)

    # -- starting and waiting ---------------------------------------------------

    # fmt: off
    @overload
    async def start(self, async_fn: TakesAll, /, *args: object, name: object = None) -> Any: ...
    @overload
    async def start(self, async_fn: Starts[T], /, *, name: object = None) -> T: ...
    @overload
    async def start(self, async_fn: Starts1[A, T], a: A, /, *, name: object = None) -> T: ...
    @overload
    async def start(
        self, async_fn: Starts2[A, B, T], a: A, b: B, /, *, name: object = None) -> T: ...
    @overload
    async def start(
        self, async_fn: Starts3[A, B, C, T], a: A, b: B, c: C, /, *, name: object = None) -> T: ...
    @overload
    async def start(self, async_fn: AsyncFn, *args: object, name: object = None) -> Any: ...
    # fmt: on

    @calls_users  # as start_soon()
    async def start(self, async_fn: AsyncFn, *args: object, name: object = None) -> Any:
        """Start a child task and wait until it reports that it is ready.

        ``async_fn(*args, task_status=...)`` runs as a child. The child, or code that it gives the
        object to, must call ``task_status.started(value)``. Before that call the child is inside
        the caller's cancel scopes, and ``start()`` raises its errors. Afterwards the child is an
        ordinary child of this nursery.

        Args:
            async_fn: an async function with a keyword argument ``task_status``, by convention
                defaulting to ``TASK_STATUS_IGNORED``.
            args: its positional arguments.
            name: as for :meth:`start_soon`.

        Returns:
            The value given to ``started()``, None if none was given.

        Raises:
            RuntimeError: the nursery is closed, or the child ended without ``started()``.
            Cancelled: the caller was cancelled before ``started()``; the child is cancelled too.
            TypeError: ``async_fn`` is not an async function.
            Exception: any error that the child raises before ``started()``, not in a group.

        Checkpoint: yes.

        Trio: ``trio.Nursery.start``.
        """
        if self._closed or running_loop_or_none() is not self._state.loop:
            self._refuse()
        if not callable(async_fn):
            coroutine_or_error(async_fn)  # raises the error that says what is wrong with it
        temporary = open_nursery(strict_exception_groups=True)
        if self._pending_starts is NO_STARTS:
            self._pending_starts = {}
        try:
            self._pending_starts[temporary] = None
            try:
                async with temporary:
                    status: Starting[Any] = Starting(temporary, self)
                    coro = coroutine_or_error(partial(async_fn, task_status=status), *args)
                    task = temporary._spawn(coro, async_fn, name)
                    task._own_extra().eventual_parent_nursery = self
            except BaseExceptionGroup as group:
                if len(group.exceptions) != 1:
                    if any(is_a(error, ENGINE_ERRORS) for error in group.exceptions):
                        raise  # leaving the temporary nursery has failed as well
                    raise TrioInternalError(
                        "the temporary nursery of start() got a second task: somebody reached "
                        "it through 'task_status' and spawned there"
                    ) from group
                only = group.exceptions[0]
            else:
                if status.value is NOT_STARTED:
                    raise RuntimeError("child exited without calling task_status.started()")
                return status.value
            try:
                raise_keeping_context(only)
            finally:
                del only
        finally:
            try:
                self._pending_starts.pop(temporary, None)
                self._wake()
            except BaseException:
                self._pending_starts.pop(temporary, None)
                self._wake()
                raise

    async def __aenter__(self) -> Nursery:
        scope = self.cancel_scope
        if scope._entered:
            raise RuntimeError(
                "Each nursery may only be used for a single 'with' block: make a new one"
            )
        scope.__enter__()
        try:
            task = scope._task
            assert task is not None
            self._parent_task = task
            self._state = state = task._state
            if self._strict is None:
                self._strict = state.strict
            scope._nursery = self
            self._closed = False
            return self
        except BaseException:
            scope._nursery = None
            self._closed = True
            scope.__exit__(None, None, None)
            raise

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        try:
            task, scope, state = self._parent_task, self.cancel_scope, self._state
            left = None
            if current_asyncio_task() is not task.asyncio_task:
                left = nursery_exit.leave_in_other_task(self, exc)
            else:
                self._body_running = False
                native = None if exc is None else self._record_or_keep_native(exc)
                if not self._children and not self._pending_starts:
                    self._closed = True
                try:
                    if exc is None and wait_and_leave is not None:
                        if await wait_and_leave(self) is None:
                            return False
                    elif self._closed or not state.slow_exit_prediction:
                        task._shielded_step = True
                        await BARE_YIELD
                    else:
                        state.slow_exit_prediction -= 1
                except BaseException as stray:
                    if type(stray) is GeneratorExit:
                        raise
                    native = nursery_exit.pick_native_cancel(
                        native, self._record_or_keep_native(stray, waiting=True)
                    )
                finally:
                    if task._shielded_step and not self._closed:
                        state.slow_exit_prediction = SLOW_EXIT_PREDICTION
                    task._shielded_step = False
                if not self._closed:
                    native = await nursery_exit.join_children(self, task, native)
                scope._nursery = None
                if self._errors is not None or native is not None or scope._abandoned:
                    left = nursery_exit.leave(self, exc, native)
                elif task.scope is scope and not (
                    scope._effective or scope._shielded or scope._anyio_pairing
                ):
                    # inlined: _nursery.scope.CancelScope.__exit__, the ordinary case
                    task.scope = scope._parent  # type: ignore[assignment]
                    if scope._entry is not None:
                        state.deadlines.drop(scope._entry)
                        scope._entry = None
                    scope._task = None
                    return False
                else:
                    left = scope._close(None)
        except BaseException as failure:
            if not self.cancel_scope._entered:
                raise not_entered(self, exc) from exc
            left = await nursery_exit.leave_in_trouble(self, exc, failure)
        try:
            return leave_block(exc, left)
        finally:
            exc = native = left = None  # they may not all be set

    # -- ending -------------------------------------------------------------------

    def _record_or_keep_native(
        self, exc: BaseException, waiting: bool = False
    ) -> BaseException | None:
        """The block or the wait raised: return a native cancel, record any other error."""
        if not waiting:
            ensure_stack()  # cancelling the children may need it
        if is_a(exc, Cancelled):
            if nursery_exit.is_foreign(self._parent_task, self.cancel_scope, exc):
                self.cancel_scope._cancel(NATIVE)
                return exc
            # A scope's cancellation is not recorded during the wait. An asyncio.TaskGroup in the
            # block, for example, cancels the task again at its end because of that scope.
            if waiting:
                return None
        self._fail(exc, self._parent_task)
        return None

    def _note_error(self, raise_cancel: Callable[[], NoReturn]) -> None:
        """The wait for the children is asked to end by other code than a scope.

        A ``KeyboardInterrupt`` is recorded as an error and cancels the nursery. A scope's
        cancellation cancels the children too, and the wait ends when they have ended.
        """
        task = self._parent_task
        try:
            raise_cancel()
        except Cancelled:
            pass
        except BaseException as exc:
            # This error is not raised from any line of the program. Its traceback is set to the
            # place where the task waits.
            exc.__traceback__ = place_of(task)
            self._errors = [*(self._errors or ()), exc]
            self.cancel_scope._cancel(CancelReason("KeyboardInterrupt", source_task=repr(task)))

    if not TYPE_CHECKING:
        create_task = Elsewhere("use nursery.start_soon(f, x) for create_task(f(x))")
        spawn = Elsewhere("use nursery.start_soon(f, x)")
        cancel = Elsewhere("use nursery.cancel_scope.cancel()")
        cancel_called = Elsewhere("use nursery.cancel_scope.cancel_called")
        cancelled_caught = Elsewhere("use nursery.cancel_scope.cancelled_caught")
        deadline = NeverHere("use nursery.cancel_scope.deadline")
        shield = NeverHere("use nursery.cancel_scope.shield")

        def __enter__(self) -> NoReturn:
            raise RuntimeError("use 'async with open_nursery(...)', not 'with open_nursery(...)'")

        def __exit__(self, *_details: object) -> NoReturn:
            raise AssertionError("never called: __enter__ raises")


def open_nursery(strict_exception_groups: bool | None = None) -> Nursery:
    """Make a nursery, to be used as ``async with open_nursery() as nursery:``.

    The end of the block waits until every child task has ended. If the block or a child raises,
    all other tasks in the nursery are cancelled, and all errors leave together in an
    ``ExceptionGroup``. A nursery itself never raises :exc:`Cancelled`. It only passes on the errors
    of its tasks.

    Args:
        strict_exception_groups: False lets a single error leave bare (for old Trio code,
            deprecated there). True always keeps the group, even around a lone ``SystemExit`` or
            ``KeyboardInterrupt`` that leaves the outermost nursery of a task started by asyncio.
            Default: the value given to ``run()``.

    Raises:
        BaseExceptionGroup: at the end of the block, with the errors of the block and the children.
        CancelledError: at the end of the block, if the host task was cancelled natively.
        RuntimeError: entering or leaving outside a task, or leaving out of order.

    Checkpoint: entering is not; leaving always lets other tasks run, and is not interrupted.

    Trio: ``trio.open_nursery``.
    """
    if strict_exception_groups is not None and not strict_exception_groups:
        warn_loose("open_nursery", stacklevel=3)
    nursery: Nursery = blank(Nursery)
    nursery.cancel_scope = new_scope()
    nursery._strict = strict_exception_groups
    nursery._children = {}
    nursery._errors = nursery._waiter = None
    nursery._pending_starts = NO_STARTS
    nursery._body_running = nursery._closed = True  # closed until entered
    return nursery
