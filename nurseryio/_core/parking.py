"""The short way to sleep and to yield, for the primitives of this library.

What lives here: :func:`park`, which is ``wait_task_rescheduled`` for the one case that nearly all
primitives are (the task stands in a queue, and a cancelled task leaves it), and
:func:`let_others_run`, the yield at the end of an operation that has completed. Both are told the
task, which their callers know anyway, and save a good part of the work of the general way. What
is rare they leave to it.

Rule 1: all rules of ``traps`` hold here as well, above all that an operation which completed
keeps its result.

Rule 2: a task is in its queue exactly as long as it sleeps. Whoever wakes it takes it out of the
queue first, in the same step; a cancellation takes it out too, for which the queue stands in the
place of an abort function.

Rule 3: an operation begins with ``checkpoint_if_cancelled``. It may be skipped while
``task.scope._effective or task._look_closer`` is false: it would do nothing then.

Rule 4: letting others run while nobody is ready is a walk around the loop for nothing. Up to
``RESTED`` operations in a row do without it; so the loop hears of what it does not know of yet,
new data and timers that are due, in less than a millisecond.

Rule 5: ``Task._rested`` is ``RESTED`` only if the task has slept or yielded since its last
operation: everybody who was ready has had a turn. A channel's operation then owes them none, so
that of two in a row at least one lets others run. Locks and their kin do not go that far: there,
who comes first is what they are for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .delivery import Abort, watch
from .errors import Cancelled
from .host import BARE_YIELD, new_future
from .task import RESTED
from .traps import handed_over, hold_off, wait_task_rescheduled

if TYPE_CHECKING:
    from .task import Task

__all__ = ["leave", "let_others_run", "move", "park"]

Queue = dict[Any, Any]


def leave(queue: Queue, task: Task, _raise_cancel: object) -> Abort:
    """The abort function of a task in a queue, for the general way to sleep."""
    del queue[task]
    return Abort.SUCCEEDED


def move(task: Task, queue: Queue) -> None:
    """Tell of a sleeping task that it stands in another queue now, where the caller has put it."""
    task._abort = queue


async def park(task: Task, queue: Queue) -> Any:
    """Put the current task, which stands in ``queue``, to sleep until it is rescheduled.

    Args:
        task: The current task.
        queue: A dict with the task as a key.

    Returns:
        What the outcome given to ``reschedule`` holds.

    Raises:
        Cancelled: The task was cancelled; it has left the queue.
        Exception: Whatever error the outcome holds.

    Checkpoint: yes.
    """
    if task.scope._effective:
        return await wait_task_rescheduled(partial(leave, queue, task))
    task._abort = queue
    task._park = future = new_future(loop=task._state.loop)
    try:
        outcome = await future
    except Cancelled as error:
        outcome = None if task._refused is future else handed_over(task, future)
        if outcome is None:
            if task._abort is not None:
                del task._abort[task]  # a native cancel: the task is still in the queue
            raise
        hold_off(task, error)
    finally:
        task._park = task._abort = None
        task._rested = RESTED
        if task.scope._effective:
            watch(task)  # what it awaits next may be foreign
    if outcome is None:
        return None
    try:
        return outcome.unwrap()
    finally:
        del outcome, future  # an error holds this frame: no circle


async def let_others_run(task: Task) -> None:
    """Yield at the end of an operation that has completed: ``cancel_shielded_checkpoint``.

    Args:
        task: The current task.
    """
    rested = task._rested
    if rested and not task._state.ready:
        task._rested = rested - 1  # rule 4
        return
    task._rested = RESTED
    task._shielded_step = True
    try:
        await BARE_YIELD
    except Cancelled as error:
        hold_off(task, error)
    finally:
        task._shielded_step = False
