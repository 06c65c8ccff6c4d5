"""Leaving a nursery: which cancellation its host task received, and which error the block raises.

This module decides whether a cancellation of the host task is native. It waits for the children
that are left after the first yield. Then it closes the nursery's scope with the errors of the body
and the children. ``nursery`` decides which child's error counts and begins the wait. ``scope``
takes ``Cancelled`` out of a group.

Rule 1: errors leave in one group, each error once. If a nurseryio scope caused the cancellation,
``Cancelled`` of children stay in that group until the responsible scope takes them out.

Rule 2: if a native cancel of the host is the cause, the host gets what asyncio code expects. That
is the same ``CancelledError`` object that was raised in it. If there are other errors, it is the
group of those errors alone, and the cancel request is made again.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._asyncio.compat import new_future
from .._base.errors import Cancelled, misnested
from .._base.exc_fields import dict_of, is_a
from .._base.exception_groups import (
    FAILED,
    GROUP_MESSAGE,
    NO_CANCELLED_MARK,
    bare_exit,
    combine,
    is_own_cancelled,
    without_cancelled,
)
from .._core import anyio_hook
from .._core.cancel_ledger import defer_native_cancel, is_native, native_requests
from .._core.delivery import deliver_changes, recheck
from .._core.scope_tree import ROOT, abandon, chain
from .child_notes import add_notes

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from .._core.task import Task
    from .nursery import Nursery
    from .scope import CancelScope

# Only these errors can contain a cancellation that a scope catches.
MAY_CONCERN_SCOPES = (Cancelled, BaseExceptionGroup)


# -- cancellations of the host task ---------------------------------------------


def is_foreign(task: Task, scope: CancelScope, exc: Cancelled) -> bool:
    """Whether a ``CancelledError`` raised inside a nursery's scope is not caused by any scope."""
    if not compat.HAS_CANCEL_COUNTS:
        return not is_own_cancelled(exc)
    if is_native(task, scope._native_requests_at_entry, exc):
        return True
    return not task.scope._effective and not is_own_cancelled(exc)


def pick_native_cancel(
    native: BaseException | None, new: BaseException | None
) -> BaseException | None:
    """Pick the native cancel to re-raise of two: the new one, unless the earlier one is anyio's.

    anyio recognises its own cancellation by the message.
    """
    return native if new is None or (native is not None and anyio_hook.repeats(native)) else new


def foreign_shield(native: BaseException | None, task: Task) -> Any:
    """Enter an anyio shield after a native cancel, if an anyio scope is in the task.

    The native cancel may come from anyio, which would wake the wait in each iteration of the loop.

    Returns:
        The anyio scope, to be exited later; None if no shield was entered.
    """
    if native is None or anyio_hook.bridge is None:
        return None
    return anyio_hook.bridge.shield(task)


def collapse(nursery: Nursery) -> None:
    """Leave the block without waiting, because the coroutine of its task is being closed.

    The children are cancelled and cut off. If the loop is already closed, nothing happens to them.
    """
    scope = nursery.cancel_scope
    task = nursery._parent_task
    nursery._closed = True
    affected = abandon(scope) if scope._task is not None else []
    scope._nursery = None
    if not nursery._state.loop.is_closed():
        scope._force_out(task)
        deliver_changes(affected)


async def join_children(
    nursery: Nursery, task: Task, native: BaseException | None
) -> BaseException | None:
    """Wait for the children.

    Args:
        nursery: the nursery.
        task: its host task.
        native: the native cancel that was raised before the wait, if any.

    Returns:
        The native cancel to re-raise, as :func:`pick_native_cancel` picks it; None if there is
        none.
    """
    shield = foreign_shield(native, task)
    try:
        try:
            while not nursery._closed:
                task._abort = nursery
                task._park = nursery._waiter = waiter = nursery._state.loop.create_future()
                try:
                    outcome: Any = await waiter
                    if outcome is not None:
                        nursery._fail(outcome.error, task)  # raised by the abort function
                except GeneratorExit:
                    raise
                except BaseException as exc:
                    native = pick_native_cancel(
                        native, nursery._record_or_keep_native(exc, waiting=True)
                    )
                    shield = shield or foreign_shield(native, task)
        finally:
            task._park = task._abort = nursery._waiter = None
    finally:
        if shield is not None:
            shield.__exit__(None, None, None)
    if task.scope._effective:
        recheck(task)
    try:
        return native
    finally:
        del native  # its traceback holds this frame: no reference cycle


