"""Delivery: how a cancellation of ours reaches one task, without polling.

Rule 1 (level-triggered): while a task's scope is effective, every await in it that would block
raises. Our own operations see to that themselves, in ``traps``. Awaits of foreign code are
interrupted from outside, by looking at what the task waits for:

=========================================  ===================================================
the task                                   what happens
=========================================  ===================================================
has not made its first step                look again after it has
is running                                 look again at the next tick
is over                                    nothing
waits in a trap of ours                    its abort function decides, once
waits for a future that is done            nothing, its result must not be lost; look again
waits for a pending future                 ``Task.cancel``; look again after its next step
still waits for the future that was        the future refuses, or takes its time: look again
interrupted last                           when it is done, by a callback on it
has merely yielded                         ``Task.cancel``, unless that is pending already
has swallowed too many interruptions       the future it waits for may end by itself; look again
                                           when it is done, or after a pause
=========================================  ===================================================

Rule 2 (no polling): "look again" is an entry in the loop's watch list and one ``call_soon`` for
all entries together, and is asked for only when the task is about to make a step. A task that
sits in a shield, a worker thread or a future that refuses costs nothing while it sits there. One
that swallows each interruption and waits again at once, as the end of an ``asyncio.TaskGroup``
does, is interrupted a limited number of times (``MAX_SWALLOWED_CANCELS``), and again after a
pause. If it gets what it waits for meanwhile, its next wait is interrupted at once.

Rule 3 (failures): each task is served for itself. If something fails on the way to one of them,
the others are served all the same, that one is tried once more in the next iteration of the loop,
and the error goes to the caller. A future whose ``cancel()`` raises cannot be interrupted: the task
that waits for it gets that error instead.
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
from . import anyio_hook
from .cancel_ledger import UNKNOWN, release_cancel_request, request_cancel
from .scope_tree import ROOT, chain, encloses, recalculate
from .task import records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .loop_state import LoopState
    from .scope_tree import Node
    from .task import Task


class Abort(enum.Enum):
    """What an abort function answers: may the waiting task be woken for a cancellation?

    ``SUCCEEDED``: yes, nobody will reschedule it. ``FAILED``: no, it goes on waiting, and
    somebody will still call ``reschedule``.

    Trio: ``trio.lowlevel.Abort``.
    """

    SUCCEEDED = 1
    FAILED = 2


# What Task._abort is once the abort function has agreed: the wait is over.
AGREED = object()


def deliver_changes(flipped: Iterable[Any]) -> None:
    """Act on tasks whose answer to "am I cancelled?" has changed.

    Raises:
        BaseException: The first error on the way to one of them, when all have been served.
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
    """Serve a task on whose way something has failed, once more (rule 3)."""
    if compat.is_over(task.asyncio_task):
        return
    try:
        if not task.scope._effective:
            release_cancel_request(task)
        else:
            _deliver(task)
            _schedule(task._state)
    except BaseException:
        # What it waits for cannot be interrupted. What it awaits next can, so look again then.
        try:
            _recheck_when_done(task, compat.waiter(task.asyncio_task))
        except BaseException:
            _look_after_pause(task)
        raise


def push_later(scope: Any) -> None:
    """A change of a scope that is entered has failed on its way to the tasks inside: finish it."""
    scope._task._state.finish_later(_push_again, scope)


def _push_again(scope: Any) -> None:
    """Carry a change of a scope through that was broken off when some nodes had it already."""
    if scope._task is not None:
        deliver_changes(recalculate(scope, everything=True))


def interrupt(task: Task) -> None:
    """Have ``CancelledError`` raised at the current or next await, if nothing protects the task."""
    if (anyio_hook.bridge is not None or task._extra.edge is not None) and anyio_hook.protects(
        task
    ):
        recheck(task)
    else:
        _request_cancel(task)


def _request_cancel(task: Task) -> None:
    """Have ``CancelledError`` raised at the task's current or next await."""
    error = request_cancel(task)
    if error is not None:
        _throw(task, error)
    elif task._extra.edge is not None:
        task._extra.edge.cancel_requested(task)


def _given_to_task(task: Task, error: BaseException) -> bool:
    """Give an error that a future of foreign make has raised to the task that waits for it."""
    if not is_a(error, Exception) or is_a(error, ENGINE_ERRORS) or task._park is not None:
        return False
    future = compat.waiter(task.asyncio_task)
    return future is not None and compat.throw_into(task.asyncio_task, future, error)


def _throw(task: Task, error: Exception) -> None:
    """Cancelling what the task waits for has failed: the task gets the error (rule 3)."""
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
    """Look at the task again at the next tick, after the step it is about to make."""
    if not task._recheck_queued:
        try:
            task._recheck_queued = True
            task._state.recheck_queue.append(task)
        except BaseException:
            task._recheck_queued = False
            raise
    _schedule(task._state)


def _end_lost(task: Task) -> None:
    """A task is over, and its end has passed unnoticed: see ``ending``."""
    task._state.finish_later(settle_lost_end, task)


# Settles the end of a child whose asyncio task is over. Set by ``task_exit``.
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
        if when < state.armed_at:  # left to us by the timer
            state._arm(when)
    except BaseException:
        state.finish_later(_recheck_all, state)
        raise


def _recheck_all(state: LoopState) -> None:
    """Look again was broken off. Which tasks are left is not known: all that are cancelled."""
    again = dict.fromkeys(state.recheck_queue)
    for task in list(records.values()):
        if task._state is state:
            if task.scope._effective and not compat.is_over(task.asyncio_task):
                again[task] = None
            task._recheck_queued = task in again
    state.recheck_queue = list(again)
    _run_rechecks(state)


