"""The stack of a call as text, without the frames of nurseryio and asyncio.

Each ``CancelScope.cancel()`` asks for it by :func:`stack_if_wanted`. A scope with a deadline asks
for :func:`calls_if_wanted`, of which :func:`text_of` makes the same text when it is needed.

Rule: no frame is kept alive. Making the text raises nothing because of the program's files.
"""

from __future__ import annotations

import re
import sys
import traceback
from typing import TYPE_CHECKING

from .._asyncio.compat import running_loop_or_none
from .util import is_library, position
from .watchers import is_in_debug_mode, watchers

if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = [
    "MOST_FRAMES",
    "Calls",
    "call_stack",
    "calls_if_wanted",
    "place_in",
    "place_of",
    "text_of",
]

# The innermost frames of the program that are shown.
MOST_FRAMES = 20
# Of a deadline. A program may set many of them.
MOST_FRAMES_OF_DEADLINE = 5

# The code objects of a stack, each with the instruction that it was at, innermost first.
Calls = tuple[tuple["CodeType", int], ...]

# Compiled at the first use, because the import of the library would take longer.
_LAST_LINE = r'(?ms).*^  File "([^\n]*)", line (\d+), in ([^\n]*)$'


def _wanted() -> bool:
    return bool(watchers) or is_in_debug_mode(running_loop_or_none())


def stack_if_wanted() -> str | None:
    """The stack of the call of the function that calls this; None if stacks are not wanted."""
    return call_stack(sys._getframe(1)) if _wanted() else None


def calls_if_wanted() -> Calls | None:
    """The innermost calls of the program that have led to this call; None if not wanted."""
    if not _wanted():
        return None
    return tuple(
        (frame.f_code, frame.f_lasti)
        for frame in _of_program(sys._getframe(1), MOST_FRAMES_OF_DEADLINE)
    )


def call_stack(frame: FrameType | None) -> str:
    """The stack of a call, outermost line first, as in a traceback.

    Args:
        frame: the innermost frame.
    """
    return _text([(frame.f_code, frame.f_lineno or 0) for frame in _of_program(frame, MOST_FRAMES)])


def text_of(calls: Calls) -> str:
    """The same text, of calls that were kept."""
    return _text([(code, line_of(code, instruction)) for code, instruction in calls])


def line_of(code: CodeType, instruction: int) -> int:
    """The line of an instruction; 0 if it does not have one."""
    lines = (line for start, end, line in code.co_lines() if start <= instruction < end)
    return next(lines, None) or 0


def place_of(calls: Calls) -> str:
    """The innermost line of calls that were kept, as messages name it."""
    code, instruction = calls[0]
    return position(code.co_filename, line_of(code, instruction), code.co_name)


def place_in(stack: str) -> str | None:
    """The innermost line of such a text, as messages name it; None if there is none."""
    found = re.match(_LAST_LINE, stack)
    return None if found is None else position(found[1], int(found[2]), found[3])


def _of_program(frame: FrameType | None, most: int) -> list[FrameType]:
    """The frames that belong to the program, innermost first."""
    frames: list[FrameType] = []
    while frame is not None and len(frames) < most:
        if not is_library(frame.f_code):
            frames.append(frame)
        frame = frame.f_back
    return frames


def _text(lines: list[tuple[CodeType, int]]) -> str:
    summary = traceback.StackSummary.from_list(
        [(code.co_filename, line, code.co_name, None) for code, line in reversed(lines)]
    )
    return "".join(summary.format()).rstrip("\n")
