"""Deliver a scope's cancellation to one task: when ``Task.cancel`` is called, without polling.

:func:`deliver_changes` gets every task whose scope became effective or stopped being so.
:func:`recheck` looks at one task again in the next iteration of the loop. Which tasks are cancelled
is computed in ``scope_tree``. Cancel requests are counted in ``cancel_ledger``.

Rule 1 (level-triggered): while a task's scope is effective, every await in it that would block
raises. The traps of this library check the scope themselves (``traps``). An await in asyncio code
is interrupted from outside: by ``Task.cancel``, if the state of the task allows it. To *recheck* is
to apply this table again:

=========================================  ===================================================
the task                                   delivery
=========================================  ===================================================
is protected by an anyio shield, or by an  rechecks when the future it waits for is done, or in
edge cancellation block                    the next iteration if it does not wait for one
has not made its first step                rechecks after that step
is running                                 rechecks in the next iteration of the loop
has ended                                  settles its end, if the nursery missed it
waits in a trap                            calls the trap's abort function, once; if that
                                           returns ``SUCCEEDED``, ``Task.cancel``
waits for a future that is done            rechecks; it does not cancel, which would lose the
                                           future's result
waits for a pending future                 ``Task.cancel``; rechecks after the next step
still waits for the future that was        rechecks when that future is done, by a callback on
interrupted last                           it: the future refuses, or its ``cancel`` acts later
has only yielded                           ``Task.cancel``, unless that is pending already or
                                           the yield is shielded
has swallowed too many interruptions       rechecks when the future it waits for is done, or
                                           after a pause
=========================================  ===================================================

Rule 2 (no polling): a recheck is an entry in the loop's recheck queue. One ``call_soon`` serves all
entries. A recheck is queued only when the task is about to make a step. So a task costs nothing
while it waits in a shield, for a worker thread, or for a future that refuses to be cancelled. Some
code swallows each interruption and waits again at once, as the end of an ``asyncio.TaskGroup``
does. Such a task is interrupted a limited number of times (``MAX_SWALLOWED_CANCELS``), and again
after a pause. If the wait ends by itself meanwhile, the task's next wait is interrupted at once.

Rule 3 (failures): an error on the way to one task does not keep the others from being served. That
one task is tried once more in the next iteration of the loop, and the caller gets the error. A
future whose ``cancel()`` raises cannot be interrupted: the task that waits for it gets that error
instead.
"""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import ref

from .._asyncio import compat
from .._base.errors import ENGINE_ERRORS, Cancelled, TrioInternalError
from .._base.exc_fields import is_a
from .._base.outcome import Error
from .._base.util import safe_repr, unset_hook
from . import anyio_hook, swallowing
from .cancel_ledger import UNKNOWN, release_cancel_request, request_cancel, withdraw_request
from .scope_tree import ROOT, chain, encloses, recalculate
from .task import records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .loop_state import LoopState
    from .scope_tree import Node
    from .task import Task


class Abort(enum.Enum):
    """The result of an abort function: may the waiting task be woken for a cancellation?

    ``SUCCEEDED``: yes, and no code will reschedule the task. ``FAILED``: no, the task goes on
    waiting, and some code will still call ``reschedule``.

    Trio: ``trio.lowlevel.Abort``.
    """

    SUCCEEDED = 1
    FAILED = 2


# The value of Task._abort after the abort function has returned SUCCEEDED: the wait is over.
AGREED = object()


def deliver_changes(flipped: Iterable[Any]) -> None:
    """Deliver or withdraw the cancellation of tasks whose scope's ``_effective`` has changed.

    Raises:
        BaseException: The first error that was raised for one of the tasks. It is raised after
            all the others have been served.
    """
    anyio_hook.look()
    failed: BaseException | None = None
    state: LoopState | None = None
    for task in flipped:
        state = task._state
        try:
            if task.scope._effective:
                _deliver(task)
            else:
                release_cancel_request(task)
        except BaseException as error:
            if state.loop.is_closed() or _given_to_task(task, error):
                continue  # on a closed loop the task makes no step any more
            state.finish_later(_deliver_again, task)
            failed = failed or error
    if state is not None:
        _schedule(state)
    if failed is not None:
        try:
            raise failed
        finally:
            del failed


def _deliver_again(task: Task) -> None:
    """Serve a task once more, after an error was raised for it (rule 3)."""
    if compat.is_over(task.asyncio_task):
        return
    try:
        if not task.scope._effective:
            release_cancel_request(task)
        else:
            _deliver(task)
            _schedule(task._state)
    except BaseException:
        # This wait cannot be interrupted. The next one can, so recheck when this one is over.
        try:
            _recheck_when_done(task, compat.waiter(task.asyncio_task))
        except BaseException:
            _look_after_pause(task)
        raise


