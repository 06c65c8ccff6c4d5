"""Statistics of the loop, and whether the caller is in a run or in a task."""

from __future__ import annotations

from .._asyncio import compat
from .._base.util import Frozen
from .._core.task import current_state
from .token import token_of


def in_trio_run() -> bool:
    """Whether this thread runs an event loop, so that this library can be used.

    Checkpoint: no.

    Trio: ``trio.lowlevel.in_trio_run``.
    """
    try:
        compat.running_loop()
    except RuntimeError:
        return False
    return True


def in_trio_task() -> bool:
    """Whether the caller is inside a task, so that ``current_task()`` would work.

    Checkpoint: no.

    Trio: ``trio.lowlevel.in_trio_task``.
    """
    return compat.current_task_or_none() is not None


class IOStatistics(Frozen):
    """How the loop waits for I/O.

    Attributes:
        backend: the class of the event loop.
    """

    __slots__ = ("backend",)

    backend: str


class RunStatistics(Frozen):
    """Numbers about a running loop, for debugging.

    Attributes:
        tasks_living: the number of asyncio tasks that have not ended.
        tasks_runnable: the number of those that wait for nothing but their next step.
        seconds_to_next_deadline: time until the earliest deadline of a scope or sleep; negative
            if it has passed, ``inf`` if there is none.
        io_statistics: see :class:`IOStatistics`.
        run_sync_soon_queue_size: the number of functions passed to ``run_sync_soon`` that have
            not been called yet.

    Trio: ``trio.lowlevel.RunStatistics``.
    """

    __slots__ = (
        "tasks_living",
        "tasks_runnable",
        "seconds_to_next_deadline",
        "io_statistics",
        "run_sync_soon_queue_size",
    )

    tasks_living: int
    tasks_runnable: int
    seconds_to_next_deadline: float
    io_statistics: IOStatistics
    run_sync_soon_queue_size: int


def current_statistics() -> RunStatistics:
    """Return numbers about the running loop.

    The call looks at every task, so do not make it often.

    Returns:
        A :class:`RunStatistics`.

    Raises:
        RuntimeError: where no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.current_statistics``.
    """
    state = current_state()
    living, runnable = compat.count_tasks(state.loop)
    return RunStatistics(
        tasks_living=living,
        tasks_runnable=runnable,
        seconds_to_next_deadline=state.deadlines.next() - state.loop.time(),
        io_statistics=IOStatistics(backend=type(state.loop).__name__),
        run_sync_soon_queue_size=token_of(state)._size(),
    )
