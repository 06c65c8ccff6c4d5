"""What a run waits for after its main task: cancelling it, and saying what it is.

Rule 1: what asyncio code has left running is cancelled once, and waited for, as by
``asyncio.run``.

Rule 2: a run that goes on waiting says so once, after ``SILENCE`` seconds of real time, whatever
clock the loop goes by. Nothing is polled: a timer thread wakes the loop. It is not started for
the few iterations of the loop in which most runs end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from .._asyncio import compat
from .._base.errors import RequestReason
from .driving import EXITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._asyncio.compat import Loop
    from .driving import Driver

LOGGER = logging.getLogger("nurseryio")

# How long (real seconds) a run waits for leftovers before it says so.
SILENCE = 3.0

# How many iterations of the loop most runs take to end after their main task.
TURNS = 20

# What a run waits for after its main task, in this order.
CHILDREN = "tasks"
OF_ASYNCIO = "tasks of asyncio code"
GENERATORS = "async generators to be closed"
THREADS = "threads of the loop's default executor"


class Leftovers:
    """What one run waits for after its main task.

    Attributes:
        phase: the kind of things that it waits for now.
        names: for each phase a function that names these things, as far as they are not tasks.
        over: it waits for nothing any more.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.phase: str = CHILDREN
        self.names: dict[str, Callable[[], list[str]]] = {
            CHILDREN: list,
            OF_ASYNCIO: list,
            GENERATORS: list,
            THREADS: partial(compat.executor_threads, loop),
        }
        self._timer: threading.Timer | None = None
        self.over: bool = False
        self._begun = False

    def describe(self) -> str:
        """What there is to wait for, in lines of text."""
        what = self.phase
        try:
            # Imported when it is needed. This may be in a signal handler, in the middle of itself.
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

    # -- saying so --------------------------------------------------------------

    def watch(self) -> None:
        """From now on the run waits: say so if that takes long. To be called on the loop."""
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
            self._timer.daemon = True
            self._timer.start()

    def _wake(self) -> None:
        """In the timer's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._say)

    def _say(self) -> None:
        if not self.over:
            LOGGER.warning("run() has waited for %g s, for %s", SILENCE, self.describe())

    def stop(self) -> None:
        """The run does not wait any more."""
        self.over = True
        if self._timer is not None:
            self._timer.cancel()
