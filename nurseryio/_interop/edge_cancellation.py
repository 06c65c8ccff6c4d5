"""Edge cancellation: asyncio libraries see one cancellation, then have time to clean up.

This module has :func:`edge_cancellation`. Delivery itself is in ``_core.delivery``. It asks the
block whether it ``protects`` the task now, and calls ``cancel_requested`` after ``Task.cancel``.

Rule 1: the block only changes how its own task is interrupted because of scopes around the block.
Scopes inside it, shields, native cancels and other tasks work as everywhere.

Rule 2: the first cancellation is raised as usual and starts the grace period. Until that period
ends no further one is raised. Then cancellation is level-triggered again. The end of the grace
period is one deadline, so no task polls a clock.
"""

from __future__ import annotations

from math import inf, isnan
from typing import TYPE_CHECKING, Any

from .._core import current_task
from .._core.delivery import recheck

if TYPE_CHECKING:
    from types import TracebackType

    from .._core import Task

__all__ = ["EdgeCancellation", "edge_cancellation"]


class EdgeCancellation:
    """The context manager that :func:`edge_cancellation` returns, for one ``with`` block.

    Attributes:
        cancelled_once: whether a cancellation from outside was delivered inside the block.
    """

    __slots__ = ("_around", "_base", "_entry", "_grace", "_in_grace", "_task", "cancelled_once")

    cancelled_once: bool

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self.cancelled_once = self._in_grace = False
        # The task, its innermost scope outside the block, and the edge cancellation block around.
        self._task: Task | None = None
        self._base: Any = None
        self._around: Any = None
        # The entry for the end of the grace period among the loop's deadlines.
        self._entry: Any = None

    def __repr__(self) -> str:
        state = "in its grace period" if self._in_grace else "cancelled once"
        if not self.cancelled_once:
            state = "not entered" if self._task is None else "not cancelled"
        return f"<EdgeCancellation at {id(self):#x}, {state}, grace {self._grace:g} s>"

    def __enter__(self) -> EdgeCancellation:
        if self._task is not None:
            raise RuntimeError("edge_cancellation() is for a single 'with' block: make a new one")
        self._task = task = current_task()
        self._base = task.scope
        self._around = task._extra.edge
        task._own_extra().edge = self
        return self

    def __exit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        task = current_task()
        if task is not self._task or task._extra.edge is not self:
            raise RuntimeError(
                "edge_cancellation() must be left in the task that entered it, innermost first: "
                f"entered in {self._task!r}, left in {task!r}"
            )
        task._extra.edge = self._around
        self._in_grace = False
        if self._entry is not None:
            task._state.deadlines.drop(self._entry)
            self._entry = None
        if task.scope._effective:
            recheck(task)

    def protects(self, task: Task) -> bool:
        """Whether to keep the cancellation that is in effect away from the task now."""
        return self._in_grace and not self._is_cancelled_inside(task)

    def cancel_requested(self, task: Task) -> None:
        """Note that the task was interrupted just now, and start the grace period."""
        if self._around is not None:
            self._around.cancel_requested(task)
        if self.cancelled_once or self._is_cancelled_inside(task):
            return
        self.cancelled_once = self._in_grace = True
        if self._grace != inf:
            state = task._state
            self._entry = state.add_deadline(state.loop.time() + self._grace, _end_grace, self)

    def _is_cancelled_inside(self, task: Task) -> bool:
        node: Any = task.scope
        while node is not None and node is not self._base:
            if node._called:
                return True
            node = node._parent
        return False


def _end_grace(edge: EdgeCancellation) -> None:
    edge._entry = None
    edge._in_grace = False
    task = edge._task
    assert task is not None
    if task.scope._effective:
        recheck(task)


def edge_cancellation(grace: float) -> EdgeCancellation:
    """Let asyncio library code clean up in its own way: ``with edge_cancellation(grace=5): ...``.

    In a cancelled scope every await raises. Many asyncio libraries (connection pools, database
    drivers) expect one ``CancelledError`` and then clean up with several awaits. Those awaits would
    be interrupted as well, and a connection would be left behind. Inside this block a scope outside
    of it cancels the task once. For ``grace`` seconds after that, awaits work. Then every await
    raises again.

    The block affects the task that enters it, not children of nurseries that are opened inside.
    Scopes that are opened inside the block cancel as always.

    Args:
        grace: how long cleanup may take, in seconds; ``math.inf`` for no limit.

    Returns:
        A context manager for one ``with`` block. Its attribute ``cancelled_once`` shows whether a
        cancellation was delivered.

    Raises:
        ValueError: ``grace`` is negative or NaN.

    Checkpoint: no, this is not an async function.
    """
    if isnan(grace) or grace < 0:
        raise ValueError(f"grace must be a number of seconds, not negative; got {grace!r}")
    return EdgeCancellation(float(grace))
