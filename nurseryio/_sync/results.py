"""Results from concurrent functions: all of them, the first, or one for each item of a stream.

What lives here: :func:`gather`, :func:`race` and :func:`amap`, each a nursery with a way for
results to come out. What does not: futures. A result exists once the block or call that waits
for it is over, and a function that fails leaves its error in the nursery, never in a result.

Rule 1: errors come out as exception groups, as from any nursery; no error is dropped, also not
that of a function which lost a race.

Rule 2: nothing runs on after the call has returned or the block was left.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from .._base import BrokenResourceError, Cancelled, coroutine_or_error
from .._base.exc_fields import is_a
from .._base.util import in_the_name_of, reject_non_functions, safe_repr
from .._core import checkpoint_if_cancelled
from .._nursery import current_effective_deadline, open_nursery
from .channel import open_memory_channel
from .event import Event
from .semaphore import Semaphore

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Iterable
    from types import TracebackType
    from typing import TypeAlias

    from .._core import Task
    from .._nursery import Nursery
    from .channel import MemoryReceiveChannel, MemorySendChannel

__all__ = ["amap", "gather", "race"]

T = TypeVar("T")
R = TypeVar("R")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")

if TYPE_CHECKING:
    AsyncFn: TypeAlias = Callable[[], Awaitable[T]]

# Stands where no result has come yet; None may be a result.
_MISSING: Any = object()


# -- all of them ----------------------------------------------------------------


@overload
async def gather(fn1: AsyncFn[T1], /) -> tuple[T1]: ...
@overload
async def gather(fn1: AsyncFn[T1], fn2: AsyncFn[T2], /) -> tuple[T1, T2]: ...
@overload
async def gather(fn1: AsyncFn[T1], fn2: AsyncFn[T2], fn3: AsyncFn[T3], /) -> tuple[T1, T2, T3]: ...
@overload
async def gather(
    fn1: AsyncFn[T1], fn2: AsyncFn[T2], fn3: AsyncFn[T3], fn4: AsyncFn[T4], /
) -> tuple[T1, T2, T3, T4]: ...
@overload
async def gather(
    fn1: AsyncFn[T1], fn2: AsyncFn[T2], fn3: AsyncFn[T3], fn4: AsyncFn[T4], fn5: AsyncFn[T5], /
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def gather(*async_fns: AsyncFn[T]) -> tuple[T, ...]: ...
async def gather(*async_fns: AsyncFn[Any]) -> tuple[Any, ...]:
    """Run async functions at the same time, and return all their results.

    ::

        user, orders = await gather(partial(load_user, 7), partial(load_orders, 7))

    If one fails, the others are cancelled; there are no results then.

    Args:
        *async_fns: Async functions without parameters. Give arguments by ``functools.partial``
            or a lambda.

    Returns:
        The results in the order of the functions.

    Raises:
        TypeError: Something given is no function.
        ExceptionGroup: One or more functions failed.
        RuntimeError: The task of a function was cancelled natively, all on its own.
        Cancelled: The task was cancelled, and the functions with it.

    Checkpoint: yes.

    Trio: has no counterpart; like :func:`asyncio.gather`, but with functions and a nursery.
    """
    reject_non_functions(async_fns)
    await checkpoint_if_cancelled()
    results = [_MISSING] * len(async_fns)

    async def run(place: int, async_fn: AsyncFn[Any]) -> None:
        results[place] = await coroutine_or_error(async_fn)

    async with open_nursery() as nursery:
        for place, async_fn in enumerate(async_fns):
            begin = in_the_name_of(async_fn, run)
            nursery.start_soon(begin, place, async_fn, name=async_fn)
    for place, result in enumerate(results):
        if result is _MISSING:
            raise _no_result(async_fns[place])
    return tuple(results)


def _no_result(async_fn: object) -> RuntimeError:
    return RuntimeError(
        f"the task of {safe_repr(async_fn)} was cancelled on its own and has no result"
    )


# -- the first ------------------------------------------------------------------


@overload
async def race(fn1: AsyncFn[T1], fn2: AsyncFn[T2], /) -> T1 | T2: ...
@overload
async def race(fn1: AsyncFn[T1], fn2: AsyncFn[T2], fn3: AsyncFn[T3], /) -> T1 | T2 | T3: ...
@overload
async def race(*async_fns: AsyncFn[T]) -> T: ...
async def race(*async_fns: AsyncFn[Any]) -> Any:
    """Run async functions at the same time, return the first result, and cancel the others.

    ::

        page = await race(partial(fetch, mirror1), partial(fetch, mirror2))

    The others have ended when this returns. A function that fails before any has returned ends
    the race for all, its error comes out; so does an error of a loser that is being cancelled.
    To have failures count as losing, catch them in the functions.

    Args:
        *async_fns: Async functions without parameters, at least one. Give arguments by
            ``functools.partial`` or a lambda.

    Returns:
        What the first function to return has returned.

    Raises:
        TypeError: Something given is no function.
        ValueError: Nothing was given.
        ExceptionGroup: One or more functions failed.
        RuntimeError: The tasks of all functions were cancelled natively, each on its own.
        Cancelled: The task was cancelled, and the functions with it.

    Checkpoint: yes.

    Trio: has no counterpart.
    """
    if not async_fns:
        raise ValueError("a race needs at least one function")
    reject_non_functions(async_fns)
    await checkpoint_if_cancelled()
    winner = _MISSING

    async def run(async_fn: AsyncFn[Any]) -> None:
        nonlocal winner
        result = await coroutine_or_error(async_fn)
        if winner is _MISSING:
            winner = result
            nursery.cancel_scope.cancel(reason="another function won the race")

    async with open_nursery() as nursery:
        for async_fn in async_fns:
            nursery.start_soon(in_the_name_of(async_fn, run), async_fn, name=async_fn)
    if winner is _MISSING:
        raise _no_result(async_fns[0])
    return winner


# -- one for each item ----------------------------------------------------------


def amap(
    async_fn: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    limit: int,
    ordered: bool = True,
) -> AbstractAsyncContextManager[MemoryReceiveChannel[R]]:
    """Call an async function for each item, several at the same time, and stream the results.

    ::

        async with amap(fetch, urls, limit=10) as pages:
            async for page in pages:
                ...

    An item is taken only when there is room for it: at most ``limit`` items are being worked on
    or have a result that was not received yet, however many items there are and however slow the
    receiver is. Leaving the block early cancels the rest.

    Args:
        async_fn: Called with one item.
        items: Any iterable or async iterable, endless ones included. It is not closed.
        limit: How many items may be under way at once, 1 or more.
        ordered: Whether results come in the order of the items, so that a slow item holds up
            those behind it; otherwise they come as they get ready.

    Returns:
        An async context manager that gives the channel of results.

    Raises:
        TypeError: At the call, if ``limit`` is no int, ``async_fn`` no function or ``items``
            not iterable.
        ValueError: At the call, if ``limit`` is less than 1.
        ExceptionGroup: Out of the block, if the function, the items or the block failed, or if
            the task of an item was cancelled natively, all on its own.

    Checkpoint: entering, no; leaving, as for any nursery.

    Trio: has no counterpart.
    """
    reject_non_functions([async_fn])
    if not isinstance(limit, int):
        raise TypeError(f"limit must be an int, not {limit!r}")
    if limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")
    source = aiter(items) if isinstance(items, AsyncIterable) else _Each(items)
    return _Map(async_fn, source, limit, ordered)


class _Each(AsyncIterator[T]):
    """The items of an ordinary iterable. No async generator, as nobody would close it."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)

    async def __anext__(self) -> T:
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None


