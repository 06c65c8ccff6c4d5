"""``as_safe_channel``: async generators that neither leak nor tangle scopes.

A generator that is iterated directly runs inside whoever iterates it: a ``yield`` within a scope
or nursery leaves that scope open around foreign code, and a loop that is left early leaves the
generator suspended until the garbage collector finds it. Here the generator runs in a task of its
own, and a context manager bounds its life.

Rule 1: the generator makes a step only when the receiver has asked for an item, so it never
works ahead (except that a ``receive`` that was cancelled has asked already).

Rule 2: on leaving the block the generator is closed, and has finished, before the block is left.

Rule 3: a single error leaves the block as itself, as it would leave a plain loop. Several leave
as a group.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from .._core import BrokenResourceError, Cancelled, open_nursery
from .._core.abcs import ReceiveChannel
from .channel import open_memory_channel
from .semaphore import Semaphore

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from typing_extensions import Self

    from .._core import TaskStatus
    from .channel import MemoryReceiveChannel, MemorySendChannel

__all__ = ["as_safe_channel"]

T = TypeVar("T")
P = ParamSpec("P")


def as_safe_channel(
    fn: Callable[P, AsyncGenerator[T, None]],
) -> Callable[P, AbstractAsyncContextManager[ReceiveChannel[T]]]:
    """Decorate an async generator function to be used as a context manager around a channel.

    ::

        @as_safe_channel
        async def lines(path): ...
            yield line

        async with lines("data") as channel:
            async for line in channel:
                ...

    The generator may hold scopes and nurseries open across its yields, and it is closed promptly
    when the block is left, also by ``break`` or an error.

    Args:
        fn: The async generator function.

    Returns:
        A function with the same parameters that gives an async context manager, which gives a
        :class:`nurseryio.abc.ReceiveChannel`. What the generator raises comes out of the
        ``async with`` block: on its own if it is the only error, else in a group.

    Trio: ``trio.as_safe_channel``.
    """

    @asynccontextmanager
    @wraps(fn)
    async def open_channel(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[ReceiveChannel[T]]:
        sending, receiving = open_memory_channel[T](0)
        asked = Semaphore(0)
        try:
            async with open_nursery(strict_exception_groups=True) as nursery:
                generator = fn(*args, **kwargs)
                # start() and not start_soon(): from here on the task closes the generator.
                await nursery.start(_run, generator, sending, asked)
                with _AskingChannel(receiving, asked) as channel:
                    yield channel
                nursery.cancel_scope.cancel(reason="the as_safe_channel block was left")
        except BaseExceptionGroup as group:
            _raise_simplified(group)

    return open_channel


class _AskingChannel(ReceiveChannel[T]):
    """The receiver's end: tells the generator's task that an item is wanted, then waits for it."""

    __slots__ = ("_asked", "_items")

    def __init__(self, items: MemoryReceiveChannel[T], asked: Semaphore) -> None:
        self._items = items
        self._asked = asked

    def __repr__(self) -> str:
        return f"<channel of an async generator, over {self._items!r}>"

    async def receive(self) -> T:
        self._asked.release()
        return await self._items.receive()

    async def aclose(self) -> None:
        await self._items.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._items.close()


async def _run(
    generator: AsyncGenerator[T, None],
    items: MemorySendChannel[T],
    asked: Semaphore,
    *,
    task_status: TaskStatus[None],
) -> None:
    """The generator's task: one item each time the receiver asks."""
    # Closed without a checkpoint, which would replace the generator's error by a cancellation.
    with items:
        try:
            task_status.started()
            while True:
                await asked.acquire()
                if items.statistics().open_receive_channels == 0:
                    return
                try:
                    item = await generator.__anext__()
                except StopAsyncIteration:
                    return
                try:
                    await items.send(item)
                except BrokenResourceError:
                    return
        finally:
            await _close(generator)


async def _close(generator: AsyncGenerator[Any, None]) -> None:
    """Close the generator, also where the ``GeneratorExit`` comes out inside a group.

    ``aclose`` throws one in and takes it back, but only if it comes out bare; a nursery around
    the yield has put it into a group.
    """
    try:
        await generator.aclose()
    except BaseExceptionGroup as group:
        exits, errors = group.split(GeneratorExit)
        if _count_leaves(exits) > 1:
            # One was aclose's. Somebody inside raised another, which must not pass unnoticed.
            surplus = AssertionError("More than one GeneratorExit found.")
            others = () if errors is None else errors.exceptions
            errors = group.derive([*others, surplus])
        if errors is not None:
            raise errors from None


def _count_leaves(error: BaseException | None) -> int:
    if isinstance(error, BaseExceptionGroup):
        return sum(map(_count_leaves, error.exceptions))
    return error is not None


def _raise_simplified(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise what a nursery's group amounts to for somebody who does not know of the nursery."""
    errors = [error for error in group.exceptions if not isinstance(error, Cancelled)]
    for error in errors:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            # These outrank all others; a new one, so that the group can be its cause.
            raise type(error)(*error.args) from group
    if len(errors) > 1:
        if sys.version_info >= (3, 11):
            group.add_note(
                "Encountered exception during cleanup of generator object, as "
                "well as exception in the contextmanager body - unable to unwrap."
            )
        raise group from None
    _raise_with_own_context(errors[0] if errors else group.exceptions[0])


def _raise_with_own_context(error: BaseException) -> NoReturn:
    """Raise an error whose ``__context__`` shall not become the group that it was in."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context
