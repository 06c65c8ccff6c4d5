"""Event loops whose time is virtual, and which end a program that hangs, spins or is late.

Rule 1: when nothing is ready the clock jumps to the next timer. With neither a timer nor a thread
at work, the program hangs: the loop calls ``abort``, which does not return.

Rule 2: iterations are counted (calls of ``call_soon`` on uvloop, which does not show its
iterations), and a program that needs far more than expected is aborted as one that spins.

Rule 3: while a worker thread is at work the loop waits for it in each iteration. So its steps
fall between the same iterations in each run.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import selectors
import threading
from collections.abc import Callable
from typing import Any, NoReturn

# How long (real seconds) the loop waits for a thread that is at work.
THREAD_SECONDS = 0.2


class Watch:
    """The counts of a loop, and the limits that it keeps.

    Args:
        abort: called with a sentence when a limit is passed; must not return.
    """

    def __init__(self, abort: Callable[[str, str], NoReturn]) -> None:
        self.abort = abort
        self.ticks = 0
        self.most_ticks = 3000
        self.latest = 1000.0  # virtual seconds
        # Jobs that threads have not finished, and whether one of them runs without having called
        # into the loop yet.
        self.jobs = 0
        self.thread_runs = False

    def tick(self) -> None:
        """One iteration more."""
        self.ticks += 1
        if self.ticks > self.most_ticks:
            self.abort("spins", f"more than {self.most_ticks} iterations")

    def jump(self, when: float) -> None:
        """The clock is about to jump."""
        if when > self.latest:
            self.abort("late", f"still running at {when:.2f} s, limit {self.latest:.2f} s")

    def given(self) -> None:
        """A thread gets a job."""
        self.jobs += 1
        self.thread_runs = True

    def called(self) -> None:
        """A thread has called into the loop."""
        self.thread_runs = False

    def done(self) -> None:
        """A thread has finished a job."""
        self.jobs -= 1
        self.thread_runs = False


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type,misc]
    loop: StockLoop

    def select(self, timeout: float | None = None) -> Any:
        loop, watch = self.loop, self.loop.watch
        watch.tick()
        found = super().select(THREAD_SECONDS if watch.thread_runs else 0)
        watch.thread_runs = False
        if found or loop._ready:  # type: ignore[attr-defined]
            return found
        if watch.jobs and (found := super().select(THREAD_SECONDS)):
            return found
        watch.jobs = 0  # whatever the thread does, it does not call
        scheduled = loop._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            loop._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            heapq.heappop(scheduled)._scheduled = False
        if scheduled:
            watch.jump(scheduled[0]._when)
            loop.now = max(loop.now, scheduled[0]._when)
        else:
            watch.abort("hangs", "nothing is ready, and there is no timer")
        return found


class StockLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop in virtual time. Under ``run(clock=...)`` that clock takes over."""

    def __init__(self, watch: Watch) -> None:
        self.now = 0.0
        self.watch = watch
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

        self._own_thread = threading.get_ident()

    def time(self) -> float:
        """The virtual time."""
        return self.now

    def call_soon_threadsafe(
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Notes that a thread has called."""
        if threading.get_ident() != self._own_thread:
            self.watch.called()
        return super().call_soon_threadsafe(callback, *args, context=context)


def new_uvloop(watch: Watch) -> asyncio.AbstractEventLoop:
    """One of uvloop's loops in virtual time.

    A callback schedules itself again and again. When nothing else was scheduled since its last
    turn, the clock jumps to the next timer.
    """
    import uvloop

    class VirtualUvloop(uvloop.Loop):  # type: ignore[misc]
        """The loop."""

        def __init__(self) -> None:
            super().__init__()
            self.now = 0.0
            self.watch = watch
            self._heap: list[tuple[float, int, asyncio.TimerHandle]] = []
            self._number = 0
            self._calls = 0
            self._seen = -1
            self._quiet = 0
            self._context = contextvars.Context()
            super().call_soon(self._turn, context=self._context)

        def time(self) -> float:
            """The virtual time."""
            return self.now

        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
            """Counted."""
            self._calls += 1
            watch.tick()
            return super().call_soon(callback, *args, context=context)

        def call_at(
            self, when: float, callback: Any, *args: Any, context: Any = None
        ) -> asyncio.TimerHandle:
            """A timer in virtual time."""
            watch.tick()
            handle = asyncio.TimerHandle(when, callback, args, self, context)
            self._number += 1
            heapq.heappush(self._heap, (when, self._number, handle))
            return handle

        def call_later(
            self, delay: float, callback: Any, *args: Any, context: Any = None
        ) -> asyncio.TimerHandle:
            """A timer in virtual time."""
            return self.call_at(self.now + max(0.0, delay), callback, *args, context=context)

        def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
            """Handles report this; they are skipped when they are due."""

        def _turn(self) -> None:
            heap = self._heap
            # A call that uvloop makes for itself, as to stop, is seen by its effect only.
            self._quiet = self._quiet + 1 if self._calls == self._seen else 0
            if self._quiet > 2:
                self._quiet = 0
                while heap and heap[0][2].cancelled():
                    heapq.heappop(heap)
                if not heap:
                    watch.abort("hangs", "nothing is ready, and there is no timer")
                watch.jump(heap[0][0])
                self.now = max(self.now, heap[0][0])
            while heap and heap[0][0] <= self.now:
                handle = heapq.heappop(heap)[2]
                if not handle.cancelled():
                    self._calls += 1
                    super().call_soon(handle._run, context=self._context)
            self._seen = self._calls
            super().call_soon(self._turn, context=self._context)

    return VirtualUvloop()
