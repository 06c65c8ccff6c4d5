"""``run``: a loop of one's own for one async function. A convenience, never a need.

Rule 1: the run's root is one asyncio task, holding the system nursery, and in it the nursery
of the main task. Everything else of this library works the same without it.

Rule 2: the end comes in order: main task; system tasks (cancelled); unfinished async
generators; tasks that asyncio code left behind (cancelled); the loop and its executor.

Rule 3: what the main task raised leaves as it is, except that a group around a lone
``SystemExit`` or ``KeyboardInterrupt`` is taken off (unless groups were asked for by
``strict_exception_groups=True``), so that exit codes survive.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from . import gauge, host
from .asyncgens import AsyncGenerators
from .delivery import abort_wait
from .errors import Cancelled, CancelReason, TrioInternalError
from .groups import bare_exit, warn_loose
from .idle import use_clock
from .ki import KIHandler, border
from .nursery import open_nursery
from .outcome import Error, Outcome, Value
from .task import LoopState, Task, current_task, loop_state, records
from .token import token_of
from .util import coroutine_or_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from typing_extensions import TypeVarTuple, Unpack

    from .abcs import Clock, Instrument
    from .nursery import Nursery

    PosArgsT = TypeVarTuple("PosArgsT")

RetT = TypeVar("RetT")

# What the main task is cancelled with where no KeyboardInterrupt can be raised in it.
KI_REASON = CancelReason("KeyboardInterrupt")


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
        clock: what the loop and all timers on it go by, a ``testing.MockClock`` for example;
            works on any loop. Default: the loop's own monotonic clock.
        instruments: installed before anything else happens.
        restrict_keyboard_interrupt_to_checkpoints: have Ctrl-C raise ``KeyboardInterrupt`` in the
            main task at a checkpoint, instead of wherever user code happens to be.
        strict_exception_groups: False lets nurseries raise a single error bare (deprecated).
            True keeps a group around a lone ``SystemExit`` or ``KeyboardInterrupt`` too.
        loop_factory: makes the event loop, ``uvloop.new_event_loop`` for example.

    Returns:
        What ``async_fn`` returns.

    Raises:
        RuntimeError: an event loop is running in this thread already; await the function there.
        TypeError: ``async_fn`` is no async function.
        KeyboardInterrupt: Ctrl-C was pressed and nothing else was raised because of it.
        TrioInternalError: a system task or a ``run_sync_soon`` function failed.
        BaseException: whatever ``async_fn`` raises.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.run``, with ``loop_factory`` of ``asyncio.Runner``.
    """
    _refuse_running_loop()
    if strict_exception_groups is not None and not strict_exception_groups:
        warn_loose("run", stacklevel=3)
    this = prepare(
        clock,
        instruments,
        restrict_keyboard_interrupt_to_checkpoints,
        strict_exception_groups,
        loop_factory,
    )
    try:
        asyncio.set_event_loop(this.state.loop)
        this.start(async_fn, args)
        this.drive()
        this.finish()
    finally:
        asyncio.set_event_loop(None)
        this.close()
    result: RetT = this.result(strict_exception_groups)
    return result


def prepare(
    clock: Clock | None,
    instruments: Sequence[Instrument],
    ki_at_checkpoints: bool,
    strict: bool | None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None,
) -> Run:
    """Make the loop of a run; for the arguments and errors see :func:`run`. To be closed."""
    state = loop_state(_new_loop(loop_factory))
    state.strict = strict
    this = Run(state, ki_at_checkpoints)
    this.first_instruments = tuple(instruments)
    try:
        if clock is not None:
            use_clock(state, clock)
    except BaseException:
        this.close()
        raise
    return this


def _refuse_running_loop() -> None:
    try:
        host.running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "Attempted to call run() from inside a run(), or from another running event loop: "
        "nurseryio works on the loop that is there, so just await the function"
    )


def _new_loop(factory: Callable[[], asyncio.AbstractEventLoop] | None) -> host.Loop:
    if factory is None:
        return asyncio.new_event_loop()
    if not callable(factory):
        raise TypeError(f"loop_factory must be a function that makes a loop, not {factory!r}")
    loop = factory()
    if not isinstance(loop, asyncio.AbstractEventLoop):
        raise TypeError(f"loop_factory must return an event loop, not {loop!r}")
    return loop


