"""Notes on the errors of children: which child it was, and where its nursery is.

A traceback shows the function of a child. If a hundred children run the same function, their names
distinguish them. So the error of a child whose name says more than its traceback gets a note::

    in child task 'job 7' of the nursery at app.py:12 in main()

Rule 1: the ordinary path and the errors of children without such a name cost nothing. A note is
text: it keeps neither the task nor a frame alive, and can be pickled.

Rule 2: an error gets one note, from the innermost nursery that it leaves. ``Cancelled``,
``KeyboardInterrupt`` and ``SystemExit`` get none. A group gets one if its members have none.

Rule 3: nothing here raises because of an exception's class.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import TYPE_CHECKING

from .._base.errors import Cancelled
from .._base.exc_fields import add_note, is_a, members_of, notes_of, traceback_of
from .._base.util import is_library, position

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from types import FrameType

    from .._core.task import Task
    from .nursery import Nursery

PREFIX = "in child task "
UNNAMED = (Cancelled, KeyboardInterrupt, SystemExit)
# How far the name of a child is looked for in the traceback of its error: that many functions.
MOST_FRAMES = 10
_AWAITED = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE


def remember(nursery: Nursery, task: Task, error: BaseException) -> None:
    """Note which child has raised an error, if the child was given a name and that is of use.

    :func:`add_notes` writes the note when the block is left, because only then its line is known.
    """
    name = task._name
    if is_a(error, UNNAMED) or _has_note(error) or _is_shown(name, error):
        return
    if nursery._named_failures is None:
        nursery._named_failures = []
    nursery._named_failures.append((error, name))


def _has_note(error: BaseException) -> bool:
    if is_a(error, BaseExceptionGroup) and any(map(_is_noted, members_of(error))):
        return True
    return _is_noted(error)


def _is_noted(error: BaseException) -> bool:
    return any(type(note) is str and note.startswith(PREFIX) for note in notes_of(error))


def _is_shown(name: str, error: BaseException) -> bool:
    """Whether the name is that of a function in the traceback of the error."""
    function = name.rpartition(".")[2]
    entry = traceback_of(error)
    for _ in range(MOST_FRAMES):
        if entry is None:
            return False
        if entry.tb_frame.f_code.co_name == function:
            return True
        entry = entry.tb_next
    return False


def add_notes(nursery: Nursery, frame: FrameType | None) -> None:
    """Write the notes.

    Args:
        nursery: the nursery, whose block is being left.
        frame: the frame of its ``__aexit__``.
    """
    found, nursery._named_failures = nursery._named_failures or (), None
    error: BaseException | None = None
    try:
        where = _place_of_block(frame)
        for error, name in found:
            if not _has_note(error):
                add_note(error, f"{PREFIX}{name!r}{where}")
    finally:
        del frame, found, error  # no reference cycle: the traceback of an error may hold the frame


def _place_of_block(frame: FrameType | None) -> str:
    """The line of the program that leaves the block; empty if there is none."""
    what = "of the nursery"
    while frame is not None and frame.f_code.co_flags & _AWAITED:
        code = frame.f_code
        if not is_library(code) and code.co_filename != contextlib.__file__:
            return f" {what} at {position(code.co_filename, frame.f_lineno, code.co_name)}"
        if code.co_name == "start":
            what = "started"
        frame = frame.f_back
    return ""
