"""Blocking system calls of this library in worker threads, such as name look-up.

This module has :func:`call_in_thread`, for ``_resolver`` and ``_net``. Users call
``nurseryio.to_thread``, which can do more; it is in ``_system``.

Rule 1: a cancelled caller raises at once. The thread is abandoned: it finishes by itself, and does
not keep the program from ending.

Rule 2: every call completes. If its result cannot be handed to the loop, the caller gets that
error.

Rule 3: at most ``MOST_AT_ONCE`` calls of one loop run at a time, the abandoned ones included.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._base import Error
from .._base.thread_cache import start_thread_soon
from .._core import current_task, wait_future
from .._run.runvar import RunVar
from .._sync.limiter import CapacityLimiter

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    from .._base import Outcome

    PosArgsT = TypeVarTuple("PosArgsT")

RetT = TypeVar("RetT")

MOST_AT_ONCE = 40

_limiter: RunVar[CapacityLimiter] = RunVar("offload_limiter")


async def call_in_thread(fn: Callable[[Unpack[PosArgsT]], RetT], *args: Unpack[PosArgsT]) -> RetT:
    """Call ``fn(*args)`` in a worker thread, wait for it, and return its result.

    Raises:
        Cancelled: if the task is cancelled meanwhile; the outcome of the call is dropped.
        Exception: the error that ``fn`` raises.

    Checkpoint: yes.
    """
    loop = current_task().asyncio_task.get_loop()
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(MOST_AT_ONCE)
        _limiter.set(limiter)
    call = _Call(loop, limiter)
    await limiter.acquire_on_behalf_of(call)
    try:
        start_thread_soon(partial(fn, *args), call.deliver)
    except BaseException:
        limiter.release_on_behalf_of(call)
        raise
    await wait_future(call.done)
    # Removed from the call, because the frames of an error hold the call (a reference cycle).
    return call.outcomes.pop().unwrap()  # type: ignore[no-any-return]


class _Call:
    """One running call. It is also the borrower of the limiter's token."""

    __slots__ = ("_limiter", "_loop", "done", "outcomes")

    def __init__(self, loop: asyncio.AbstractEventLoop, limiter: CapacityLimiter) -> None:
        self._loop = loop
        self._limiter = limiter
        self.outcomes: list[Outcome[Any]] = []
        self.done: asyncio.Future[None] = loop.create_future()

    def deliver(self, outcome: Outcome[Any]) -> None:
        """In the worker thread: send the outcome to the loop, unless the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._finish, outcome)
        except BaseException as error:
            if self._loop.is_closed():
                return
            # Try again with the error. Otherwise the task would wait for ever.
            self._loop.call_soon_threadsafe(self._finish, Error(error))
            raise
        finally:
            del outcome

    def _finish(self, outcome: Outcome[Any]) -> None:
        try:
            self._limiter.release_on_behalf_of(self)
        finally:
            if not self.done.done():
                self.outcomes.append(outcome)
                self.done.set_result(None)
            del outcome
