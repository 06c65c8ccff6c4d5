"""Traps: checkpoints, and waiting for another task's ``reschedule`` or for a future.

A *trap* is a function of this library in which a task yields or waits. The faster forms of two
traps are in ``wait_queue``. For speed, nurseries and streams also await directly in a few places,
and follow these rules there.

Rule 1: :func:`checkpoint` and its variants yield once. :func:`wait_task_rescheduled` waits until
other code calls :func:`reschedule`. :func:`wait_future` waits for an asyncio future.

Rule 2: in a cancelled scope each of them, apart from :func:`cancel_shielded_checkpoint`, raises
before it waits. It does not raise the error itself: it calls ``cancel`` on the running asyncio
task, so that asyncio's cancel count is right. A wait whose abort function returns ``Abort.FAILED``
goes on all the same.

Rule 3: an operation that has completed keeps its result. A native cancel may arrive after the
result was handed over and before the task's next step. It is requested again then, and raised at
the next checkpoint.

Rule 4: :func:`reschedule` either raises and has changed nothing, or the task wakes. A future whose
result is set near the recursion limit loses its callbacks, because asyncio schedules them by
Python code. So the callback that wakes the task is noted when the task is first rescheduled.
"""

from __future__ import annotations

from asyncio import InvalidStateError
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .._asyncio import compat
from .._asyncio.compat import (
    BARE_YIELD,
    callbacks_of,
    cancelling,
    current_task as current_asyncio_task,
    new_future,
    running_loop_or_none,
)
from .._base.errors import ENGINE_ERRORS, Cancelled
from .._base.outcome import Value
from . import anyio_hook
from .cancel_ledger import (
    defer_native_cancel,
    raised_native_requests,
    take_deferred_cancel,
)
from .delivery import AGREED, Abort, abort_wait, can_abort, interrupt, recheck
from .loop_state import check_home
from .task import adopt_current, current_task, not_in_a_task, records
from .task_extra import NO_EXTRA

if TYPE_CHECKING:
    import asyncio

    from .task import Task

T = TypeVar("T")

# The argument of an abort function: it raises the cancellation.
RaiseCancelT = Callable[[], NoReturn]


async def checkpoint() -> None:
    """Check for cancellation, and let other tasks run.

    Raises:
        Cancelled: if the task is in a cancelled scope or has been cancelled natively.

    Checkpoint: yes, this is the plain one.

    Trio: ``trio.lowlevel.checkpoint``.
    """
    # inlined: _core.task.current_task
    try:
        task = records[current_asyncio_task()]  # type: ignore[index]
    except KeyError:
        task = adopt_current()
    except RuntimeError as error:
        not_in_a_task(error)
    if task.scope._effective:
        interrupt(task)
    await BARE_YIELD
    if task._extra is not NO_EXTRA:
        task._extra.custom_sleep_data = None


def needs_checkpoint(task: Task) -> bool:
    """Whether :func:`checkpoint_if_cancelled` would do anything in the running task."""
    return task.scope._effective or task._deferred_cancel


async def checkpoint_if_cancelled() -> None:
    """Raise :exc:`Cancelled` if the task is cancelled; otherwise return at once.

    Raises:
        Cancelled: if the task is in a cancelled scope or has been cancelled natively.

    Checkpoint: half of one. It checks for cancellation, and lets others run only if it raises.

    Trio: ``trio.lowlevel.checkpoint_if_cancelled``.
    """
    task = current_task()
    if task.scope._effective:
        interrupt(task)
        await BARE_YIELD
    elif task._deferred_cancel:
        task._yield_credit = 0  # assert_checkpoints() sets the flag too, and expects a yield
        if take_deferred_cancel(task):
            await BARE_YIELD


