"""The state of one event loop: its deadline timer, recheck queue, and retry of failed operations.

This module has :class:`LoopState`, the table of all loop states, and :class:`PerLoop`.

Rule 1: data of a whole loop is in its :class:`LoopState`: deadlines, instruments, the recheck queue
of delivery. It is never in a module global, because several loops may run in several threads.

Rule 2: the loop's timer is armed before ``armed_at`` says so, and it is armed again even if
something fails.

Rule 3: an operation that fails after it has changed something is finished by
:meth:`LoopState.finish_later`. The whole engine recovers in this one way.
"""

from __future__ import annotations

import contextvars
from functools import partial
from heapq import heappush
from math import inf
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import ref

from .._asyncio import compat, loop_parts, required
from .._asyncio.browser import IS_WASM, LONGEST_TIMER
from .._base.exc_fields import is_a
from .._base.util import unset_hook
from .._base.watchers import look_for_debug
from .deadlines import Deadlines

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sized

    from .._base.abcs import Clock
    from .._base.instruments import Instruments
    from .._nursery.nursery import Nursery
    from .deadlines import Entry
    from .task import Task


class StepHooksProtocol(Protocol):
    """The methods of ``_loop.step_hooks.StepHooks`` that the engine calls."""

    exit_error: BaseException | None

    def hold(self) -> None: ...
    def release(self) -> None: ...
    def spawned(self, task: Task) -> None: ...
    def exited(self, task: Task, error: BaseException | None) -> None: ...
    def settle(self) -> None: ...


class RunProtocol(Protocol):
    """The part of ``_run.run.Run`` that the rooms below ``_run`` use."""

    main_task: Task | None
    root_task: Task | None
    system_nursery: Nursery | None
    token: Any
    driver: Any

    @property
    def main_error(self) -> BaseException | None: ...
    def main_ended(self, error: BaseException | None) -> None: ...
    def spawn_system_task(self, async_fn: Any, *args: Any, name: Any, context: Any) -> Task: ...
    def fail(self, error: BaseException) -> None: ...
    def let_go(self) -> None: ...


