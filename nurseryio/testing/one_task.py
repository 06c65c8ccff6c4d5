"""Running async functions one after another in ONE task, each called from plain code.

What lives here: :class:`OneTask`, which the pytest plugin drives. What does not: anything about
pytest.

The reason: a nursery or cancel scope must be left in the task that entered it. A test framework
that calls set-up, test and tear-down one by one, and gives each a task of its own, breaks every
fixture that yields inside a nursery. Here they are steps of one task, the main task of one run.
Between the steps the loop stands still.

Rule 1: a step ends when its function does; what it has left open stays open for the next steps,
and a cancelled scope among it cancels them.

Rule 2: the wait between two steps cannot be cancelled, only the steps can.

Rule 3: no cancel request of asyncio's outlives the step that it struck.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._core import (
    Abort,
    Error,
    acapture,
    coroutine_or_error,
    current_task,
    host,
    reschedule,
    wait_task_rescheduled,
)
from .._core.run import prepare
from .._core.util import call_each
from .deadlock import reports_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence

    from .._core import Clock, Instrument, Outcome, Task
    from .deadlock import DeadlockError

T = TypeVar("T")


class _Step:
    """One function to be run, and what came of it."""

    def __init__(
        self,
        async_fn: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        done: asyncio.Future[None],
    ) -> None:
        self.async_fn = async_fn
        self.args = args
        self.done = done
        self.outcome: Outcome[Any] | None = None

    def finish(self, _future: object = None) -> None:
        if not self.done.done():
            self.done.set_result(None)


class OneTask:
    """A run whose main task executes what :meth:`do` gives it, until :meth:`close`.

    Args:
        clock: see :func:`nurseryio.run`.
        instruments: see there.
        loop_factory: see there.
        name: what the main task is called.

    Raises:
        RuntimeError: if there is a clock and the loop cannot go by it.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        instruments: Sequence[Instrument] = (),
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        name: str = "steps",
    ) -> None:
        self._name = name
        # The step that do() waits for; it stays here if the loop was left in the middle of it.
        self._step: _Step | None = None
        self._next: _Step | None = None
        self._closing = False
        # Set while the main task waits for a step.
        self._waiting: Task | None = None
        self._deadlock: DeadlockError | None = None
        self._run = prepare(clock, instruments, False, None, loop_factory)
        try:
            self._state = self._run.state
            reports_of(self._state).handler = self._on_deadlock
            self._run.start(self._main, ())
        except BaseException:
            self._run.close()
            raise

    def do(self, async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run one async function to its end.

        Args:
            async_fn: the function.
            args: its positional arguments.

        Returns:
            What it returns.

        Raises:
            RuntimeError: from inside another step, and after the run has come to an end.
            DeadlockError: under a clock that jumps, if the function waits for ever.
            BaseException: whatever the function raises.
        """
        __tracebackhide__ = True
        if self._step is not None:
            raise RuntimeError("another step is under way, or was interrupted before its end")
        step = self._step = self._next = _Step(async_fn, args, self._state.loop.create_future())
        run = self._run
        root = run.root_future
        assert root is not None
        try:
            run.take_signals()
            # Through the loop, so that the run's own hooks are in place before the step begins.
            self._state.loop.call_soon(self._wake)
            root.add_done_callback(step.finish)
            run.drive(step.done)
        finally:
            call_each(run.give_signals_back, partial(root.remove_done_callback, step.finish))
        outcome, step.outcome = step.outcome, None
        if outcome is None:
            run.result(None)
            raise RuntimeError("the run has come to an end")
        self._step = None
        self._raise_from_outside(outcome)
        if isinstance(outcome, Error):
            try:
                raise outcome.error
            finally:
                # The traceback leads here: nothing here may lead to it.
                del outcome, step
        result: T = outcome.value
        return result

    def close(self) -> None:
        """End the run and close its loop.

        Raises:
            TrioInternalError: if a system task or a ``run_sync_soon`` function failed.
        """
        self._closing = True
        run = self._run
        try:
            run.take_signals()
            if self._step is None:
                self._wake()
                run.drive()
        except BaseException as exc:
            run.exit(exc)
        call_each(run.finish, run.close)
        if self._step is None:
            run.result(None)

    # -- the main task ----------------------------------------------------------

    async def _main(self) -> None:
        current_task().name = self._name
        while True:
            step = await self._next_step()
            if step is None:
                return
            step.outcome = await acapture(coroutine_or_error, step.async_fn, *step.args)
            self._forget_cancel_requests()
            step.finish()

    async def _next_step(self) -> _Step | None:
        while self._next is None and not self._closing:
            self._waiting = self._run.main_task
            await wait_task_rescheduled(lambda _raise_cancel: Abort.FAILED)
        step, self._next = self._next, None
        return step

    def _wake(self) -> None:
        if self._waiting is not None:
            task, self._waiting = self._waiting, None
            reschedule(task)

    def _forget_cancel_requests(self) -> None:
        task = self._run.main_task
        assert task is not None
        while host.cancelling(task.asyncio_task) > task._held:
            host.uncancel(task.asyncio_task)

    # -- what strikes a step from outside ---------------------------------------

    def _on_deadlock(self, error: DeadlockError) -> None:
        self._deadlock = error
        assert self._run.main_task is not None
        self._run.main_task.asyncio_task.cancel("every task waits, for ever")

    def _raise_from_outside(self, outcome: Outcome[Any]) -> None:
        __tracebackhide__ = True
        if self._deadlock is not None:
            error, self._deadlock = self._deadlock, None
            reports_of(self._state).count = 0
            # It was raised nowhere; the place that matters is where the step was waiting.
            if isinstance(outcome, Error):
                error = error.with_traceback(outcome.error.__traceback__)
            raise error
        if self._run.verdict.exits:
            # It has left the loop, and the step was only cancelled because of it.
            raise self._run.verdict.exits.pop(0)
        presses = self._run.presses
        if presses.pending:
            raised = outcome.error if isinstance(outcome, Error) else None
            raise presses.take(raised) from raised