async def leave_in_trouble(
    nursery: Nursery, exc: BaseException | None, failure: BaseException
) -> BaseException | None:
    """Finish leaving the block after that has failed half-way: still no child outlives the block.

    There may be no stack left, so waiting for the children calls no function written in Python.
    """
    task, scope, state = nursery._parent_task, nursery.cancel_scope, nursery._state
    try:
        closing = type(failure) is GeneratorExit or state.loop.is_closed()
    except RecursionError:
        closing = False  # asyncio's method is written in Python, and the loop is running this task
    if closing:
        collapse(nursery)
        return failure if exc is None else exc
    # Each error once, by identity.
    errors: dict[int, BaseException] = {}
    try:
        for error in (*(nursery._errors or ()), exc, failure):
            if error is not None:
                errors[id(error)] = error
        nursery._errors = None
        nursery._named_failures = None
        nursery._body_running = False
        state.unfinished.append((scope._cancel, (FAILED,)))
        state.run_soon()
        while nursery._children or nursery._pending_starts:
            task._abort = None
            task._park = nursery._waiter = waiter = new_future(loop=state.loop)
            try:
                await waiter
            except GeneratorExit:
                collapse(nursery)
                raise
            except BaseException as more:
                errors[id(more)] = more
        for error in nursery._errors or ():
            errors[id(error)] = error
        nursery._errors = task._park = nursery._waiter = None
        nursery._closed = True
        scope._nursery = None
        if task.scope is scope:
            task.scope = ROOT if scope._parent is None else scope._parent
        try:
            scope._force_out(task)
        except BaseException:
            state.unfinished.append((scope._force_out, (task,)))
            state.run_soon()
        # A cancellation that is still in effect is raised again at the next checkpoint.
        left = [error for error in errors.values() if not is_a(error, Cancelled)]
        try:
            if left and (native_requests(task) > 0 or not compat.HAS_CANCEL_COUNTS):
                for error in errors.values():
                    if is_a(error, Cancelled) and not is_own_cancelled(error):
                        defer_native_cancel(task, error)
                        break
            left = left or list(errors.values())
            return unwrap_exit_at_task_root(task, nursery._strict, combine(nursery._strict, left))
        except BaseException as more:
            return BaseExceptionGroup(GROUP_MESSAGE, [*left, more])
    finally:
        exc = failure = errors = left = None  # type: ignore[assignment]


# -- the error that the block raises --------------------------------------------


def leave_in_other_task(nursery: Nursery, exc: BaseException | None) -> BaseException | None:
    """Leave the block in another task than the one that entered it."""
    scope = nursery.cancel_scope
    if nursery._state.loop.is_closed():
        collapse(nursery)
        scope._task = None
        return exc
    if scope._abandoned:
        # The task that entered it has ended, and that was reported. Errors leave in a group.
        return None if exc is None else combine(nursery._strict, [exc])
    return scope._close(exc)


def leave(
    nursery: Nursery, exc: BaseException | None, native: BaseException | None
) -> BaseException | None:
    """Leave the block of a nursery in which something was raised.

    Args:
        nursery: the nursery.
        exc: the exception that the body raised; None if it raised nothing.
        native: the native cancel of the host task, if there was one.

    Returns:
        The exception that the end of the block raises; None for none.
    """
    task, scope, strict = nursery._parent_task, nursery.cancel_scope, nursery._strict
    errors = nursery._errors or []
    if nursery._named_failures is not None:
        add_notes(nursery, sys._getframe(1))
    left: BaseException | None
    if scope._abandoned and scope._task is None:
        left = _leave_abandoned(nursery, errors)
    elif not errors and native is None:
        left = scope._close(None)  # cut off, because a scope further out was left before this one
    elif native is None:
        left = close_with_errors(task, scope, strict, errors, exc)
    else:
        left = close_with_native_cancel(task, scope, strict, errors, native)
    nursery._errors = None
    return left


