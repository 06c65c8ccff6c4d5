"""A clock for tests: time stands still, runs at a pace of one's choice, or jumps to the next timer.

What lives here: :class:`MockClock`, which is arithmetic, and its jump when a loop is idle. What
does not: how a loop is made to go by a clock and notices that it is idle; that is the core's.
What is reported when there is nothing to jump to lives in :mod:`deadlock`.

The theory: virtual time is a line over real time, through (``_real_base``, ``_virtual_base``) with
slope ``rate``. Changing the rate, and every jump, puts the base to a new point.
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

# What ``deadline_to_sleep_time`` says for a time that never comes by itself (real seconds).
NEVER = 999999999.0

# A loop takes a timer as due this many seconds early, and a timer that is due exactly now only if
# adding this to the time makes a difference.
LOOP_SLACK = 1e-9


class MockClock(Clock, metaclass=Final):
    """A clock that a test controls, for ``run(..., clock=MockClock())``.

    Everything on the loop goes by it: timeouts and sleeps of this library, and asyncio's own
    (``asyncio.sleep``, ``asyncio.timeout``, ``loop.call_later``). It begins at 0. It may also stand
    inside a clock of yours, which takes its time from it and gives it another shape: an offset,
    another pace.

    Args:
        rate: see the attribute :attr:`rate`.
        autojump_threshold: see the attribute :attr:`autojump_threshold`.

    Raises:
        ValueError: if either is negative or not a number.

    Trio: ``trio.testing.MockClock``.
    """

    def __init__(self, rate: float = 0.0, autojump_threshold: float = inf) -> None:
        # Where real time comes from, in seconds; the tests of this class put in their own.
        self._real_clock: Callable[[], float] = time.perf_counter
        self._real_base = 0.0
        self._virtual_base = 0.0
        self._rate = 0.0
        # Called after every change: set by a loop that cannot look at the clock by itself.
        self._on_change: Callable[[], object] | None = None
        self.rate = rate
        self.autojump_threshold = autojump_threshold

    def __repr__(self) -> str:
        return f"<MockClock: time {self.current_time():.7f}, rate {self._rate} at {id(self):#x}>"

    @property
    def rate(self) -> float:
        """How many seconds of this clock pass in a real second; 0 (the default) to stand still.

        May be changed at any time.

        Raises:
            ValueError: when set to a negative number or to none.
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

        It jumps to the time of the next timer, so a test that only sleeps takes no time at all.
        ``inf`` (the default) is never. 0 is right where nothing but timers is waited for; with
        I/O or threads in the test, take the least figure at which no jump happens between two
        halves of one exchange. May be changed at any time.

        A task in ``wait_all_tasks_blocked`` goes first: the clock does not jump while one waits.

        If the clock would jump and there is neither a timer nor anything from outside that could
        wake a task, ever, the run ends with :exc:`DeadlockError`.

        Raises:
            ValueError: when set to a negative number or to none.
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
        """Nothing: the clock runs from the moment it is made.

        Trio: ``trio.testing.MockClock.start_clock``.
        """

    def current_time(self) -> float:
        """The time of this clock, in seconds.

        Trio: ``trio.testing.MockClock.current_time``.
        """
        found = asked.get(None)
        if found is not None:
            found.append(self)
        return self._time()

    def _time(self) -> float:
        return self._virtual_base + self._rate * (self._real_clock() - self._real_base)

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """How many real seconds it takes until this clock shows ``deadline``, if nobody jumps.

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
        # At once: one without the other would be another time.
        self._real_base, self._virtual_base = self._real_clock(), virtual

    def _autojump(self, state: LoopState, next_timer: float) -> None:
        """Called by the loop when it has been idle for :attr:`autojump_threshold`.

        Args:
            state: of the loop.
            next_timer: when its next timer is due, on this clock; ``inf`` if it has none.
        """
        if next_timer == inf:
            report_if_stuck(state)
            return
        # A timer must be past, by more than the slack if that vanishes so late on the clock.
        goal = next_timer
        if goal + LOOP_SLACK <= goal:
            goal = nextafter(goal, inf)
        if state.clock is self:
            # To the very time, not by the difference: a sum might fall short of it.
            self._go_to(max(goal, self._time()))
        elif state.clock is not None:
            self._jump_within(state.clock, goal)

    def _jump_within(self, outer: Clock, goal: float) -> None:
        """Jump as far as the clock that takes its time from this one needs to show ``goal``.

        If it runs at another pace, that is measured by the first try. What falls short by
        rounding is made up for at the next idle moment.
        """
        now, shown = self._time(), outer.current_time()
        missing = goal - shown
        if missing <= 0:
            return
        self._go_to(max(now + missing, nextafter(now, inf)))
        moved = outer.current_time() - shown
        if 0 < moved and not isclose(moved, missing):
            self._go_to(max(now + missing * (missing / moved), nextafter(now, inf)))
