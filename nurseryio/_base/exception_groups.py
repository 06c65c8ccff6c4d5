"""Operations on exceptions that leave a scope or nursery: making groups, taking ``Cancelled`` out.

The functions here work on exceptions only, not on tasks or scopes.

Rule 1: no function drops an error, except ``Cancelled`` where its docstring says so.

Rule 2: no function leaves a reference cycle behind. An exception's traceback refers to the frames,
and a variable of such a frame may refer to the exception.

Rule 3: no function raises because of an exception's class. Fields are read and written by
:mod:`exc_fields`. Only two methods that a class may override are called, ``derive()`` and
``__repr__``, and both may fail.
"""

from __future__ import annotations

import sys
import warnings
from operator import is_
from typing import TYPE_CHECKING, Any, NoReturn

from .._asyncio.compat import COUNTS_GO_STALE, HAS_CANCEL_COUNTS
from .errors import (
    Cancelled,
    CancelReason,
    TrioDeprecationWarning,
    _put_reason,
    _put_source_task,
)
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
# The reasons of a nursery's cancellation: a native cancel of its host task; a failure for which
# failure() is not called.
NATIVE = CancelReason("native")
FAILED = CancelReason("nursery")
# A key in the __dict__ of a group that was searched and does not contain a Cancelled.
NO_CANCELLED_MARK = "_nurseryio_free_of_cancelled"
LOOSE_NOTE = "collapsible: made by a nursery with strict_exception_groups=False"


def failure(error: BaseException, source_task: Any, body: bool) -> CancelReason:
    """The reason of a nursery's cancellation when its host or a child has raised ``error``.

    Args:
        error: the error.
        source_task: ``repr()`` of the task that has raised it, or what that is made from.
        body: whether the task is the host, and the error comes from the nursery's block.
    """
    reason = CancelReason("nursery")
    _put_reason(reason, _text_later(error, BLOCK if body else CHILD))
    _put_source_task(reason, source_task)
    return reason


BLOCK = "Code block inside nursery contextmanager"
CHILD = "child task"
# An error whose arguments are all of these classes shows nothing that can change.
_PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
_PLAIN_REPR = BaseException.__repr__


def _text_later(error: BaseException, what: str) -> Any:
    """The text of a failure, or what it is made from when it is read (see ``CancelReason``).

    The error itself is not kept for that, because its traceback refers to the nursery.
    """
    kind = type(error)
    args = args_of(error)
    if type(kind) is type and (not args or _PLAIN.issuperset(map(type, args))):
        try:
            is_plain = kind.__repr__ is _PLAIN_REPR
        except Exception:
            is_plain = False
        if is_plain:
            return (_plain_text, what, class_name(kind), args)
    return f"{what} raised exception {brief(error)}"


def _plain_text(what: str, name: str, args: tuple[Any, ...]) -> str:
    try:
        shown = f"{name}({args[0]!r})" if len(args) == 1 else f"{name}{args!r}"
    except ValueError:  # an int of too many digits
        shown = f"<{name}, whose repr() failed>"
    return f"{what} raised exception {shown}"


def brief(error: BaseException) -> str:
    """``repr(error)`` without the members of a group. It does not fail if the user's code does."""
    if is_a(error, BaseExceptionGroup):
        message = safe_repr(message_of(error))
        return f"{class_name(type(error))}({message}, <{len(members_of(error))} exceptions>)"
    return safe_repr(error)


def combine(strict: bool | None, errors: list[BaseException]) -> BaseException:
    """The exception that a nursery raises for these errors.

    It is a group; if ``strict`` is False and there is one error, that error itself.
    """
    if strict is False and len(errors) == 1:
        return errors[0]
    group = BaseExceptionGroup(GROUP_MESSAGE, errors)
    if strict is False:
        add_note(group, LOOSE_NOTE)
    return group


def without_cancelled(errors: list[BaseException]) -> list[BaseException]:
    """The errors without ``Cancelled``, which is also taken out of groups."""
    rest = []
    for error in errors:
        kept: BaseException | None = error
        if is_a(error, BaseExceptionGroup):
            kept = split_out(error, is_cancelled)[1]
        if kept is not None and not is_a(kept, Cancelled):
            rest.append(kept)
    return rest


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group and its nested groups; for an error that is not a group, that error."""
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
    """Whether it is a ``Cancelled``, from any cause."""
    return is_a(exc, Cancelled)


def only_cancelled(error: BaseException) -> bool:
    """Whether it is a ``Cancelled``, or a group of nothing else."""
    return all(map(is_cancelled, leaves(error)))


def same_arguments(args: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Whether two plain ``Cancelled`` have the same arguments.

    The argument of ``task.cancel()`` may be any object, and its ``__eq__`` is not called.
    """
    if len(args) == len(others) == 1 and args[0] is others[0]:
        return True
    return len(args) == len(others) and all(map(_same_argument, args, others))