class _Map(AbstractAsyncContextManager[Any], Generic[T, R]):
    """The context manager of :func:`amap`: a nursery with a channel.

    Not an ``@asynccontextmanager``, which assigns to fields of the exceptions that pass it.
    """

    def __init__(
        self,
        async_fn: Callable[[T], Awaitable[R]],
        source: AsyncIterator[T],
        limit: int,
        ordered: bool,
    ) -> None:
        self._nursery = open_nursery()
        sending, self._receiving = open_memory_channel[R](0)
        self._source = source
        self._workshop = _MapPool(self._nursery, async_fn, limit, ordered, sending)

    async def __aenter__(self) -> MemoryReceiveChannel[R]:
        await self._nursery.__aenter__()
        try:
            self._workshop.start(self._workshop.feed, self._source)
        except BaseException as exc:
            await self.__aexit__(None, exc, None)
            raise
        return self._receiving

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._receiving.close()
        if exc_value is None:
            self._nursery.cancel_scope.cancel(reason="the amap block was left")
        try:
            return await self._nursery.__aexit__(exc_type, exc_value, traceback)
        finally:
            del exc_value, traceback


class _MapPool(Generic[T, R]):
    """The tasks behind one :func:`amap`: one that takes the items, and a worker for each item.

    Rule: if somebody cancels one of these asyncio tasks alone, that is an error. To end quietly,
    as a nursery's child does, would leave a hole in the results, and the receiver or the next
    worker waiting for what never comes.
    """

    def __init__(
        self,
        nursery: Nursery,
        async_fn: Callable[[T], Awaitable[R]],
        limit: int,
        ordered: bool,
        sending: MemorySendChannel[R],
    ) -> None:
        self.nursery = nursery
        self.async_fn = async_fn
        self.ordered = ordered
        self.sending = sending
        self.slots = Semaphore(limit)

    def start(self, method: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Start a task, one whose failure to start does not go unnoticed."""
        coro = in_the_name_of(self.async_fn, method)(*args)
        task = self.nursery._spawn(coro, method, self.async_fn)
        task.asyncio_task.add_done_callback(partial(self.look_after, task))

    def look_after(self, task: Task, _asyncio_task: asyncio.Task[Any]) -> None:
        """Done-callback: complain in the place of a task that never made its first step."""
        if not task._started and not self.nursery.cancel_scope.cancel_called:
            self.nursery.start_soon(self.complain, name=self.async_fn)

    async def complain(self) -> None:
        raise _no_result(self.async_fn)

    async def feed(self, source: AsyncIterator[T]) -> None:
        """Start a worker for each item, once there is room for it."""
        turn = Event()
        turn.set()
        with self.sending, _CancelledIsAnError(self.async_fn):
            while True:
                await self.slots.acquire()
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                # A worker that need not wait for its turn gets one that has come.
                next_turn = Event() if self.ordered else turn
                self.start(self.work, item, turn, next_turn, self.sending.clone())
                turn = next_turn

    async def work(
        self, item: T, turn: Event, next_turn: Event, sending: MemorySendChannel[R]
    ) -> None:
        """Treat one item, and deliver its result when its turn has come."""
        # A clone each: the receiver learns of the end when the last worker is done.
        with sending, _CancelledIsAnError(self.async_fn):
            result = await coroutine_or_error(self.async_fn, item)
            await turn.wait()
            try:
                await sending.send(result)
            except BrokenResourceError:
                # Nobody receives any more. The room stays taken, so that no new work begins.
                return
        next_turn.set()
        self.slots.release()


class _CancelledIsAnError:
    """Around what a task of a workshop does: see the rule there."""

    __slots__ = ("_async_fn",)

    def __init__(self, async_fn: object) -> None:
        self._async_fn = async_fn

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if is_a(exc_value, Cancelled) and current_effective_deadline() != -inf:
            raise _no_result(self._async_fn) from exc_value
