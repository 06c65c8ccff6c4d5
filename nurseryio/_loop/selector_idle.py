"""Noticing that a loop is idle: ``wait_all_tasks_blocked``, clocks (virtual time) and I/O hooks.

Rule 1: a stock asyncio loop lets its selector wait exactly when no callback is ready. While one of
the three features is in use, the selector's ``select`` is replaced on that one object. Otherwise
nothing of this module is called.

Rule 2: a clock of ``run(clock=...)`` is used for every timer of the loop, asyncio's own included.
The loop's ``time()`` shows the clock, and the clock decides how long a wait lasts.

Rule 3: uvloop does not wait in a selector, nor do the loops of GUI toolkits. There
:func:`wait_all_tasks_blocked` and clocks work as ``polled_idle`` describes. The I/O hooks of
instruments are not called, as their documentation says.
"""

from __future__ import annotations

from contextvars import ContextVar
from math import inf, isnan
from typing import TYPE_CHECKING, Any

from .._asyncio import loop_parts
from .._base.abcs import Clock
from .._core.delivery import Abort
from .._core.loop_state import LoopState, PerLoop
from .._core.task import Task, current_state, current_task
from .._core.traps import wait_task_rescheduled
from .polled_idle import LONGEST_WAIT, polled_idle_of, wake_waiting

if TYPE_CHECKING:
    from collections.abc import Callable


# The idle time (real seconds) after which a clock that found no timer to jump to is called again.
# The program waits for I/O or a thread then, and repeated calls must not keep a processor busy.
NOTHING_TO_JUMP_TO = 0.1


class SelectorIdle:
    """The replacement of one selector's ``select``."""

    def __init__(self, state: LoopState) -> None:
        self._state = state
        self._selector = state.selector
        # An earlier replacement of the method on the selector, if there was one (looptime).
        self._before = loop_parts.replacement(self._selector, "select")
        self._select: Callable[[Any], Any] = self._selector.select
        # Tasks in wait_all_tasks_blocked() with their cushions (seconds).
        self.waiting: dict[Task, float] = {}
        self.clock: Clock | None = None
        # Its method _autojump(state, next_timer) is called when the loop has been idle for its
        # autojump_threshold real seconds; see testing/clock.py.
        self.jumper: Any = None
        # Whether it was called last time, and found no timer to jump to.
        self._no_timer = False
        self._hook = self.select
        self._selector.select = self._hook

    def begin(self) -> None:
        """Do nothing, because the loop calls :meth:`select`."""

    def remove(self) -> None:
        """Restore the ``select`` that the selector had before. May be called again."""
        if selector_idle_of.find(self._state) is not self:
            return
        # Other code may have replaced select since. Its hook stays, and still calls this object's.
        if self._selector.select is self._hook:
            if self._before is None:
                del self._selector.select
            else:
                self._selector.select = self._before
        del self._hook  # a bound method: no reference cycle
        selector_idle_of.drop(self._state)

    def release(self) -> None:
        """Remove the replacement if nothing needs it any more."""
        if not self.waiting and self.clock is None and self._state.instruments is None:
            self.remove()

    def select(self, timeout: float | None) -> Any:
        """Wait for I/O like ``selector.select``, in the clock's time, and notice idleness."""
        state = self._state
        if self.clock is not None:
            # The clock may have been moved by hand, so that deadlines are due now. The loop calls
            # its timers only after the callbacks that are ready, but a task that reaches a
            # checkpoint before that must be cancelled.
            state.expire()
            if state.ready:
                timeout = 0.0
        if self.clock is not None and timeout != 0:
            timeout = self._real_timeout(self.clock)
        left = inf if timeout is None else timeout
        jumper = self.jumper
        if self.waiting:
            quiet = min(self.waiting.values())
        else:
            quiet = inf if jumper is None else jumper.autojump_threshold
            if self._no_timer:
                quiet = max(quiet, NOTHING_TO_JUMP_TO)
        self._no_timer = False
        primed = quiet < left
        if primed:
            timeout = quiet
        instruments = state.instruments
        if instruments is not None:
            shown = LONGEST_WAIT if timeout is None else max(0.0, timeout)
            instruments.call("before_io_wait", shown)
        events = self._select(timeout)
        if instruments is not None:
            instruments.call("after_io_wait", shown)
        if not events and not state.ready:
            if primed and self.waiting:
                self._wake(quiet)
            elif primed:
                when = loop_parts.next_timer(state.loop)
                self._no_timer = when == inf
                jumper._autojump(state, when)
        return events

    def _real_timeout(self, clock: Clock) -> float | None:
        self._state.arm_exactly()
        when = loop_parts.next_timer(self._state.loop)
        if when == inf:
            return None
        return min(max(0.0, clock.deadline_to_sleep_time(when)), LONGEST_WAIT)

    def _wake(self, cushion: float) -> None:
        wake_waiting(self.waiting, cushion)
        self.release()


