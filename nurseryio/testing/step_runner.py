"""Run async functions one after another as steps of one task, each called from plain code.

This module has :class:`StepRunner`, which the pytest plugin uses. pytest itself is in the modules
``pytest_plugin`` and ``pytest_task``, time limits of other tools are in ``time_limit``.

The reason: a nursery or cancel scope must be left in the task that entered it. A test framework may
call set-up, test and tear-down one by one, and run each in a separate task. That breaks every
fixture that yields inside a nursery. Here they are steps of one task, the main task of one run.
Between the steps the loop does not run. The same run can have further tasks that execute steps
(:meth:`StepRunner.branch`), for fixtures that do not end in the reverse order.

Rule 1: a step ends when its function does. Scopes that it has left open stay open for the next
steps, and a cancelled one among them cancels the next steps.

Rule 2: the wait between two steps cannot be cancelled, only the steps can.

Rule 3: native cancel requests on the task are taken back at the end of the step in which they
were made.

Rule 4: an error that leaves the loop during a step interrupts only that step, and is raised by it.
Scopes that earlier steps have left open can be closed as usual. A second such error in the same
step ends the run, and so does a second Ctrl-C.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._asyncio import compat
from .._base import Cancelled, Error, acapture, coroutine_or_error
from .._base.exception_groups import leaves
from .._base.util import call_each
from .._core import Abort, current_task, reschedule, wait_task_rescheduled
from .._core.cancel_ledger import native_requests
from .._nursery import CancelScope, open_nursery
from .._run.run import prepare
from .._sync import Event
from .deadlock import reports_of
from .time_limit import TimeLimit, draw_at_limit, ends_in_users_code

if TYPE_CHECKING:
    import asyncio
    import contextvars
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import NoReturn

    from .._base import CancelReason, Clock, Instrument, Outcome
    from .._core import Task
    from .._nursery import Nursery
    from .deadlock import DeadlockError

T = TypeVar("T")


# The error of a test framework that was called from async code.
LOOP_RUNS = (
    "async tests and fixtures need an event loop of their own, and one is running in this thread: "
    "start the tests in another thread or process, or await the functions that they test"
)

# The runs in which a step is running.
_driven: list[StepRunner] = []


def is_step_under_way() -> bool:
    """Return whether a step of any run is running, in any thread."""
    return bool(_driven)


def interrupt_step(error: BaseException) -> threading.Event | None:
    """Have ``error`` raised in the step that is running. It may be called in any thread.

    Returns:
        An event that is set when the loop has seen the request; None if no step is running.
    """
    try:
        return _driven[-1].interrupt_step(error)
    except (IndexError, RuntimeError):  # the step is over, or the loop is closed
        return None


class _Step:
    """One function to be run, and its outcome."""

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


class StepTask:
    """A task that executes the functions given to :meth:`do`. Made by :meth:`StepRunner.branch`.

    Args:
        home: the run to which it belongs.
        name: the name of the task.

    Attributes:
        task: the task, once it has begun.
        scope: the scope around all steps of a branch; None for the main task.
        begun: set when the task has begun.
        ended: set when the task of a branch is over.
        error: the error of a nursery or scope that was left open in the task of a branch.
        on_cancel: called on the loop with the cancellation if the task is cancelled between two
            steps.
    """

    def __init__(self, home: StepRunner, name: str) -> None:
        self._home = home
        self._name = name
        self._next: _Step | None = None
        self._closing = False
        self._is_waiting = False
        self.task: Task | None = None
        self.scope: CancelScope | None = None
        self.begun: Event = Event()
        self.ended: Event = Event()
        self.error: BaseException | None = None
        self.on_cancel: Callable[[Cancelled], object] | None = None

    def do(self, async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run one async function to its end.

        Args:
            async_fn: the function.
            args: its positional arguments.

        Returns:
            The result of the function.

        Raises:
            RuntimeError: from inside another step, and after the run has come to an end.
            DeadlockError: under a clock that jumps, if the function waits for ever.
            BaseException: any error of the function.
        """
        __tracebackhide__ = True
        self._home.refuse_second_step()
        self._next = step = _Step(async_fn, args, self._home.loop.create_future())
        outcome = self._home.drive(self, step)
        if isinstance(outcome, Error):
            try:
                raise outcome.error
            finally:
                # The traceback refers to this frame, so this frame must not refer to it.
                del outcome, step
        result: T = outcome.value
        return result

    async def serve(self) -> None:
        """Execute steps until :meth:`end` is called. This is the code of the task."""
        self.task = task = current_task()
        task.name = self._name
        self.begun.set()
        while True:
            step = await self._next_step(task)
            if step is None:
                return
            step.outcome = await acapture(coroutine_or_error, step.async_fn, *step.args)
            while native_requests(task) > 0:
                compat.uncancel(task.asyncio_task)
            step.finish()

    async def _next_step(self, task: Task) -> _Step | None:
        while self._next is None and not self._closing:
            self._is_waiting = True
            await wait_task_rescheduled(self._refuse)
        step, self._next = self._next, None
        return step

    async def live(self) -> None:
        """Execute the steps of a branch in a new nursery, and keep its error in ``error``."""
        try:
            async with open_nursery() as nursery:
                self.scope = nursery.cancel_scope
                nursery.start_soon(self.serve)
        except BaseException as exc:
            found = [leaf for leaf in leaves(exc) if not isinstance(leaf, Cancelled)]
            self.error = exc if found else None
        finally:
            self.begun.set()
            self.ended.set()

    def cancel(self, reason: CancelReason | None) -> None:
        """Cancel all steps of a branch from now on. It must be called on the loop."""
        if self.scope is not None:
            self.scope._cancel(reason)

    def _refuse(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        if self.on_cancel is not None:
            try:
                raise_cancel()
            except Cancelled as exc:
                self.on_cancel(exc)
        return Abort.FAILED

    def wake(self) -> None:
        """Wake the task, because there is a step or the end. It must be called on the loop."""
        if self._is_waiting and self.task is not None:
            self._is_waiting = False
            reschedule(self.task)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return self._home._state.loop

    def end(self) -> None:
        """Let the task end when the loop runs next; no more steps follow."""
        self._closing = True


class StepRunner(StepTask):
    """A run whose main task executes the functions given to :meth:`do`, until :meth:`close`.

    Args:
        clock: see :func:`nurseryio.run`.
        instruments: see there.
        loop_factory: see there.
        name: the name of the main task.
        context: the context of the main task; a copy of it where Python cannot run a task in a
            given context (3.10).
        restrict_keyboard_interrupt_to_checkpoints: see :func:`nurseryio.run`.
        strict_exception_groups: see there.

    Raises:
        RuntimeError: an event loop is running in this thread, or there is a clock and the loop
            cannot use it.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        instruments: Sequence[Instrument] = (),
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        name: str = "steps",
        context: contextvars.Context | None = None,
        restrict_keyboard_interrupt_to_checkpoints: bool = False,
        strict_exception_groups: bool | None = None,
    ) -> None:
        if compat.running_loop_or_none() is not None:
            # Before anything is made. In a web page the loop always runs, and would be disturbed.
            raise RuntimeError(LOOP_RUNS)
        super().__init__(self, name)
        # The step that do() waits for. It stays set if the step was interrupted before its end.
        self._step: _Step | None = None
        self._deadlock: DeadlockError | None = None
        # The exception that has left the loop during the step.
        self._left: BaseException | None = None
        self._executor: StepTask = self
        self._branches: AbstractAsyncContextManager[Nursery] | None = None
        self._run = prepare(
            clock,
            instruments,
            restrict_keyboard_interrupt_to_checkpoints,
            strict_exception_groups,
            loop_factory,
        )
        try:
            self._state = self._run.state
            self._run.main_context = context
            self._run.left_by = self._left_by
            self._limit = TimeLimit(self._run)
            reports_of(self._state).handler = self._on_deadlock
            self._run.start(self.serve, ())
        except BaseException:
            self._run.close()
            raise

    def refuse_second_step(self) -> None:
        """Raise ``RuntimeError`` if a step is running, or was interrupted before its end."""
        if self._step is not None:
            raise RuntimeError("another step is under way, or was interrupted before its end")

    def is_under_way(self) -> bool:
        """Return whether a step of this run is running, in any thread."""
        return self in _driven

    def drive(self, executor: StepTask, step: _Step) -> Outcome[Any]:
        """Run the loop until the step is done, and return its outcome.

        Args:
            executor: the task that executes it.
            step: the step.

        Raises:
            BaseException: the error that has interrupted the step.
        """
        __tracebackhide__ = True
        self._step, self._executor = step, executor
        run = self._run
        root = run.root_future
        assert root is not None
        if executor.task is not None:
            run.ctrl_c.main = executor.task
        _driven.append(self)
        try:
            run.take_signals()
            self._limit.take(executor.task)
            # Via the loop, so that the run's own hooks are in place before the step begins.
            self.loop.call_soon(executor.wake)
            root.add_done_callback(step.finish)
            run.drive(step.done)
            outcome, step.outcome = step.outcome, None
            if outcome is not None:
                self._step = None
            self._raise_from_outside(outcome)
        finally:
            call_each(
                partial(_driven.remove, self),
                self._limit.give_back,
                run.give_signals_back,
                partial(root.remove_done_callback, step.finish),
            )
        if outcome is None:
            run.result(None)
            raise RuntimeError("the run has come to an end")
        run.driver.forgive()
        return outcome

    def branch(self, name: str, context: contextvars.Context) -> StepTask:
        """Make one more task that executes steps, in addition to the main task.

        Args:
            name: the name of the task.
            context: the task runs in a copy of this context.

        Returns:
            The task, which must be closed by :meth:`close_branch`.
        """
        branch = StepTask(self, name)
        self.do(self._begin_branch, branch, context)
        return branch

    async def _begin_branch(self, branch: StepTask, context: contextvars.Context) -> None:
        if self._branches is None:
            # It stays open until close(), which leaves the block in another step of the same task.
            self._branches = open_nursery()
            self._nursery = await self._branches.__aenter__()
        context.run(self._nursery.start_soon, branch.live)
        with CancelScope(shield=True):
            await branch.begun.wait()

    def close_branch(self, branch: StepTask) -> None:
        """End a task that :meth:`branch` has made.

        Raises:
            BaseException: the error of a nursery or scope that was left open in the task.
        """
        self.do(self._end_branch, branch)
        if branch.error is not None:
            try:
                raise branch.error
            finally:
                branch.error = None

    async def _end_branch(self, branch: StepTask) -> None:
        branch.end()
        branch.wake()
        with CancelScope(shield=True):
            await branch.ended.wait()

    def close(self) -> None:
        """End the run and close its loop.

        Raises:
            TrioInternalError: if a system task or a ``run_sync_soon`` function failed.
        """
        run = self._run
        try:
            if self._branches is not None and self._step is None:
                self.do(self._branches.__aexit__, None, None, None)
        except BaseException as exc:
            run.exit(exc)
        self.end()
        try:
            run.take_signals()
            if self._step is None:
                self.loop.call_soon(self.wake)
                run.drive()
        except BaseException as exc:
            run.exit(exc)
        call_each(run.finish, run.close)
        if self._step is None:
            run.result(None)

    # -- interruptions of a step from outside -----------------------------------

    def _on_deadlock(self, error: DeadlockError) -> None:
        self._deadlock = error
        self._interrupt("every task waits, for ever")

    def _left_by(self, error: BaseException) -> None:
        again = self._run.ctrl_c.ever and isinstance(error, KeyboardInterrupt)
        if self._step is None or self._left is not None or again:
            self._run.exit(error)
        else:
            self._left = error
            self._interrupt(f"{type(error).__name__} has left the event loop")

    def interrupt_step(self, error: BaseException) -> threading.Event:
        """Have ``error`` raised in the step, see :func:`interrupt_step`."""
        step, done = self._step, threading.Event()
        draw_at_limit(self.loop)

        def interrupt() -> None:
            if self._step is step:
                self._limit.error = error
                self._run.ctrl_c.interrupt(None, error)
            done.set()

        self.loop.call_soon_threadsafe(interrupt)
        return done

    def _interrupt(self, why: str) -> None:
        task = self._executor.task
        if task is None:
            task = self._run.main_task
        if task is not None:
            task.asyncio_task.cancel(why)

    def _raise_from_outside(self, outcome: Outcome[Any] | None) -> None:
        __tracebackhide__ = True
        raised = outcome.error if isinstance(outcome, Error) else None
        ctrl_c = self._run.ctrl_c
        error: BaseException | None = None
        try:
            if self._deadlock is not None:
                error, self._deadlock = self._deadlock, None
                reports_of(self._state).count = 0
                if raised is not None:
                    # The error was not raised in the step. Show where the step was waiting.
                    error.__traceback__ = raised.__traceback__
                raise error
            if self._left is not None:
                error, self._left = self._left, None
                raise error
            if ctrl_c.pending:
                error = ctrl_c.take(raised)
                if error is not self._limit.error:
                    raise error from raised
                ends_in_users_code(error)
                raise error from None
            if self._run.final_error.exits:
                # This exit has left the loop, and the step was only cancelled because of it.
                raise self._run.final_error.exits.pop(0)
            if raised is not None and any(leaf is self._limit.error for leaf in leaves(raised)):
                assert self._limit.error is not None
                ends_in_users_code(self._limit.error)
        finally:
            # A traceback refers to this frame, so this frame must not refer to it.
            raised = outcome = error = None
