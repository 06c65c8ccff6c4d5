"""How long a test may take.

A test that hangs is interrupted from a signal, the one thing that reaches a loop that waits for
ever, and the failure shows where each of its tasks stood.

Rule: an interrupt that Python cannot raise is raised by the loop. Python ignores an exception in a
destructor or in a callback of C code, and a signal may come while one of these runs. Tools that
watch each change of the context have such a callback. It even runs when a signal wakes uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, NoReturn

import pytest

DEFAULT_SECONDS = 60.0
# A cleanup that hangs as well is interrupted again after this time.
AGAIN_SECONDS = 5.0


class TookTooLong(KeyboardInterrupt):
    """Raised in the main thread; event loops let interrupts through, and nothing else."""


def stacks_of_tasks(tasks: Iterable[asyncio.Task[Any]] | None = None) -> str:
    """Where tasks stand, by default all of the loop that runs in this thread; empty without one."""
    lines = []
    with contextlib.suppress(RuntimeError):
        for task in asyncio.all_tasks() if tasks is None else tasks:
            lines.append(f"{task!r}\n")
            lines += traceback.format_list(_awaited_frames(task.get_coro()))
    return "".join(lines)


def _awaited_frames(awaitable: Any) -> traceback.StackSummary:
    """The frames of a coroutine and of all that it awaits, outermost first."""
    frames = []
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if frame is not None:
            frames.append((frame, frame.f_lineno))
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
    return traceback.StackSummary.extract(iter(frames))


@contextlib.contextmanager
def _raised_by_the_loop_if_ignored() -> Iterator[None]:
    """While entered, the running loop raises a TookTooLong that Python could not raise."""
    before = sys.unraisablehook

    def hook(ignored: Any) -> None:
        if isinstance(ignored.exc_value, TookTooLong):
            with contextlib.suppress(RuntimeError):
                loop = asyncio.get_running_loop()
                loop.call_soon_threadsafe(_raise, ignored.exc_value)
        else:
            before(ignored)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        if sys.unraisablehook is hook:
            sys.unraisablehook = before


def _raise(error: BaseException) -> NoReturn:
    raise error


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Fail the test if the body takes longer, in seconds. Does nothing off the main thread."""
    if not hasattr(signal, "setitimer") or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    stacks: list[str] = []

    def strike(_signum: int, _frame: FrameType | None) -> None:
        stacks.append(stacks_of_tasks())
        raise TookTooLong(f"took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS)
    try:
        with _raised_by_the_loop_if_ignored():
            yield
    except BaseException:
        if not stacks:
            raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if stacks:
        pytest.fail(f"the test took longer than {seconds:g} s\n{stacks[0]}", pytrace=False)
