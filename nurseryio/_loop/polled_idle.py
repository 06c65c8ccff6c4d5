"""Noticing that a loop that shows no selector (uvloop, Qt) is idle, and running it on a clock.

Rule 1: such a loop gives no notice when it is about to wait. So while idleness is of interest, the
loop is kept iterating by callbacks. It counts as idle after a few iterations in which every task
waited. This costs CPU, so it is for tests.

Rule 2: with a clock the loop's ``time``, ``call_at`` and ``call_later`` are replaced on that one
object. All timers, asyncio's own included, are in a heap here, and the clock decides when they are
due.

Rule 3: the cost depends on the clock. A clock that stands still costs nothing. A clock that runs
costs one real timer. A clock that jumps when the loop is idle is watched by iterating (rule 1). If
it has no timer to jump to, the loop is checked every ``LOOK_AGAIN`` seconds instead. Some loops
make ``call_later`` of the methods that are replaced. On these a thread measures real time.
"""

from __future__ import annotations

import contextvars
import threading
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._asyncio.interpreter import DAEMONS
from .._base.outcome import Error
from .._base.util import call_each
from .._core.loop_state import CLOCK_RESOLUTION, LoopState, PerLoop
from .._core.task import Task
from .._core.traps import reschedule

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from .._base.abcs import Clock


# The loop is idle after this many iterations in which every task waited. I/O that is ready takes
# one iteration to be noticed and one to be handled. It takes one more if a callback passes it on
# to another callback.
QUIET_ITERATIONS = 4

# Seconds between two checks of an idle loop that only an event from outside can wake.
LOOK_AGAIN = 0.01


class PolledIdle:
    """Finds out when a loop without a selector is idle; has its timers if the loop uses a clock."""

    def __init__(self, state: LoopState) -> None:
        self._state = state
        # Tasks in wait_all_tasks_blocked() with their cushions (seconds).
        self.waiting: dict[Task, float] = {}
        self._quiet = 0
        self._polling = False
        # Not LoopState.context: timers that have that context are run from a callback of this
        # object, and a context cannot be entered twice.
        self._context = contextvars.Context()
        # While a cushion passes: its timer, and the futures that the tasks wait for.
        self._timer: Any = None
        self._watched: list[Any] = []
        self._call_later: Callable[..., Any] = state.loop.call_later
        # The clock, the object that makes it jump, and the timers by that clock.
        self._clock: Any = None
        self._jumper: Any = None
        self._heap: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._sequence = count().__next__
        # Whether a thread measures real time, because the clock has replaced what timers need.
        self._by_thread = False
        # The real timer for the earliest timer in the heap, under a clock that runs.
        self._alarm: Any = None

    def begin(self) -> None:
        """Start the count of quiet iterations again, because something has happened."""
        self._stop_resting()
        self._quiet = 0
        self._poll_again()

    def release(self) -> None:
        """Stop the cushion's timer if no task and no clock needs it any more."""
        if not self.waiting and self._clock is None:
            self._stop_resting()

    def _poll_again(self) -> None:
        if not self._polling:
            self._polling = True
            self._state.loop.call_soon(self._guarded, self._poll, context=self._context)

    def _guarded(self, callback: Callable[..., object], *args: object) -> None:
        """Call one of these methods as a callback of the loop. An error does not stop a clock."""
        try:
            callback(*args)
        except BaseException as exc:
            if self._clock is None:
                # The tasks for which the loop was watched get the error.
                waiting = list(self.waiting)
                self.waiting.clear()
                call_each(*(partial(reschedule, task, Error(exc)) for task in waiting))
                return
            self._polling = False
            self._poll_again()
            assert self._state.run is not None  # only run() uses a clock
            self._state.run.driver.throw(exc)

    def _poll(self) -> None:
        self._polling = False
        if self._clock is not None and self._run_due():
            self._quiet = 0
        cushion = self._cushion()
        if cushion == inf:
            return
        _, runnable = compat.count_tasks(self._state.loop)
        self._quiet = 0 if runnable else self._quiet + 1
        if self._quiet < QUIET_ITERATIONS:
            self._poll_again()
        elif cushion == 0:
            self._cushion_passed(cushion)
        else:
            self._rest(cushion)

    def _cushion(self) -> float:
        """The idle time (seconds) after which to act; ``inf`` if no task or clock needs that."""
        if self.waiting:
            return min(self.waiting.values())
        if self._jumper is not None:
            threshold: float = self._jumper.autojump_threshold
            return threshold
        return inf

    def _rest(self, cushion: float) -> None:
        """Let the cushion pass, unless a future that a task waits for is done earlier."""
        self._timer = self._really_later(cushion, self._cushion_passed, cushion)
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

    def _cushion_passed(self, cushion: float) -> None:
        """Wake tasks or let the clock jump, after the loop was idle for ``cushion`` seconds."""
        self._stop_resting()
        if self.waiting:
            wake_waiting(self.waiting, cushion)
        else:
            when = self._next()
            self._jumper._autojump(self._state, when)
            if when == inf:
                self._timer = self._really_later(LOOK_AGAIN, self.begin)
                return
        if self.waiting or self._clock is not None:
            self.begin()

    def _really_later(self, seconds: float, method: Callable[..., object], *args: object) -> Any:
        """Call one of these methods after ``seconds`` of real time. The result has ``cancel()``."""
        if not self._by_thread:
            return self._call_later(seconds, self._guarded, method, *args, context=self._context)
        return ThreadTimer(self._state.loop, seconds, self._guarded, (method, *args), self._context)

    # -- timers by a clock ------------------------------------------------------

    def use_clock(self, clock: Clock) -> None:
        """Make the loop use ``clock`` from now on."""
        loop = self._state.loop
        self._by_thread = _call_later_uses(loop, "time", "call_at")
        self._clock = clock
        loop.call_at = self._call_at  # type: ignore[method-assign,assignment]
        loop.call_later = self._call_after  # type: ignore[method-assign,assignment]
        compat.ignore_cancelled_timers(loop)
        self.begin()

    def use_jumper(self, jumper: Any) -> None:
        """Call ``jumper._autojump`` when the loop is idle; None: the clock does not jump."""
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
        if delay <= 0:
            # Due at once by any clock. Some loops make call_soon() of this method (qasync).
            handle: asyncio.TimerHandle = self._call_later(delay, callback, *args, context=context)
            return handle
        return self._call_at(self._clock.current_time() + delay, callback, *args, context=context)

    def _next(self) -> float:
        self._state.arm_exactly()
        heap = self._heap
        while heap and heap[0][2].cancelled():
            heappop(heap)
        return heap[0][0] if heap else inf

    def _run_due(self) -> bool:
        """Run the timers that are due, and set the real timer for the next one."""
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
                self._alarm = self._really_later(left, self.begin)
        return ran