class Run:
    """One call of :func:`run`."""

    def __init__(self, state: LoopState, ki_at_checkpoints: bool) -> None:
        self.state = state
        state.run = self
        self.first_instruments: Sequence[Instrument] = ()
        self.main_task: Task | None = None
        self.main_outcome: Outcome[Any] | None = None
        self.root_task: Task | None = None
        self.system_nursery: Nursery | None = None
        self.system_context = contextvars.copy_context()
        self.internal_error: BaseException | None = None
        # What run() raises, whatever else comes of the run.
        self.verdict: BaseException | None = None
        self.ki_pending = False
        # The thread in which an abort function is being asked about a KeyboardInterrupt.
        self._asking: int | None = None
        self.token = token_of(state)
        self.token._crash = self._crash
        self.asyncgens = AsyncGenerators(self.token.run_sync_soon, self.spawn_system_task)
        self._strong: dict[asyncio.Task[Any], None] = {}
        self._ki = KIHandler(self._deliver_ki, ki_at_checkpoints)

    # -- the life of a run ------------------------------------------------------

    def start(self, async_fn: Any, args: tuple[Any, ...]) -> None:
        """Make the root task. Nothing runs before :meth:`drive`."""
        self.state.loop.call_soon(self._begin_instruments)
        self.root_future = self._spawn_inside(partial(self._root, async_fn, args), "<init>")

    def _spawn_inside(self, async_fn: Any, name: str) -> asyncio.Future[None]:
        """Make a task once the loop runs, so that instruments are called on a running loop only."""
        loop = self.state.loop
        ended = loop.create_future()

        def begin() -> None:
            task = loop.create_task(async_fn(), name=name)
            self._strong[task] = None  # asyncio itself holds tasks weakly
            task.add_done_callback(end)

        def end(task: asyncio.Task[Any]) -> None:
            self._strong.pop(task)
            if ended.done():
                return
            if task.cancelled():
                ended.cancel()
            elif (error := task.exception()) is not None:
                ended.set_exception(error)
            else:
                ended.set_result(None)

        loop.call_soon(begin)
        return ended

    def drive(self, until: asyncio.Future[Any] | None = None) -> None:
        """Let the loop run until the root task has ended, or the given future is done.

        With a future this may be called again, to go on where the loop has stopped.
        """
        loop = self.state.loop
        # The loop installs hooks of its own whenever it begins to run.
        loop.call_soon(self.asyncgens.install)
        self._ki.install(loop)
        try:
            loop.run_until_complete(self.root_future if until is None else until)
        except BaseException as exc:
            self.internal_error = exc
        finally:
            self._ki.remove()

    def finish(self) -> None:
        """After the root task: end what asyncio code left behind."""
        loop = self.state.loop
        self._ki.install(loop)
        try:
            _cancel_leftovers(loop)
            loop.run_until_complete(self._spawn_inside(loop.shutdown_asyncgens, "<end>"))
            loop.run_until_complete(self._spawn_inside(loop.shutdown_default_executor, "<end>"))
        finally:
            self.token._close()
            loop.call_soon(self._instrument, "after_run")
            loop.call_soon(loop.stop)
            loop.run_forever()
            self._ki.remove()

    def _begin_instruments(self) -> None:
        # On the running loop, in one go: the first thing that instruments hear is before_run().
        for instrument in self.first_instruments:
            gauge.install(self.state, instrument)
        self._instrument("before_run")

    def _instrument(self, hook: str) -> None:
        if self.state.instruments is not None:
            self.state.instruments.call(hook)

    def close(self) -> None:
        """After everything: the loop is closed."""
        state = self.state
        if state.instruments is not None:
            for instrument in list(state.instruments):
                gauge.uninstall(state, instrument)
        for task, record in list(records.items()):
            if record._state is state:
                del records[task]
        state.loop.close()

    def result(self, strict: bool | None) -> Any:
        """What the main task returned, or raise what came of the run."""
        if self.verdict is not None:
            outcome = self.main_outcome
            error = outcome.error if isinstance(outcome, Error) else None
            raise self.verdict from (None if isinstance(error, Cancelled) else error)
        if self.internal_error is not None:
            raise TrioInternalError(
                "a system task or a run_sync_soon() function failed, or nurseryio has a bug"
            ) from self.internal_error
        outcome, self.main_outcome = self.main_outcome, None
        assert outcome is not None
        try:
            if isinstance(outcome, Error):
                error = outcome.error
                if self.ki_pending and isinstance(error, Cancelled):
                    return None
                if strict is not True:
                    outcome = Error(bare_exit(error))
                del error
            return outcome.unwrap()
        finally:
            del outcome
            if self.ki_pending:
                self.ki_pending = False
                raise KeyboardInterrupt

    async def _root(self, async_fn: Any, args: tuple[Any, ...]) -> None:
        self.root_task = current_task()
        async with open_nursery(strict_exception_groups=True) as self.system_nursery:
            async with open_nursery(strict_exception_groups=True) as main_nursery:
                try:
                    coro = coroutine_or_error(async_fn, *args)
                except BaseException as exc:
                    self.main_outcome = Error(exc)
                else:
                    self.main_task = main_nursery._spawn(self._keep_result(coro), async_fn, None)
                    self.main_task._coro = coro
            self.system_nursery.cancel_scope._cancel(
                CancelReason(
                    "shutdown",
                    reason="main task done, shutting down system tasks",
                    source_task=repr(self.root_task),
                )
            )
        await self.asyncgens.finish()

    @border
    async def _keep_result(self, coro: Any) -> None:
        self.main_outcome = await _outcome_of(coro)

    def main_ended(self, error: BaseException | None) -> None:
        """The main task has ended inside scopes of its own: that error leaves through ``run``."""
        if error is not None:
            self.main_outcome = Error(error)

    def _crash(self, error: BaseException) -> None:
        """A ``run_sync_soon`` function failed: end the run."""
        if self.internal_error is None:
            self.internal_error = error
        self._cancel_everything(f"run_sync_soon() function raised {error!r}")

    def fail(self, error: BaseException) -> None:
        """End the run: everything is cancelled, and then :func:`run` raises ``error``."""
        self.verdict = error
        self._cancel_everything(f"the run failed: {type(error).__name__}")

    def _cancel_everything(self, reason: str) -> None:
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

    # -- Ctrl-C -----------------------------------------------------------------

    def _deliver_ki(self) -> None:
        """In the signal handler: have the main task interrupted at its next opportunity."""
        self.ki_pending = True
        loop = self.state.loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._interrupt_main)

    def _interrupt_main(self) -> None:
        task = self.main_task
        if not self.ki_pending or task is None or self.main_outcome is not None:
            return
        park = task._park
        if park is not None and not park.done() and task._abort is not None:
            self._asking = threading.get_ident()
            try:
                agreed = abort_wait(task, self._raise_ki)
            finally:
                self._asking = None
            if agreed:
                park.set_result(Error(KeyboardInterrupt()))
                self.ki_pending = False
        if self.ki_pending:
            # A checkpoint, a foreign await, or a wait that has an end of its own: CancelledError
            # there or at the next await, KeyboardInterrupt from run().
            task.asyncio_task.cancel(KI_REASON)

    def _raise_ki(self) -> Any:
        if self._asking == threading.get_ident():
            self.ki_pending = False
            raise KeyboardInterrupt
        # Called later, by whom did not agree: a worker thread, for example. The task is cancelled.
        raise Cancelled(KI_REASON)


@border
async def _outcome_of(coro: Any) -> Outcome[Any]:
    try:
        return Value(await coro)
    except BaseException as exc:
        # Without our own frame: what the user reads begins in the user's function.
        return Error(exc.with_traceback(exc.__traceback__.tb_next))  # type: ignore[union-attr]


def _cancel_leftovers(loop: host.Loop) -> None:
    """Cancel what asyncio code has left running and wait for it, as ``asyncio.run`` does."""
    left = asyncio.all_tasks(loop)
    if not left:
        return
    for task in left:
        task.cancel(CancelReason("shutdown"))
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    for task in left:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {
                    "message": "unhandled exception during run() shutdown",
                    "exception": task.exception(),
                    "task": task,
                }
            )


# -- asking about the run -------------------------------------------------------


def current_root_task() -> Task | None:
    """The task that all others descend from.

    Returns:
        The root task of ``run``; None in a task of a plain asyncio application.

    Raises:
        RuntimeError: where no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.current_root_task``.
    """
    from .task import current_state

    this = current_state().run
    return None if this is None else this.root_task
