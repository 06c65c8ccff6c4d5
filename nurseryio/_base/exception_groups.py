"""What leaves a scope or nursery: bare errors and groups of them. Knows no task and no scope.

Rule 1: no error is ever dropped here but ``Cancelled``, and that only where a function says so.

Rule 2: no function leaves a reference cycle behind: an exception's traceback holds the frames in
which a variable held the exception.

Rule 3: no function raises because of an exception's class. Fields are read and written by
:mod:`exc_fields`; of a class's own methods only ``derive()`` and ``__repr__`` are called, and both
may fail.
"""

from __future__ import annotations

import sys
import warnings
from operator import is_
from typing import TYPE_CHECKING, Any, NoReturn

from .._asyncio.compat import COUNTS_GO_STALE, HAS_CANCEL_COUNTS
from .errors import Cancelled, CancelReason, TrioDeprecationWarning
from .exc_fields import (
    add_note,
    args_of,
    class_name,
    context_of,
    copy_fields,
    dict_of,
    is_a,
    members_of,
    message_of,
    notes_of,
    set_context,
)
from .util import safe_repr

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GROUP_MESSAGE = "Exceptions from nurseryio nursery"
# Why a nursery was cancelled: a native cancel of its host, or a failure that nobody is left to ask
# about.
NATIVE = CancelReason("native")
FAILED = CancelReason("nursery")
# Stands in the __dict__ of a group that was looked through and has no Cancelled in it.
NO_CANCELLED_MARK = "_nurseryio_free_of_cancelled"
LOOSE_NOTE = "collapsible: made by a nursery with strict_exception_groups=False"


def failure(error: BaseException, task: object, body: bool) -> CancelReason:
    """Why a nursery is cancelled when ``task``, its host (``body``) or a child, has raised."""
    what = "Code block inside nursery contextmanager" if body else "child task"
    return CancelReason(
        "nursery", reason=f"{what} raised exception {brief(error)}", source_task=safe_repr(task)
    )


def brief(error: BaseException) -> str:
    """``repr(error)``, but not of all that is in a group, and not trusting the user's code."""
    if is_a(error, BaseExceptionGroup):
        message = safe_repr(message_of(error))
        return f"{class_name(type(error))}({message}, <{len(members_of(error))} exceptions>)"
    return safe_repr(error)


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
        if is_a(error, BaseExceptionGroup):
            kept = split_out(error, is_cancelled)[1]
        if kept is not None and not is_a(kept, Cancelled):
            rest.append(kept)
    return rest


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, in groups in it and so on; an error that is no group, alone."""
    found = []
    todo = [error]
    while todo:
        inner = todo.pop()
        if is_a(inner, BaseExceptionGroup):
            todo += reversed(members_of(inner))
        else:
            found.append(inner)
    return found


def bare_exit(error: BaseException) -> BaseException:
    """The only leaf of a group if it is a SystemExit or KeyboardInterrupt, else ``error``."""
    leaf = error
    while is_a(leaf, BaseExceptionGroup) and len(members_of(leaf)) == 1:
        leaf = members_of(leaf)[0]
    return leaf if is_a(leaf, (SystemExit, KeyboardInterrupt)) else error


def is_cancelled(exc: BaseException) -> bool:
    """Whether it is a ``Cancelled``, whoever is the cause."""
    return is_a(exc, Cancelled)


def same_arguments(args: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Whether two plain ``Cancelled`` with these arguments say the same.

    What was given to ``task.cancel()`` may be any object, and is not asked whether it is equal.
    """
    if len(args) == len(others) == 1 and args[0] is others[0]:
        return True
    return len(args) == len(others) and all(map(_same_argument, args, others))


def _same_argument(one: object, other: object) -> bool:
    if one is other:
        return True
    return type(one) is type(other) and type(one) in (CancelReason, str) and one == other


def bare_cancelled(error: BaseException) -> BaseException:
    """What leaves of an error beside a native cancel: the errors alone, or one ``Cancelled``.

    The ``Cancelled`` is bare, as asyncio would not know it in a group.
    """
    if not is_a(error, BaseExceptionGroup):
        return error
    rest = split_out(error, is_cancelled)[1]
    if rest is not None:
        return rest
    leaf: BaseException = error
    while is_a(leaf, BaseExceptionGroup):
        leaf = members_of(leaf)[0]
    return leaf


def is_own_cancelled(exc: BaseException) -> bool:
    """Whether a ``Cancelled`` says of itself that a scope of ours is the cause.

    A ``RequestReason`` says that it is not.
    """
    cause: BaseException | None = exc
    while is_a(cause, Cancelled):
        args = args_of(cause)
        if args and type(args[0]) is CancelReason:
            return True
        if HAS_CANCEL_COUNTS:
            return False
        # 3.10 raises a new error where a cancelled asyncio task was awaited, and only chains it.
        cause = context_of(cause)
    return False


