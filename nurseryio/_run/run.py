"""``run``: makes an event loop for one async function. A convenience that nothing else depends on.

Rule 1: the root of a run is one asyncio task. It has the system nursery open, and inside that the
nursery of the main task. Everything else in this library works in the same way without ``run``.

Rule 2: a run ends in this order: main task; system tasks (cancelled); unfinished async generators;
tasks that asyncio code left behind (cancelled); the executor and the loop.

Rule 3: the error of the main task leaves unchanged, with one exception. A group around a lone
``SystemExit`` or ``KeyboardInterrupt`` is removed, so that exit codes survive. With
``strict_exception_groups=True`` such a group is kept.

Rule 4: if asyncio code (a task, a callback, a signal handler) raises ``SystemExit`` or
``KeyboardInterrupt``, everything is cancelled. Once all tasks have ended, the first of these errors
leaves ``run``. If the main task has failed too, its error is the context of that one.

Rule 5: a forked child that returns into the run of its parent leaves that run at once. Nothing is
cancelled, and the loop is neither run nor closed.

Rule 6: the loop is closed and the signal handlers are restored, whatever fails in this module. Each
step of the end is made even if another one failed. If their caller failed, all steps of closing are
made again.
"""

from __future__ import annotations

import asyncio
import contextvars
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._asyncio import browser, compat
from .._asyncio.closing import closing_of
from .._asyncio.epoll import renew_epoll
from .._asyncio.loop_parts import behind
from .._base.errors import Cancelled, CancelReason
from .._base.exc_fields import is_a, without_own_frame
from .._base.exception_groups import bare_exit, is_cancelled, leaves, warn_loose
from .._base.forked import in_child
from .._base.outcome import Error, Outcome, Value
from .._base.util import call_each, coroutine_or_error, safe_repr
from .._core.ki import KIHandler, disable_ki_protection, user_code_boundary
from .._core.loop_state import LoopState, all_states, fire, loop_state, sweep_closed_loops
from .._core.task import Task, current_task, records
from .._loop import step_hooks
from .._loop.readiness import let_go
from .._loop.selector_idle import use_clock
from .._nursery.nursery import Nursery, open_nursery
from .asyncgens import AsyncGenerators
from .ctrl_c import CtrlC
from .driving import EXITS, Driver
from .final_error import FinalError
from .leftovers import GENERATORS, THREADS, Leftovers
from .page_run import inside_run, run_in_page
from .token import LoopToken, token_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import TypeVarTuple, Unpack

    from .._base.abcs import Clock, Instrument

    PosArgsT = TypeVarTuple("PosArgsT")

RetT = TypeVar("RetT")


