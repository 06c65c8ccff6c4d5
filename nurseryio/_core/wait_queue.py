"""Fast waiting and yielding for locks, channels and the like: ``park`` and ``maybe_yield``.

:func:`park` is ``wait_task_rescheduled`` for a task in a queue, which leaves the queue if it is
cancelled. Nearly all primitives wait like this. :func:`maybe_yield` is the yield at the end of an
operation that has completed. Both get the task as an argument, because their callers know it. They
save much of the work of the general functions in ``traps``, and call those in the rare cases.

Rule 1: all rules of ``traps`` hold here as well, above all that an operation which completed
keeps its result.

Rule 2: a task is in its queue exactly as long as it waits. Code that wakes the task takes it out of
the queue first, in the same step. A cancellation takes the task out too. For that, ``Task._abort``
is the queue instead of an abort function.

Rule 3: an operation begins with ``checkpoint_if_cancelled``. It may be skipped while
``task.scope._effective or task._deferred_cancel`` is false: it would do nothing then.

Rule 4: an operation that yields while no other task is ready costs a needless iteration of the
loop. Up to ``MAX_YIELD_CREDIT`` operations in a row skip the yield. The loop still sees new data
and timers that are due in less than a millisecond.

Rule 5: a wait or a yield sets ``Task._yield_credit`` to ``MAX_YIELD_CREDIT``, because every task
that was ready has run then. While it is greater than ``INITIAL_YIELD_CREDIT``, an operation on a
channel does not have to yield although other tasks are ready: of eight operations in a row, at
least one yields. Each of them checks for cancellation. Locks, semaphores and limiters always yield,
because the order in which tasks get them is their purpose.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from .._asyncio.compat import BARE_YIELD, new_future, running_loop_or_none
from .._base.errors import Cancelled
from .cancel_ledger import defer_native_cancel
from .delivery import AGREED, Abort, recheck
from .loop_state import check_home
from .task import MAX_YIELD_CREDIT
from .traps import handed_over, is_waiting, reschedule, wait_task_rescheduled

if TYPE_CHECKING:
    from collections.abc import Callable

    from .task import Task

__all__ = [
    "check_one_loop",
    "leave",
    "maybe_yield",
    "move",
    "other_loop",
    "park",
    "wake_all",
    "wake_first",
    "wake_rest",
    "wake_some",
]

Queue = dict[Any, Any]


def leave(queue: Queue, task: Task, _raise_cancel: object) -> Abort:
    """The abort function of a task in a queue, for ``wait_task_rescheduled``."""
    queue.pop(task, None)
    return Abort.SUCCEEDED


def move(task: Task, queue: Queue) -> None:
    """Record that a waiting task is in another queue now. The caller has put it there."""
    task._abort = queue


async def park(task: Task, queue: Queue, entry: Any = None) -> Any:
    """Put the current task into ``queue`` and to sleep until it is rescheduled.

    Args:
        task: The current task.
        queue: A dict. While the task waits it is a key there.
        entry: The value in the queue for the task.

    Returns:
        The value of the outcome given to ``reschedule``.

    Raises:
        Cancelled: The task was cancelled; it has left the queue.
        RuntimeError: A task of another event loop is in the queue.
        Exception: The error of the outcome given to ``reschedule``.

    Checkpoint: yes.
    """
    if queue and next(iter(queue))._state is not task._state:
        raise other_loop("waits for")
    try:
        if task.scope._effective:
            queue[task] = entry
            return await wait_task_rescheduled(partial(leave, queue, task))
        task._abort = queue
        task._park = future = new_future(loop=task._state.loop)
        queue[task] = entry
        outcome = await future
    except Cancelled as error:
        outcome = None
        if task._park is not None and task._abort is not AGREED:
            outcome = handed_over(task, future)
        if outcome is None:
            _leave_queue(task, queue)
            raise
        defer_native_cancel(task, error)
    except BaseException:
        _leave_queue(task, queue)
        raise
    finally:
        task._park = task._abort = None
        task._yield_credit = MAX_YIELD_CREDIT
        if task.scope._effective:
            recheck(task)  # its next await may be in asyncio code
    if outcome is None:
        return None
    try:
        return outcome.unwrap()
    finally:
        del outcome, future  # no reference cycle: an error holds this frame


def other_loop(does: str) -> RuntimeError:
    """The error for a task that would wait for a task of another event loop to wake it."""
    return RuntimeError(
        f"a task of another event loop {does} this: events, locks, channels and the like belong to "
        "one event loop, and cannot be waited for in two"
    )


def _leave_queue(task: Task, queue: Queue) -> None:
    """Take a task out of the queue that it is in, because its wait has ended by an error."""
    now_in = task._abort
    queue.pop(task, None)
    if isinstance(now_in, dict):
        now_in.pop(task, None)


def wake_first(queue: Queue, next_send: Any = None) -> tuple[Task, Any]:
    """Wake the task that has been in a queue longest.

    Args:
        queue: An ``OrderedDict`` that is not empty.
        next_send: The outcome, as for ``reschedule``.

    Returns:
        The task and its entry.

    Raises:
        RuntimeError: The caller is in another thread or event loop. Nothing has changed.
    """
    task: Any = None
    try:
        task, entry = queue.popitem(last=False)  # type: ignore[call-arg]
        reschedule(task, next_send)
    except BaseException:
        # The body of is_waiting(): there may be no stack for a call.
        future = None if task is None else task._park
        # inlined: _core.traps.is_waiting[1:]
        if future is not None and (
            not future.done()
            or (future.cancelled() and task._abort is not None and task._abort is not AGREED)
        ):
            queue[task] = entry
            queue.move_to_end(task, last=False)  # type: ignore[attr-defined]
        raise
    return task, entry


def wake_all(queue: Queue, outcome: Callable[[], Any] | None = None) -> None:
    """Wake every task of a queue, in the order in which they came, and empty it.

    Args:
        queue: A dict.
        outcome: Makes the outcome for each task, as for ``reschedule``.

    Raises:
        RuntimeError: The caller is in another thread or event loop. Nothing has changed.
        BaseException: Waking one of several tasks has failed. The others were woken, and that one
            is woken in the next iteration of the loop. Tasks of another loop stay in the queue.
    """
    try:
        for task in queue:
            reschedule(task, None if outcome is None else outcome())
    except BaseException as error:
        wake_rest(queue, error, outcome)
    queue.clear()


def check_one_loop(queue: Queue) -> None:
    """Raise RuntimeError if a task in the queue belongs to another event loop than the caller."""
    here = running_loop_or_none()
    for task in queue:
        if task._state.loop is not here:
            check_home(task._state)


def wake_some(queue: Queue, tasks: list[Task], outcome: Callable[[], Any] | None = None) -> None:
    """Like :func:`wake_all` for some tasks of a queue. The others stay in it."""
    chosen = {task: queue[task] for task in tasks}
    try:
        wake_all(chosen, outcome)
    finally:
        for task in tasks:
            if task not in chosen:
                queue.pop(task, None)


def wake_rest(
    queue: Queue, error: BaseException, outcome: Callable[[], Any] | None = None
) -> NoReturn:
    """Handle an error while the tasks of a queue are woken: if some are awake, wake the rest.

    Raises:
        BaseException: ``error``. If it left no task awake, nothing has changed.
    """
    rest = [task for task in queue if is_waiting(task)]
    if len(rest) < len(queue):
        here = running_loop_or_none()
        for task in list(queue):
            if task not in rest:
                del queue[task]
            elif task._state.loop is here:
                del queue[task]
                next_send = None if outcome is None else outcome()
                try:
                    reschedule(task, next_send)
                except BaseException:
                    task._state.finish_later(reschedule, task, next_send)
    try:
        raise error
    finally:
        del error


async def maybe_yield(task: Task) -> None:
    """Yield at the end of an operation that has completed: ``cancel_shielded_checkpoint``.

    Args:
        task: The current task.
    """
    credit = task._yield_credit
    if credit and not task._state.ready:
        task._yield_credit = credit - 1  # rule 4
        return
    task._yield_credit = MAX_YIELD_CREDIT
    task._shielded_step = True
    try:
        await BARE_YIELD
    except Cancelled as error:
        defer_native_cancel(task, error)
    finally:
        task._shielded_step = False
