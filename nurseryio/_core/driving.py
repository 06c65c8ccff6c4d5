"""Driving a loop until something is done, whatever leaves the loop meanwhile.

asyncio lets ``SystemExit`` and ``KeyboardInterrupt`` out of a task's step or a callback pass
through the loop: ``run_until_complete`` raises, with all tasks as they were. The loop is sound
after that and can be run again, so that tasks may clean up.

Rule 1: an error that leaves the loop is reported to ``run``, and the loop is run again.

Rule 2: that has an end. The driver gives up when ``run`` says so, when the loop is closed, when a
second error shows that the loop cannot run, and when exits follow one another in vain.

Rule 3: what the driver waits for is done at the latest when the task that was made for it ends,
also if the loop's task factory has done something else with its coroutine.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from .host import add_note

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from . import host

# The exceptions that asyncio lets pass through a loop: they are to end the program.
EXITS = (SystemExit, KeyboardInterrupt)

# An exit is in vain if no task has ended since the one before. The driver gives up after so many
# in a row, or after one that comes so late (real seconds).
EXITS_IN_VAIN = 100
LATE = 1.0


class Driver:
    """Runs one loop, as often as that takes.

    Args:
        loop: the loop, not running.
        begin: called on the loop whenever it begins to run.
        stopped: called whenever the loop has stopped.
        left_by: called with each error that leaves the loop.

    Attributes:
        given_up: the loop is not run any more.
    """

    def __init__(
        self,
        loop: host.Loop,
        begin: Callable[[], object],
        stopped: Callable[[], object],
        left_by: Callable[[BaseException], object],
    ) -> None:
        self._loop = loop
        self._begin = begin
        self._stopped = stopped
        self._left_by = left_by
        self.given_up = False
        # The last error that was no exit, and the exits: how many tasks were alive then, when it
        # was, and how many of them in a row were in vain.
        self._broken = False
        self._alive = 0
        self._when = 0.0
        self._in_vain = 0
        # asyncio itself holds tasks weakly.
        self._strong: dict[Any, None] = {}

    def until(self, future: asyncio.Future[Any]) -> None:
        """Run the loop until a future, which must not fail, is done; or until giving up."""
        while not (future.done() or self.given_up):
            try:
                self._loop.call_soon(self._begin)
                self._loop.run_until_complete(future)
            except BaseException as exc:
                self._judge(exc)
                self._left_by(exc)
            finally:
                self._stopped()

    def _judge(self, exc: BaseException) -> None:
        """Decide whether the loop may be run again."""
        if self._loop.is_closed():
            self.given_up = True
        elif not isinstance(exc, EXITS):
            self.given_up = self.given_up or self._broken
            self._broken = True
        else:
            alive, now = len(asyncio.all_tasks(self._loop)), time.monotonic()
            if self._when and alive >= self._alive:
                self._in_vain += 1
                if self._in_vain >= EXITS_IN_VAIN or now - self._when > LATE:
                    self.given_up = True
            else:
                self._in_vain = 0
            self._alive, self._when = alive, now

    def spawn(
        self,
        async_fn: Callable[[], Awaitable[object]],
        name: str,
        failed: Callable[[BaseException], object],
    ) -> asyncio.Future[None]:
        """Make a task once the loop runs, so that instruments are called on a running loop only.

        Args:
            async_fn: what the task runs.
            name: its name.
            failed: called with an error of the function, or with the reason why it did not run.

        Returns:
            A future that is done when the task has ended, or could not be made. It never fails.
        """
        loop = self._loop
        ended = loop.create_future()
        finished = False

        async def runner() -> None:
            nonlocal finished
            try:
                await async_fn()
            except GeneratorExit:
                raise
            except BaseException as exc:
                failed(exc)
            finished = True

        def begin() -> None:
            coro = runner()
            try:
                task = loop.create_task(coro, name=name)
                if not hasattr(task, "get_coro"):
                    raise TypeError(f"a task factory must return a task, not {task!r}")
                self._strong[task] = None
                task.add_done_callback(end)
            except BaseException as exc:
                factory = loop.get_task_factory()
                if factory is not None:
                    add_note(exc, "nurseryio.run: its own task could not be made by the loop")
                failed(exc)
                _close(coro)
                ended.set_result(None)

        def end(task: asyncio.Task[Any]) -> None:
            self._strong.pop(task, None)
            if not finished:
                failed(_without_end(task, name))
            ended.set_result(None)

        loop.call_soon(begin)
        return ended


def _close(coro: Any) -> None:
    try:
        coro.close()
    except (RuntimeError, ValueError):
        pass  # somebody is executing it


def _without_end(task: asyncio.Task[Any], name: str) -> BaseException:
    """The error for a task that has ended while its coroutine has not."""
    error = RuntimeError(
        f"the task {name!r} of run() has ended, but its coroutine has not: the task factory of "
        "the loop must return a task that runs the coroutine that it was given"
    )
    if not task.cancelled():
        error.__cause__ = task.exception()
    return error
