"""``as_safe_channel``: an async generator behind a channel, which neither leaks nor tangles scopes.

A generator that is iterated directly runs inside the task that iterates it. A ``yield`` within a
scope or nursery then leaves that scope open around the caller's code. A loop that is left early
leaves the generator suspended until the garbage collector finds it. Here the generator runs in a
separate task, and a context manager ends it with its block.

Rule 1: the generator produces an item only after the receiver has requested one, so it never works
ahead. (The only exception: a ``receive`` that was cancelled has requested an item already.)

Rule 2: at the end of the block the generator is closed, and it has finished before the code after
the block runs.

Rule 3: a single error leaves the block as itself, as it would leave a plain loop. Several errors
leave as a group.
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from .._base import BrokenResourceError, Cancelled
from .._base.abcs import ReceiveChannel
from .._base.exc_fields import add_note, args_of, chain, is_a, members_of, message_of, set_cause
from .._base.exception_groups import leave_block, regroup, split_out
from .._base.util import InTheNameOf
from .._nursery import open_nursery
from .channel import open_memory_channel
from .semaphore import Semaphore

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import TracebackType

    from .._nursery import TaskStatus
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

    The generator may hold scopes and nurseries open across its yields. It is closed promptly
    when the block is left, even by ``break`` or an error.

    Args:
        fn: The async generator function.

    Returns:
        A function with the same parameters that returns an async context manager. Entering that
        gives a :class:`nurseryio.abc.ReceiveChannel`. An error of the generator is raised by the
        ``async with`` block: bare if it is the only error, otherwise in a group.

    Trio: ``trio.as_safe_channel``.
    """

    @wraps(fn)
    def open_channel(*args: P.args, **kwargs: P.kwargs) -> _SafeChannel[T]:
        return _SafeChannel(partial(fn, *args, **kwargs))

    return open_channel


class _SafeChannel(AbstractAsyncContextManager[ReceiveChannel[T]]):
    """The context manager: a nursery with the generator's task; for its errors see rule 3.

    Not an ``@asynccontextmanager``, because that assigns to fields of the exceptions that pass it.
    """

    def __init__(self, open_generator: Callable[[], AsyncGenerator[T, None]]) -> None:
        self._open_generator = open_generator
        self._nursery = open_nursery(strict_exception_groups=True)
        self._channel: _AskingChannel[T] | None = None

    async def __aenter__(self) -> ReceiveChannel[T]:
        generator = self._open_generator()
        sending, receiving = open_memory_channel[T](0)
        requested = Semaphore(0)
        nursery = await self._nursery.__aenter__()
        try:
            self._channel = _AskingChannel(receiving, requested)
            # start() and not start_soon(): once it returns, the task will close the generator.
            begin = InTheNameOf(self._open_generator, _run)
            await nursery.start(begin, generator, sending, requested, name=self._open_generator)
            return self._channel
        except BaseException as exc:
            await self._leave(exc)
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        try:
            assert self._channel is not None
            self._channel.close()
            if exc_value is None:
                self._nursery.cancel_scope.cancel(reason="the as_safe_channel block was left")
            return await self._leave(exc_value)
        except BaseException as exc:
            if not self._nursery._closed:  # something failed before the nursery was left
                await self._leave(exc)
            raise
        finally:
            del exc_value

    async def _leave(self, exc: BaseException | None) -> bool:
        """Leave the nursery; return True if nothing is to be raised, False to re-raise ``exc``."""
        try:
            return await self._nursery.__aexit__(None, exc, None) or exc is None
        except BaseExceptionGroup as group:
            raised = _simplified(group)
        try:
            return leave_block(exc, raised)
        finally:
            del exc, raised


class _AskingChannel(ReceiveChannel[T]):
    """The receiving end: requests an item from the generator's task, then waits for it."""

    __slots__ = ("_requested", "_items")

    def __init__(self, items: MemoryReceiveChannel[T], requested: Semaphore) -> None:
        self._items = items
        self._requested = requested

    def __repr__(self) -> str:
        return f"<channel of an async generator, over {self._items!r}>"

    async def receive(self) -> T:
        self._requested.release()
        return await self._items.receive()

    async def aclose(self) -> None:
        await self._items.aclose()

    def close(self) -> None:
        """Like :meth:`aclose`, without a checkpoint."""
        self._items.close()


async def _run(
    generator: AsyncGenerator[T, None],
    items: MemorySendChannel[T],
    requested: Semaphore,
    *,
    task_status: TaskStatus[None],
) -> None:
    """Run the generator in its task: one item for each request of the receiver."""
    # A plain ``with``: a checkpoint here could replace the generator's error by a cancellation.
    with items:
        try:
            task_status.started()
            while True:
                await requested.acquire()
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
            # On 3.10 the generator counts as running if this coroutine is closed while it waits in
            # the generator.
            if not getattr(generator, "ag_running", False):
                await _close(generator)


async def _close(generator: AsyncGenerator[Any, None]) -> None:
    """Close the generator, even if the ``GeneratorExit`` comes out inside a group.

    ``aclose`` throws a ``GeneratorExit`` into the generator and catches it, but only if it comes
    out bare. A nursery around the yield has put it into a group.
    """
    try:
        await generator.aclose()
    except BaseExceptionGroup as group:
        errors = _without_exit(group)
        if errors is not None:
            try:
                raise errors from None
            finally:
                del errors


def _without_exit(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the rest of a group, without the ``GeneratorExit`` that ``aclose`` has thrown in."""
    exits = 0

    def is_exit(error: BaseException) -> bool:
        nonlocal exits
        if is_a(error, GeneratorExit):
            exits += 1
            return True
        return False

    _found, errors = split_out(group, is_exit, cancelled=False)
    if exits <= 1:
        return errors
    # One came from aclose. Other code raised another one, which must not go unnoticed.
    others = members_of(errors) if is_a(errors, BaseExceptionGroup) else ()
    return regroup(group, [*others, AssertionError("More than one GeneratorExit found.")])


def _simplified(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to raise for a nursery's group, for callers who see no nursery."""
    errors = [error for error in members_of(group) if not is_a(error, Cancelled)]
    for error in errors:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            return _exit_from(error, group)  # exits are raised rather than other errors
    if len(errors) > 1:
        add_note(
            group,
            "Encountered exception during cleanup of generator object, as "
            "well as exception in the contextmanager body - unable to unwrap.",
        )
        set_cause(group, None)
        return group
    return errors[0] if errors else members_of(group)[0]


def _exit_from(error: BaseException, group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return an exit that represents its whole group."""
    if type(error) is KeyboardInterrupt or type(error) is SystemExit:
        # A copy, so that the group can be its cause.
        exit_ = type(error)(*args_of(error))
        if isinstance(error, SystemExit) and isinstance(exit_, SystemExit):
            exit_.code = error.code
        set_cause(exit_, group)
        return exit_
    others = [other for other in members_of(group) if other is not error]
    if others:
        chain(error, BaseExceptionGroup(message_of(group), others))
    return error
