"""The cancel ledger: whose are the cancel requests that asyncio counts, and the errors they raise?

asyncio counts the requests to cancel a task (``Task.cancelling()``), and ``asyncio.timeout``,
``asyncio.TaskGroup`` and servers act on the number. A request by code outside of this library is
called *native*.

Rule 1: while a cancellation by a scope is in effect in a task, exactly one request of the count
belongs to the scope. It is added with the first delivery and released when the task is not
effectively cancelled any more. Each later delivery is paired with ``uncancel`` at once.

Rule 2: what the count exceeds this by are native requests. No scope takes their
``CancelledError`` out of what passes by.

Rule 3: a native request that is raised where a result would be lost is *deferred*: it is requested
again, so that the next await raises it.

Rule 4: before Python 3.13 the count goes stale: nothing takes a native request back whose error was
replaced by another. There ``stale_requests`` is the number of native requests that were raised
before a scope's, and ``propagating_requests`` the number when a scope let one of them pass.

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

# The reason of a cancellation for which no scope on the way up has one.
UNKNOWN = CancelReason("unknown", reason="misnesting")


# -- whose requests, whose error -----------------------------------------------


def native_requests(task: Task) -> int:
    """How many cancel requests on the task are not ours."""
    return cancelling(task.asyncio_task) - task._owns_cancel_request


def delivered_native_requests(task: Task, requests: int) -> int:
    """How many of so many native requests the running task has seen; one may be still to strike."""
    deferred = compat.COUNTS_GO_STALE and task._deferred_cancel
    return requests - 1 if deferred or compat.must_cancel(task.asyncio_task) else requests


def is_native(task: Task, before: int, exc: BaseException) -> bool:
    """Whether a native request is under way beyond ``before`` of them, so that ``exc`` is its."""
    requests = native_requests(task)
    if requests <= max(before, 0):
        return False
    if (
        anyio_hook.bridge is not None
        and anyio_hook.bridge.has_cancelled(task)
        and only_own_cancels(exc)
    ):
        return False  # what came with ours is said again by who knows its own alone
    if compat.COUNTS_GO_STALE:
        if requests <= _stale_requests(task) and only_own_cancels(exc):
            return False
        task._own_extra().propagating_requests = requests
    return True


def _stale_requests(task: Task) -> int:
    """How many native requests were raised, for all that is known, before ours struck.

    They are over, if the one of ours that is on its way has not replaced them. Used only where
    counts go stale (see ``host``).
    """
    if task._owns_cancel_request:
        return task._extra.stale_requests
    requests = native_requests(task)
    extra = task._extra
    if requests < extra.propagating_requests:
        extra.propagating_requests = 0  # taken back
    if (
        extra.propagating_requests
        or task._deferred_cancel
        or not compat.all_raised(task.asyncio_task)
    ):
        return 0
    return requests


# -- the scope's own request -----------------------------------------------------


def request_cancel(task: Task) -> Exception | None:
    """Request the cancellation of a task for the scope that it is in.

    Returns:
        The error of the future that the task waits for, if its ``cancel()`` has failed. Nothing has
        changed then.

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
        if owned and before > 0:  # not if somebody has taken the scope's request back
            uncancel(asyncio_task)
    except BaseException as error:
        task._owns_cancel_request = owned
        if cancelling(asyncio_task) > before:
            uncancel(asyncio_task)
        if not is_a(error, Exception) or is_a(error, ENGINE_ERRORS):
            raise
        return error
    return None


def release_cancel_request(task: Task) -> None:
    """The task is no longer effectively cancelled: clear our share of its cancel count."""
    if task._owns_cancel_request:
        if compat.COUNTS_GO_STALE and native_requests(task) > task._extra.stale_requests:
            # One that came together with ours is still to be told, after a shield for instance.
            task._own_extra().propagating_requests = native_requests(task)
        task._owns_cancel_request = False
        try:
            task._last_interrupted = task._swallowed_cancels = None
            uncancel(task.asyncio_task)
        except BaseException:
            uncancel(task.asyncio_task)
            raise


# -- native requests that come at the wrong moment -------------------------------


def defer_native_cancel(task: Task, error: BaseException) -> None:
    """A native cancel struck where nothing may be lost: have it strike at the next await."""
    if anyio_hook.repeats(error):
        return  # it strikes again by itself
    task._deferred_cancel = True
    if compat.UNCANCEL_WITHDRAWS or not compat.HAS_CANCEL_COUNTS:
        compat.recancel(task.asyncio_task, error.args)
    else:
        # By the next turn of the loop whoever asked may have taken the request back, as the end of
        # an asyncio.timeout() does. What was put back at once could not be withdrawn any more.
        state = task._state
        requests = native_requests(task)
        state.loop.call_soon(_recancel_later, task, error.args, requests, context=state.context)


def _recancel_later(task: Task, args: tuple[Any, ...], requests: int) -> None:
    if not compat.is_over(task.asyncio_task) and native_requests(task) >= requests:
        compat.recancel(task.asyncio_task, args)


def take_deferred_cancel(task: Task) -> bool:
    """Whether a native request that was deferred is pending. The next call returns False."""
    task._deferred_cancel = False
    return compat.must_cancel(task.asyncio_task) or (
        not compat.UNCANCEL_WITHDRAWS and native_requests(task) > 0
    )
