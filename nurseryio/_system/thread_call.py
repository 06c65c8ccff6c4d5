"""One call in a worker thread, as both sides see it: :class:`Hop`.

A hop is the record of one call of ``to_thread.run_sync``. This module also lets a worker thread
find the hop that it is working for. The public functions are in ``threads`` (from a task to a
thread) and ``from_thread`` (from a thread back to the loop).

Rule 1: a thread reaches the event loop only through ``loop.call_soon_threadsafe``. That is the one
function of a loop that may be called from another thread. So a message never arrives while the
waiting task is running.

Rule 2: each side gets an answer. If a result or a request cannot be handed over, the answer is the
error.

Rule 3: the hop drops its references to the function, the arguments and the context before the
result is delivered. So code that gets the result can rely on their being free.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import count
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from .._base import Error, RunFinishedError, Value
from .._base.exc_fields import chain, explained
from .._base.forked import in_child
from .._base.util import qualname_of, safe_repr
from .._core import Abort, reschedule
from .._sync.limiter import CapacityLimiter

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from contextvars import Context
    from typing import NoReturn, Protocol

    from .._base import Outcome
    from .._core import Task

    class Borrowable(Protocol):
        """The methods that the ``limiter`` of ``to_thread.run_sync`` must have."""

        async def acquire_on_behalf_of(self, borrower: Any) -> None:
            """Wait for a token."""

        def release_on_behalf_of(self, borrower: Any) -> None:
            """Give the token back."""

    class Request(Protocol):
        """A call that a worker thread asks the task that waits for it to make."""

        async def serve(self) -> None:
            """Make the call, and answer the thread."""

        def refuse(self, error: BaseException | None = None) -> None:
            """Answer the thread with an error."""


_numbers = count()


class _ThisThread(threading.local):
    hop: Hop | None = None


_this_thread = _ThisThread()


@in_child
def _work_for_nobody() -> None:
    _this_thread.hop = None


def current_hop() -> Hop | None:
    """The hop that the calling thread works for; None if it is not a worker thread."""
    return _this_thread.hop


def function_name(fn: object) -> str:
    """The name of a function in an error message, in quotes."""
    name = qualname_of(fn)
    return safe_repr(fn if name is None else name)


def call_in_loop(loop: asyncio.AbstractEventLoop, fn: Callable[..., object], *args: object) -> None:
    """Have a function called in the loop's thread.

    Only the loop keeps references to the arguments. If the loop is closed before the call, the
    arguments are freed with it.

    Raises:
        RunFinishedError: The loop is closed.
    """
    try:
        loop.call_soon_threadsafe(fn, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
        raise RunFinishedError("the event loop is closed") from None


class Hop:
    """A call in a worker thread. While it lasts, it is also the borrower of the limiter's token."""

    __slots__ = (
        "__weakref__",
        "_job",
        "_limiter",
        "_number",
        "_request",
        "_task",
        "abandon",
        "finished",
        "loop",
        "raise_cancel",
        "thread",
    )

    def __init__(
        self,
        job: tuple[Callable[..., Any], tuple[Any, ...], Context] | None,
        task: Task,
        loop: asyncio.AbstractEventLoop,
        limiter: Borrowable,
        abandon: bool,
    ) -> None:
        self._job = job
        # None once the token has been given back.
        self._limiter: Borrowable | None = limiter
        self._number = next(_numbers)
        # The task that waits; None once it does not wait any more.
        self._task: Task | None = task
        # The request that was handed to the task, until the task waits no more.
        self._request: Request | None = None
        self.loop = loop
        self.abandon = abandon
        # Whether the function has ended: the next value that the task gets is its result.
        self.finished = False
        # Raises the cancellation that was delivered to the task; None if none was delivered yet.
        # It is set in the loop's thread, and read in the worker thread.
        self.raise_cancel: Callable[[], NoReturn] | None = None
        # The identifier of the thread while it runs the function.
        self.thread: int | None = None

    @property
    def name(self) -> str:
        """The name that the limiter's statistics show."""
        return f"nurseryio.to_thread.run_sync-{self._number}"

    def __repr__(self) -> str:
        return f"<{self.name}>"

    # -- in the worker thread --

    def work(self) -> Any:
        """Call the function."""
        assert self._job is not None
        fn, args, context = self._job
        self._job = None
        _this_thread.hop = self
        self.thread = threading.get_ident()
        try:
            result = context.run(fn, *args)
        finally:
            self.thread = None
            _this_thread.hop = None
        if isinstance(result, CoroutineType):
            result.close()
            raise explained(
                TypeError(
                    f"nurseryio expected a sync function, but {function_name(fn)} appears to be "
                    "asynchronous"
                ),
                "to_thread.run_sync calls it in a thread: await it directly instead",
            )
        return result

    def deliver(self, outcome: Outcome[Any]) -> None:
        """Send the result to the loop, unless the loop is closed."""
        try:
            call_in_loop(self.loop, self._finish, outcome)
        except RunFinishedError:
            pass  # the task has been abandoned with its loop
        except BaseException as error:
            # No other code would wake the task, so this error becomes the result.
            if isinstance(outcome, Error):
                chain(error, outcome.error)
            call_in_loop(self.loop, self._finish, Error(error))
        finally:
            del outcome

    def ask(self, request: Request) -> None:
        """Have the waiting task serve a request. This thread must then wait for the answer."""
        call_in_loop(self.loop, self._hand_over, request)

    # -- in the loop's thread --

    def _finish(self, outcome: Outcome[Any]) -> None:
        try:
            self.release()
            self._wake(outcome)
        except BaseException as error:
            # Any object may be the limiter, so this may be any error.
            if type(self._limiter) is CapacityLimiter:
                with suppress(RuntimeError):  # the token was given back before the failure
                    self.release()
            if not self._waits():
                raise
            if isinstance(outcome, Error):
                chain(error, outcome.error)
            self._wake(Error(error))
        finally:
            del outcome  # no reference cycle

    def release(self) -> None:
        """Give the limiter's token back, unless that has been done already."""
        if self._limiter is not None:
            self._limiter.release_on_behalf_of(self)
            self._limiter = None

    def _waits(self) -> bool:
        park = None if self._task is None else self._task._park
        return park is not None and not park.done()

    def _wake(self, outcome: Outcome[Any]) -> None:
        """Wake the task with its result, if it still waits."""
        try:
            if self._task is not None:
                self.finished = True
                reschedule(self._task, outcome)
        finally:
            del outcome

    def _hand_over(self, request: Request) -> None:
        try:
            if self._task is None:
                # A thread asks its task only if the task cannot abandon it.
                raise RunFinishedError("the task that waited for this thread is gone")
            self._request = request
            reschedule(self._task, Value(request))
        except BaseException as error:
            self._request = None
            request.refuse(error)

    def end_request(self) -> None:
        """Refuse the request that was handed to the task, unless its thread has been answered."""
        if self._request is not None:
            request, self._request = self._request, None
            request.refuse()

    def forsake(self) -> None:
        """Record that the task does not wait any more, for any reason."""
        self._task = None
        if self._request is not None:
            self.end_request()

    def abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        """The task's abort function: called when the task is cancelled while it waits.

        Returns SUCCEEDED, so that the task stops waiting, only if the thread may be abandoned.
        """
        self.raise_cancel = raise_cancel
        if self.abandon:
            self._task = None
            return Abort.SUCCEEDED
        return Abort.FAILED
