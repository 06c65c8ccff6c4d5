"""Places in a program: the lines at which tasks and threads are, as data.

Rule: frames of nurseryio and asyncio are left out, because a user looks for a line of the program.
"""

from __future__ import annotations

import linecache
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._base.util import is_library, position

if TYPE_CHECKING:
    import types
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Place", "places_of", "program_place", "rank_of_place", "stack_of"]

# The standard library, and modules that are part of the interpreter.
_NOT_THE_PROGRAM = (os.path.dirname(os.path.abspath(os.__file__)) + os.sep, "<frozen ")
_PACKAGES = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a program.

    Attributes:
        file: The path of the file, as its code object has it.
        line: The number of the line, from 1.
        function: The name of the function.
        text: The text of the line, without indentation; empty if it cannot be read.
    """

    file: str
    line: int
    function: str
    text: str

    @classmethod
    def of(cls, code: types.CodeType, line: int | None) -> Place:
        """The place of a line of a code object."""
        number = line or 0
        text = linecache.getline(code.co_filename, number).strip()
        return cls(code.co_filename, number, code.co_name, text)

    @property
    def position(self) -> str:
        """The file, the line and the function, as a text."""
        return position(self.file, self.line, self.function)

    def __str__(self) -> str:
        return f"{self.position}: {self.text}" if self.text else self.position


def places_of(frames: Iterable[tuple[types.FrameType, int]]) -> tuple[Place, ...]:
    """The places of a stack of frames, each with its line number, in the same order."""
    return tuple(
        Place.of(frame.f_code, line) for frame, line in frames if not is_library(frame.f_code)
    )


def rank_of_place(code: types.CodeType) -> int:
    """How much a user looks for lines of this code.

    Returns:
        2 for the program, 1 for the standard library and installed packages, 0 for nurseryio and
        asyncio.
    """
    if is_library(code):
        return 0
    return 2 if _in_program(code.co_filename) else 1


def _in_program(file: str) -> bool:
    return not file.startswith(_NOT_THE_PROGRAM) and _PACKAGES.isdisjoint(file.split(os.sep))


def program_place(places: Sequence[Place]) -> Place | None:
    """The innermost place in the program, neither in the standard library nor in a package.

    The innermost of all if there is none in the program; None for an empty stack.
    """
    for place in reversed(places):
        if _in_program(place.file):
            return place
    return places[-1] if places else None


def stack_of(innermost: types.FrameType | None) -> Iterator[tuple[types.FrameType, int]]:
    """The frames of a thread with their line numbers, outermost first."""
    frames = []
    frame = innermost
    while frame is not None:
        frames.append((frame, frame.f_lineno or 0))
        frame = frame.f_back
    return reversed(frames)
