"""Calls of the system that block and cannot be waited for otherwise, name look-up above all.

What lives here: :func:`call_in_thread`, for this room. What does not: the threads that users ask
for (``nurseryio.to_thread``), which can do more.

Rule 1: a cancelled caller goes on at once. The thread is left to finish by itself, and never keeps
the program from ending.

Rule 2: at most ``MOST_AT_ONCE`` calls of one loop are under way, those left alone included.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._core import RunVar, current_task, wait_future
from .._core.thread_cache import start_thread_soon
from .._sync import CapacityLimiter

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    from .._core import Outcome

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
    done: asyncio.Future[Outcome[RetT]] = loop.create_future()
    await limiter.acquire_on_behalf_of(done)

    def finish(outcome: Outcome[Any]) -> None:
        limiter.release_on_behalf_of(done)
        if not done.done():
            done.set_result(outcome)

    def deliver(outcome: Outcome[Any]) -> None:
        try:
            loop.call_soon_threadsafe(finish, outcome)
        except RuntimeError:
            if not loop.is_closed():
                raise

    try:
        start_thread_soon(partial(fn, *args), deliver)
    except BaseException:
        limiter.release_on_behalf_of(done)
        raise
    return (await wait_future(done)).unwrap()
