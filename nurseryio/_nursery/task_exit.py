"""The end of a task: bookkeeping after its last step, also when the end went wrong.

This module has :func:`end_child` for the children of nurseries and :func:`end_alone` for tasks that
asyncio code started. ``nursery`` decides which error of a child counts.

Rule 1: parking lots that only the ended task could have released are broken. Tasks that wait in
such a lot get an error.

Rule 2: a task that ends inside scopes or nurseries that it has not left has broken the scope tree.
The part of the tree inside the task is cancelled and cut off. A ``RuntimeError`` reports that: a
nursery's child raises it, and for a task that asyncio code started the loop's exception handler
gets it.

Rule 3: the end of a child is recorded once. The functions for ends that went wrong may be called
when part of the bookkeeping is already done.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._asyncio.compat import current_task as current_asyncio_task, forget_who_awaits
from .._base.errors import Cancelled, CancelReason, misnested
from .._base.exc_fields import is_a, set_context
from .._core import delivery
from .._core.scope_tree import ROOT, chain
from .._core.task import end_hooks, records
from .._core.task_extra import NO_EXTRA
from .scope import CancelScope

if TYPE_CHECKING:
    import asyncio

    from .._core.task import Task


def make_elsewhere(task: Task, runner: Any, name: str | None, context: Any) -> Any:
    """Make a child's task by the task factory or the replaced ``create_task`` of the loop."""
    # Tools show these as the name of the coroutine.
    runner.__qualname__ = getattr(task._coro, "__qualname__", runner.__qualname__)
    runner.__name__ = getattr(task._coro, "__name__", runner.__name__)
    made = compat.make_task(task._state.making, runner, name, context)
    made.add_done_callback(partial(end_unnoticed, task, runner), context=task._state.context)
    return made


def unmake(task: Task, asyncio_task: Any, runner: Any, coro: Any) -> None:
    """Undo starting a child that has failed half-way: the child's function never runs."""
    assert task._parent_nursery is not None
    if asyncio_task is None and runner is not None:
        # First, because it needs no stack: asyncio may have kept a task that runs the wrapper.
        if runner.cr_await is not None:  # an eager task factory has begun it
            task._own_extra().has_ended = True  # the wrapper does nothing when it is closed
        runner.close()
    task._parent_nursery._children.pop(task, None)
    task.scope = ROOT
    if asyncio_task is not None:
        records.pop(asyncio_task, None)
        asyncio_task.cancel()
    coro.close()


def end_child(task: Task, error: BaseException | None) -> None:
    """Bookkeeping at the end of a child's last step."""
    nursery: Any = task._parent_nursery
    if (
        task.scope is not nursery.cancel_scope
        or task._extra is not NO_EXTRA
        or nursery._state.step_hooks is not None
    ):
        _end_unusual_child(task, error)
        return
    del records[task.asyncio_task]
    task._owns_cancel_request = False
    task.scope = ROOT
    if forget_who_awaits is not None:
        forget_who_awaits(task.asyncio_task, nursery._parent_task.asyncio_task)
    if error is not None:
        nursery._child_ended(task, error)
    else:
        children = nursery._children
        del children[task]
        if not children and not nursery._body_running:
            nursery._wake()


def _end_unusual_child(task: Task, error: BaseException | None) -> None:
    """:func:`end_child` for a child with scopes left open, with extra data, or with instruments."""
    if task._extra.has_ended:
        return
    records.pop(task.asyncio_task, None)
    nursery = task._parent_nursery
    assert nursery is not None
    if forget_who_awaits is not None:
        forget_who_awaits(task.asyncio_task, nursery._parent_task.asyncio_task)
    if task.scope is not nursery.cancel_scope:
        error = _left_open(task, error)
    _break_lots(task)
    task._owns_cancel_request = False
    run = task._state.run
    raised = error
    if run is not None and task is run.main_task:
        run.main_ended(error)
        error = None
    try:
        nursery._child_ended(task, error)
        task.scope = ROOT
        hooks = task._state.step_hooks
        if hooks is not None:
            hooks.exited(task, raised)
    finally:
        del error, raised


