"""Leftovers of a test: the checks that make every test end clean.

``LoopWatch`` looks while the loop of an async test still runs: tasks, timers, cancel requests
without an ``uncancel()``. ``ProcessWatch`` looks when the test and its fixtures are gone: threads,
file descriptors, reports to the loop's exception handler.

Rule 1: a problem is a sentence; the caller decides what to do with it.
Rule 2: nothing waits for a fixed time. A check that may take a moment is repeated until nothing
is left or ``GRACE`` is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

from nurseryio._core.loop_state import loop_state, sweep_closed_loops
from nurseryio._core.task import records

# Seconds that a thread on its way out, or the descriptor that it holds, is given.
GRACE = 2.0

# Loop turns that a task that has ended in all but name is given.
TURNS = 3

# Idle worker threads of the library stay for the next job and end by themselves.
POOL_THREADS = "nurseryio thread"

# PyPy cannot leave old objects out of a collection, so each one takes long. There garbage is
# collected only if something is left.
COLLECTIONS_ARE_CHEAP = hasattr(gc, "freeze")

_FD_DIRECTORY = next((d for d in ("/proc/self/fd", "/dev/fd") if os.path.isdir(d)), None)


class LoopWatch:
    """Runs an async test on a loop and notes what it leaves there.

    Args:
        errors: where each call of the loop's exception handler is put down.
    """

    def __init__(self, errors: list[str]) -> None:
        self.errors = errors
        self.problems: list[str] = []

    async def run(self, test: Callable[[], Awaitable[None]]) -> None:
        """Run the test; if it passes, look at what is left. To be called once, on the loop."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._note_error)
        timers = live_timers(loop)
        before = asyncio.all_tasks()
        await test()
        self._look_for_cancel_requests()
        await self._look_for_tasks(before)
        self.problems += [f"live timer: {timer!r}" for timer in timers()]

    def _note_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _look_for_cancel_requests(self) -> None:
        task = asyncio.current_task()
        count = getattr(task, "cancelling", lambda: 0)()
        if count:
            self.problems.append(
                f"the test's own task still counts {count} cancel requests (task.cancelling())"
            )

    async def _look_for_tasks(self, before: set[asyncio.Task[Any]]) -> None:
        for _ in range(TURNS):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self.problems.append("a cancellation was still on its way to the test's own task")
            leftovers = {task for task in asyncio.all_tasks() - before if not is_system(task)}
            if not leftovers:
                return
        self.problems += [f"leftover task: {task!r}" for task in leftovers]


def is_system(task: asyncio.Task[Any]) -> bool:
    """Whether a task is one of the library's system tasks, which may run as long as the loop."""
    record = records.get(task)
    return record is not None and record._extra.is_system


def live_timers(loop: asyncio.AbstractEventLoop) -> Callable[[], list[asyncio.TimerHandle]]:
    """A function that lists the loop's timers that are still to fire, the library's own aside."""
    if hasattr(loop, "_scheduled"):
        handles, late = loop._scheduled, 0.0
    else:
        # uvloop counts in milliseconds: a timer that has fired may still seem to be to come.
        late = 0.002
        # uvloop keeps its timers to itself, so they are noted where they are made.
        handles = weakref.WeakSet()

        def noting(call: Callable[..., asyncio.TimerHandle]) -> Callable[..., Any]:
            def noted(*args: Any, **kwargs: Any) -> asyncio.TimerHandle:
                handle = call(*args, **kwargs)
                handles.add(handle)
                return handle

            return noted

        loop.call_later = noting(loop.call_later)  # type: ignore[method-assign]
        loop.call_at = noting(loop.call_at)  # type: ignore[method-assign]

    def live() -> list[asyncio.TimerHandle]:
        now, own = loop.time(), loop_state(loop).timer
        return [
            handle
            for handle in list(handles)
            if not handle.cancelled() and handle.when() > now + late and handle is not own
        ]

    return live


class ProcessWatch(logging.Handler):
    """Notes the threads and file descriptors there are, and later which ones are new.

    Args:
        errors: where errors that asyncio logs are put down, those of loops that a test made
            itself and that no exception handler saw.
    """

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors
        self._threads = set(threading.enumerate())
        self._descriptors = open_descriptors()

    def __enter__(self) -> ProcessWatch:
        # Objects that exist now are not garbage of this test: leave them out of later
        # collections, which makes each of them cheap. This is not done at the end of a test, when
        # pytest still holds the test's objects: they would be kept for good.
        sweep_closed_loops()
        if COLLECTIONS_ARE_CHEAP:
            gc.collect()
            gc.freeze()
        logging.getLogger("asyncio").addHandler(self)
        return self

    def __exit__(self, *_exc: object) -> None:
        logging.getLogger("asyncio").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Record an error that asyncio's logger got."""
        self._errors.append(record.getMessage())

    def problems(self) -> list[str]:
        """The problems, a sentence each. Collects garbage first: that closes and reports."""
        if COLLECTIONS_ARE_CHEAP or self._new_threads() or self._new_descriptors():
            gc.collect()
        threads = _until_empty(self._new_threads)
        descriptors = _until_empty(self._new_descriptors)
        return [f"leftover thread: {thread!r}" for thread in threads] + [
            f"leftover file descriptor: {number} -> {target}" for number, target in descriptors
        ]

    def _new_threads(self) -> list[threading.Thread]:
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self._threads and not thread.name.startswith(POOL_THREADS)
        ]

    def _new_descriptors(self) -> list[tuple[int, str]]:
        return sorted(open_descriptors() - self._descriptors)


def open_descriptors() -> set[tuple[int, str]]:
    """The open file descriptors of this process, with what each one is."""
    if _FD_DIRECTORY is None:
        return set()
    found = set()
    for name in os.listdir(_FD_DIRECTORY):
        # The descriptor of the listing itself is gone by now.
        with contextlib.suppress(OSError):
            found.add((int(name), os.readlink(f"{_FD_DIRECTORY}/{name}")))
    return found


def _until_empty(look: Callable[[], list[Any]]) -> list[Any]:
    deadline = time.monotonic() + GRACE
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return found