def _same_argument(one: object, other: object) -> bool:
    if one is other:
        return True
    return type(one) is type(other) and type(one) in (CancelReason, str) and one == other


def bare_cancelled(error: BaseException) -> BaseException:
    """The exception to raise in place of ``error`` when a native cancel is under way too.

    It is the group without its ``Cancelled``. If the group contains nothing else, it is one bare
    ``Cancelled``, because asyncio would not recognise it in a group. An ``error`` that is not a
    group is returned as it is.
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
    """Whether a ``Cancelled`` is marked as caused by a scope of this library.

    The mark is a ``CancelReason`` as its argument. A ``RequestReason`` is not such a mark.
    """
    cause: BaseException | None = exc
    while is_a(cause, Cancelled):
        args = args_of(cause)
        if args and type(args[0]) is CancelReason:
            return True
        if HAS_CANCEL_COUNTS:
            return False
        # When a cancelled asyncio task is awaited, 3.10 raises a new error. The old one is its
        # context.
        cause = context_of(cause)
    return False


def only_own_cancels(error: BaseException) -> bool:
    """Whether every ``Cancelled`` in ``error`` is marked, and in the contexts of its errors too."""
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
    """Whether a child's error only shows that the child was cancelled natively.

    The nursery drops such an error. In a cancelled nursery the answer is False: there the error
    cannot be distinguished from the scope's cancellation, and the scope takes it out when it is
    left. On 3.10 the scope takes out only marked errors, so this function decides by the mark.

    Args:
        error: the child's error.
        in_cancelled: whether the nursery's scope is effectively cancelled.
    """
    if in_cancelled and HAS_CANCEL_COUNTS:
        return False
    return is_a(error, Cancelled) and not is_own_cancelled(error)


def raise_keeping_context(error: BaseException) -> NoReturn:
    """Raise ``error`` and keep its context: the exception being handled does not become it.

    There is one exception, where cancel counts go stale (see ``compat``). A native cancel that is
    being replaced stays as the context, because :func:`only_own_cancels` looks for it there.
    """
    context = context_of(error)
    try:
        raise error
    finally:
        if context is not None or not COUNTS_GO_STALE or only_own_cancels(error):
            set_context(error, context)
        del error, context


def leave_block(exc: BaseException | None, remaining: BaseException | None) -> bool:
    """The result of an ``__exit__`` that got ``exc`` and is to raise ``remaining`` instead.

    Returns:
        True to swallow ``exc``, if ``remaining`` is None. False to re-raise it, if they are the
        same.

    Raises:
        BaseException: ``remaining``, if it is another error than ``exc``.
    """
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
    """Take the errors that match out of a group and its nested groups.

    This is like ``group.split()``, with three differences. A thousand nested groups do not reach
    the recursion limit. If they leave a thousand scopes, they are not searched again by each scope.
    If one error is left in the group of a non-strict nursery, the result is that error itself.

    Args:
        group: The group.
        matches: Returns whether to take an error out; called for errors that are not groups.
        cancelled: Whether only ``Cancelled`` can match. Then groups that are known not to contain
            one are skipped.

    Returns:
        Whether any error matched; and the remaining group or error, None if nothing is left.
    """
    if cancelled and NO_CANCELLED_MARK in dict_of(group):
        return False, group
    found = False
    taken = None
    free = True  # whether the remaining errors do not include a Cancelled
    # For each level from the outside in: its group, the members still to check, those to keep.
    levels: list[tuple[Any, Iterator[BaseException], list[BaseException]]]
    levels = [(group, iter(members_of(group)), [])]
    while True:
        current, members, kept = levels[-1]
        for member in members:
            if member is taken:  # a nursery keeps equal Cancelled as one object many times
                continue
            if is_a(member, BaseExceptionGroup):
                if not cancelled or NO_CANCELLED_MARK not in dict_of(member):
                    levels.append((member, iter(members_of(member)), []))
                    break
                kept.append(member)
            elif matches(member):
                found = True
                taken = member
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
    """The group reduced to the members in ``kept``.

    Returns:
        The same group if these are all its members. None if there are none. The only error if the
        group comes from a non-strict nursery. Otherwise a new group with the same fields.
    """
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
    """``group.derive(kept)`` and None; or a plain group, and why ``derive()`` could not be used."""
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
            # Ctrl-C, an exit or lack of memory while derive() ran: keep it like the other errors.
            kept = [*kept, error]
    return BaseExceptionGroup(message_of(group), kept), problem


def warn_loose(caller: str, stacklevel: int) -> None:
    """Warn that ``strict_exception_groups=False`` is deprecated, as Trio does."""
    warnings.warn(
        f"{caller}(strict_exception_groups=False) is deprecated; use the default value and "
        "rewrite exception handlers to handle ExceptionGroups",
        TrioDeprecationWarning,
        stacklevel=stacklevel,
    )
