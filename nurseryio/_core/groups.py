"""What leaves a scope or nursery: bare errors and groups of them. Knows no task and no scope.

Rule 1: no error is ever dropped here but ``Cancelled``, and that only where a function says so.

Rule 2: no function leaves a reference cycle behind: an exception's traceback holds the frames in
which a variable held the exception.
"""

from __future__ import annotations

import sys
import warnings
from typing import NoReturn

from .errors import Cancelled, CancelReason, TrioDeprecationWarning
from .host import HAS_CANCEL_COUNTS, add_note

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

GROUP_MESSAGE = "Exceptions from nurseryio nursery"
# Why a nursery was cancelled: a native cancel of its host, or a failure that nobody is left to ask
# about.
NATIVE = CancelReason("native")
FAILED = CancelReason("nursery")
LOOSE_NOTE = "collapsible: made by a nursery with strict_exception_groups=False"


def failure(error: BaseException, task: object, body: bool) -> CancelReason:
    """Why a nursery is cancelled when ``task``, its host (``body``) or a child, has raised."""
    what = "Code block inside nursery contextmanager" if body else "child task"
    return CancelReason(
        "nursery", reason=f"{what} raised exception {error!r}", source_task=repr(task)
    )


def combine(strict: bool | None, errors: list[BaseException]) -> BaseException:
    """What a nursery raises because of these errors: a group, or (not strict) the only one."""
    if strict is False and len(errors) == 1:
        return errors[0]
    group = BaseExceptionGroup(GROUP_MESSAGE, errors)
    if strict is False:
        add_note(group, LOOSE_NOTE)
    return group


def without_cancelled(errors: list[BaseException]) -> list[BaseException]:
    """The errors that are no ``Cancelled``, nor groups of nothing else."""
    rest = []
    for error in errors:
        kept: BaseException | None = error
        if isinstance(error, BaseExceptionGroup):
            kept = error.split(Cancelled)[1]
        if kept is not None and not isinstance(kept, Cancelled):
            rest.append(kept)
    return rest


def bare_exit(error: BaseException) -> BaseException:
    """The only leaf of a group if it is a SystemExit or KeyboardInterrupt, else ``error``."""
    leaf = error
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    return leaf if isinstance(leaf, (SystemExit, KeyboardInterrupt)) else error


def is_marked(exc: BaseException) -> bool:
    """Whether a ``Cancelled`` says of itself that a scope of ours is the cause."""
    cause: BaseException | None = exc
    while isinstance(cause, Cancelled):
        if cause.args and type(cause.args[0]) is CancelReason:
            return True
        if HAS_CANCEL_COUNTS:
            return False
        # 3.10 raises a new error where a cancelled asyncio task was awaited, and only chains it.
        cause = cause.__context__
    return False


def raise_keeping_context(error: BaseException) -> NoReturn:
    """Raise ``error`` without the exception being handled as its context."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context


def leave_block(exc: BaseException | None, remaining: BaseException | None) -> bool:
    """The answer of an ``__exit__`` that got ``exc`` and wants ``remaining`` to go on instead."""
    if remaining is None:
        return True
    if remaining is exc:
        return False
    try:
        raise_keeping_context(remaining)
    finally:
        del exc, remaining


def collapse(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Replace every single-member group of a non-strict nursery by its member."""
    members = [
        collapse(member) if isinstance(member, BaseExceptionGroup) else member
        for member in group.exceptions
    ]
    if len(members) == 1 and LOOSE_NOTE in getattr(group, "__notes__", ()):
        return members[0].with_traceback(members[0].__traceback__)
    if any(new is not old for new, old in zip(members, group.exceptions, strict=True)):
        return group.derive(members)
    return group


def warn_loose(caller: str, stacklevel: int) -> None:
    """Warn that ``strict_exception_groups=False`` is on its way out, as Trio does."""
    warnings.warn(
        f"{caller}(strict_exception_groups=False) is deprecated; use the default value and "
        "rewrite exception handlers to handle ExceptionGroups",
        TrioDeprecationWarning,
        stacklevel=stacklevel,
    )
