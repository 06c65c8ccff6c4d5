"""Driving an event loop until a future is done, even if ``SystemExit`` leaves the loop.

asyncio lets ``SystemExit`` and ``KeyboardInterrupt`` of a task's step or of a callback pass through
the loop. ``run_until_complete`` raises them, and all tasks stay as they were. The loop is sound
after that. It can be run again, so that the tasks can clean up.

Rule 1: an error that leaves the loop is reported to ``run``, and the loop is run again.

Rule 2: the number of attempts is limited. The driver gives up in four cases: ``run`` says so; the
loop is closed; a second error shows that the loop cannot run; many exits follow one another, and no
task ends in between.

Rule 3: the driver waits for a future that it made together with a task. The future is done at the
latest when that task ends, also if the loop's task factory did not run the given coroutine.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from .._asyncio.compat import TaskMaking, give_up, has_begun, has_task_factory, make_task
from .._base.exc_fields import add_note
from .._base.util import safe_repr
from .._core.ki import runs_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._asyncio import compat

# The exceptions that asyncio lets pass through a loop, because they are meant to end the program.
EXITS = (SystemExit, KeyboardInterrupt)

# An exit is in vain if no task has ended since the previous exit. The driver gives up after this
# many exits in vain in a row, or after one that comes more than LATE real seconds after the
# previous exit.
EXITS_IN_VAIN = 100
LATE = 1.0

# Part of the text of the RuntimeError that run_until_complete() raises after loop.stop().
STOPPED = "stopped before Future completed"


class Driver:
    """Runs one loop until a future is done, as many times as necessary.

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
        loop: compat.Loop,
        begin: Callable[[], object],
        stopped: Callable[[], object],
        left_by: Callable[[BaseException], object],
    ) -> None:
        self._loop = loop
        self._begin = begin
        self._stopped = stopped
        self._left_by = left_by
        self.given_up: bool = False
        # The error that throw() was called with.
        self._thrown: BaseException | None = None
        # Whether an error other than an exit has left the loop. Then, for the last exit: the number
        # of tasks that were alive, and the time (real seconds). Then the number of exits in vain in
        # a row.
        self._broken = False
        self._alive = 0
        self._when = 0.0
        self._in_vain = 0
        # Tasks that spawn() made, and their coroutines. asyncio itself only has weak references.
        self._strong: dict[Any, Any] = {}

    @runs_loop
    def until(self, future: asyncio.Future[Any]) -> None:
        """Run the loop until a future, which must not fail, is done; or until giving up."""
        loop = self._loop
        stopping = False
        left: BaseException | None = None
        while not ((future.done() and not stopping) or self.given_up):
            try:
                try:
                    loop.call_soon(self._begin)
                    if future.done():
                        self._settle()
                    else:
                        loop.run_until_complete(future)
                    stopping = False
                finally:
                    self._stopped()
                if self._thrown is not None:
                    raise self._thrown
            except BaseException as exc:
                left, stopping = exc, True
            try:
                # Not in the except block: the error must not become the context of other errors.
                if left is not None:
                    self._report(left)
            finally:
                left = None
        if self.given_up:
            self._let_go()

    def _let_go(self) -> None:
        """Give up the driver's own tasks, without asyncio's warnings about unfinished tasks."""
        tasks, self._strong = self._strong, {}
        for task, coro in tasks.items():
            give_up(task)
            if not has_begun(task):
                _close(coro)
                _close(task.get_coro())  # another one if a task factory has wrapped it

    def _settle(self) -> None:
        """Run a callback of asyncio that would stop the loop too early.

        An error left the loop when the future was done already. The callback of the future that
        stops the loop is still scheduled. It must not stop the next run of the loop.
        """
        loop = self._loop
        last = loop.create_future()
        # uvloop takes two iterations to stop.
        loop.call_soon(loop.call_soon, loop.call_soon, last.set_result, None)
        try:
            loop.run_until_complete(last)
        except RuntimeError as exc:
            if STOPPED not in str(exc):
                raise

    def forgive(self) -> None:
        """Forget the errors that left the loop, because the loop has run well since then."""
        self._broken, self._when, self._in_vain = False, 0.0, 0

    def throw(self, error: BaseException) -> None:
        """Stop the loop and report ``error``, which a callback could not raise out of the loop."""
        if self._thrown is None:
            self._thrown = error
        self._loop.stop()

    def _report(self, exc: BaseException) -> None:
        """Report an error that has left the loop, or the error for which ``throw`` stopped it."""
        thrown, self._thrown = self._thrown, None
        exc = exc if thrown is None else thrown
        try:
            self._judge(exc)
        finally:
            self._left_by(exc)

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
    ) -> asyncio.Future[Any]:
        """Make a task once the loop runs, so that instruments are called on a running loop only.

        Args:
            async_fn: the function for the task to run.
            name: the task's name.
            failed: called with an error of the function, or with the reason why it did not run.

        Returns:
            A future that is done when the task has ended, or could not be made. The future never
            fails. Its result has no meaning.
        """
        loop = self._loop
        ended = loop.create_future()
        finished = False
        task: Any = None
        coro: Any = None

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
            nonlocal coro, task
            try:
                coro = runner()
                task = make_task(TaskMaking(loop), coro, name, None)
                if not hasattr(task, "get_coro"):
                    raise TypeError(f"a task factory must return a task, not {safe_repr(task)}")
                self._strong[task] = coro
                task.add_done_callback(end)
                # A second callback, so that it is called even if the first one raises.
                task.add_done_callback(ended.set_result)
            except BaseException as exc:
                if not ended.done():
                    ended.set_result(None)
                if has_task_factory(loop):
                    add_note(exc, "nurseryio.run: its own task could not be made by the loop")
                failed(exc)
                if task is not None:
                    task.cancel()
                else:
                    _close(coro)

        def end(task: asyncio.Task[Any]) -> None:
            self._strong.pop(task, None)
            if not finished:
                failed(_without_end(task, name))

        loop.call_soon(begin)
        return ended


def _close(coro: Any) -> None:
    if coro is None:
        return
    try:
        coro.close()
    except (RuntimeError, ValueError):
        pass  # the coroutine is running


def _without_end(task: asyncio.Task[Any], name: str) -> BaseException:
    """The error for a task that ended before its coroutine did."""
    error = RuntimeError(
        f"the task {name!r} of run() has ended, but its coroutine has not: the task factory of "
        "the loop must return a task that runs the coroutine that it was given"
    )
    if not task.cancelled():
        error.__cause__ = task.exception()
    return error