def _call_later_uses(loop: asyncio.AbstractEventLoop, *names: str) -> bool:
    """Whether the ``call_later`` of a loop calls one of these methods of the loop."""
    attributes, before, used = vars(loop), dict(vars(loop)), []

    def noting(method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            used.append(method)
            return method(*args, **kwargs)

        return noted

    try:
        for name in names:
            setattr(loop, name, noting(getattr(loop, name)))
        loop.call_later(LONGEST_WAIT, list).cancel()
    finally:
        for name in names:
            attributes.pop(name, None)
            if name in before:
                attributes[name] = before[name]
    return bool(used)


class ThreadTimer:
    """Real time for a loop whose ``call_later`` depends on methods that a clock replaces."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context,
    ) -> None:
        self._loop = loop
        self._handle = compat.new_timer(loop, seconds, callback, args, context)
        self._thread = threading.Timer(seconds, self._wake)
        self._thread.daemon = DAEMONS
        self._thread.start()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(compat.run_handle, self._handle)

    def cancel(self) -> None:
        """The callback is not called any more, also if the thread has scheduled it already."""
        self._handle.cancel()
        self._thread.cancel()


# The longest single wait (seconds), as in asyncio, because the operating system's call has a limit.
LONGEST_WAIT = 24 * 3600.0


def wake_waiting(waiting: dict[Task, float], cushion: float) -> None:
    """Wake the tasks in ``wait_all_tasks_blocked`` that have waited for this cushion."""

    def wake(task: Task) -> None:
        reschedule(task)
        waiting.pop(task, None)

    call_each(*(partial(wake, task) for task, own in waiting.items() if own == cushion))


polled_idle_of: PerLoop[PolledIdle] = PerLoop(PolledIdle)
