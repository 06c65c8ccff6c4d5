"""Deadlocks under a clock that jumps: every task waits, no timer is left, nothing can wake a task.

This module decides whether anything could still wake a task, and has the error and the ways to end
the run. ``_loop`` notices that the loop is idle.

Rule 1: a deadlock is reported only if it is certain. Watched file descriptors, busy threads and
threads of unknown purpose could all wake a task. If there are any, the loop just waits.

Rule 2: a report ends the run. All tasks may wait again after everything was cancelled, for example
in a shield. Then all tasks are cancelled natively, which shields do not stop. If that does not help
either, an error is raised through the loop.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from .._asyncio import loop_parts
from .._base.thread_cache import idle_threads
from .._core.loop_state import PerLoop
from .._observe.task_tree import task_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.loop_state import LoopState


class DeadlockError(RuntimeError):
    """Every task waits, and nothing can ever wake one of them.

    Raised by :func:`nurseryio.run`, or by the test under the pytest plugin, if the clock jumps by
    itself (:attr:`MockClock.autojump_threshold`). The clock would jump, but no timer is left,
    no I/O is watched and no thread is at work. The message shows all tasks and where each one
    waits.

    Without such a clock, a deadlock is not noticed, and the program hangs. The same is true on
    loops that do not show which I/O they watch (uvloop).
    """


class Reports:
    """The number of deadlocks found on a loop, and the handler of the first. One per loop."""

    def __init__(self) -> None:
        self.count = 0
        # If set, it gets the first error, instead of ``run``.
        self.handler: Callable[[DeadlockError], object] | None = None


reports_of: PerLoop[Reports] = PerLoop(lambda state: Reports())


def report_if_stuck(state: LoopState) -> None:
    """End the run unless the loop, which is idle and has no timer, can be woken from outside.

    Raises:
        DeadlockError: if all other ways to end the run have failed.
    """
    if loop_parts.outside_wakers(state.loop, state.selector) or _threads_that_may_wake(state):
        return
    # Checked last, because a thread delivers its result before it becomes idle.
    if state.ready:
        return
    error = DeadlockError(
        "deadlock: every task waits, and there is no timer, no I/O and no thread left that could "
        f"wake one\n{_tree()}"
    )
    reports = reports_of(state)
    reports.count += 1
    if reports.count == 1 and reports.handler is not None:
        reports.handler(error)
    elif reports.count == 1 and state.run is not None:
        state.run.fail(error)
    elif reports.count == 2:
        for task in asyncio.all_tasks(state.loop):
            task.cancel("every task waits, for ever")
    else:
        raise error


def _tree() -> str:
    try:
        return task_tree()
    except Exception as exc:
        return f"(the tasks cannot be shown: {type(exc).__name__})"


def _threads_that_may_wake(state: LoopState) -> set[threading.Thread]:
    """Return all threads except this one and those that only wait for work."""
    return (
        set(threading.enumerate())
        - {threading.current_thread()}
        - idle_threads()
        - loop_parts.idle_executor_threads(state.loop)
    )