def only_own_cancels(error: BaseException) -> bool:
    """Whether every ``Cancelled`` in it is marked, and so is each that one of them has replaced."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        exc = todo.pop()
        if exc is None or id(exc) in seen:
            continue
        seen.add(id(exc))
        if is_a(exc, Cancelled) and not is_own_cancelled(exc):
            return False
        if is_a(exc, BaseExceptionGroup):
            todo += members_of(exc)
        todo.append(context_of(exc))
    return True


def is_lone_child_cancel(error: BaseException, in_cancelled: bool) -> bool:
    """Whether a child's error is the trace of a native cancel aimed at that child alone.

    In a cancelled nursery it cannot be told from our own, and is taken out at the scope's end; on
    3.10 it can, and would not be.
    """
    if in_cancelled and HAS_CANCEL_COUNTS:
        return False
    return is_a(error, Cancelled) and not is_own_cancelled(error)


def raise_keeping_context(error: BaseException) -> NoReturn:
    """Raise ``error`` without the exception being handled as its context.

    Where counts go stale (see ``host``) a native cancel that is replaced has to be found there.
    """
    context = context_of(error)
    try:
        raise error
    finally:
        if context is not None or not COUNTS_GO_STALE or only_own_cancels(error):
            set_context(error, context)
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


def split_out(
    group: BaseExceptionGroup[BaseException],
    matches: Callable[[BaseException], bool],
    cancelled: bool = True,
) -> tuple[bool, BaseException | None]:
    """Take the errors that match out of a group, of groups in it and so on.

    Like ``group.split()``, but a thousand groups in each other do not meet the recursion limit,
    nor are they all looked through again by each of a thousand scopes that they leave. What is left
    of the group of a non-strict nursery is the error itself if it is only one.

    Args:
        group: The group.
        matches: What to take out, asked of errors that are not groups.
        cancelled: Whether nothing but ``Cancelled`` matches, so that groups known to be free of
            them can be passed over.

    Returns:
        Whether something matched, and what is left, None for nothing.
    """
    if cancelled and NO_CANCELLED_MARK in dict_of(group):
        return False, group
    found = False
    free = True  # of Cancelled, what is left
    # For each level from the outside in: its group, what is still to look at, what is kept.
    levels: list[tuple[Any, Iterator[BaseException], list[BaseException]]]
    levels = [(group, iter(members_of(group)), [])]
    while True:
        current, members, kept = levels[-1]
        for member in members:
            if is_a(member, BaseExceptionGroup):
                if not cancelled or NO_CANCELLED_MARK not in dict_of(member):
                    levels.append((member, iter(members_of(member)), []))
                    break
                kept.append(member)
            elif matches(member):
                found = True
            else:
                kept.append(member)
                free = free and not is_a(member, Cancelled)
        else:
            levels.pop()
            rest = regroup(current, kept)
            if not levels:
                if free and is_a(rest, BaseExceptionGroup):
                    dict_of(rest)[NO_CANCELLED_MARK] = True
                return found, rest
            if rest is not None:
                levels[-1][2].append(rest)


def regroup(
    group: BaseExceptionGroup[BaseException], kept: list[BaseException]
) -> BaseException | None:
    """The group with these members in the place of its own: itself, another one, or nothing."""
    if not kept:
        return None
    if _are(members_of(group), kept):
        return group
    if len(kept) == 1 and any(note is LOOSE_NOTE for note in notes_of(group)):
        return kept[0]
    left, problem = _derived(group, kept)
    copy_fields(group, left)
    if problem is not None:
        add_note(left, f"{class_name(type(group))}.derive() {problem}")
    return left


def _are(members: Sequence[BaseException], kept: Sequence[BaseException]) -> bool:
    return len(members) == len(kept) and all(map(is_, members, kept))


def _derived(
    group: BaseExceptionGroup[BaseException], kept: list[BaseException]
) -> tuple[BaseExceptionGroup[BaseException], str | None]:
    """``group.derive(kept)``, or a plain group and why that has not served."""
    try:
        left: Any = group.derive(kept)
        if not is_a(left, BaseExceptionGroup):
            problem = f"returned {safe_repr(left)}"
        elif _are(members_of(left), kept):
            return left, None
        else:
            problem = "returned a group of other errors"
    except BaseException as error:
        problem = f"raised {safe_repr(error)}"
        if not is_a(error, Exception) or is_a(error, MemoryError):
            # Ctrl-C, an exit or lack of memory while it ran: an error like the others.
            kept = [*kept, error]
    return BaseExceptionGroup(message_of(group), kept), problem


def warn_loose(caller: str, stacklevel: int) -> None:
    """Warn that ``strict_exception_groups=False`` is on its way out, as Trio does."""
    warnings.warn(
        f"{caller}(strict_exception_groups=False) is deprecated; use the default value and "
        "rewrite exception handlers to handle ExceptionGroups",
        TrioDeprecationWarning,
        stacklevel=stacklevel,
    )
