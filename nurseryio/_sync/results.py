"""Results of concurrent functions: all of them, the first, or one for each item of a stream.

This module has :func:`gather`, :func:`race` and :func:`amap`. Each is a nursery with a way to get
results out. It does not have futures. A result exists once the call or block that waits for it is
over. The error of a function is raised by the nursery and is never stored in a result.

Rule 1: errors are raised in exception groups, as by any nursery. No error is dropped, not even that
of a function which lost a race.

Rule 2: no task keeps running after the call has returned or the block was left.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, overload

from .._base import BrokenResourceError, Cancelled, coroutine_or_error
from .._base.exc_fields import is_a
from .._base.util import InTheNameOf, reject_non_functions, safe_repr
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

# The placeholder until a result comes, because None may be a result.
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

    If one fails, the others are cancelled, and no results are returned.

    Args:
        *async_fns: Async functions without parameters. Give arguments by ``functools.partial``
            or a lambda.

    Returns:
        The results in the order of the functions.

    Raises:
        TypeError: An argument is not a function.
        ExceptionGroup: One or more functions failed.
        RuntimeError: The asyncio task of one function alone was cancelled natively.
        Cancelled: The task was cancelled, and the functions with it.

    Checkpoint: yes.

    Trio: none. It is like :func:`asyncio.gather`, but with functions and a nursery.
    """
    reject_non_functions(async_fns)
    await checkpoint_if_cancelled()
    results = [_MISSING] * len(async_fns)

    async def run(place: int, async_fn: AsyncFn[Any]) -> None:
        results[place] = await coroutine_or_error(async_fn)

    async with open_nursery() as nursery:
        for place, async_fn in enumerate(async_fns):
            begin = InTheNameOf(async_fn, run)
            nursery.start_soon(begin, place, async_fn)
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

    The other functions have ended when this returns. If a function fails before another one has
    returned, the race ends and the error is raised. An error that a loser raises while it is
    being cancelled is raised, too. If a failure should only count as losing, catch it in the
    function.

    Args:
        *async_fns: Async functions without parameters, at least one. Give arguments by
            ``functools.partial`` or a lambda.

    Returns:
        The result of the function that returned first.

    Raises:
        TypeError: An argument is not a function.
        ValueError: No function was given.
        ExceptionGroup: One or more functions failed.
        RuntimeError: The asyncio tasks of all functions were cancelled natively, one by one.
        Cancelled: The task was cancelled, and the functions with it.

    Checkpoint: yes.

    Trio: none.
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
            nursery.start_soon(InTheNameOf(async_fn, run), async_fn)
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

    An item is taken only if fewer than ``limit`` items are in progress or have a result that was
    not received yet. This holds however many items there are and however slow the receiver is.
    Leaving the block early cancels the rest.

    Args:
        async_fn: Called with one item.
        items: Any iterable or async iterable, even an endless one. It is not closed.
        limit: How many items may be in progress at once, 1 or more.
        ordered: Whether results come in the order of the items, so that a slow item delays those
            behind it. Otherwise each result comes as soon as it is ready.

    Returns:
        An async context manager that gives the channel of results.

    Raises:
        TypeError: At the call, if ``limit`` is not an int, ``async_fn`` is not a function or
            ``items`` is not iterable.
        ValueError: At the call, if ``limit`` is less than 1.
        ExceptionGroup: Raised by the block, if the function, the items or the block failed, or if
            the asyncio task of one item alone was cancelled natively.

    Checkpoint: entering, no; leaving, as for any nursery.

    Trio: none.
    """
    reject_non_functions([async_fn])
    if not isinstance(limit, int):
        raise TypeError(f"limit must be an int, not {limit!r}")
    if limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")
    source = aiter(items) if isinstance(items, AsyncIterable) else _Each(items)
    return _Map(async_fn, source, limit, ordered)


class _Each(AsyncIterator[T]):
    """The items of an ordinary iterable. Not an async generator, which would have to be closed."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)

    async def __anext__(self) -> T:
        try:
            return next(self._items)
        except StopIteration:
            raise StopAsyncIteration from None


class _Map(AbstractAsyncContextManager[Any], Generic[T, R]):
    """The context manager of :func:`amap`: a nursery with a channel.

    Not an ``@asynccontextmanager``, because that assigns to fields of the exceptions that pass it.
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
        self._pool = _MapPool(self._nursery, async_fn, limit, ordered, sending)

    if not TYPE_CHECKING:

        def __aiter__(self) -> NoReturn:
            raise RuntimeError(
                "use 'async with amap(...) as results:', and in it 'async for result in results:'"
            )

    async def __aenter__(self) -> MemoryReceiveChannel[R]:
        await self._nursery.__aenter__()
        try:
            self._pool.start(self._pool.feed, self._source)
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

    Rule: if one of these asyncio tasks alone is cancelled natively, that is an error. A child of a
    nursery would end quietly. Here, that would leave a result missing, and the receiver or the next
    worker would wait for ever.
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
        """Start a task, and have an error raised if it is cancelled before its first step."""
        coro = InTheNameOf(self.async_fn, method)(*args)
        task = self.nursery._spawn(coro, method, self.async_fn)
        task.asyncio_task.add_done_callback(partial(self.look_after, task))

    def look_after(self, task: Task, _asyncio_task: asyncio.Task[Any]) -> None:
        """Done-callback: start :meth:`complain` if the task never made its first step."""
        if not task._started and not self.nursery.cancel_scope.cancel_called:
            self.nursery.start_soon(self.complain, name=self.async_fn)

    async def complain(self) -> None:
        raise _no_result(self.async_fn)

    async def feed(self, source: AsyncIterator[T]) -> None:
        """Take the items, and start a worker for each when it gets one of the ``limit`` slots."""
        turn = Event()
        turn.set()
        with self.sending, _CancelledIsAnError(self.async_fn):
            while True:
                await self.slots.acquire()
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                # Unordered: all workers share the first event, which is set already.
                next_turn = Event() if self.ordered else turn
                self.start(self.work, item, turn, next_turn, self.sending.clone())
                turn = next_turn

    async def work(
        self, item: T, turn: Event, next_turn: Event, sending: MemorySendChannel[R]
    ) -> None:
        """Process one item, and send its result when ``turn`` is set."""
        # Each worker has a clone: the receiver gets EndOfChannel when the last worker is done.
        with sending, _CancelledIsAnError(self.async_fn):
            result = await coroutine_or_error(self.async_fn, item)
            await turn.wait()
            try:
                await sending.send(result)
            except BrokenResourceError:
                # The receiver is closed. The slot is not released, so that no new worker starts.
                return
        next_turn.set()
        self.slots.release()


class _CancelledIsAnError:
    """Surrounds the code of a :class:`_MapPool` task, and enforces the rule there."""

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