def push_later(scope: Any) -> None:
    """Finish a change of an entered scope, after an error kept it from some tasks inside."""
    scope._task._state.finish_later(_push_again, scope)


def _push_again(scope: Any) -> None:
    """Repeat a change of a scope that an error stopped when only some nodes had it."""
    if scope._task is not None:
        deliver_changes(recalculate(scope, everything=True))


def interrupt(task: Task) -> None:
    """Have ``CancelledError`` raised at the current or next await, unless the task is protected.

    It is protected by an anyio shield or an edge cancellation block: ``anyio_hook.protects``.
    """
    if (anyio_hook.bridge is not None or task._extra.edge is not None) and anyio_hook.protects(
        task
    ):
        recheck(task)
    else:
        _request_cancel(task)


def _request_cancel(task: Task) -> None:
    """Have ``CancelledError`` raised at the task's current or next await."""
    if swallowing.noted:
        swallowing.note(task)
    error = request_cancel(task)
    if error is not None:
        _throw(task, error)
    elif task._extra.edge is not None:
        task._extra.edge.cancel_requested(task)


def _cancel_failed(task: Task, before: int, error: BaseException) -> None:
    """The rest of ``_request_cancel`` for a task that owned no request, after ``cancel()`` raised.

    The compiled form of ``_deliver`` calls it.
    """
    _throw(task, withdraw_request(task, False, before, error))


def _given_to_task(task: Task, error: BaseException) -> bool:
    """Raise ``error`` in the task, if a future from outside the library has caused it.

    Returns:
        False if the error has another cause, or if it cannot be raised in the task.
    """
    if not is_a(error, Exception) or is_a(error, ENGINE_ERRORS) or task._park is not None:
        return False
    future = compat.waiter(task.asyncio_task)
    return future is not None and compat.throw_into(task.asyncio_task, future, error)


def _throw(task: Task, error: Exception) -> None:
    """Raise ``error``, by which cancelling the awaited future failed, in the task (rule 3)."""
    future = compat.waiter(task.asyncio_task)
    if future is None:
        raise error
    if not compat.throw_into(task.asyncio_task, future, error):
        _recheck_when_done(task, future)
        task._state.loop.call_exception_handler(
            {
                "message": f"nurseryio cannot interrupt {task!r}: cancelling what it waits for, "
                f"{safe_repr(future)}, has failed",
                "exception": error,
            }
        )


def recheck(task: Task) -> None:
    """Look at the task in the next iteration of the loop, after the step it is about to make."""
    if not task._recheck_queued:
        try:
            task._recheck_queued = True
            task._state.recheck_queue.append(task)
        except BaseException:
            task._recheck_queued = False
            raise
    _schedule(task._state)


def _end_lost(task: Task) -> None:
    """Settle the end of a task that the nursery has missed: see ``task_exit``."""
    task._state.finish_later(settle_lost_end, task)


# Settles the end of a child whose asyncio task has ended. Set by ``task_exit``.
settle_lost_end: Callable[[Task], object] = unset_hook


def _schedule(state: LoopState) -> None:
    if state.recheck_queue and not state.recheck_scheduled:
        try:
            state.loop.call_soon(_run_rechecks, state, context=state.context)
        except RuntimeError:
            if not state.loop.is_closed():
                raise
        state.recheck_scheduled = True


def _run_rechecks(state: LoopState) -> None:
    try:
        state.recheck_scheduled = False
        tasks, state.recheck_queue = state.recheck_queue, []
        for task in tasks:
            task._recheck_queued = False
        for task in tasks:
            try:
                if task.scope._effective:
                    _deliver(task)
            except BaseException as error:
                if not _given_to_task(task, error):
                    state.finish_later(_deliver_again, task)
                    state.report(error)
        _schedule(state)
        when = state.deadlines.next()
        if when < state.armed_at:  # fire() has left that to this function
            state._arm(when)
    except BaseException:
        state.finish_later(_recheck_all, state)
        raise


def _recheck_all(state: LoopState) -> None:
    """Recheck all cancelled tasks of a loop, after an error stopped the rechecks.

    Which tasks were still to be rechecked is not known.
    """
    again = dict.fromkeys(state.recheck_queue)
    for task in records.copy().values():
        if task._state is state:
            if task.scope._effective and not compat.is_over(task.asyncio_task):
                again[task] = None
            task._recheck_queued = task in again
    state.recheck_queue = list(again)
    _run_rechecks(state)


