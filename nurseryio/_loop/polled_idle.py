"""Noticing that a loop without a selector (uvloop) is idle, and having such a loop go by a clock.

Rule 1: nothing tells when such a loop is about to wait. So while somebody wants to know, the
loop is made to turn, and is taken as idle when a few turns have passed with every task waiting.
This costs CPU: it is for tests.

Rule 2: with a clock the loop's ``time``, ``call_at`` and ``call_later`` are replaced on that one
object: timers, asyncio's own included, stand in a heap here and are due when the clock says so.

Rule 3: a clock that stands still costs nothing, one that runs costs one real timer, one that
jumps when the loop is idle is looked after by turning (rule 1), and where it has nothing to jump
to, by a look every ``LOOK_AGAIN`` seconds.
"""

from __future__ import annotations

import contextvars
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._base.outcome import Error
from .._base.util import call_each
from .._core.loop_state import CLOCK_RESOLUTION, LoopState, PerLoop
from .._core.task import Task
from .._core.traps import reschedule

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .._base.abcs import Clock


# How many turns must pass with every task waiting: I/O that is ready takes one to be noticed, one
# to be handled, and one more if a callback hands it on.
QUIET_TURNS = 4

# Seconds between two looks at an idle loop that only something from outside can wake.
LOOK_AGAIN = 0.01


class PolledIdle:
    """Finds out when a loop without a selector is idle; keeps its timers if it goes by a clock."""

    def __init__(self, state: LoopState) -> None:
        self._state = state
        # Tasks in wait_all_tasks_blocked() with their cushions (seconds).
        self.waiting: dict[Task, float] = {}
        self._quiet = 0
        self._turning = False
        # Not the loop's own: callbacks in that one are run from here, and nothing enters it twice.
        self._context = contextvars.Context()
        # While a cushion passes: its timer, and what the tasks wait for.
        self._timer: Any = None
        self._watched: list[Any] = []
        self._call_later: Callable[..., Any] = state.loop.call_later
        # A clock, what makes it jump, and the timers that go by it.
        self._clock: Any = None
        self._jumper: Any = None
        self._heap: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._sequence = count().__next__
        # The real timer for the earliest of them, under a clock that runs.
        self._alarm: Any = None

    def begin(self) -> None:
        """Look from the beginning: something has happened."""
        self._stop_resting()
        self._quiet = 0
        self._turn_again()

    def release(self) -> None:
        """Stop looking if nobody waits any more."""
        if not self.waiting and self._clock is None:
            self._stop_resting()

    def _turn_again(self) -> None:
        if not self._turning:
            self._turning = True
            self._state.loop.call_soon(self._guarded, self._turn, context=self._context)

    def _guarded(self, callback: Callable[..., object], *args: object) -> None:
        """Call one of these methods as a callback of the loop. An error in it stops no clock."""
        try:
            callback(*args)
        except BaseException as exc:
            if self._clock is None:
                # The error of those for whom the loop was watched.
                waiting = list(self.waiting)
                self.waiting.clear()
                call_each(*(partial(reschedule, task, Error(exc)) for task in waiting))
                return
            self._turning = False
            self._turn_again()
            assert self._state.run is not None  # only run() uses a clock
            self._state.run.driver.throw(exc)

    def _turn(self) -> None:
        self._turning = False
        if self._clock is not None and self._run_due():
            self._quiet = 0
        cushion = self._cushion()
        if cushion == inf:
            return
        _, runnable = compat.count_tasks(self._state.loop)
        self._quiet = 0 if runnable else self._quiet + 1
        if self._quiet < QUIET_TURNS:
            self._turn_again()
        elif cushion == 0:
            self._yield_credit(cushion)
        else:
            self._rest(cushion)

    def _cushion(self) -> float:
        """How long the loop must be idle for something to happen; ``inf``: nobody wants to know."""
        if self.waiting:
            return min(self.waiting.values())
        if self._jumper is not None:
            threshold: float = self._jumper.autojump_threshold
            return threshold
        return inf

    def _rest(self, cushion: float) -> None:
        """Let the cushion pass; any task that begins to move disturbs it."""
        self._timer = self._call_later(
            cushion, self._guarded, self._yield_credit, cushion, context=self._context
        )
        self._watched = compat.waiters(self._state.loop)
        for future in self._watched:
            future.add_done_callback(self._disturbed)

    def _disturbed(self, _future: object) -> None:
        if self._timer is not None:
            self.begin()

    def _stop_resting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in self._watched:
            future.remove_done_callback(self._disturbed)
        self._watched = []

    def _yield_credit(self, cushion: float) -> None:
        """The loop has been idle for so long."""
        self._stop_resting()
        if self.waiting:
            wake_waiting(self.waiting, cushion)
        else:
            when = self._next()
            self._jumper._autojump(self._state, when)
            if when == inf:
                self._timer = self._call_later(
                    LOOK_AGAIN, self._guarded, self.begin, context=self._context
                )
                return
        if self.waiting or self._clock is not None:
            self.begin()

    # -- timers by a clock ------------------------------------------------------

    def use_clock(self, clock: Clock) -> None:
        """Have the loop go by ``clock`` from now on."""
        loop = self._state.loop
        self._clock = clock
        loop.call_at = self._call_at  # type: ignore[method-assign,assignment]
        loop.call_later = self._call_after  # type: ignore[method-assign,assignment]
        compat.ignore_cancelled_timers(loop)
        self.begin()

    def use_jumper(self, jumper: Any) -> None:
        """Have the clock jump when the loop is idle, by ``jumper._autojump``; None: not at all."""
        self._jumper = jumper
        if jumper is not None:
            jumper._on_change = self.begin
        self.begin()

    def _call_at(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = compat.new_timer(self._state.loop, when, callback, args, context)
        heappush(self._heap, (when, self._sequence(), handle))
        self.begin()
        return handle

    def _call_after(
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self._call_at(self._clock.current_time() + delay, callback, *args, context=context)

    def _next(self) -> float:
        self._state.arm_exactly()
        heap = self._heap
        while heap and heap[0][2].cancelled():
            heappop(heap)
        return heap[0][0] if heap else inf

    def _run_due(self) -> bool:
        """Run the timers that are due, and set the alarm for the next."""
        now = self._clock.current_time() + CLOCK_RESOLUTION
        ran = False
        while self._next() <= now:
            compat.run_handle(heappop(self._heap)[2])
            ran = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        when = self._next()
        if when < inf:
            left = self._clock.deadline_to_sleep_time(when)
            if left < LONGEST_WAIT:
                self._alarm = self._call_later(
                    left, self._guarded, self.begin, context=self._context
                )
        return ran


# The longest single wait (seconds), as in asyncio: the operating system's call has its limits.
LONGEST_WAIT = 24 * 3600.0


def wake_waiting(waiting: dict[Task, float], cushion: float) -> None:
    """Wake the tasks in ``wait_all_tasks_blocked`` that have waited for this cushion."""

    def wake(task: Task) -> None:
        reschedule(task)
        waiting.pop(task, None)

    call_each(*(partial(wake, task) for task, own in waiting.items() if own == cushion))


polled_idle_of: PerLoop[PolledIdle] = PerLoop(PolledIdle)