def run(
    async_fn: Callable[[Unpack[PosArgsT]], Awaitable[RetT]],
    *args: Unpack[PosArgsT],
    clock: Clock | None = None,
    instruments: Sequence[Instrument] = (),
    restrict_keyboard_interrupt_to_checkpoints: bool = False,
    strict_exception_groups: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> RetT:
    """Make an event loop, run ``await async_fn(*args)`` on it, and close it.

    Args:
        async_fn: an async function.
        args: its positional arguments.
        clock: the clock for the loop and all of its timers, for example a ``testing.MockClock``;
            works on any loop. Default: the loop's own monotonic clock.
        instruments: instruments that are installed before anything else happens.
        restrict_keyboard_interrupt_to_checkpoints: make Ctrl-C raise ``KeyboardInterrupt`` in the
            main task at a checkpoint, instead of anywhere in user code.
        strict_exception_groups: False lets nurseries raise a single error bare (deprecated).
            True keeps a group around a lone ``SystemExit`` or ``KeyboardInterrupt`` too.
        loop_factory: makes the event loop, ``uvloop.new_event_loop`` for example.

    Returns:
        The result of ``async_fn``.

    Raises:
        RuntimeError: an event loop is running in this thread already; await the function there.
            In a web page: only if the engine cannot switch stacks, see the page "In the browser".
        NotImplementedError: in a web page: ``clock``, ``loop_factory`` and options about Ctrl-C and
            groups need a loop of the run's own.
        TypeError: ``async_fn`` is not an async function.
        KeyboardInterrupt: Ctrl-C was pressed and nothing else was raised because of it. A note of
            the error shows the tasks of that moment.
        SystemExit: it was raised in ``async_fn``, or in any code on the loop. In the second case
            everything was cancelled, and an error of ``async_fn`` is the context of this one.
        TrioInternalError: a system task or a ``run_sync_soon`` function failed.
        BaseException: any error that ``async_fn`` or the loop's task factory raises.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.run``, with ``loop_factory`` of ``asyncio.Runner``.
    """
    page = browser.page_loop()
    if page is not None:
        in_page: RetT = run_in_page(
            page,
            async_fn,
            args,
            instruments,
            clock=clock is not None,
            restrict_keyboard_interrupt_to_checkpoints=restrict_keyboard_interrupt_to_checkpoints,
            strict_exception_groups=strict_exception_groups is False,
            loop_factory=loop_factory is not None,
        )
        return in_page
    _refuse_running_loop()
    if strict_exception_groups is not None and not strict_exception_groups:
        warn_loose("run", stacklevel=3)
    runner = prepare(
        clock,
        instruments,
        restrict_keyboard_interrupt_to_checkpoints,
        strict_exception_groups,
        loop_factory,
    )
    # An error of this function, or of a function that it calls, is one more error of the run. The
    # loop is closed and the signal handlers are restored even if the first attempt fails.
    try:
        try:
            runner.take_signals()
            runner.make_current()
            runner.start(async_fn, args)
            runner.drive()
        except BaseException as exc:
            runner.exit(exc)
            runner.drive()  # everything has been cancelled
        call_each(runner.finish, runner.close)
    except BaseException as exc:
        runner.exit(exc)
        runner.close()
    result: RetT = runner.result(strict_exception_groups)
    return result


def prepare(
    clock: Clock | None,
    instruments: Sequence[Instrument],
    ki_at_checkpoints: bool,
    strict: bool | None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> Run:
    """Make the loop of a run. Arguments and errors: see :func:`run`. The caller closes the run."""
    loop = _new_loop(loop_factory)
    try:
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop_factory must return an event loop, not {safe_repr(loop)}")
        loop = behind(loop)
        state = loop_state(loop)
        state.strict = strict
        runner = Run(state, ki_at_checkpoints)
        runner.first_instruments = tuple(instruments)
        if clock is not None:
            use_clock(state, clock)
        return runner
    except BaseException:
        if isinstance(loop, asyncio.AbstractEventLoop):
            loop.close()
        raise


def _refuse_running_loop() -> None:
    try:
        compat.running_loop()
    except RuntimeError:
        return
    raise inside_run()


def _new_loop(factory: Callable[[], asyncio.AbstractEventLoop] | None) -> compat.Loop:
    if factory is None:
        return asyncio.new_event_loop()
    if not callable(factory):
        raise TypeError(
            f"loop_factory must be a function that makes a loop, not {safe_repr(factory)}"
        )
    return factory()  # this is the last step, because nothing here would close the loop


class Run:
    """One call of :func:`run`."""

    def __init__(self, state: LoopState, ki_at_checkpoints: bool) -> None:
        self.state = state
        state.run = self
        self.first_instruments: Sequence[Instrument] = ()
        self.main_task: Task | None = None
        # The context of the main task; None for a copy of the root task's context.
        self.main_context: contextvars.Context | None = None
        self.main_outcome: Outcome[Any] | None = None
        # Done when the root task has ended.
        self.root_future: asyncio.Future[None] | None = None
        self.root_task: Task | None = None
        self.system_nursery: Nursery | None = None
        self.system_context: contextvars.Context = contextvars.copy_context()
        self.final_error: FinalError = FinalError(state.loop)
        self.token: LoopToken = token_of(state)
        self.token._crash = self._crash
        self.asyncgens: AsyncGenerators = AsyncGenerators(
            self.token.run_sync_soon, self.spawn_system_task
        )
        self.driver: Driver = Driver(
            state.loop, self._loop_begins, self._loop_stopped, self._left_by
        )
        self.leftovers: Leftovers = Leftovers(state.loop)
        self.leftovers.names[GENERATORS] = lambda: self.asyncgens.closing
        self.ctrl_c: CtrlC = CtrlC(state.loop, self.driver, self.leftovers, ki_at_checkpoints)
        self._ki = KIHandler(self.ctrl_c.press)
        # Called with each error that has left the loop. testing.step_runner sets its own function,
        # because it drives the loop in steps.
        self.left_by: Callable[[BaseException], object] = self.exit
        # Whether the loop was made asyncio's current one.
        self._is_current = False
        # Whether this is a forked child and the run is the parent's.
        self._inherited = False

    # -- the phases of a run ----------------------------------------------------

    def take_signals(self) -> None:
        """Install the handler for Ctrl-C, until :meth:`give_signals_back` is called."""
        self._ki.install()

    def give_signals_back(self) -> None:
        """Restore the handler for Ctrl-C that was installed before."""
        self._ki.remove()

    def make_current(self) -> None:
        """Make ``asyncio.get_event_loop()`` return the loop, until :meth:`close`."""
        self._is_current = True
        asyncio.set_event_loop(self.state.loop)

    def start(self, async_fn: Any, args: tuple[Any, ...]) -> None:
        """Make the root task. Nothing runs before :meth:`drive`."""
        self.state.loop.call_soon(self._begin_instruments)
        self.root_future = self.driver.spawn(
            partial(self._root, async_fn, args), "<init>", self._root_failed
        )

    def drive(self, until: asyncio.Future[Any] | None = None) -> None:
        """Run the loop until the root task has ended, or the given future is done.

        With a future this may be called again, to continue where the loop stopped.
        """
        future = self.root_future if until is None else until
        if future is not None:
            self.driver.until(future)

    def _loop_begins(self) -> None:
        # The loop installs its own hooks each time it begins to run.
        self.asyncgens.install()
        self._ki.loop_begins(self.state.loop)

    def _loop_stopped(self) -> None:
        self._ki.loop_ends()

    def let_go(self) -> None:
        """Give up the run in a forked child (rule 5)."""
        self._inherited = True
        self.driver.given_up = True
        loop = self.state.loop
        if not loop.is_closed():
            loop.stop()
            # The epoll object is shared with the parent. When a loop closes, it unregisters its
            # self-pipe, and that would unregister it for the parent too.
            renew_epoll(loop, keep=False)

    def _left_by(self, error: BaseException) -> None:
        if self._inherited:
            if isinstance(error, EXITS):
                self.final_error.exits.append(error)
            return
        self.ctrl_c.has_left()
        # The error may have kept the timer of the deadlines from being armed again.
        self.state.finish_later(fire, self.state)
        self.left_by(error)

    def exit(self, error: BaseException) -> None:
        """Cancel everything, and then have ``run`` raise an error that is to end the program."""
        self.final_error.exits.append(error)
        self._cancel_everything(f"{type(error).__name__} was raised")

    def finish(self) -> None:
        """After the root task, end the tasks and other things that asyncio code left behind."""
        loop = self.state.loop
        call_each(
            partial(self.leftovers.cancel_tasks, self.driver),
            partial(self._end, GENERATORS, loop.shutdown_asyncgens),
            partial(self._end, THREADS, loop.shutdown_default_executor),
            self._end_loop,
            self._end_late_generators,
        )

    def _end(self, phase: str, end: Callable[[], Awaitable[object]]) -> None:
        driver = self.driver
        self.leftovers.phase = phase
        if not driver.given_up:
            driver.until(driver.spawn(end, "<end>", self.final_error.troubles.append))

    def _end_loop(self) -> None:
        loop, driver = self.state.loop, self.driver
        if not driver.given_up:
            last = loop.create_future()
            loop.call_soon(self.token._close)
            loop.call_soon(last.set_result, None)
            # In the loop's last iteration: the callback that stops the loop is added later.
            last.add_done_callback(lambda _: self._instrument("after_run"))
            driver.until(last)

    def _end_late_generators(self) -> None:
        """Close the generators that the last functions of the token have brought."""
        if self.asyncgens.are_late():
            self._end(GENERATORS, self.asyncgens.finish)

    def _begin_instruments(self) -> None:
        # In one callback on the running loop, so that before_run() is the first call of each
        # instrument.
        for instrument in self.first_instruments:
            step_hooks.install(self.state, instrument)
        self._instrument("before_run")

    def _instrument(self, hook: str) -> None:
        if self.state.instruments is not None:
            self.state.instruments.call(hook)

    def close(self) -> None:
        """Close the loop, as the last step. If this fails it may be called again."""
        if self._inherited:
            return
        call_each(
            self.leftovers.stop,
            self._loop_stopped,
            self.token._close,
            self._remove_instruments,
            self._give_up_tasks,
            self._close_loop,
            partial(let_go, self.state),
            sweep_closed_loops,
            self._unset_loop,
            self.give_signals_back,
        )

    def _close_loop(self) -> None:
        # A thread may begin to wait for the loop while this closes it, and has to be answered then.
        closing_of(self.state.loop)
        self.state.loop.close()

    def _remove_instruments(self) -> None:
        state = self.state
        if state.instruments is not None:
            for instrument in list(state.instruments):
                step_hooks.uninstall(state, instrument)

    def _give_up_tasks(self) -> None:
        """Give up the remaining tasks. They exist only if the loop failed, and that is reported."""
        for task, record in records.copy().items():
            if record._state is self.state:
                compat.give_up(task)

    def _unset_loop(self) -> None:
        if self._is_current:
            asyncio.set_event_loop(None)

    def result(self, strict: bool | None) -> Any:
        """Return the result of the main task, or raise the error of the run."""
        if self._inherited:
            return self._result_in_child()
        outcome, self.main_outcome = self.main_outcome, None
        error = outcome.error if isinstance(outcome, Error) else None
        leaving = self.final_error.decide(error, self.ctrl_c, strict)
        try:
            if leaving is not None:
                raise leaving
            assert isinstance(outcome, Value), "the main task has ended without an outcome"
            return outcome.value
        finally:
            del outcome, error, leaving

    def _result_in_child(self) -> Any:
        outcome, self.main_outcome = self.main_outcome, None
        if outcome is None:
            exits = self.final_error.exits
            outcome = Error(exits[0] if exits else RuntimeError(FORKED))
        elif isinstance(outcome, Error):
            outcome = Error(bare_exit(outcome.error))
        return outcome.unwrap()

    async def _root(self, async_fn: Any, args: tuple[Any, ...]) -> None:
        self.root_task = current_task()
        try:
            async with open_nursery(strict_exception_groups=True) as self.system_nursery:
                async with open_nursery(strict_exception_groups=True) as main_nursery:
                    self._spawn_main(main_nursery, async_fn, args)
                self._main_is_over()
                self.system_nursery.cancel_scope._cancel(
                    CancelReason(
                        "shutdown",
                        reason="main task done, shutting down system tasks",
                        source_task=repr(self.root_task),
                    )
                )
        except GeneratorExit:
            raise
        except BaseException as exc:
            self._root_failed(exc)
        self._main_is_over()
        self.leftovers.phase = GENERATORS
        await self.asyncgens.finish()

    def _spawn_main(self, nursery: Nursery, async_fn: Any, args: tuple[Any, ...]) -> None:
        if self.ctrl_c.pending or self.final_error:
            self.main_outcome = Error(Cancelled(CancelReason("shutdown", reason="never begun")))
            return
        try:
            coro = _call(async_fn, args)
        except BaseException as exc:
            self.main_outcome = Error(exc)
        else:
            keeper: Any = self._keep_result(coro)
            for name in ("__name__", "__qualname__"):  # tools show the main function's name
                setattr(keeper, name, getattr(coro, name, "main"))
            self.main_task = nursery._spawn(keeper, async_fn, None, context=self.main_context)
            self.main_task._coro = coro
            compat.show(self.main_task.asyncio_task, coro)
            self.ctrl_c.main = self.main_task

    @user_code_boundary
    async def _keep_result(self, coro: Any) -> None:
        self.main_outcome = await _outcome_of(coro)
        self._main_is_over()

    def main_ended(self, error: BaseException | None) -> None:
        """Have ``run`` raise the error of a main task that ended with scopes still open."""
        outcome = self.main_outcome
        if isinstance(outcome, Error) and isinstance(outcome.error, EXITS):
            return  # an exit may be raised at the beginning of leaving a block; keep its exit code
        if error is not None:
            self.main_outcome = Error(error)

    @property
    def main_error(self) -> BaseException | None:
        """The error of the main task; None if it has none, or has not ended."""
        outcome = self.main_outcome
        return outcome.error if isinstance(outcome, Error) else None

    def _main_is_over(self) -> None:
        if self.main_outcome is None:  # it was cancelled before its first step
            self.main_outcome = Error(Cancelled())
        self.ctrl_c.main_over = True
        self.leftovers.watch()

    def _root_failed(self, error: BaseException) -> None:
        """Handle an error of the root task: of a system task, of the task factory, or a bug."""
        if self.root_task is None:
            self.final_error.troubles.append(error)  # it could not be made
            return
        found = [leaf for leaf in leaves(error) if not is_cancelled(leaf)]
        if not found:
            return  # a native cancel, for example by code that cancels every task of the loop
        exits = [leaf for leaf in found if is_a(leaf, EXITS)]
        if not self.ctrl_c.ever:
            # Without Ctrl-C, a KeyboardInterrupt of a system task counts as any other error.
            exits = [leaf for leaf in exits if is_a(leaf, SystemExit)]
        self.final_error.exits += exits
        if len(exits) < len(found):
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        """End the run because a system task or a ``run_sync_soon`` function failed."""
        if is_a(error, EXITS):
            self.exit(error)
            return
        if self.final_error.internal is None:
            self.final_error.internal = error
        else:
            self.final_error.troubles.append(error)
        self._cancel_everything("a run_sync_soon() function has failed")

    def fail(self, error: BaseException) -> None:
        """End the run: cancel everything, and then have :func:`run` raise ``error``."""
        self.final_error.failure = error
        self._cancel_everything(f"the run failed: {type(error).__name__}")

    def _cancel_everything(self, reason: str) -> None:
        if self.state.loop.is_closed():
            return
        if self.system_nursery is not None and not self.system_nursery._closed:
            self.system_nursery.cancel_scope._cancel(CancelReason("shutdown", reason=reason))

    def spawn_system_task(
        self,
        async_fn: Any,
        *args: Any,
        name: object = None,
        context: contextvars.Context | None = None,
    ) -> Task:
        """Spawn into the system nursery."""
        if context is None:
            context = self.system_context.copy()
        nursery = self.system_nursery
        if nursery is None or nursery._closed:
            raise RuntimeError("Nursery is closed to new arrivals")
        coro = context.run(coroutine_or_error, async_fn, *args)
        return nursery._spawn(coro, async_fn, name, context=context, system=True)


FORKED = (
    "a forked child has come back into the event loop of its parent, which does not run there: "
    "end the child by os._exit(), or have multiprocessing start it"
)


@in_child
def _let_go_of_all() -> None:
    call_each(*(state.run.let_go for state in all_states() if state.run is not None))


@disable_ki_protection
def _call(async_fn: Any, args: tuple[Any, ...]) -> Any:
    return coroutine_or_error(async_fn, *args)


@user_code_boundary
async def _outcome_of(coro: Any) -> Outcome[Any]:
    try:
        return Value(await coro)
    except BaseException as exc:
        # Without this frame: the traceback begins in the user's function.
        return Error(without_own_frame(exc))


# -- asking about the run -------------------------------------------------------


def current_root_task() -> Task | None:
    """Return the task that all others descend from.

    Returns:
        The root task of ``run``; None in a task of a plain asyncio application.

    Raises:
        RuntimeError: where no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.current_root_task``.
    """
    from .._core.task import current_state

    runner = current_state().run
    return None if runner is None else runner.root_task