async def cancel_shielded_checkpoint() -> None:
    """Let other tasks run, without checking for cancellation.

    Checkpoint: the other half of one. A cancellation of any kind that arrives meanwhile is raised
    at the next checkpoint.

    Trio: ``trio.lowlevel.cancel_shielded_checkpoint``.
    """
    task = current_task()
    task._shielded_step = True
    try:
        await BARE_YIELD
    except Cancelled as exc:
        defer_native_cancel(task, exc)
    finally:
        task._shielded_step = False


async def wait_task_rescheduled(abort_func: Callable[[RaiseCancelT], Abort]) -> Any:
    """Put the current task to sleep until other code calls :func:`reschedule` on it.

    Args:
        abort_func: called at most once, in any context, if the task is cancelled while it waits.
            Its argument ``raise_cancel`` is a function that raises the cancellation.
            ``abort_func`` returns ``Abort.SUCCEEDED`` after it has made sure that no code will
            reschedule the task. The task then wakes with the cancellation. Or it returns
            ``Abort.FAILED``. The task then goes on waiting, and some code must still reschedule
            it (perhaps with ``capture(raise_cancel)``).

    Returns:
        The value of the outcome given to :func:`reschedule`.

    Raises:
        Cancelled: if the task is cancelled and ``abort_func`` returned ``Abort.SUCCEEDED``.
        TrioInternalError: if ``abort_func`` returns something that is not an ``Abort``.
        Exception: the error of the outcome given to :func:`reschedule`.

    Checkpoint: yes.

    Trio: ``trio.lowlevel.wait_task_rescheduled``.
    """
    if not callable(abort_func):
        raise TypeError(f"abort_func must be a function of one argument, not {abort_func!r}")
    # inlined: _core.task.current_task
    try:
        task = records[current_asyncio_task()]  # type: ignore[index]
    except KeyError:
        task = adopt_current()
    except RuntimeError as error:
        not_in_a_task(error)
    native: BaseException | None = None
    raised = raised_native_requests(task) if cancelling(task.asyncio_task) else 0
    try:
        task._abort = abort_func
        task._park = future = new_future(loop=task._state.loop)
        if task.scope._effective and not anyio_hook.protects(task) and abort_wait(task):
            interrupt(task)
        while True:
            try:
                outcome = await future
            except Cancelled as exc:
                if task._abort is AGREED:
                    raise  # for a scope, after the abort function returned SUCCEEDED
                outcome = handed_over(task, future)
                # A copy: the original's traceback holds this frame.
                native = Cancelled(*exc.args)
                if outcome is None:
                    if can_abort(task) and abort_wait(task, _make_raise_native(native)):
                        raise
                    task._park = future = task._state.loop.create_future()
                    continue
            break
    finally:
        task._park = task._abort = None
        if task._extra is not NO_EXTRA:
            task._extra.custom_sleep_data = None
        if task.scope._effective:
            recheck(task)  # its next await may be in asyncio code
    if native is not None and not isinstance(getattr(outcome, "error", None), Cancelled):
        defer_native_cancel(task, native, raised)
    if outcome is None:
        return None
    try:
        return outcome.unwrap()
    finally:
        del outcome, future  # no reference cycle: an error holds this frame


def handed_over(task: Task, future: asyncio.Future[Any]) -> Any:
    """The outcome that was given to a task although it woke with a native cancel, or None."""
    if future.done() and not future.cancelled():
        outcome = future.result()
        return DONE if outcome is None else outcome
    extra = task._extra
    outcome = extra.outcome
    if outcome is not None:
        extra.outcome = None
    return outcome


def _make_raise_native(native: BaseException) -> Callable[[], NoReturn]:
    """The ``raise_cancel`` for an abort function that is called for a native cancel."""
    args = native.args

    def raise_cancel() -> NoReturn:
        raise Cancelled(*args)

    return raise_cancel


DONE = Value(None)


