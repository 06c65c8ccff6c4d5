"""``StepTimes``: for how long each task of a loop was in a step, measured from another thread.

While nobody measures, nothing is installed. A measurement installs an instrument on the loop, which
its thread has to do. Until it has, the loop is in one step, or it refuses instruments. Then this
thread looks again and again which task is running.

Looking alone would not do. A thread that looks gets its turn mostly when the loop lets go of the
GIL, which it does as it waits. So tasks with short steps would hardly ever be seen running.

Rule 1: a measurement ends by itself, and removes its instrument. It does not keep alive the tasks
that the instrument has seen.

Rule 2: no error of a measurement reaches the loop.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .._base.abcs import Instrument
from .._loop.step_hooks import add_instrument, remove_instrument
from .._observe.wait_parts import number_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._asyncio.compat import Loop
    from .._core.task import Task

# How often a thread looks which task is in a step (times a second), until the instrument sees it.
LOOKS_A_SECOND = 200


class Shares(NamedTuple):
    """What a measurement of one loop has found.

    Attributes:
        running: By the number of a task: the share of the time in which it was in a step.
        ended: The share of the time for steps of tasks that have ended.
        seen_for: The seconds for which a task without a step has waited at least.
    """

    running: dict[int, float]
    ended: float
    seen_for: float


class StepTimes(Instrument):
    """The seconds that tasks of one loop spend in steps.

    Args:
        loop: The event loop, of this or another thread.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._began = time.monotonic()
        self._looked = self._began
        self._installed: float | None = None
        self._closed = False
        self._times: dict[int, float] = {}
        self._ended = 0.0
        # The seconds in which looks have found a task running. A task may get its record, and with
        # it another number, after a look.
        self._seen: dict[Any, float] = {}
        # The task that is in a step, and since when.
        self._step: tuple[int, float] | None = None
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(self._install)

    def _install(self) -> None:
        if not self._closed:
            with suppress(Exception):  # this loop cannot have instruments
                add_instrument(self)
                self._installed = time.monotonic()

    def _remove(self) -> None:
        with suppress(Exception):  # it was removed because it raised
            remove_instrument(self)

    def before_task_step(self, task: Task) -> None:
        """Note the time."""
        self._step = (id(task), time.monotonic())

    def after_task_step(self, task: Task) -> None:
        """Add the time since then."""
        step, self._step = self._step, None
        if step is None or step[0] != id(task):  # the measurement began in this step
            return
        spent = self._times.get(step[0], 0.0) + time.monotonic() - step[1]
        if task.asyncio_task.done():
            self._times.pop(step[0], None)
            self._ended += spent
        else:
            self._times[step[0]] = spent

    def look(self) -> None:
        """Count the time since the look before for the task that is in a step now.

        A busy thread lets this one look less often, so the looks are not counted themselves.
        """
        now = time.monotonic()
        spent, self._looked = now - self._looked, now
        if self._installed is None:
            with suppress(RuntimeError):
                running = asyncio.current_task(self._loop)
                if running is not None:
                    self._seen[running] = self._seen.get(running, 0.0) + spent

    def close(self) -> Shares:
        """End the measurement, and return what it has found."""
        self._closed = True
        now = time.monotonic()
        times = self._times.copy()
        for running, spent in self._seen.items():
            times[number_of(running)] = times.get(number_of(running), 0.0) + spent
        step, installed = self._step, self._installed
        if step is not None:
            times[step[0]] = times.get(step[0], 0.0) + now - step[1]
        if installed is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._remove)
        # Looks account for the time up to the last one.
        length = max((self._looked if installed is None else now) - self._began, 1e-9)
        running = {number: min(each / length, 1.0) for number, each in times.items()}
        seen_for = 0.0 if installed is None else now - installed
        return Shares(running, self._ended / length, seen_for)


def measure(loops: Sequence[Loop], seconds: float) -> list[Shares]:
    """The shares of the tasks of some loops, for so many seconds from now on."""
    measured = [StepTimes(loop) for loop in loops]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(1 / LOOKS_A_SECOND)
        for each in measured:
            each.look()
    return [each.close() for each in measured]