def end_broken_off(
    task: Task, coro: Any, error: BaseException | None, failure: BaseException
) -> None:
    """End a child whose wrapper has failed outside the child's function.

    Args:
        task: the child.
        coro: the coroutine of its function.
        error: the error that the function has raised, if any.
        failure: the error raised outside the function.
    """
    if task._extra.has_ended:
        return  # the wrapper was closed by end_unnoticed()
    nursery = task._parent_nursery
    assert nursery is not None
    state = task._state
    if is_a(failure, GeneratorExit) and state.loop.is_closed():
        return
    if not task._started:
        coro.close()
    records.pop(task.asyncio_task, None)
    if forget_who_awaits is not None:
        forget_who_awaits(task.asyncio_task, nursery._parent_task.asyncio_task)
    task._owns_cancel_request = False
    errors = [failure] if error is None else [error, failure]
    run = state.run
    if run is not None and task is run.main_task:
        run.main_ended(errors[0])
        errors = errors[1:]
    try:
        if task.scope not in (ROOT, nursery.cancel_scope):
            corrupted = _left_open(task, None)
            if corrupted is not None:
                errors.append(corrupted)
        task.scope = ROOT
        _break_lots(task)
    except BaseException as other:
        errors.append(other)
    nursery._children.pop(task, None)
    for one in errors:
        if any(one is other for other in nursery._errors or ()):
            continue
        try:
            nursery._child_ended(task, one)
        except BaseException as other:
            state.report(other)
    nursery._wake()
    hooks = state.step_hooks
    if hooks is not None:
        hooks.exited(task, failure if error is None else error)


def end_unnoticed(task: Task, runner: Any, made: asyncio.Future[Any]) -> None:
    """Done-callback of a child's task made by :func:`make_elsewhere`.

    If the task has ended without its wrapper, end the child and report that as an error.

    Args:
        task: the child.
        runner: the wrapper's coroutine.
        made: the task that the task factory or the replaced ``create_task`` has returned.
    """
    nursery = task._parent_nursery
    if nursery is None or task not in nursery._children:
        return
    actual = task.asyncio_task
    if actual is not made and not actual.done():
        # The wrapper runs in another task than the one that was returned.
        actual.add_done_callback(partial(end_unnoticed, task, runner), context=task._state.context)
        return
    error = _outcome_of(made)
    if error is None or task._started:
        lost = RuntimeError(
            f"the asyncio task of {task!r} has ended, but the child's function has not: a task "
            "factory, or something in the place of loop.create_task(), has not run the coroutine "
            "that it was given to its end"
        )
        lost.__cause__ = error
        error = lost
    extra = task._own_extra()
    extra.has_ended = True  # the wrapper does nothing when it is closed
    for coro in (task._coro, runner):  # the child's first: the wrapper would swallow its error
        try:
            coro.close()
        except BaseException as failure:
            set_context(failure, error)
            error = failure
    extra.has_ended = False
    try:
        end_child(task, error)
    except BaseException as failure:
        end_broken_off(task, task._coro, error, failure)
    finally:
        extra.has_ended = True
        records.pop(made, None)  # type: ignore[call-overload]
        del error


def _outcome_of(made: asyncio.Future[Any]) -> BaseException | None:
    """The error that a task has ended with, ``Cancelled`` included; None if it has returned."""
    try:
        return made.exception()
    except Cancelled as error:
        return error


def _never_ran(asyncio_task: asyncio.Task[Any]) -> None:
    """Done-callback of a child that was cancelled natively before its first step.

    If the wrapper has not run at all, end the child here.
    """
    task = records.get(asyncio_task)
    if task is None or task._started:
        return
    try:
        task._coro.close()
        end_child(task, _outcome_of(asyncio_task))
    except BaseException as failure:
        end_broken_off(task, task._coro, _outcome_of(asyncio_task), failure)