def _deliver(task: Task) -> None:
    """Apply the table of rule 1 to a task whose scope is effective."""
    asyncio_task = task.asyncio_task
    park = task._park
    if (anyio_hook.bridge is not None or task._extra.edge is not None) and anyio_hook.protects(
        task
    ):
        future = compat.waiter(asyncio_task)
        if future is not None and not future.done():
            anyio_hook.note_shielded(task)
            _recheck_when_done(task, future)
            return
    elif park is not None:
        # After SUCCEEDED the abort function is not called again, even if cancelling has failed.
        if park.done() or (task._abort is not AGREED and not _agrees(task, park)):
            del park
            return  # the trap checks the scope itself when the task wakes
        _request_cancel(task)
        if not park.done():  # another library's kind of task, whose cancel() acts later
            _look_after_pause(task)
            return
    elif task._started or compat.has_begun(asyncio_task):
        future = compat.waiter(asyncio_task)
        if future is None:
            if asyncio_task.done():
                _end_lost(task)
                return
            if not task._started:
                pass  # it has yielded in the nursery's wrapper; its function has not begun
            elif compat.is_running(asyncio_task):
                if compat.current_task_or_none() is None:
                    # In a callback, so the loop runs nested inside a step of the task.
                    _look_after_pause(task)
                    return
            elif not task._shielded_step and not compat.must_cancel(asyncio_task):
                _request_cancel(task)
        elif not future.done():
            swallowed = task._swallowed_cancels
            if future is task._last_interrupted or (swallowed and _swallows_too_many(task)):
                _recheck_when_done(task, future)
                return
            if swallowed is None:
                task._swallowed_cancels = NO_SWALLOWED_CANCELS
            _request_cancel(task)
            task._last_interrupted = future
        elif _is_late(task, future):
            _look_after_pause(task)
            return
    elif asyncio_task.done():
        _end_lost(task)
        return
    # Recheck after the next step. The caller schedules that once for a whole batch of tasks.
    # inlined: _core.delivery.recheck[:1]
    if not task._recheck_queued:
        try:
            task._recheck_queued = True
            task._state.recheck_queue.append(task)
        except BaseException:
            task._recheck_queued = False
            raise


# How many interruptions of awaits in asyncio code a task may swallow before a pause. The pause is
# one second at first and doubles each time. Once it exceeds MAX_BACKOFF (seconds), a timer is not
# set any more: the task is rechecked only when the future that it waits for is done.
MAX_SWALLOWED_CANCELS = 100
MAX_BACKOFF = 3600.0

# Task._swallowed_cancels after the first interruption: counting begins with the second.
NO_SWALLOWED_CANCELS = (0, -inf, 1.0)


def _swallows_too_many(task: Task) -> bool:
    now = task._state.loop.time()
    number, since, pause = task._swallowed_cancels  # type: ignore[misc]
    if now - since >= pause:
        if number > MAX_SWALLOWED_CANCELS:
            pause *= 2
        number, since = 0, now
    task._swallowed_cancels = (number + 1, since, pause)
    if number == MAX_SWALLOWED_CANCELS and pause < MAX_BACKOFF:
        task._state.add_deadline(since + pause, _after_pause, ref(task))
    return number >= MAX_SWALLOWED_CANCELS


# How many times in a row a task may be found waiting for the same future although that is done.
# asyncio wakes the task in the next iteration of the loop. From then on each recheck comes after a
# pause.
MOST_LOOKS_AT_DONE = 4


def _is_late(task: Task, future: Any) -> bool:
    """Whether a future that is done fails to wake the task, as those of some libraries do."""
    extra = task._own_extra()
    seen, number = extra.seen_done
    number = number + 1 if seen is future else 1
    extra.seen_done = (future, number)
    return number > MOST_LOOKS_AT_DONE


# Seconds until a recheck that no event triggers. Mostly it is for a task that runs the loop nested
# inside its own step, as some tools do: nothing signals the end of such a step.
NESTED_PAUSE = 0.05


def _look_after_pause(task: Task) -> None:
    state = task._state
    state.add_deadline(state.loop.time() + NESTED_PAUSE, _recheck_by_ref, ref(task))


def _recheck_by_ref(reference: ref[Task]) -> None:
    task = reference()
    if task is not None and task.scope._effective and not compat.is_over(task.asyncio_task):
        recheck(task)


def _after_pause(reference: ref[Task]) -> None:
    task = reference()
    if task is not None and task._swallowed_cancels is not None and task.scope._effective:
        number, _since, pause = task._swallowed_cancels
        task._swallowed_cancels = (number, -inf, pause)
        recheck(task)


def _recheck_when_done(task: Task, future: Any) -> None:
    """Recheck the task when ``future`` is done, by at most one callback for this task."""
    watcher = _RecheckWhenDone(task)
    future.remove_done_callback(watcher)
    future.add_done_callback(watcher)


