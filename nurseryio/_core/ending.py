"""The end of a task: what has to be settled when its last step is over.

What lives here: :func:`end_child` for the children of nurseries, :func:`end_alone` for tasks that
asyncio code started. What the nursery makes of a child's error is its own business.

Rule 1: whoever waits for something that only the ended task could have released is told.

Rule 2: a task that ends inside scopes or nurseries which it has not left has broken the tree. Its
own part is cancelled and cut off, and the error says so: a nursery's child raises it, for a task
that asyncio started the loop's exception handler gets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import CancelReason, misnested
from .scope import CancelScope
from .task import end_hooks, records
from .tree import ROOT, chain

if TYPE_CHECKING:
    from .task import Task


def end_child(task: Task, error: BaseException | None) -> None:
    """Bookkeeping at the end of a child's last step."""
    records.pop(task.asyncio_task, None)
    nursery = task._parent_nursery
    assert nursery is not None
    if task.scope is not nursery.cancel_scope:
        error = _left_open(task, error)
    _break_lots(task)
    task._held = False
    run = task._state.run
    if run is not None and task is run.main_task:
        error = run.main_ended(error)
    try:
        nursery._child_ended(task, error)
    finally:
        del error
    task.scope = ROOT
    gauge = task._state.gauge
    if gauge is not None:
        gauge.exited(task)


def _break_lots(task: Task) -> None:
    """Whoever waits for something that only this task could have released must hear of its end."""
    extra = task._extra
    if extra.breakers is not None:
        lots, extra.breakers = extra.breakers, None
        for lot in lots:
            lot.break_lot(task)


def _left_open(task: Task, error: BaseException | None) -> BaseException | None:
    """A task ended inside scopes or nurseries that it has not left, or that were left under it."""
    open_nurseries = task.child_nurseries
    for node in chain(task.scope, task._base()):
        if isinstance(node, CancelScope) and node._entry is not None:
            task._state.deadlines.drop(node._entry)
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
    if not open_nurseries and not cut_off:
        return error
    what = "Nursery" if open_nurseries else "Cancel scope"
    corrupted = misnested("", error)
    corrupted.args = (
        f"{what} stack corrupted: {what} surrounding {task!r} was closed before the task exited"
        f"\n{corrupted.args[0].partition(chr(10))[2]}",
    )
    return corrupted


def end_alone(task: Task) -> None:
    """The same for a task that asyncio started: only the loop can be given an error."""
    _break_lots(task)
    if task.scope is not ROOT:
        error = _left_open(task, None)
        if error is not None:
            task._state.loop.call_exception_handler(
                {"message": "a task ended inside a nursery", "exception": error}
            )


end_hooks.append(end_alone)