def _leave_abandoned(nursery: Nursery, errors: list[BaseException]) -> BaseException:
    """The error when the nursery's scope was left by hand before the block.

    Leaving the scope has cancelled the children, so their ``Cancelled`` are taken out.
    """
    error = misnested(
        f"the cancel scope of {nursery!r} was exited before its 'async with' block", None
    )
    rest = without_cancelled(errors)
    return combine(nursery._strict, [error, *rest]) if rest else error


def close_with_errors(
    task: Task,
    scope: CancelScope,
    strict: bool | None,
    errors: list[BaseException],
    body: BaseException | None,
) -> BaseException | None:
    """Leave the scope of a nursery with these errors.

    Args:
        task: the host task.
        scope: the nursery's scope.
        strict: the nursery's ``strict_exception_groups``.
        errors: the errors of the body and the children.
        body: the error of the body, which is among ``errors``; None if it raised nothing.

    Returns:
        The exception that the end of the block raises; None for none.
    """
    # A native cancel of the host can only be raised in the body. A bare one was recognised before,
    # so it can be hidden in ``errors`` only if the body raised a group.
    maybe_native = body is not None and is_a(body, BaseExceptionGroup)
    left: BaseException | None
    kinds = set(map(type, errors))
    if kinds == {Cancelled}:
        # The scope catches all of them or none, so no group is made in order to be taken apart.
        left = scope._close(errors[0], maybe_native)
        return left if left is not errors[0] else combine(strict, errors)
    concern = [kind for kind in kinds if issubclass(kind, MAY_CONCERN_SCOPES)]
    if task.scope is not scope:
        left = scope._close(combine(strict, errors), maybe_native)
    elif not concern:
        left = combine(strict, errors)
        scope._leave(task, None, maybe_native)  # there is nothing for the scope to catch
    elif compat.HAS_CANCEL_COUNTS and len(concern) == 1 and concern[0] is Cancelled:
        # The scope catches all of them or none, so the group of the rest is made once.
        cancelled = next(error for error in errors if type(error) is Cancelled)
        if scope._leave(task, cancelled, False) is cancelled:
            left = combine(strict, errors)
        else:
            left = combine(strict, [error for error in errors if type(error) is not Cancelled])
            if is_a(left, BaseExceptionGroup):
                dict_of(left)[NO_CANCELLED_MARK] = True
    else:
        left = scope._close(combine(strict, errors), maybe_native)
    return unwrap_exit_at_task_root(task, strict, left)


def close_with_native_cancel(
    task: Task,
    scope: CancelScope,
    strict: bool | None,
    errors: list[BaseException],
    native: BaseException,
) -> BaseException | None:
    """Leave the scope of a nursery whose host task was cancelled natively.

    Args:
        task: the host task.
        scope: the nursery's scope.
        strict: the nursery's ``strict_exception_groups``.
        errors: the errors of the body and the children.
        native: the native cancel.

    Returns:
        The errors in a group, with ``native`` deferred to the next await. ``native`` itself if the
        errors are all ``Cancelled``. If the scope was cut off, the error about that.
    """
    rest = without_cancelled(errors)
    misnesting = scope._close(None)
    if misnesting is not None:
        return misnesting
    if not rest:
        return native
    if native_requests(task) > 0 or not compat.HAS_CANCEL_COUNTS:
        defer_native_cancel(task, native)
    return unwrap_exit_at_task_root(task, strict, combine(strict, rest))


def unwrap_exit_at_task_root(
    task: Task, strict: bool | None, error: BaseException | None
) -> BaseException | None:
    """Unwrap a lone SystemExit or KeyboardInterrupt that leaves the outermost nursery of a task.

    asyncio would not recognise it in a group. With ``strict=True`` the group is kept.
    """
    if error is None or strict is True or task._parent_nursery is not None:
        return error
    leaf = bare_exit(error)
    if leaf is not error and any(node._nursery is not None for node in chain(task.scope, None)):
        return error  # not the outermost
    return leaf
