"""Edge cancellation: asyncio libraries see one cancellation, then have time to clean up.

This module has :func:`edge_cancellation`. Delivery itself is in ``delivery``, which asks the block
whether it ``protects`` the task now, and calls its ``cancel_requested`` after ``Task.cancel``.

Rule 1: the block changes when its own task is interrupted because of scopes around it. Scopes
inside it, shields, native cancels and other tasks work as everywhere.

Rule 2: the first cancellation is raised as usual and starts the grace period. Until that ends no
further one is raised; then cancellation is level-triggered again. The grace period is one deadline,
so no task polls a clock.
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
    """What :func:`edge_cancellation` returns: a context manager, for one ``with`` block.

    Attributes:
        cancelled_once: whether a cancellation from outside has struck inside the block.
    """

    __slots__ = ("_around", "_base", "_entry", "_grace", "_in_grace", "_task", "cancelled_once")

    cancelled_once: bool

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self.cancelled_once = self._in_grace = False
        # The task, its innermost scope outside the block, and the island around this one.
        self._task: Task | None = None
        self._base: Any = None
        self._around: Any = None
        # The end of the grace period, among the loop's deadlines.
        self._entry: Any = None

    def __repr__(self) -> str:
        state = "in its grace period" if self._in_grace else "struck once"
        if not self.cancelled_once:
            state = "not entered" if self._task is None else "not struck"
        return f"<EdgeCancellation at {id(self):#x}, {state}, grace {self._grace:g} s>"

    def __enter__(self) -> EdgeCancellation:
        if self._task is not None:
            raise RuntimeError("each edge island is for a single 'with' block: make a new one")
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
                f"an edge island must be left in the task that entered it, innermost first: "
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
        """Whether the cancellation that is in force is to be kept out now."""
        return self._in_grace and not self._is_cancelled_inside(task)

    def cancel_requested(self, task: Task) -> None:
        """The task has just been interrupted."""
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


def _end_grace(island: EdgeCancellation) -> None:
    island._entry = None
    island._in_grace = False
    task = island._task
    assert task is not None
    if task.scope._effective:
        recheck(task)


def edge_cancellation(grace: float) -> EdgeCancellation:
    """Let asyncio library code clean up in its own way: ``with edge_cancellation(grace=5): ...``.

    In a cancelled scope every await raises. Many asyncio libraries (connection pools, database
    drivers) expect one ``CancelledError`` and then clean up with several awaits, which would be
    interrupted as well, and leave a connection behind. Inside this block cancellation by a scope
    outside of it strikes once; for ``grace`` seconds after that awaits work, and then cancellation
    is in force again.

    It is about the task that enters it, not about children of nurseries opened inside. Scopes
    opened inside the block cancel as always.

    Args:
        grace: how long cleanup may take, in seconds; ``math.inf`` for as long as it likes.

    Returns:
        A context manager for one ``with`` block; its attribute ``cancelled_once`` tells whether a
        cancellation came.

    Raises:
        ValueError: ``grace`` is negative or NaN.

    Checkpoint: no, this is not an async function.
    """
    if isnan(grace) or grace < 0:
        raise ValueError(f"grace must be a number of seconds, not negative; got {grace!r}")
    return EdgeCancellation(float(grace))