compat.ChildTask.may_have_never_run = _never_ran


def _end_lost(task: Task) -> None:
    """End a child whose asyncio task is over although its wrapper has not reported that.

    An exception from a signal handler can be raised before the first line of the wrapper.
    """
    nursery = task._parent_nursery
    made = task.asyncio_task
    if nursery is None or task not in nursery._children or not made.done():
        return
    error = _outcome_of(made)
    if error is None:
        error = RuntimeError(f"the asyncio task of {task!r} has ended without its nursery")
    end_broken_off(task, task._coro, None, error)


delivery.settle_lost_end = _end_lost


def settle_in(task: Task) -> None:
    """At the first step of a child made by :func:`make_elsewhere`, record which task runs it."""
    actual = current_asyncio_task()
    if actual is task.asyncio_task:
        return
    if actual is None:
        raise RuntimeError(
            f"{task!r} has begun where asyncio.current_task() is None: a task factory must make "
            "tasks of the class asyncio.Task or of a subclass"
        )
    if actual in records:
        raise RuntimeError(
            f"{task!r} was to run in {actual!r}, which has work of its own: a task factory must "
            "give each coroutine a task"
        )
    records.pop(task.asyncio_task, None)
    task.asyncio_task = actual
    records[actual] = task


def report_orphan(task: Task, error: BaseException) -> None:
    """Give the error of a child whose nursery's block is gone to the loop's exception handler."""
    if not is_a(error, Cancelled):
        task._state.loop.call_exception_handler(
            {"message": f"{task!r} failed after its nursery's block was gone", "exception": error}
        )


def _break_lots(task: Task) -> None:
    """Break the parking lots that only this task could have released (rule 1)."""
    extra = task._extra
    if extra.breakers is not None:
        lots, extra.breakers = extra.breakers, None
        for lot in lots:
            try:
                lot.break_lot(task)
            except BaseException as error:
                task._state.report(error)


def _left_open(task: Task, error: BaseException | None) -> BaseException | None:
    """Settle the scopes and nurseries that the task has not left, or that were left before it.

    Returns:
        The error to report: ``error`` itself, or a ``RuntimeError`` about the misnesting.
    """
    open_nurseries = task.child_nurseries
    state = task._state
    for node in chain(task.scope, task._base()):
        state.stop_scopes.pop(node, None)
        if isinstance(node, CancelScope) and node._entry is not None:
            state.deadlines.drop(node._entry)
            node._entry = None
    for nursery in open_nurseries:
        nursery.cancel_scope._abandoned = True
        nursery._body_running = False
        nursery._closed = True
        nursery.cancel_scope._cancel(
            CancelReason(
                "nursery",
                reason="Parent Task exited prematurely, abandoning this nursery without exiting "
                "it properly.",
                source_task=repr(task),
            )
        )
    cut_off = any(node._abandoned and node._parent is None for node in chain(task.scope, None))
    if (not open_nurseries and not cut_off) or is_a(error, (SystemExit, KeyboardInterrupt)):
        # An exit may be raised just where leaving a block begins. Its exit code is kept.
        return error
    what = "Nursery" if open_nurseries else "Cancel scope"
    corrupted = misnested("", error)
    corrupted.args = (
        f"{what} stack corrupted: {what} surrounding {task!r} was closed before the task exited"
        f"\n{corrupted.args[0].partition(chr(10))[2]}",
    )
    return corrupted


def end_alone(task: Task) -> None:
    """Bookkeeping at the end of a task that asyncio code started.

    An error is given to the loop's exception handler, because nothing else could receive it.
    """
    _break_lots(task)
    if task.scope is not ROOT:
        error = _left_open(task, None)
        if error is not None:
            task._state.loop.call_exception_handler(
                {"message": "a task ended inside a nursery", "exception": error}
            )


end_hooks.append(end_alone)
