"""The stack of a call as text, without the frames of nurseryio and asyncio.

Each ``CancelScope.cancel()`` asks for it by :func:`stack_if_wanted`.

Rule: the text keeps no frame alive. Making it raises nothing because of the program's files.
"""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

from .._asyncio.compat import running_loop_or_none
from .forked import in_child
from .util import is_library

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["MOST_FRAMES", "call_stack", "stack_if_wanted", "watchers"]

# The innermost frames of the program that are shown.
MOST_FRAMES = 20

# While this is not empty, or the running loop is in debug mode, stacks are wanted.
watchers: set[object] = set()
in_child(watchers.clear)


def stack_if_wanted() -> str | None:
    """The stack of the call of the function that calls this; None if stacks are not wanted."""
    loop = running_loop_or_none()
    if not watchers and (loop is None or not loop.get_debug()):
        return None
    return call_stack(sys._getframe(1))


def call_stack(frame: FrameType | None) -> str:
    """The stack of a call, outermost line first, as in a traceback.

    Args:
        frame: the innermost frame.
    """
    frames: list[tuple[FrameType, int]] = []
    while frame is not None and len(frames) < MOST_FRAMES:
        if not is_library(frame.f_code):
            frames.append((frame, frame.f_lineno or 0))
        frame = frame.f_back
    frames.reverse()
    lines = traceback.StackSummary.extract(frames).format()
    frames.clear()
    return "".join(lines).rstrip("\n")