def _install(state: LoopState) -> SelectorIdle:
    if state.selector is None:
        raise RuntimeError(f"{type(state.loop).__name__} does not tell when it is idle")
    return SelectorIdle(state)


# The loop's SelectorIdle, installed at first use. RuntimeError if the loop has no selector.
selector_idle_of: PerLoop[SelectorIdle] = PerLoop(_install)


async def wait_all_tasks_blocked(cushion: float = 0.0) -> None:
    """Wait until no other task of the loop has anything to do. For tests.

    Args:
        cushion: how long (real seconds) all other tasks must have been waiting, not negative.

    Raises:
        ValueError: ``cushion`` is negative or NaN.
        Cancelled: if the task is cancelled while it waits.

    Checkpoint: yes.

    Trio: ``trio.testing.wait_all_tasks_blocked``.
    """
    if isnan(cushion) or cushion < 0:
        raise ValueError("`cushion` must be a non-negative number of seconds")
    task = current_task()
    state = task._state
    watcher = polled_idle_of(state) if state.selector is None else selector_idle_of(state)

    def abort(_raise_cancel: object) -> Abort:
        watcher.waiting.pop(task, None)
        watcher.release()
        return Abort.SUCCEEDED

    try:
        watcher.waiting[task] = cushion
        watcher.begin()
        await wait_task_rescheduled(abort)
    except BaseException:
        watcher.waiting.pop(task, None)
        watcher.release()
        raise


def use_clock(state: LoopState, clock: Clock) -> None:
    """Make a loop use ``clock``, for asyncio's own timers as well."""
    if state.selector is None:
        polled_idle_of(state).use_clock(clock)
    else:
        selector_idle_of(state).clock = clock
    state.clock = clock
    state.loop.time = clock.current_time  # type: ignore[method-assign]
    clock.start_clock()
    jumper = _jumper_in(clock)
    if state.selector is None:
        polled_idle_of(state).use_jumper(jumper)
    else:
        selector_idle_of(state).jumper = jumper


# While current_time() of a clock is called: the clocks that can jump and whose current_time() was
# called within that call.
asked: ContextVar[list[Any]] = ContextVar("asked")


def _jumper_in(clock: Clock) -> Any:
    """The clock that jumps when the loop is idle: ``clock``, or one from which it gets its time."""
    found: list[Any] = []
    token = asked.set(found)
    try:
        clock.current_time()
    finally:
        asked.reset(token)
    return found[0] if found else None


def current_clock() -> Any:
    """Return the clock that the running loop uses.

    Returns:
        The clock given to ``run(clock=...)``, or one that shows the loop's own time.

    Raises:
        RuntimeError: where no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.current_clock``.
    """
    state = current_state()
    if state.clock is None:
        state.clock = _LoopClock(state)
    return state.clock


class _LoopClock(Clock):
    """Shows the time of a loop as an ``abc.Clock``."""

    def __init__(self, state: LoopState) -> None:
        self._loop = state.loop

    def __repr__(self) -> str:
        return f"<clock of {self._loop!r}>"

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        """The loop's time in seconds."""
        return self._loop.time()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Seconds until ``deadline``."""
        return deadline - self._loop.time()
