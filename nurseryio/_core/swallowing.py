"""Where tasks swallow cancellations: noted while a watcher looks, or a loop is in debug mode.

``delivery`` calls :func:`note` before it interrupts a task. If the task is interrupted a second
time while it is still cancelled, it has left the first await without ending: the cancellation was
swallowed there, or other code has awaited something while the error was on its way.

Rule: noting a line fails without harm, as the interruption is more important than its note.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._base.call_stack import MOST_FRAMES
from .._base.util import is_library
from .._base.watchers import switches
from .task import await_frames

if TYPE_CHECKING:
    from types import CodeType

    from .task import Task

__all__ = ["Lines", "Swallowed", "note"]

# The lines of the program at which a task awaits, outermost first.
Lines = tuple[tuple["CodeType", int], ...]

# The most lines that are remembered of one task.
MOST_LINES = 100

# Whether lines are noted.
noted = False


@switches.append
def _switch(wanted: bool) -> None:
    global noted
    noted = wanted


class Swallowed:
    """Where one task has swallowed cancellations.

    Attributes:
        last: Where it was interrupted last. Whether it swallows that is not known yet.
        counts: How often it has swallowed a cancellation, by place.
    """

    __slots__ = ("counts", "last")

    def __init__(self, last: Lines) -> None:
        self.last = last
        self.counts: dict[Lines, int] = {}


def note(task: Task) -> None:
    """Note where a task waits that is about to be interrupted."""
    try:
        found = [
            (frame.f_code, line)
            for frame, line in await_frames(task.coro)
            if not is_library(frame.f_code)
        ]
        here = tuple(found[-MOST_FRAMES:])
        extra = task._own_extra()
        before = extra.swallowed
        if before is None or not task._owns_cancel_request:
            # The scope that was cancelled before, if one was, has been left.
            extra.swallowed = Swallowed(here)
            return
        counts = before.counts
        if before.last in counts or len(counts) < MOST_LINES:
            counts[before.last] = counts.get(before.last, 0) + 1
        before.last = here
    except Exception:
        pass