def reschedule(task: Task, next_send: Any = None) -> None:
    """Wake a task that waits in :func:`wait_task_rescheduled`.

    Args:
        task: the record of the waiting task.
        next_send: the outcome that the wait returns or raises: an object with ``unwrap()``, such
            as ``Value`` and ``Error`` of the ``outcome`` package. None stands for the value None.

    Raises:
        RuntimeError: if the task is not waiting, or has been rescheduled already; or the caller is
            in another thread or event loop. Nothing has changed then.

    Trio: ``trio.lowlevel.reschedule``.
    """
    state = task._state
    if running_loop_or_none() is not state.loop:
        check_home(state)
    park = task._park
    if park is None:
        raise _not_waiting(task)
    wakeup = task._wakeup
    if wakeup is None:
        wakeup = _note_wakeup(task, park)
    abort = task._abort
    try:
        task._abort = None
        if task._extra is not NO_EXTRA:
            task._extra.custom_sleep_data = None
        park.set_result(next_send)
    except BaseException as error:
        if type(error) is InvalidStateError:
            task._abort = abort
            _hand_over(task, park, next_send)
            return
        if not park.done():
            task._abort = abort
            raise
        # The result is set, but the task's callback may be lost (rule 4). This is the body of
        # finish_later(): there may be no stack for a call.
        # inlined: _core.loop_state.LoopState.finish_later
        state.unfinished.append((_wake_again, (task, wakeup, park)))
        try:
            state.run_soon()
        except RuntimeError:
            if not state.loop.is_closed():
                raise
        # Not by is_a(): there may be no stack for a call.
        if type(error) not in ENGINE_ERRORS and not state.loop.is_closed():
            raise  # an error from a signal handler, raised as the call returned


def _wake_again(task: Task, wakeup: Callable[[Any], object], park: asyncio.Future[Any]) -> None:
    if not compat.is_over(task.asyncio_task) and compat.waiter(task.asyncio_task) is park:
        wakeup(park)


def _hand_over(task: Task, park: asyncio.Future[Any], next_send: Any) -> None:
    """Reschedule a task whose future is done already."""
    if not park.cancelled() or task._abort is AGREED or task._extra.outcome is not None:
        raise _not_waiting(task)
    # A native cancel has cancelled the future, but the task has not made its next step yet. So the
    # outcome is kept for it (rule 3).
    extra = task._own_extra()
    extra.custom_sleep_data = None
    extra.outcome = DONE if next_send is None else next_send
    task._abort = None


def _not_waiting(task: Task) -> RuntimeError:
    return RuntimeError(f"{task!r} is not waiting in wait_task_rescheduled() any more")


def is_waiting(task: Task) -> bool:
    """Whether a task in ``wait_task_rescheduled`` has not been rescheduled yet."""
    park = task._park
    return park is not None and (not park.done() or (park.cancelled() and can_abort(task)))


def _note_wakeup(task: Task, park: asyncio.Future[Any]) -> Any:
    """Note the callback by which asyncio wakes a task that waits for ``park``."""
    for wakeup, context in callbacks_of(park) or ():
        if getattr(wakeup, "__self__", None) is task.asyncio_task:
            task._wakeup = partial(context.run, wakeup)
            return task._wakeup
    return _does_not_wait_yet


def _does_not_wait_yet(_park: object) -> None:
    """Stands for the callback of a task that has not reached its await yet."""


async def wait_future(future: asyncio.Future[T]) -> T:
    """Wait for an asyncio future, as an operation of this library.

    Args:
        future: must belong to this wait alone, because it is cancelled when the wait is.

    Returns:
        The future's result. It is not lost when a cancellation arrives after it.

    Raises:
        Cancelled: if the task is cancelled before the future is done.
        Exception: the future's exception.

    Checkpoint: only if the future is not done yet.
    """
    if future.done():
        return future.result()
    task = current_task()
    if task.scope._effective:
        interrupt(task)
    try:
        return await future
    except Cancelled as exc:
        if not future.done() or future.cancelled():
            raise
        defer_native_cancel(task, exc)
        return future.result()
