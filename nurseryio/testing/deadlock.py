"""What happens when a clock that jumps finds nothing to jump to: every task waits, for ever.

What lives here: the judgement whether anything could still wake a task, the error, and the ways
to end the run. What does not: noticing that the loop is idle, which is the core's.

Rule 1: nothing is reported that might go on. File descriptors that are watched, threads that are
at work and threads that we know nothing of could all wake a task; then the loop just waits.

Rule 2: a report ends the run. If everything waits again after all was cancelled (in a shield,
say), all tasks are cancelled natively, which shields do not stop; if that does not help either,
the loop is left by raising through it.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from .._asyncio import compat
from .._base.thread_cache import idle_threads
from .._core.loop_state import PerLoop
from .._observe.task_tree import task_tree

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.loop_state import LoopState


class DeadlockError(RuntimeError):
    """Every task waits, and nothing can ever wake one of them.

    Raised by :func:`nurseryio.run`, or by the test under the pytest plugin, where the clock
    jumps by itself (:attr:`MockClock.autojump_threshold`): the clock would jump, but no timer is
    left, no I/O is watched and no thread is at work. The message shows all tasks and where each
    one waits.

    Without such a clock, and on loops that do not tell what they watch (uvloop), a deadlock is not
    noticed: the program hangs.
    """


class Reports:
    """How often a loop has been found stuck, and who wants to know. One per loop."""

    def __init__(self) -> None:
        self.count = 0
        # Gets the error in place of ``run``, the first time.
        self.handler: Callable[[DeadlockError], object] | None = None


reports_of: PerLoop[Reports] = PerLoop(lambda state: Reports())


def report_if_stuck(state: LoopState) -> None:
    """The loop is idle and has no timer: unless it can be woken from outside, end the run.

    Raises:
        DeadlockError: if everything else has failed.
    """
    if compat.outside_wakers(state.loop) or _threads_that_may_wake(state):
        return
    # Asked last: a thread hands its result over before it becomes idle.
    if compat.has_ready(state.loop):
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
    """The threads of the process but this one and those that only wait for work to do."""
    return (
        set(threading.enumerate())
        - {threading.current_thread()}
        - idle_threads()
        - compat.idle_executor_threads(state.loop)
    )
