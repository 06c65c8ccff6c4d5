"""What the library keeps for one event loop, its deadline timer, and how failures are finished.

This module has :class:`LoopState`, the table of all of them, and :class:`PerLoop`.

Rule 1: what belongs to a whole loop (deadlines, instruments, the watch list of delivery) lives
in its :class:`LoopState`, never in a module global: several loops may run in several threads.

Rule 2: the loop's timer is armed before the books say so, and armed again whatever fails.

Rule 3: an operation that has changed something and then fails is finished by
:meth:`LoopState.finish_later`. That is the one way to recover, for all of the engine.
"""

from __future__ import annotations

import contextvars
from functools import partial
from heapq import heappush
from math import inf
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import ref

from .._asyncio import compat
from .._base.exc_fields import is_a
from .._base.util import unset_hook
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
    """What the engine calls of ``_loop.step_hooks.StepHooks``."""

    def hold(self) -> None: ...
    def release(self) -> None: ...
    def spawned(self, task: Task) -> None: ...
    def exited(self, task: Task) -> None: ...


class RunProtocol(Protocol):
    """What the rooms below ``_run`` use of ``_run.run.Run``."""

    main_task: Task | None
    root_task: Task | None
    system_nursery: Nursery | None
    token: Any
    driver: Any

    def main_ended(self, error: BaseException | None) -> None: ...
    def spawn_system_task(self, async_fn: Any, *args: Any, name: Any, context: Any) -> Task: ...
    def fail(self, error: BaseException) -> None: ...
    def let_go(self) -> None: ...


