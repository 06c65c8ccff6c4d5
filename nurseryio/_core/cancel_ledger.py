"""The cancel ledger: whether a counted cancel request, or the error it raises, belongs to a scope.

asyncio counts the requests to cancel a task (``Task.cancelling()``, the *cancel count*), and
``asyncio.timeout``, ``asyncio.TaskGroup`` and servers act on the number. A request by code outside
of this library is called *native*.

Rule 1: while a cancellation by a scope is in effect in a task, exactly one request of the count
belongs to the scope. It is added with the first delivery, and released by ``uncancel`` when the
task is not effectively cancelled any more. Each later delivery is paired with ``uncancel`` at once.

Rule 2: all other requests in the count are native. A scope does not catch a ``CancelledError`` that
belongs to a native request.

Rule 3: a native request that is raised where a result would be lost is *deferred*: the next
iteration of the loop requests it again, so that the next await raises it. A task that ends before
that keeps its result, as a scope does that is left before a checkpoint. A request made at once
would throw the result away as the task ends. It could also not be withdrawn before Python 3.13.

Rule 4: before Python 3.13 the count goes stale: if the error of a native request was replaced by
another error, nothing calls ``uncancel`` for the request. There ``stale_requests`` is the number of
native requests that were raised before a scope's request. ``propagating_requests`` is the number of
native requests at the time when a scope last let the error of one pass.

Rule 5: only this module writes ``_owns_cancel_request``, ``_deferred_cancel``, ``stale_requests``
and ``propagating_requests``, apart from the code that makes a record or ends one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._asyncio.compat import ChildTask, cancelling, plain_cancel, uncancel
from .._base.errors import ENGINE_ERRORS, CancelReason
from .._base.exc_fields import is_a
from .._base.exception_groups import only_own_cancels
from . import anyio_hook

if TYPE_CHECKING:
    from .task import Task

# The reason of a cancellation if none of the scopes around the task has a reason.
UNKNOWN = CancelReason("unknown", reason="misnesting")


# -- native requests and their errors ------------------------------------------


def native_requests(task: Task) -> int:
    """How many counted cancel requests on the task do not belong to a scope."""
    return cancelling(task.asyncio_task) - task._owns_cancel_request


def delivered_native_requests(task: Task, requests: int) -> int:
    """Of ``requests``, how many were already raised in the running task. One may be pending."""
    deferred_after = task._extra.deferred_after
    if deferred_after is not None:
        return min(deferred_after, requests)
    return requests - 1 if compat.must_cancel(task.asyncio_task) else requests


def is_native(task: Task, before: int, exc: BaseException) -> bool:
    """Whether ``exc`` belongs to a native request. The scope found ``before`` of them at entry."""
    requests = native_requests(task)
    if requests <= max(before, 0):
        return False
    if (
        anyio_hook.bridge is not None
        and anyio_hook.bridge.has_cancelled(task)
        and only_own_cancels(exc)
    ):
        # The count may exceed ``before`` because of anyio. It raises its cancellation again and
        # knows that by its message alone, so the scope may catch this error, which is its own.
        return False
    if compat.COUNTS_GO_STALE:
        if requests <= _stale_requests(task) and only_own_cancels(exc):
            return False
        task._own_extra().propagating_requests = requests
    return True


def _stale_requests(task: Task) -> int:
    """How many native requests were raised before the scope's request was, as far as is known.

    They are stale unless the scope's ``CancelledError`` in flight has replaced the error of one.
    Used only where counts go stale (see ``compat``).
    """
    if task._owns_cancel_request:
        return task._extra.stale_requests
    requests = native_requests(task)
    extra = task._extra
    if requests < extra.propagating_requests:
        extra.propagating_requests = 0  # the request was withdrawn
    if (
        extra.propagating_requests
        or task._deferred_cancel
        or not compat.all_raised(task.asyncio_task)
    ):
        return 0
    return requests


# -- the scope's own request -----------------------------------------------------


def request_cancel(task: Task) -> Exception | None:
    """Request the cancellation of a task on behalf of the scope that the task is in.

    Returns:
        The error that ``cancel()`` of the awaited future has raised, if so. Nothing has changed
        then. Otherwise None.

    Raises:
        BaseException: The call failed in the engine. Nothing has changed.
    """
    if compat.COUNTS_GO_STALE:
        stale_requests = _stale_requests(task)
        if stale_requests != task._extra.stale_requests:
            task._own_extra().stale_requests = stale_requests
    asyncio_task = task.asyncio_task
    owned = task._owns_cancel_request
    before = cancelling(asyncio_task)
    try:
        task._owns_cancel_request = True
        if type(asyncio_task) is ChildTask:
            plain_cancel(asyncio_task, task.scope._reason or UNKNOWN)
        else:
            asyncio_task.cancel(task.scope._reason or UNKNOWN)
        if owned and before > 0:  # else other code has withdrawn the scope's request
            uncancel(asyncio_task)
    except BaseException as error:
        return withdraw_request(task, owned, before, error)
    return None


def withdraw_request(task: Task, owned: bool, before: int, error: BaseException) -> Exception:
    """Undo a request that has failed.

    Args:
        task: the task.
        owned: whether the task's scopes owned a request before.
        before: the cancel count before.
        error: the error, which is returned.

    Raises:
        BaseException: ``error``, if the call failed in the engine.
    """
    task._owns_cancel_request = owned
    if cancelling(task.asyncio_task) > before:
        uncancel(task.asyncio_task)
    try:
        if not is_a(error, Exception) or is_a(error, ENGINE_ERRORS):
            raise error
        return error
    finally:
        del error


def release_cancel_request(task: Task) -> None:
    """Release the scope's request, because the task is not effectively cancelled any more."""
    if task._owns_cancel_request:
        if compat.COUNTS_GO_STALE and native_requests(task) > task._extra.stale_requests:
            # A native request came while the scope's was in effect. Its error is still to be
            # raised or passed on, for instance after a shield.
            task._own_extra().propagating_requests = native_requests(task)
        task._owns_cancel_request = False
        try:
            task._last_interrupted = task._swallowed_cancels = None
            uncancel(task.asyncio_task)
        except BaseException:
            uncancel(task.asyncio_task)
            raise


