"""The wait after a run's main task: asyncio's tasks are cancelled, and a long wait is logged.

Rule 1: tasks that asyncio code has left running are cancelled once, and waited for, as by
``asyncio.run``.

Rule 2: a run that is still waiting after ``SILENCE`` seconds of real time logs that once. The
loop's clock makes no difference. Nothing is polled: a timer thread wakes the loop. The thread is
not started for the few iterations of the loop in which most runs end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from .._asyncio import loop_parts
from .._asyncio.interpreter import DAEMONS
from .._base.errors import RequestReason
from .driving import EXITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._asyncio.compat import Loop
    from .driving import Driver

LOGGER = logging.getLogger("nurseryio")

# How long (real seconds) a run waits for leftovers before it logs that.
SILENCE = 3.0

# How many iterations of the loop most runs take to end after their main task.
TURNS = 20

# The phases of the wait after the main task, in this order.
CHILDREN = "tasks"
OF_ASYNCIO = "tasks of asyncio code"
GENERATORS = "async generators to be closed"
THREADS = "threads of the loop's default executor"


class Leftovers:
    """The tasks, generators and threads that one run waits for after its main task.

    Attributes:
        phase: the kind of things that the run waits for now.
        names: for each phase a function that names these things, except tasks.
        over: the run does not wait any more.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.phase: str = CHILDREN
        self.names: dict[str, Callable[[], list[str]]] = {
            CHILDREN: list,
            OF_ASYNCIO: list,
            GENERATORS: list,
            THREADS: partial(loop_parts.executor_threads, loop),
        }
        self._timer: threading.Timer | None = None
        self.over: bool = False
        self._begun = False

    def describe(self) -> str:
        """The things that the run waits for, as lines of text."""
        what = self.phase
        try:
            # Imported only when needed. This method may run in a signal handler, even while another
            # call of it is still running.
            from .._observe.task_tree import draw_tasks

            tree = draw_tasks(self._loop)
        except Exception as exc:
            tree = f"(the tasks cannot be shown: {type(exc).__name__})"
        return "\n".join(filter(None, [f"{what}:", *self.names[what](), tree]))

    def cancel_tasks(self, driver: Driver) -> None:
        """Cancel the tasks that asyncio code has left, and wait for them."""
        loop = self._loop
        self.phase = OF_ASYNCIO
        left = [] if driver.given_up else asyncio.all_tasks(loop)
        if not left:
            return
        for task in left:
            task.cancel(RequestReason("shutdown"))
        driver.until(asyncio.gather(*left, return_exceptions=True))
        for task in left:
            if not task.done() or task.cancelled():
                continue
            error = task.exception()
            if error is not None and not isinstance(error, EXITS):
                loop.call_exception_handler(
                    {
                        "message": "unhandled exception during run() shutdown",
                        "exception": error,
                        "task": task,
                    }
                )

    # -- logging a long wait ----------------------------------------------------

    def watch(self) -> None:
        """Log a warning if the wait, which begins now, takes long. To be called on the loop."""
        if not self._begun:
            self._begun = True
            self._turn(TURNS)

    def _turn(self, left: int) -> None:
        if self.over:
            return
        if left:
            self._loop.call_soon(self._turn, left - 1)
        else:
            self._timer = threading.Timer(SILENCE, self._wake)
            self._timer.daemon = DAEMONS
            self._timer.start()

    def _wake(self) -> None:
        """Schedule the warning on the loop. Called in the timer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._say)

    def _say(self) -> None:
        if not self.over:
            LOGGER.warning("run() has waited for %g s, for %s", SILENCE, self.describe())

    def stop(self) -> None:
        """End the watch, because the run does not wait any more."""
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
