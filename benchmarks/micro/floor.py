"""The least asyncio code that does each row's work at all: bare tasks, futures and timers, no
semantics.

Nobody should write programs like this: no failure is handled, nothing is owned. It shows what
asyncio itself costs, and so how much of a ratio a library on top of it can win or lose. See the
folder's docstring for the rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ..stopwatch import Stopwatch
from ..work import CHAIN, FAN, HOUR, nothing, spread


async def _join_all(n: int, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = n

    def ended(task: asyncio.Task[None]) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set_result(None)

    for _ in range(n):
        loop.create_task(make()).add_done_callback(ended)
    await done


async def nursery_one(n: int, watch: Stopwatch) -> int:
    """A task that does nothing, awaited."""
    ran = 0
    loop = asyncio.get_running_loop()

    async def child() -> None:
        nonlocal ran
        ran += 1

    watch.start()
    for _ in range(n):
        await loop.create_task(child())
    watch.stop()
    return ran


async def nursery_hundred(n: int, watch: Stopwatch) -> int:
    """A hundred tasks that do nothing, counted down by a callback."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        ran += 1

    watch.start()
    for _ in range(n // FAN):
        await _join_all(FAN, child)
    watch.stop()
    return ran


async def children_checkpoint(n: int, watch: Stopwatch) -> int:
    """n tasks, each letting the others run once."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        await asyncio.sleep(0)
        ran += 1

    watch.start()
    await _join_all(n, child)
    watch.stop()
    return ran


async def nested(n: int, watch: Stopwatch) -> int:
    """Chains of tasks, each awaiting the next."""
    opened = 0
    loop = asyncio.get_running_loop()

    async def level(depth: int) -> None:
        nonlocal opened
        opened += 1
        if depth > 1:
            await loop.create_task(level(depth - 1))

    watch.start()
    for _ in range(n // CHAIN):
        await level(CHAIN)
    watch.stop()
    return opened


async def cancel_sleepers(n: int, watch: Stopwatch) -> int:
    """Cancel n sleeping tasks and await each."""
    ended = 0
    loop = asyncio.get_running_loop()

    async def child() -> None:
        nonlocal ended
        try:
            await asyncio.sleep(HOUR)
        except asyncio.CancelledError:
            ended += 1

    tasks = [loop.create_task(child()) for _ in range(n)]
    for _ in range(3):
        await asyncio.sleep(0)
    watch.start()
    for task in tasks:
        task.cancel()
    del task
    tasks.reverse()
    while tasks:
        await tasks.pop()
    watch.stop()
    return ended


async def scope(n: int, watch: Stopwatch) -> int:
    """Enter and leave an empty asynchronous context manager."""

    class Empty:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *error: object) -> None: ...

    left = 0
    watch.start()
    for _ in range(n):
        async with Empty():
            left += 1
    watch.stop()
    return left


async def move_on_idle(n: int, watch: Stopwatch) -> int:
    """Make a timer and cancel it."""
    left = 0
    loop = asyncio.get_running_loop()
    watch.start()
    for _ in range(n):
        handle = loop.call_later(HOUR, nothing)
        left += 1
        handle.cancel()
    watch.stop()
    return left


async def move_on_blocks(n: int, watch: Stopwatch) -> int:
    """Make a timer, let others run once, cancel it."""
    left = 0
    loop = asyncio.get_running_loop()
    watch.start()
    for _ in range(n):
        handle = loop.call_later(HOUR, nothing)
        await asyncio.sleep(0)
        left += 1
        handle.cancel()
    watch.stop()
    return left


async def move_on_fired(n: int, watch: Stopwatch) -> int:
    """Have the loop cancel this task in its next round, and take the error."""
    fired = 0
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    watch.start()
    for _ in range(n):
        loop.call_soon(task.cancel)
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            fired += 1
            task.uncancel()
    watch.stop()
    return fired


async def checkpoint(n: int, watch: Stopwatch) -> int:
    """A bare yield."""

    class Bare:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield

    passed = 0
    bare = Bare()
    watch.start()
    for _ in range(n):
        await bare
        passed += 1
    watch.stop()
    return passed


async def timers(n: int, watch: Stopwatch) -> int:
    """n tasks, each waiting for a future that a timer sets."""
    woke = 0
    loop = asyncio.get_running_loop()
    delays = iter(spread(n))

    async def child() -> None:
        nonlocal woke
        future = loop.create_future()
        loop.call_later(next(delays), future.set_result, None)
        await future
        woke += 1

    watch.start()
    await _join_all(n, child)
    watch.stop()
    return woke


async def event_ping_pong(n: int, watch: Stopwatch) -> int:
    """Two tasks hand a pair of futures to each other."""
    loop = asyncio.get_running_loop()
    ping: asyncio.Future[None] = loop.create_future()
    pong: asyncio.Future[None] = loop.create_future()
    turns = 0

    async def first() -> None:
        nonlocal pong
        for _ in range(n):
            ping.set_result(None)
            await pong
            pong = loop.create_future()

    async def second() -> None:
        nonlocal ping, turns
        for _ in range(n):
            await ping
            ping = loop.create_future()
            turns += 1
            pong.set_result(None)

    watch.start()
    tasks = [loop.create_task(first()), loop.create_task(second())]
    for task in tasks:
        await task
    watch.stop()
    return turns


async def thread_hop(n: int, watch: Stopwatch) -> int:
    """Run nothing in the loop's own executor, without the caller's context."""
    back = 0
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, nothing)
    watch.start()
    for _ in range(n):
        await loop.run_in_executor(None, nothing)
        back += 1
    watch.stop()
    return back
