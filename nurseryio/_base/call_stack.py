"""The stack of a call as text, without the frames of nurseryio and asyncio.

Rule: the text keeps no frame alive. Making it raises nothing because of the program's files.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from .util import is_library

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["MOST_FRAMES", "call_stack"]

# The innermost frames of the program that are shown.
MOST_FRAMES = 20


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
