"""The fields of exceptions, read and written past what a user's class has made of them.

A frozen dataclass refuses ``error.__traceback__ = ...``; a property may raise; ``with_traceback``,
``add_note`` or ``exceptions`` may be overridden. ``raise`` and ``except`` use none of these, so
programs with such exceptions work. The functions here use the descriptors of ``BaseException``, so
that these exceptions can be reported too.

Rule 1: no function here raises because of an exception's class, and none calls a user's code.

Rule 2: imports nothing of this library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "add_note",
    "args_of",
    "cause_of",
    "chain",
    "class_name",
    "context_of",
    "copy_fields",
    "dict_of",
    "is_a",
    "members_of",
    "message_of",
    "notes_of",
    "set_cause",
    "set_context",
    "set_traceback",
    "traceback_of",
    "without_own_frame",
]

ErrorT = TypeVar("ErrorT", bound=BaseException)

_FIELDS: Any = vars(BaseException)
_GROUP_FIELDS: Any = vars(BaseExceptionGroup)

traceback_of: Callable[[BaseException], TracebackType | None] = _FIELDS["__traceback__"].__get__
set_traceback: Callable[[BaseException, TracebackType | None], None]
set_traceback = _FIELDS["__traceback__"].__set__

context_of: Callable[[BaseException], BaseException | None] = _FIELDS["__context__"].__get__
set_context: Callable[[BaseException, BaseException | None], None]
set_context = _FIELDS["__context__"].__set__

# Setting a cause also sets ``__suppress_context__``, as everywhere.
cause_of: Callable[[BaseException], BaseException | None] = _FIELDS["__cause__"].__get__
set_cause: Callable[[BaseException, BaseException | None], None] = _FIELDS["__cause__"].__set__
_suppresses: Callable[[BaseException], bool] = _FIELDS["__suppress_context__"].__get__
_set_suppresses: Callable[[BaseException, bool], None] = _FIELDS["__suppress_context__"].__set__

args_of: Callable[[BaseException], tuple[Any, ...]] = _FIELDS["args"].__get__
dict_of: Callable[[BaseException], dict[str, Any]] = _FIELDS["__dict__"].__get__

# The errors in a group, and its message.
members_of: Callable[[Any], tuple[BaseException, ...]] = _GROUP_FIELDS["exceptions"].__get__
message_of: Callable[[Any], str] = _GROUP_FIELDS["message"].__get__

# The name of a class, whatever its metaclass says.
class_name: Callable[[type], str] = vars(type)["__name__"].__get__


def is_a(error: object, kind: type[ErrorT] | tuple[type[ErrorT], ...]) -> TypeIs[ErrorT]:
    """``isinstance()`` as ``except`` sees it: what ``error.__class__`` says is not asked."""
    return issubclass(type(error), kind)


def without_own_frame(error: ErrorT) -> ErrorT:
    """Begin the traceback of a caught error below the frame that has caught it.

    What the user reads then begins in the user's function.

    Returns:
        The same error.
    """
    traceback = traceback_of(error)
    if traceback is not None:
        set_traceback(error, traceback.tb_next)
    return error


def notes_of(error: BaseException) -> list[Any]:
    """The notes of an error, as a list of one's own."""
    notes: Any = dict_of(error).get("__notes__")
    return list(notes) if type(notes) in (list, tuple) else []


def add_note(error: BaseException, note: str) -> None:
    """``error.add_note(note)``, also on 3.10; it is not shown where a class says otherwise."""
    _set_notes(error, [*notes_of(error), note])


def _set_notes(error: BaseException, notes: list[Any]) -> None:
    dict_of(error)["__notes__"] = notes


def copy_fields(source: BaseException, target: BaseException) -> None:
    """Give one error the traceback, context, cause and notes of another."""
    set_traceback(target, traceback_of(source))
    set_context(target, context_of(source))
    set_cause(target, cause_of(source))
    _set_suppresses(target, _suppresses(source))
    notes = notes_of(source)
    if notes:
        _set_notes(target, notes)


def chain(error: BaseException, older: BaseException) -> None:
    """Have ``older`` shown before ``error``, at the end of what is shown there already.

    Does nothing where that would close a circle.
    """
    last = error
    seen = {id(last)}
    while True:
        before = cause_of(last)
        if before is None:
            before = context_of(last)
        if before is None or id(before) in seen:
            break
        last = before
        seen.add(id(last))
    if before is None and not _leads_to(older, last):
        set_context(last, older)
        _set_suppresses(last, False)


def _leads_to(start: BaseException, end: BaseException) -> bool:
    """Whether an exception is among the causes, contexts and members of another one."""
    todo: list[BaseException | None] = [start]
    seen: set[int] = set()
    while todo:
        exc = todo.pop()
        if exc is end:
            return True
        if exc is not None and id(exc) not in seen:
            seen.add(id(exc))
            todo += (context_of(exc), cause_of(exc))
            if is_a(exc, BaseExceptionGroup):
                todo += members_of(exc)
    return False
