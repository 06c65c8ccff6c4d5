"""Reading and writing the fields of exceptions, whatever the exception's class overrides.

A user's exception class may be a frozen dataclass, which does not allow ``error.__traceback__ =
...``. It may have a property that raises, or override ``with_traceback``, ``add_note`` or
``exceptions``. ``raise`` and ``except`` use none of these, so programs with such classes work. The
functions here use the descriptors of ``BaseException``, so that such errors can be reported too.

Rule 1: no function here raises because of an exception's class, and none calls a user's code.

Rule 2: this module imports nothing from this library.
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
    "explained",
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

# Setting a cause also sets ``__suppress_context__``, as in Python itself.
cause_of: Callable[[BaseException], BaseException | None] = _FIELDS["__cause__"].__get__
set_cause: Callable[[BaseException, BaseException | None], None] = _FIELDS["__cause__"].__set__
_suppresses: Callable[[BaseException], bool] = _FIELDS["__suppress_context__"].__get__
_set_suppresses: Callable[[BaseException, bool], None] = _FIELDS["__suppress_context__"].__set__

args_of: Callable[[BaseException], tuple[Any, ...]] = _FIELDS["args"].__get__
dict_of: Callable[[BaseException], dict[str, Any]] = _FIELDS["__dict__"].__get__

# The errors in a group, and its message.
members_of: Callable[[Any], tuple[BaseException, ...]] = _GROUP_FIELDS["exceptions"].__get__
message_of: Callable[[Any], str] = _GROUP_FIELDS["message"].__get__

# The name of a class, even if its metaclass overrides ``__name__``.
class_name: Callable[[type], str] = vars(type)["__name__"].__get__


def is_a(error: object, kind: type[ErrorT] | tuple[type[ErrorT], ...]) -> TypeIs[ErrorT]:
    """``isinstance()`` as ``except`` does it: an overridden ``error.__class__`` is ignored."""
    return issubclass(type(error), kind)


def without_own_frame(error: ErrorT) -> ErrorT:
    """Begin the traceback of a caught error below the frame that has caught it.

    The traceback that the user reads then begins in the user's function.

    Returns:
        The same error.
    """
    traceback = traceback_of(error)
    if traceback is not None:
        set_traceback(error, traceback.tb_next)
    return error


def notes_of(error: BaseException) -> list[Any]:
    """The notes of an error, as a new list."""
    notes: Any = dict_of(error).get("__notes__")
    return list(notes) if type(notes) in (list, tuple) else []


def add_note(error: BaseException, note: str) -> None:
    """``error.add_note(note)``, also on 3.10. A class that overrides the notes may not show it."""
    _set_notes(error, [*notes_of(error), note])


def explained(error: ErrorT, note: str) -> ErrorT:
    """Add a note to a new error. Its text is Trio's, and the note says what to do.

    Returns:
        The same error.
    """
    add_note(error, note)
    return error


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
    """Append ``older`` to the causes and contexts of ``error``, so that it is shown first.

    Does nothing if that would make a circle.
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
