"""Calls of the system that block and cannot be waited for otherwise, name look-up above all.

What lives here: :func:`call_in_thread`, for this room. What does not: the threads that users ask
for (``nurseryio.to_thread``), which can do more.

Rule 1: a cancelled caller goes on at once. The thread is left to finish by itself, and never keeps
the program from ending.

Rule 2: each call is answered, with the error of handing over its result if there is one.

Rule 3: at most ``MOST_AT_ONCE`` calls of one loop are under way, those left alone included.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._base import Error
from .._base.thread_cache import start_thread_soon
from .._core import current_task, wait_future
from .._run import RunVar
from .._sync import CapacityLimiter

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
    """Call ``fn(*args)`` in a worker thread and wait for what it returns or raises.

    Raises:
        Cancelled: if the task is cancelled meanwhile; what the call comes to is forgotten.
        Exception: whatever ``fn`` raises.

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
    # Taken out of there: an error's frames hold the call.
    return call.outcomes.pop().unwrap()  # type: ignore[no-any-return]


class _Call:
    """One call under way. Also the borrower of the limiter's token while it lasts."""

    __slots__ = ("_limiter", "_loop", "done", "outcomes")

    def __init__(self, loop: asyncio.AbstractEventLoop, limiter: CapacityLimiter) -> None:
        self._loop = loop
        self._limiter = limiter
        self.outcomes: list[Outcome[Any]] = []
        self.done: asyncio.Future[None] = loop.create_future()

    def deliver(self, outcome: Outcome[Any]) -> None:
        """In the worker thread: send the outcome to the loop, if it is still there."""
        try:
            self._loop.call_soon_threadsafe(self._finish, outcome)
        except BaseException as error:
            if self._loop.is_closed():
                return
            # Once more: nobody else would answer the task.
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