class LoopState:
    """All data of the library that belongs to one event loop."""

    __slots__ = (
        "__weakref__",
        "armed_at",
        "clock",
        "context",
        "deadlines",
        "step_hooks",
        "instruments",
        "loop_locals",
        "slow_exit_prediction",
        "stop_scopes",
        "stop_was_requested",
        "loop",
        "making",
        "not_lost_until",
        "ready",
        "selector",
        "run",
        "run_soon",
        "strict",
        "timer",
        "unfinished",
        "recheck_scheduled",
        "recheck_queue",
    )

    def __init__(self, loop: compat.Loop) -> None:
        required.check_loop(loop)
        self.loop: compat.Loop = loop
        # The library's callbacks run in an empty context, so that they do not keep a user's values
        # alive.
        self.context: contextvars.Context = contextvars.Context()
        # How the loop makes tasks, and whether a factory or a tool has replaced that.
        self.making: compat.TaskMaking = compat.TaskMaking(loop)
        self.deadlines: Deadlines = Deadlines()
        # Invariant: a loop timer is armed for armed_at, which is not later than the earliest
        # deadline that was not dropped. While recheck_scheduled is true it may be later. inf and
        # None mean that no timer is armed.
        self.armed_at: float = inf
        self.timer: asyncio.Handle | None = None
        # Until this time (on the loop's clock) an overdue timer is not armed again.
        self.not_lost_until: float = -inf
        # The tasks to recheck, and whether the call that rechecks them is scheduled.
        self.recheck_queue: list[Task] = []
        self.recheck_scheduled: bool = False
        # The open scopes that a stop request ends, in the order of their entry, with the seconds
        # that they get; whether there was any request (see _nursery.stop_requests).
        self.stop_scopes: dict[Any, float] = {}
        self.stop_was_requested: bool = False
        # Calls that failed half-way and are to be made in the next iteration of the loop (see
        # finish_later). The function schedules that and needs no stack.
        self.unfinished: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.run_soon: Callable[[], object]
        # The loop's ready callbacks, empty if there are none. Never empty if the loop hides them.
        self.ready: Sized
        # The selector that the loop waits in; None if it waits elsewhere or does not show that.
        self.selector: Any
        self._ask_loop()
        # How many of the next nurseries are expected to wait more than one iteration for children.
        self.slow_exit_prediction: int = 0
        # None if there are none: the hot paths test for that.
        self.instruments: Instruments | None = None
        # Set while instruments are installed: the hook into the loop (``step_hooks``).
        self.step_hooks: StepHooksProtocol | None = None
        # Set by run(): its Run object, its clock, its strict_exception_groups.
        self.run: RunProtocol | None = None
        self.clock: Clock | None = None
        self.strict: bool | None = None
        # The values of RunVars, and the objects of PerLoop.
        self.loop_locals: dict[Any, Any] = {}

    def _ask_loop(self) -> None:
        """Find out how the loop keeps its callbacks, and where it waits.

        Called again, in the loop's thread, if the first call was made in another one.
        """
        loop = self.loop
        ready = loop_parts.ready_queue(loop)
        self.selector = loop_parts.selector_of(loop, ready)
        self.run_soon = loop_parts.emergency_call(
            loop, ready, partial(_finish, ref(self)), self.context
        )
        self.ready = ready

    def add_deadline(self, when: float, function: Any, argument: Any, now: float = -inf) -> Entry:
        """Have ``function(argument)`` called once the loop's time reaches ``when``.

        Args:
            when: the time (seconds).
            function: may be called twice.
            argument: its argument.
            now: the loop's time, if the caller knows it.
        """
        deadlines = self.deadlines
        # inlined: _core.deadlines.Deadlines.add
        deadlines._sequence = sequence = deadlines._sequence + 1
        entry = [when, sequence, function, argument]
        heappush(deadlines._heap, entry)
        if when < self.armed_at or (self.armed_at < now and self.may_have_lost_timer(now)):
            try:
                self._arm(min(when, deadlines.next()))
            except BaseException:
                deadlines.drop(entry)
                raise
        return entry

    def may_have_lost_timer(self, now: float) -> bool:
        """Whether to arm the timer again because it is overdue.

        The timer may be lost: a signal handler's exception can be raised before the first line of
        its callback. Mostly the timer is only late, because this iteration of the loop takes long.
        So it is not armed again for each deadline that is added in that iteration.
        """
        if now < self.not_lost_until:
            return False
        self.not_lost_until = now + LOST_PAUSE
        return True

    def _arm(self, when: float) -> None:
        loop = self.loop
        now = loop.time()
        if when > now:
            timer: asyncio.Handle
            if IS_WASM and self.clock is None:
                # The call_at() of a page raises if the time has come meanwhile. A timer that comes
                # before its deadline is armed again.
                when = min(when, now + LONGEST_TIMER)
                timer = loop.call_later(when - now, fire, self, context=self.context)
            else:
                timer = loop.call_at(when, fire, self, context=self.context)
        else:
            # Not a timer: the loop looks at timers only after the callbacks that are ready now. A
            # task's next checkpoint must notice a deadline that has passed.
            timer = loop.call_soon(fire, self, context=self.context)
        before = self.timer
        self.timer = timer
        self.armed_at = when
        if before is not None:
            before.cancel()

    def expire(self) -> None:
        """Call the functions of all deadlines that are due, now."""
        if self.deadlines.next() <= self.loop.time():
            if self.timer is not None:
                self.timer.cancel()
            fire(self)

    def arm_exactly(self) -> None:
        """Arm the timer for the earliest deadline. It may still be set for one that was dropped."""
        when = self.deadlines.next()
        if when != self.armed_at and self.timer is not None:
            self.timer.cancel()
            self.timer = None
            self.armed_at = inf
            if when != inf:
                self._arm(when)

    # -- when something fails ----------------------------------------------------

    def finish_later(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` in the next iteration of the loop, to finish what failed.

        Needs neither stack nor the loop's Python code, so it works where almost nothing else does.
        """
        self.unfinished.append((function, args))
        try:
            self.run_soon()
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def finish(self) -> None:
        """Make the calls of :meth:`finish_later`."""
        try:
            # A call that fails again has scheduled its next attempt itself.
            for _ in range(len(self.unfinished)):
                function, args = self.unfinished.pop(0)
                try:
                    function(*args)
                except BaseException as error:
                    self.report(error)
        except BaseException:
            self.run_soon()  # for the rest
            raise

    def report(self, error: BaseException) -> None:
        """Report an error in the library's bookkeeping that no caller can get.

        The error ends a ``run`` with :exc:`TrioInternalError`. In another program the loop's
        exception handler is called with it.

        Raises:
            BaseException: The error itself, if it is not an :exc:`Exception`: it ends the loop.
        """
        if not is_a(error, Exception):
            raise error
        if self.run is not None:
            self.run.token._crash(error)
        else:
            self.loop.call_exception_handler(
                {"message": "nurseryio: an internal operation failed", "exception": error}
            )


def _finish(reference: ref[LoopState]) -> None:
    # By a weak reference, so that a state is not part of a reference cycle.
    state = reference()
    if state is not None:
        state.finish()


# An overdue timer is armed again at most once in this time (seconds).
LOST_PAUSE = 0.05

# A timer that came too early is armed again for at least this much later (seconds). uvloop rounds
# to whole milliseconds. Without this the loop would spin through the rest of one.
EARLY = 0.001


def fire(state: LoopState) -> None:
    """The callback of the loop timer: call the functions that are due, then arm the next timer."""
    try:
        promised = state.armed_at
        state.timer = None
        state.armed_at = inf
        deadlines = state.deadlines
        now = state.loop.time() + CLOCK_RESOLUTION
        entry = None
        while (entry := deadlines.next_due(now, entry)) is not None:
            function, argument = entry[2], entry[3]
            try:
                function(argument)
            except BaseException as error:
                state.finish_later(function, argument)
                state.report(error)
        when = deadlines.next()
        # Tasks that were cancelled just now will drop their deadlines. If they are to be rechecked
        # after their step, the recheck arms the timer (delivery), so that it is armed only once.
        if when < state.armed_at and not state.recheck_scheduled:
            # This deadline is not due, but the timer was set for it: the timer came early.
            state._arm(max(when, now + EARLY) if when <= promised else when)
    except BaseException:
        state.finish_later(fire, state)
        raise


# Stock loops fire a timer up to this many seconds before its time.
CLOCK_RESOLUTION = 1e-9


# Parts of error messages: how to reach a loop from outside.
IN_A_THREAD = "in a thread use nurseryio.from_thread.run_sync(function, trio_token=token)"
WHENCE = "nurseryio.lowlevel.current_trio_token(), called in the loop that is meant"


def is_swept(exc: BaseException | None, state: LoopState) -> bool:
    """Whether a coroutine is being closed after its loop was. Then there is nothing to do.

    Args:
        exc: the exception in the coroutine.
        state: the state of its loop.
    """
    return type(exc) is GeneratorExit and state.loop.is_closed()


def check_home(state: LoopState) -> None:
    """Raise RuntimeError unless the caller may change objects of the loop of ``state``.

    Only code that the loop runs may do so; while the loop does not run, any code may.
    """
    loop = compat.running_loop_or_none()
    if loop is state.loop or (loop is None and not state.loop.is_running()):
        return
    if state.loop.is_closed():
        return  # its tasks do not make a step any more
    raise RuntimeError(
        "called from another thread or event loop than the one that this belongs to, where it "
        f"would be lost: {IN_A_THREAD}, in another event loop token.run_sync_soon(function); the "
        f"token comes from {WHENCE}"
    )


# -- the table of loops ----------------------------------------------------------

# A closed loop stays until the next loop's state is made, or until a run() ends.
_states: dict[compat.Loop, LoopState] = {}


def loop_state(loop: compat.Loop) -> LoopState:
    """The state of a loop, made at first use."""
    state = _states.get(loop)
    if state is None:
        sweep_closed_loops()
        made = LoopState(loop)
        state = _states.setdefault(loop, made)
        if state is made:  # otherwise another thread has been faster
            look_for_debug(lambda: [each.loop for each in all_states()])
            for hook in new_state_hooks.copy():
                hook(state)
    if state.ready is loop_parts.NOT_ASKED and compat.running_loop_or_none() is loop:
        state._ask_loop()
    return state


# Functions to call with each new state, for tools that see every loop of a process.
new_state_hooks: list[Callable[[LoopState], object]] = []


def find_state(loop: compat.Loop | None) -> LoopState | None:
    """The state of a loop; None if it has not used the library."""
    return None if loop is None else _states.get(loop)


def all_states() -> list[LoopState]:
    """All loop states. In a forked child this includes the states of the parent's loops."""
    # Copied, because other threads may add a loop meanwhile.
    return list(_states.copy().values())


def sweep_closed_loops() -> None:
    """Drop the states of closed loops, and the records of their tasks."""
    for loop in _states.copy():  # other threads may add a loop meanwhile
        if loop.is_closed():
            _states.pop(loop, None)
    drop_swept_records()


# Drops the records of tasks that never end, because their loop is closed. Set by ``task``.
drop_swept_records: Callable[[], object] = unset_hook


T = TypeVar("T")


class PerLoop(Generic[T]):
    """One object for each event loop, made at first use.

    Args:
        make: a function that makes the object of a loop; its argument is the loop's state.
    """

    def __init__(self, make: Callable[[LoopState], T]) -> None:
        self._make = make

    def __call__(self, state: LoopState) -> T:
        """The object of one loop, made if there is none."""
        found: T | None = state.loop_locals.get(self)
        if found is None:
            found = state.loop_locals[self] = self._make(state)
        return found

    def find(self, state: LoopState) -> T | None:
        """The object of one loop, None if it was not made yet."""
        found: T | None = state.loop_locals.get(self)
        return found

    def drop(self, state: LoopState) -> None:
        """Forget the object of one loop, so that the next call makes a new one."""
        state.loop_locals.pop(self, None)
