"""Virtual time: a clock for tests that stands still, runs at any rate, or jumps to the next timer.

This module has :class:`MockClock`, which is arithmetic, and its jump when a loop is idle. How a
loop uses a clock, and notices that it is idle, is in ``_loop``. The report when no timer is left
to jump to is in ``deadlock``.

The model: virtual time is a line over real time, through (``_real_base``, ``_virtual_base``) with
slope ``rate``. Changing the rate, and every jump, moves the base to a new point.
"""

from __future__ import annotations

import time
from math import inf, isclose, isnan, nextafter
from typing import TYPE_CHECKING

from .._base import Clock
from .._base.util import Final
from .._loop.selector_idle import asked
from .deadlock import report_if_stuck

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.loop_state import LoopState

# The result of ``deadline_to_sleep_time`` for a time that never comes by itself (real seconds).
NEVER = 999999999.0

# asyncio treats a timer as due this many seconds early. A timer that is due exactly now runs only
# if adding this to the time makes a difference.
LOOP_SLACK = 1e-9


class MockClock(Clock, metaclass=Final):
    """A clock that a test controls, for ``run(..., clock=MockClock())``.

    Everything on the loop uses it: timeouts and sleeps of this library, and asyncio's own
    (``asyncio.sleep``, ``asyncio.timeout``, ``loop.call_later``). It begins at 0. You may also put
    it inside a clock that you write, which reads it and changes the time, by an offset or another
    rate.

    Args:
        rate: see the attribute :attr:`rate`.
        autojump_threshold: see the attribute :attr:`autojump_threshold`.

    Raises:
        ValueError: if either is negative or not a number.

    Trio: ``trio.testing.MockClock``.
    """

    def __init__(self, rate: float = 0.0, autojump_threshold: float = inf) -> None:
        # The source of real time, in seconds; tests of this class replace it.
        self._real_clock: Callable[[], float] = time.perf_counter
        self._real_base = 0.0
        self._virtual_base = 0.0
        self._rate = 0.0
        # Called after every change. It is set for loops that cannot look at the clock when idle.
        self._on_change: Callable[[], object] | None = None
        self.rate = rate
        self.autojump_threshold = autojump_threshold

    def __repr__(self) -> str:
        return f"<MockClock: time {self.current_time():.7f}, rate {self._rate} at {id(self):#x}>"

    @property
    def rate(self) -> float:
        """How many seconds of this clock pass in a real second; 0 (the default) to stand still.

        It may be changed at any time.

        Raises:
            ValueError: when set to a negative number or to NaN.
        """
        return self._rate

    @rate.setter
    def rate(self, new_rate: float) -> None:
        new_rate = float(new_rate)
        if isnan(new_rate) or new_rate < 0:
            raise ValueError("rate must be >= 0")
        self._go_to(self.current_time())
        self._rate = new_rate
        self._changed()

    @property
    def autojump_threshold(self) -> float:
        """How long every task must have been waiting, in real seconds, for the clock to jump.

        The clock jumps to the time of the next timer, so a test that only sleeps takes no time.
        ``inf`` (the default) means never. Use 0 if nothing but timers is waited for. With I/O or
        threads in the test, use the smallest number at which the clock does not jump between the
        two halves of an exchange. It may be changed at any time.

        ``wait_all_tasks_blocked`` has priority: the clock does not jump while a task waits in it.

        The clock may find neither a timer nor anything outside that could ever wake a task. Then
        the run ends with :exc:`DeadlockError`.

        Raises:
            ValueError: when set to a negative number or to NaN.
        """
        return self._autojump_threshold

    @autojump_threshold.setter
    def autojump_threshold(self, new_threshold: float) -> None:
        new_threshold = float(new_threshold)
        if isnan(new_threshold) or new_threshold < 0:
            raise ValueError("autojump_threshold must be >= 0")
        self._autojump_threshold = new_threshold
        self._changed()

    def start_clock(self) -> None:
        """Do nothing: the clock runs from the moment it is made.

        Trio: ``trio.testing.MockClock.start_clock``.
        """

    def current_time(self) -> float:
        """Return the time of this clock, in seconds.

        Trio: ``trio.testing.MockClock.current_time``.
        """
        found = asked.get(None)
        if found is not None:
            found.append(self)
        return self._time()

    def _time(self) -> float:
        return self._virtual_base + self._rate * (self._real_clock() - self._real_base)

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how many real seconds it takes until this clock shows ``deadline``, without jumps.

        Trio: ``trio.testing.MockClock.deadline_to_sleep_time``.
        """
        virtual = deadline - self.current_time()
        if virtual <= 0:
            return 0.0
        if self._rate == 0:
            return NEVER
        return virtual / self._rate

    def jump(self, seconds: float) -> None:
        """Move the clock forward.

        Args:
            seconds: how far, in seconds of this clock.

        Raises:
            ValueError: if it is negative or not a number.

        Trio: ``trio.testing.MockClock.jump``.
        """
        if isnan(seconds) or seconds < 0:
            raise ValueError("time can't go backwards")
        self._virtual_base += seconds
        self._changed()

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()

    def _go_to(self, virtual: float) -> None:
        # Both together, because one without the other would be a different time.
        self._real_base, self._virtual_base = self._real_clock(), virtual

    def _autojump(self, state: LoopState, next_timer: float) -> None:
        """Called by the loop when it has been idle for :attr:`autojump_threshold`.

        Args:
            state: the state of the loop.
            next_timer: when its next timer is due, on this clock; ``inf`` without a timer.
        """
        if next_timer == inf:
            report_if_stuck(state)
            return
        # The time must be past the timer. If the time is so large that adding the slack does not
        # change it, the next larger number is used.
        goal = next_timer
        if goal + LOOP_SLACK <= goal:
            goal = nextafter(goal, inf)
        if state.clock is self:
            # Set the time itself instead of adding a difference: a sum might fall short of it.
            self._go_to(max(goal, self._time()))
        elif state.clock is not None:
            self._jump_within(state.clock, goal)

    def _jump_within(self, outer: Clock, goal: float) -> None:
        """Jump so far that an outer clock, which reads this one, shows ``goal``.

        If the outer clock runs at another rate, the first jump measures it. An error by rounding is
        corrected when the loop is idle the next time.
        """
        now, shown = self._time(), outer.current_time()
        missing = goal - shown
        if missing <= 0:
            return
        self._go_to(max(now + missing, nextafter(now, inf)))
        moved = outer.current_time() - shown
        if 0 < moved and not isclose(moved, missing):
            self._go_to(max(now + missing * (missing / moved), nextafter(now, inf)))