def _deliver(task: Task) -> None:
    """One row of rule 1 for a task whose scope is effective."""
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
        # An abort function that has agreed is not asked again if interrupting the task has failed.
        if park.done() or (task._abort is not AGREED and not _agrees(task, park)):
            del park
            return  # a trap looks at the scope itself when it wakes
        _request_cancel(task)
        if not park.done():  # a task of foreign make whose cancel() takes its time
            _look_after_pause(task)
            return
    elif task._started or compat.has_begun(asyncio_task):
        future = compat.waiter(asyncio_task)
        if future is None:
            if asyncio_task.done():
                _end_lost(task)
                return
            if not task._started:
                pass  # it stands in the nursery's own yield, and is to make its first step
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
    # Look again after its next step. The caller schedules that, once for all tasks of a batch.
    # inlined: _core.delivery.recheck[:1]
    if not task._recheck_queued:
        try:
            task._recheck_queued = True
            task._state.recheck_queue.append(task)
        except BaseException:
            task._recheck_queued = False
            raise


# How many interruptions of foreign awaits a task may swallow before it is left alone for a while:
# for a second the first time, then for twice as long each time, up to an hour.
MAX_SWALLOWED_CANCELS = 100
MAX_BACKOFF = 3600.0

# The mark of a task that was interrupted once: counting begins when it is interrupted again.
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


# So often a task may be found waiting for a future that is done. asyncio wakes it at once.
MOST_LOOKS_AT_DONE = 4


def _is_late(task: Task, future: Any) -> bool:
    """Whether a future that is done fails to wake the task, as some of foreign make do."""
    extra = task._own_extra()
    seen, number = extra.seen_done
    number = number + 1 if seen is future else 1
    extra.seen_done = (future, number)
    return number > MOST_LOOKS_AT_DONE


# How long (seconds) until a task is looked at again that has the loop run nested inside its step,
# as some tools do. Nothing signals the end of such a step.
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
    """Look again once ``future`` is done. At most one callback of ours sits on it."""
    watcher = _RecheckWhenDone(task)
    future.remove_done_callback(watcher)
    future.add_done_callback(watcher)


class _RecheckWhenDone:
    """A done-callback, equal to others for the same task, so that it can be replaced."""

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
                # It got what it waited for: what it awaits next is interrupted at least once.
                number, since, pause = task._swallowed_cancels
                task._swallowed_cancels = (min(number, MAX_SWALLOWED_CANCELS - 1), since, pause)
            recheck(task)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _RecheckWhenDone) and other.task is self.task

    __hash__ = None  # type: ignore[assignment]


def abort_wait(task: Task, raise_cancel: Callable[[], NoReturn]) -> bool:
    """Ask the abort function of a task in ``wait_task_rescheduled``, once: may it be woken?"""
    abort = task._abort
    if isinstance(abort, dict):
        abort.pop(task, None)  # see ``parking``
    else:
        task._abort = None
        answer = abort(raise_cancel)
        if type(answer) is not Abort:
            raise TrioInternalError("abort function must return Abort.SUCCEEDED or Abort.FAILED")
        if answer is not Abort.SUCCEEDED:
            return False
    task._abort = AGREED
    return True


def can_abort(task: Task) -> bool:
    """Whether the abort function of a waiting task has not been called yet."""
    return task._abort is not None and task._abort is not AGREED


def _agrees(task: Task, park: Any) -> bool:
    """Ask the abort function. If it fails its own task gets the error, not the one that cancels."""
    if not can_abort(task):
        return False
    try:
        return abort_wait(task, make_raise_cancel(task.scope))
    except BaseException as exc:
        if task._abort is AGREED:
            raise  # it has agreed and is interrupted at the next try
        if isinstance(task._abort, dict):
            task._abort.pop(task, None)  # it does not sleep any more
        if not park.done():
            park.set_result(Error(exc))
        return False
    finally:
        del park  # the error holds this frame: no circle


def make_raise_cancel(scope: Node) -> Callable[[], NoReturn]:
    """The ``raise_cancel`` for an abort function: raises the scope's cancellation."""
    reason = scope._reason or UNKNOWN

    def raise_cancel() -> NoReturn:
        raise Cancelled(reason)

    return raise_cancel


# -- invariants, for tests and fuzzers ------------------------------------------


def _validate(state: LoopState) -> None:
    """Check what must hold of a loop's records and scopes whenever no function here is running."""
    state.deadlines._validate()
    assert state.armed_at <= state.deadlines.next() or state.recheck_scheduled
    assert (state.timer is None) == (state.armed_at == inf)
    watched = state.recheck_queue
    assert len(set(watched)) == len(watched) and all(task._recheck_queued for task in watched)
    assert state.recheck_scheduled or not watched
    for asyncio_task, task in list(records.items()):
        if task._state is not state:
            continue
        assert task.asyncio_task is asyncio_task
        assert task._recheck_queued == (task in watched)
        # Rule 4. The share of somebody who has called uncancel() too often may be missing.
        assert not task._owns_cancel_request or task.scope._effective
        assert (task._park is None) or not compat.is_running(asyncio_task)
        for node in chain(task.scope, None):
            _validate_node(state, node)
            if node._abandoned:
                break  # what is outside of it may have been left long ago


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
            assert not node._called or node._is_due()  # noticed before its timer
    nursery = node._nursery
    if nursery is not None:
        assert nursery.cancel_scope is node
        assert node._abandoned or not (nursery._closed and nursery._children)
        for child in nursery._children:
            assert child._parent_nursery is nursery and child._state is state
            assert encloses(node, child.scope)
