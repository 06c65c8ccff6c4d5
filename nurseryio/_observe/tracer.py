"""``Tracer``: an instrument that prints or logs a line for each step of a task and each wait.

This module has the text of the lines. ``_loop.step_hooks`` and other modules call the hooks.

Rule 1: hooks that are not to be shown are not implemented, in the sense of :mod:`instruments`. So
they cost the same as without a tracer.

Rule 2: durations are real time, from ``time.perf_counter``. They show where a program spends its
time, which a virtual clock would hide.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from .._base.abcs import Instrument
from .._base.instruments import HOOKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._core.task import Task


class Tracer(Instrument):
    """Prints or logs the events of a loop: each task's start, steps and end, and each wait.

    Give it to ``run(..., instruments=[Tracer()])``, or to ``lowlevel.add_instrument()`` on a loop
    that is running already. In both cases it sees every task of the loop. The hooks are described
    in :class:`~nurseryio.abc.Instrument`. Waits for input and output are seen on asyncio's own
    loops; uvloop does not show them.

    Args:
        output: A function that is called with each line, or a ``logging.Logger``, which gets the
            lines at level DEBUG (``Tracer(logger.info)`` chooses another). Default: ``print``.
        hooks: The names of the hooks to show, ``["task_spawned", "task_exited"]`` for example.
            Default: all of them.

    Raises:
        TypeError: ``output`` is neither a function nor a logger, or ``hooks`` is a string.
        ValueError: ``hooks`` has a name that is not the name of a hook.

    Trio: the ``Tracer`` that readers of Trio's tutorial type in.
    """

    def __init__(
        self,
        output: Callable[[str], object] | logging.Logger | None = None,
        *,
        hooks: Iterable[str] | None = None,
    ) -> None:
        if isinstance(output, logging.Logger):
            output = output.debug
        if output is None:
            output = print
        if not callable(output):
            raise TypeError(
                f"output must be a function that takes a line, or a logger, not {output!r}"
            )
        self._write: Callable[[str], object] = output
        self._io_wait_began = 0.0
        for hidden in _hidden(hooks):
            setattr(self, hidden, None)

    def __repr__(self) -> str:
        return f"<Tracer at {id(self):#x}, writing by {self._write!r}>"

    def before_run(self) -> None:
        """The run begins."""
        self._write("!!! run started")

    def after_run(self) -> None:
        """The run is over."""
        self._write("!!! run finished")

    def task_spawned(self, task: Task) -> None:
        """A task has been made."""
        self._write(f"### new task spawned: {task.name}")

    def task_scheduled(self, task: Task) -> None:
        """A task has become ready."""
        self._write(f"### task scheduled: {task.name}")

    def before_task_step(self, task: Task) -> None:
        """A task is about to run."""
        self._write(f">>> about to run one step of task: {task.name}")

    def after_task_step(self, task: Task) -> None:
        """A task has run, up to its next suspension or its end."""
        self._write(f"<<< task step finished: {task.name}")

    def task_exited(self, task: Task) -> None:
        """A task has ended."""
        self._write(f"### task exited: {task.name}")

    def before_io_wait(self, timeout: float) -> None:
        """The loop is about to wait for input and output."""
        if timeout:
            self._write(f"### waiting for I/O for up to {timeout} seconds")
        else:
            self._write("### doing a quick check for I/O")
        self._io_wait_began = time.perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        """The loop has waited."""
        duration = time.perf_counter() - self._io_wait_began
        self._write(f"### finished I/O check (took {duration} seconds)")


def _hidden(shown: Iterable[str] | None) -> set[str]:
    """The hooks that are not in ``shown``; none if it is None."""
    if shown is None:
        return set()
    if isinstance(shown, str):
        raise TypeError(f"hooks must be a list of names of hooks, not the string {shown!r}")
    names = set(shown)
    if unknown := names.difference(HOOKS):
        raise ValueError(
            f"no such hook: {', '.join(sorted(map(str, unknown)))}; "
            f"the hooks of an instrument are {', '.join(HOOKS)}"
        )
    return {*HOOKS} - names