class LoopState:
    """What the library keeps for one event loop."""

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
        "loop",
        "making",
        "not_lost_until",
        "ready",
        "run",
        "run_soon",
        "strict",
        "timer",
        "unfinished",
        "recheck_scheduled",
        "recheck_queue",
    )

    def __init__(self, loop: compat.Loop) -> None:
        self.loop: compat.Loop = loop
        # The library's callbacks run in an empty context: they must not keep a user's values alive.
        self.context: contextvars.Context = contextvars.Context()
        # Empty while nobody is ready to make a step (never, where the loop does not show it).
        self.ready: Sized = compat.ready_queue(loop)
        # How the loop makes tasks, and whether something stands there.
        self.making: compat.TaskMaking = compat.TaskMaking(loop)
        self.deadlines: Deadlines = Deadlines()
        # Invariant: a loop timer is armed at armed_at, which is not later than the earliest
        # live deadline; inf and None mean that none is armed. It may be later while
        # recheck_scheduled is true.
        self.armed_at: float = inf
        self.timer: asyncio.Handle | None = None
        # Until when (on the loop's clock) a timer that is overdue is not armed again.
        self.not_lost_until: float = -inf
        # Records to look at again, and whether the call that will do it is scheduled.
        self.recheck_queue: list[Task] = []
        self.recheck_scheduled: bool = False
        # Calls that failed half-way, to be made again in the next iteration of the loop (see
        # finish_later); and the function that schedules that, which needs no stack.
        self.unfinished: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.run_soon: Callable[[], object] = compat.emergency_call(
            loop, partial(_finish, ref(self)), self.context
        )
        # How many nurseries to come are taken to last longer than a turn of the loop.
        self.slow_exit_prediction: int = 0
        # None while there are none: the hot paths test for that.
        self.instruments: Instruments | None = None
        # Set while instruments are installed: the hook into the loop (``step_hooks``).
        self.step_hooks: StepHooksProtocol | None = None
        # Set by run(): its Run object, its clock, its default for nurseries.
        self.run: RunProtocol | None = None
        self.clock: Clock | None = None
        self.strict: bool | None = None
        # Values of RunVars, and the objects of PerLoop.
        self.loop_locals: dict[Any, Any] = {}

    def add_deadline(self, when: float, function: Any, argument: Any, now: float = -inf) -> Entry:
        """Have ``function(argument)`` called once the loop's time reaches ``when``.

        Args:
            when: the time (seconds).
            function: may be called twice.
            argument: what it is called with.
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

        It may never come: an exception from a signal handler can be raised before its first line.
        Mostly it is only late, as this iteration of the loop takes long, so that it is not armed
        again for each deadline that is added in it.
        """
        if now < self.not_lost_until:
            return False
        self.not_lost_until = now + LOST_PAUSE
        return True

    def _arm(self, when: float) -> None:
        loop = self.loop
        if when > loop.time():
            timer: asyncio.Handle = loop.call_at(when, fire, self, context=self.context)
        else:
            # Not a timer: those are looked at only after the callbacks that are ready now, and
            # a task's next checkpoint must notice a deadline that has passed.
            timer = loop.call_soon(fire, self, context=self.context)
        before = self.timer
        self.timer = timer
        self.armed_at = when
        if before is not None:
            before.cancel()

    def expire(self) -> None:
        """Hand out what is due, now."""
        if self.deadlines.next() <= self.loop.time():
            if self.timer is not None:
                self.timer.cancel()
            fire(self)

    def arm_exactly(self) -> None:
        """Set the loop timer to the earliest live deadline: a dropped one may have been earlier."""
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

        Needs neither stack nor the loop's Python code, so it works where almost nothing does.
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
            # Those that fail again have had their next call scheduled.
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
        """Report an error of the library's own bookkeeping, for which no caller waits.

        It ends a ``run`` with :exc:`TrioInternalError`; in another program the loop's exception
        handler gets it.

        Raises:
            BaseException: The error itself if it is one that ends the loop.
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
    # By a reference, so that a state is not part of a circle.
    state = reference()
    if state is not None:
        state.finish()


# The least time (seconds) between two timers that are armed because the one before is overdue.
LOST_PAUSE = 0.05

# The least time (seconds) before a timer that came too early is armed again. uvloop counts in
# whole milliseconds and rounds; without this it would spin through the rest of one.
EARLY = 0.001


def fire(state: LoopState) -> None:
    """The callback of the loop timer: hand out what is due, then arm for the next."""
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
        # Those who have just been cancelled will drop deadlines of their own: whoever looks at
        # them again after their step arms the timer (delivery), once and not twice.
        if when < state.armed_at and not state.recheck_scheduled:
            # Still to come although the timer was set for it: the timer came early.
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
    """Whether a coroutine is being closed whose loop is closed: nothing is to be done then.

    Args:
        exc: what the coroutine is left with.
        state: the state of its loop.
    """
    return type(exc) is GeneratorExit and state.loop.is_closed()


def check_home(state: LoopState) -> None:
    """Raise RuntimeError unless the caller may touch what belongs to the loop of ``state``.

    That is code that this loop runs; while it does not run, any code.
    """
    loop = compat.running_loop_or_none()
    if loop is state.loop or (loop is None and not state.loop.is_running()):
        return
    if state.loop.is_closed():
        return  # its tasks make no step any more, whatever is done to them
    raise RuntimeError(
        "called from another thread or event loop than the one that this belongs to, where it "
        f"would be lost: {IN_A_THREAD}, in another event loop token.run_sync_soon(function); the "
        f"token comes from {WHENCE}"
    )


# -- the table of loops ----------------------------------------------------------

# A closed loop that was not run()'s own stays until the next one is made.
_states: dict[compat.Loop, LoopState] = {}


def loop_state(loop: compat.Loop) -> LoopState:
    """The state kept for a loop, made at first use."""
    state = _states.get(loop)
    if state is None:
        sweep_closed_loops()
        state = _states[loop] = LoopState(loop)
    return state


def all_states() -> list[LoopState]:
    """The states that are kept. In a forked child those of the parent are among them."""
    return list(_states.values())


def sweep_closed_loops() -> None:
    """Drop the states of loops that were closed, and the records of their tasks."""
    for loop in list(_states):
        if loop.is_closed():
            _states.pop(loop, None)
    drop_swept_records()


# Drops the records of tasks whose loop is closed, so that they never end. Set by ``task``.
drop_swept_records: Callable[[], object] = unset_hook


NO_LOOP = (
    "must be called from async context, but no event loop is running in this thread: call it in a "
    f"task; {IN_A_THREAD}; the token comes from {WHENCE}"
)


def current_state() -> LoopState:
    """The state of the loop that runs in this thread.

    Raises:
        RuntimeError: where no loop is running.
    """
    loop = compat.running_loop_or_none()
    if loop is None:
        raise RuntimeError(NO_LOOP)
    return loop_state(loop)


T = TypeVar("T")


class PerLoop(Generic[T]):
    """One object for each event loop, made when it is first asked for.

    Args:
        make: makes the object for a loop, from the loop's state.
    """

    def __init__(self, make: Callable[[LoopState], T]) -> None:
        self._make = make

    def __call__(self, state: LoopState) -> T:
        """The object of one loop."""
        found: T | None = state.loop_locals.get(self)
        if found is None:
            found = state.loop_locals[self] = self._make(state)
        return found

    def find(self, state: LoopState) -> T | None:
        """The object of one loop if there is one already."""
        found: T | None = state.loop_locals.get(self)
        return found

    def drop(self, state: LoopState) -> None:
        """Have a new object made the next time."""
        state.loop_locals.pop(self, None)