class _RecheckWhenDone:
    """A done-callback. It equals others for the same task, so that it can be replaced."""

    __slots__ = ("task",)

    def __init__(self, task: Task) -> None:
        self.task = task

    def __call__(self, future: Any) -> None:
        try:
            self._look(self.task, future)
        except BaseException:
            self.task._state.finish_later(_recheck_by_ref, ref(self.task))
            raise

    def _look(self, task: Task, future: Any) -> None:
        if task.scope._effective:
            if task._swallowed_cancels is not None and not future.cancelled():
                # The wait ended by itself, so the next one is interrupted at least once.
                number, since, pause = task._swallowed_cancels
                task._swallowed_cancels = (min(number, MAX_SWALLOWED_CANCELS - 1), since, pause)
            recheck(task)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _RecheckWhenDone) and other.task is self.task

    __hash__ = None  # type: ignore[assignment]


class EndlessWait:
    """Base of a class whose objects stand for an abort function that always returns ``FAILED``."""

    __slots__ = ()

    def _note_error(self, raise_cancel: Callable[[], NoReturn]) -> None:
        """The wait is asked to end by an error that is not a scope's cancellation, as by Ctrl-C."""
        raise NotImplementedError


def abort_wait(task: Task, raise_cancel: Callable[[], NoReturn] | None = None) -> bool:
    """Call the abort function of a task in ``wait_task_rescheduled``, once.

    Args:
        task: the task.
        raise_cancel: the argument of the abort function. None stands for the cancellation of the
            task's scope, and is made into a function only for an abort function that may call it.

    Returns:
        Whether the task may be woken.
    """
    abort = task._abort
    if isinstance(abort, dict):
        abort.pop(task, None)  # a queue, see ``wait_queue``
    elif isinstance(abort, EndlessWait):
        task._abort = None
        if raise_cancel is not None:
            abort._note_error(raise_cancel)
        return False
    else:
        task._abort = None
        answer = abort(make_raise_cancel(task.scope) if raise_cancel is None else raise_cancel)
        if type(answer) is not Abort:
            raise TrioInternalError("abort function must return Abort enum")
        if answer is not Abort.SUCCEEDED:
            return False
    task._abort = AGREED
    return True


def can_abort(task: Task) -> bool:
    """Whether the abort function of a waiting task has not been called yet."""
    return task._abort is not None and task._abort is not AGREED


def _agrees(task: Task, park: Any) -> bool:
    """Call the abort function. If it raises, its own task gets the error, not the canceller."""
    if not can_abort(task):
        return False
    try:
        return abort_wait(task)
    except BaseException as exc:
        if task._abort is AGREED:
            raise  # it has returned SUCCEEDED; the next try interrupts the task
        if isinstance(task._abort, dict):
            task._abort.pop(task, None)  # the task does not wait there any more
        if not park.done():
            park.set_result(Error(exc))
        return False
    finally:
        del park  # no reference cycle: the error holds this frame


def make_raise_cancel(scope: Node) -> Callable[[], NoReturn]:
    """The ``raise_cancel`` for an abort function: raises the scope's cancellation."""
    reason = scope._reason or UNKNOWN

    def raise_cancel() -> NoReturn:
        raise Cancelled(reason)

    return raise_cancel


# -- invariants, for tests and fuzzers ------------------------------------------


def _validate(state: LoopState) -> None:
    """Check the invariants of a loop's records and scopes, while no function here is running."""
    state.deadlines._validate()
    assert state.armed_at <= state.deadlines.next() or state.recheck_scheduled
    assert (state.timer is None) == (state.armed_at == inf)
    watched = state.recheck_queue
    assert len(set(watched)) == len(watched) and all(task._recheck_queued for task in watched)
    assert state.recheck_scheduled or not watched
    for asyncio_task, task in records.copy().items():
        if task._state is not state:
            continue
        assert task.asyncio_task is asyncio_task
        assert task._recheck_queued == (task in watched)
        # Rule 1 of cancel_ledger. The count itself cannot be checked: if other code has called
        # uncancel() too often, the scope's request is missing from it.
        assert not task._owns_cancel_request or task.scope._effective
        assert (task._park is None) or not compat.is_running(asyncio_task)
        for node in chain(task.scope, None):
            _validate_node(state, node)
            if node._abandoned:
                break  # the nodes outside of it may have been left long ago


def _validate_node(state: LoopState, node: Any) -> None:
    parent = node._parent
    if parent is None:
        assert node is ROOT or node._abandoned
    elif node._abandoned:
        assert node._effective
    else:
        assert node._effective == (node._called or (not node._shielded and parent._effective))
        assert node._task is not None
        entry = node._entry
        if entry is not None:
            assert entry[3] is node and entry[0] == node._deadline
            assert not node._called or node._is_due()  # the deadline was noticed before its timer
    nursery = node._nursery
    if nursery is not None:
        assert nursery.cancel_scope is node
        assert node._abandoned or not (nursery._closed and nursery._children)
        for child in nursery._children:
            assert child._parent_nursery is nursery and child._state is state
            assert encloses(node, child.scope)
