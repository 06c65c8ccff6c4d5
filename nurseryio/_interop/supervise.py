"""``supervise``: asyncio's own tasks and futures under the supervision of a nursery.

Rule: a supervised future ends before its nursery does. A child of the nursery awaits the future. An
error of the future is raised in the child. Cancelling the child cancels the future.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from typing import TYPE_CHECKING, Any, TypeVar

from .._asyncio import compat
from .._base.util import safe_repr
from .._core.task import records

if TYPE_CHECKING:
    from .._nursery import Nursery

__all__ = ["supervise"]

T = TypeVar("T")


def supervise(
    nursery: Nursery, future: asyncio.Future[T], *, name: object = None
) -> asyncio.Future[T]:
    """Let a nursery supervise an asyncio task or future that exists already.

    If the future fails, the nursery is cancelled and raises the error in its group, as for a child.
    If the nursery is cancelled, the future is cancelled too, once. The nursery's block ends only
    when the future is done. If other code cancels the future, the nursery raises nothing, as for a
    child that is cancelled alone.

    Args:
        nursery: an open nursery.
        future: an ``asyncio.Task`` or ``asyncio.Future`` of the nursery's loop.
        name: the name, in debugging output, of the child that awaits the future.

    Returns:
        The same future. After the nursery's block it is done, so ``future.result()`` can be called.

    Raises:
        TypeError: ``future`` is not an asyncio future; the message suggests what to do.
        ValueError: the future belongs to another loop, or is a child of a nursery already. Or it is
            the task that opened the nursery, which would wait for itself.
        RuntimeError: the nursery is closed.

    Checkpoint: no.
    """
    _check(nursery, future)
    if name is None:
        name = future.get_name() if compat.is_task(future) else safe_repr(future)
    nursery.start_soon(_wait_for, future, name=f"supervises {name}")
    return future


def _check(nursery: Nursery, future: Any) -> None:
    if isinstance(future, concurrent.futures.Future):
        raise TypeError(
            "this future belongs to threads: give supervise() asyncio.wrap_future(future)"
        )
    if not asyncio.isfuture(future):
        hint = ""
        if asyncio.iscoroutine(future):
            future.close()
            hint = "; start a coroutine function with nursery.start_soon(async_fn, *args)"
        raise TypeError(
            f"supervise() takes an asyncio task or future, not {safe_repr(future)}{hint}"
        )
    parent = nursery.parent_task.asyncio_task
    if future.get_loop() is not parent.get_loop():
        raise ValueError(f"{safe_repr(future)} belongs to another event loop than the nursery")
    if future is parent:
        raise ValueError("a nursery cannot supervise the task that opened it: it waits for itself")
    record = records.get(future)  # type: ignore[call-overload]
    if record is not None and record.parent_nursery is not None:
        raise ValueError(
            f"{safe_repr(future)} is a child of a nursery already: {record.parent_nursery!r}"
        )


async def _wait_for(future: asyncio.Future[Any]) -> None:
    try:
        # A cancellation of this await cancels the future, and raises once that has ended.
        await future
    finally:
        del future  # it refers to the error, whose traceback refers to this frame: avoid a cycle