# -- native requests that come at the wrong moment -------------------------------


def raised_native_requests(task: Task) -> int:
    """How many of the native requests on the running task were already raised in it."""
    requests = native_requests(task)
    return delivered_native_requests(task, requests) if requests > 0 else 0


def defer_native_cancel(task: Task, error: BaseException, raised: int | None = None) -> None:
    """Defer a native cancel that was raised where a result would be lost (rule 3).

    Args:
        task: the running task.
        error: the ``CancelledError``.
        raised: ``raised_native_requests`` before the operation; None if that is not known.
    """
    if anyio_hook.repeats(error):
        return  # anyio cancels the task again by itself
    requests = native_requests(task)
    # By the next iteration of the loop the requesting code may have withdrawn its request, as the
    # end of an asyncio.timeout() does. If the task's count has fallen to ``limit``, all have been.
    if raised is None:
        raised = max(requests - 1, 0)
        limit = 0 if compat.UNCANCEL_WITHDRAWS else raised
    else:
        limit = raised
    state = task._state
    extra = task._own_extra()
    args = (task, error.args, limit if requests > limit else -1)
    state.loop.call_soon(_request_again, *args, context=state.context)
    extra.deferred_after = raised
    task._deferred_cancel = True
    if compat.is_interrupted_main_task(task.asyncio_task):
        task.asyncio_task.add_done_callback(_raise_ctrl_c)


def _request_again(task: Task, args: tuple[Any, ...], limit: int) -> None:
    asyncio_task = task.asyncio_task
    if compat.is_over(asyncio_task):
        return
    if native_requests(task) > limit:
        compat.recancel(asyncio_task, args)
    task._extra.deferred_after = None
    asyncio_task.remove_done_callback(_raise_ctrl_c)


def _raise_ctrl_c(asyncio_task: compat.AsyncioTask) -> None:
    """The done-callback of the main task of an ``asyncio.run`` in which Ctrl-C was deferred.

    ``asyncio.run`` raises KeyboardInterrupt only if the task ends cancelled.
    """
    if not asyncio_task.cancelled() and asyncio_task.exception() is None:
        raise KeyboardInterrupt


def has_unraised_cancel(task: Task) -> bool:
    """Whether the running task's next await raises a native cancel, as far as is known."""
    return task._extra.deferred_after is not None or compat.must_cancel(task.asyncio_task)


def take_deferred_cancel(task: Task) -> bool:
    """Clear ``_deferred_cancel``; return whether a native request may still have to be raised."""
    task._deferred_cancel = False
    return has_unraised_cancel(task)
