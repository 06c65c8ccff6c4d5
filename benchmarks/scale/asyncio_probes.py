"""Probes in asyncio's own idiom. See the folder's docstring.

asyncio cancels once, so nothing here can spin: the idle probes show what nothing costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ..stopwatch import Stopwatch
from ..work import HOUR
from .probe_tools import IdleGauge, MemoryGauge, RefusingFuture, StubbornTask


async def sleeping_tasks(amount: int) -> dict[str, Any]:
    """Memory per task that sleeps."""
    gauge = MemoryGauge()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(HOUR)) for _ in range(amount)]
        for _ in range(3):
            await asyncio.sleep(0)
        used = gauge.used()
        for task in tasks:
            task.cancel()
    return {"bytes": used / amount}


async def _idle_under_cancelled_task(child: Callable[[], Coroutine[Any, Any, Any]]) -> float:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(child())
        for _ in range(3):
            await asyncio.sleep(0)
        task.cancel()
        gauge = IdleGauge()
    return gauge.share()


async def idle_shield(amount: float) -> dict[str, Any]:
    """A group waits for a cancelled child in its cleanup."""

    async def child() -> None:
        try:
            await asyncio.sleep(HOUR)
        finally:
            await asyncio.sleep(amount)

    return {"percent": await _idle_under_cancelled_task(child)}


async def idle_thread(amount: float) -> dict[str, Any]:
    """A group waits for a child whose cleanup is a worker thread."""

    async def child() -> None:
        try:
            await asyncio.sleep(HOUR)
        finally:
            await asyncio.to_thread(time.sleep, amount)

    return {"percent": await _idle_under_cancelled_task(child)}


async def idle_swallow(amount: float) -> dict[str, Any]:
    """A group waits for a child that awaits a task which swallows cancellations."""
    stubborn = StubbornTask(amount)

    async def child() -> None:
        await stubborn.task

    percent = await _idle_under_cancelled_task(child)
    return {"percent": percent, "cancels": stubborn.swallowed}


async def idle_refuse(amount: float) -> dict[str, Any]:
    """A group waits for a child that awaits a future which refuses cancellation."""
    future = RefusingFuture()
    asyncio.get_running_loop().call_later(amount, future.set_result, None)

    async def child() -> None:
        await future

    percent = await _idle_under_cancelled_task(child)
    return {"percent": percent, "cancels": future.refused}


async def depth(amount: int) -> dict[str, Any]:
    """Time of a `sleep(0)` under so many nested timeouts."""
    times, best = 2000, float("inf")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(amount):
            await stack.enter_async_context(asyncio.timeout(None))
        for _ in range(5):
            watch = Stopwatch()
            watch.start()
            for _ in range(times):
                await asyncio.sleep(0)
            watch.stop()
            best = min(best, watch.cpu)
    return {"seconds": best / times}


async def growth(amount: int) -> dict[str, Any]:
    """Memory left behind by timeouts that were entered and left."""
    for _ in range(1000):
        async with asyncio.timeout(HOUR):
            await asyncio.sleep(0)
    gauge = MemoryGauge()
    for number in range(amount):
        async with asyncio.timeout(HOUR):
            if number % 100 == 0:
                await asyncio.sleep(0)
    return {"bytes": gauge.used()}
