"""Time limits whose signal arrives during a step of ``step_runner``.

Tools such as pytest-timeout have ``SIGALRM`` raise an error wherever the program is. While a loop
runs, that is mostly the loop's own code, which the error would break. Or it is a callback, where
asyncio would log the error and continue. So during a step the handler's error is treated like
Ctrl-C.

This module has the handler of the signal during a step. Interrupting the main task is in
``_run.ctrl_c``.

Rule 1: if the test's own code is running, the error is raised at once. Otherwise it is raised where
the step's task waits.

Rule 2: a step that does not end is interrupted again, after ``BLOCKED`` seconds if some code blocks
the loop, after ``GRACE`` seconds otherwise. Then all tasks of the step are cancelled natively,
which shields do not stop, and the error is raised in the code that blocks. After the same time
again, the loop is given up.

Rule 3: a handler that does not raise is called, and nothing else happens.

Rule 4: the tasks are drawn when the time is over, before anything is interrupted. pytest's report
of the test shows the drawing.
"""

from __future__ import annotations

import signal
import threading
import types
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .._asyncio.compat import running_loop_or_none
from .._asyncio.interpreter import SIGNAL_HANDLERS
from .._core.ki import is_machinery, is_protected
from .._observe.task_tree import draw_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._asyncio.compat import Loop
    from .._core import Task
    from .._run.run import Run

# In real seconds; see rule 2.
BLOCKED = 1.0
GRACE = 10.0

SIGNAL: Any = getattr(signal, "SIGALRM", None)


# The drawing of the tasks at the end of the last limit, until a report takes it.
_drawings: list[str] = []


def draw_at_limit(loop: Loop, frame: types.FrameType | None = None) -> None:
    """Draw the tasks of a loop whose step has taken too long.

    Args:
        loop: the loop.
        frame: the innermost frame of the step, if this thread has interrupted it.
    """
    try:
        _drawings[:] = [draw_tasks(loop, frame)]
    except Exception as error:
        _drawings[:] = [f"(the tasks cannot be shown: {type(error).__name__})"]


def take_drawing() -> str | None:
    """The drawing of the tasks when the time of the last step was over; None if it was not."""
    return _drawings.pop() if _drawings else None


@contextmanager
def drawn_at_limit() -> Iterator[None]:
    """In the body, a test of another plugin, the handler of the signal draws the tasks first.

    The loop must run in the main thread. There is nothing to draw in a test without a loop.
    """
    before: Any = signal.getsignal(SIGNAL) if _can_be_handled() else None
    if not callable(before):
        yield
        return

    def handle(number: int, frame: types.FrameType | None) -> None:
        __tracebackhide__ = True
        loop = running_loop_or_none()
        if loop is not None:
            draw_at_limit(loop, frame)
        before(number, frame)

    signal.signal(SIGNAL, handle)
    try:
        yield
    finally:
        if signal.getsignal(SIGNAL) is handle:
            signal.signal(SIGNAL, before)


def _can_be_handled() -> bool:
    """Whether a handler of the signal can be set here. A subinterpreter sees the main one's."""
    is_main_thread = threading.current_thread() is threading.main_thread()
    return SIGNAL is not None and SIGNAL_HANDLERS and is_main_thread


class TimeLimit:
    """The handler of the signal for the steps of one run.

    Args:
        run: the run.

    Attributes:
        error: the exception that the previous handler has raised in this step.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._task: Task | None = None
        self._before: Callable[[int, types.FrameType | None], object] | None = None
        self._timer: tuple[float, float] | None = None
        # The loop has seen the error; the GRACE period has begun; the step was cancelled natively.
        self._arrived = self._graced = self._forced = False
        self.error: BaseException | None = None

    def take(self, task: Task | None) -> None:
        """Begin a step of this task: replace the signal's handler, if there is one."""
        self._task = task
        if not _can_be_handled():
            return
        before = signal.getsignal(SIGNAL)
        if callable(before):
            self._before = before
            signal.signal(SIGNAL, self._interrupt_step)

    def give_back(self) -> None:
        """Restore the handler at the end of the step. It may be called again if it has failed."""
        if self._before is not None:
            if signal.getsignal(SIGNAL) == self._interrupt_step:
                signal.signal(SIGNAL, self._before)
            if self._timer is not None:
                signal.setitimer(signal.ITIMER_REAL, *self._timer)
        self._before = self._timer = self.error = self._task = None
        self._arrived = self._graced = self._forced = False

    def _interrupt_step(self, number: int, frame: types.FrameType | None) -> None:
        __tracebackhide__ = True
        if self.error is not None:
            self._ring_again()
            return
        assert self._before is not None
        try:
            self._before(number, frame)
        except BaseException as exc:
            self.error = exc
            self._wait(BLOCKED)
            draw_at_limit(self._run.state.loop, frame)
            if not is_protected(frame):
                self._arrived = True
                raise
            self._run.state.loop.call_soon_threadsafe(self._arrive)
            self._run.ctrl_c.interrupt(frame, exc.with_traceback(None))

    def _wait(self, seconds: float) -> None:
        before = signal.setitimer(signal.ITIMER_REAL, seconds)
        if self._timer is None:
            self._timer = before

    def _ring_again(self) -> None:
        __tracebackhide__ = True
        assert self.error is not None
        blocked = not self._arrived
        self._wait(BLOCKED if blocked else GRACE)
        if not blocked and not self._graced:
            self._graced = True
            return
        run = self._run
        if self._forced:
            run.driver.given_up = True
            run.state.loop.call_soon_threadsafe(run.driver.throw, self.error)
        else:
            self._forced = True
            run.state.loop.call_soon_threadsafe(self._cancel_step)
        if blocked:
            raise self.error

    def _arrive(self) -> None:
        self._arrived = True

    def _cancel_step(self) -> None:
        if self._task is not None and self.error is not None:
            cancel_natively(self._task)


def cancel_natively(task: Task) -> None:
    """Cancel all tasks below a task in spite of shields; if there are none, the task itself."""
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    for child in children:
        cancel_natively(child)
    if not children:
        task.asyncio_task.cancel("the time is over")


def ends_in_users_code(error: BaseException) -> None:
    """Remove the frames of the library and of asyncio from the end of an error's traceback.

    They show where a task was waiting inside ``sleep`` and the like, which is not of interest.
    """
    entries = []
    entry = error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    kept = list(entries)
    while kept and is_machinery(kept[-1].tb_frame):
        kept.pop()
    if not kept or len(kept) == len(entries):
        return
    place = None
    for entry in reversed(kept):
        place = types.TracebackType(place, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    error.__traceback__ = place
