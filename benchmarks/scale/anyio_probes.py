"""Probes in anyio's idiom, on its asyncio back end. See the folder's docstring."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from ..stopwatch import Stopwatch
from ..work import HOUR
from .probe_tools import IdleGauge, MemoryGauge, RefusingFuture, StubbornTask


async def sleeping_tasks(amount: int) -> dict[str, Any]:
    """Memory per task that sleeps."""
    gauge = MemoryGauge()
    async with anyio.create_task_group() as group:
        for _ in range(amount):
            group.start_soon(anyio.sleep, HOUR)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        used = gauge.used()
        group.cancel_scope.cancel()
    return {"bytes": used / amount}


async def _idle_under_cancelled_scope(child: Callable[[], Coroutine[Any, Any, None]]) -> float:
    async with anyio.create_task_group() as group:
        group.start_soon(child)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
        gauge = IdleGauge()
    return gauge.share()


async def idle_shield(amount: float) -> dict[str, Any]:
    """A cancelled scope waits for a shielded child."""

    async def child() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(amount)

    return {"percent": await _idle_under_cancelled_scope(child)}


async def idle_thread(amount: float) -> dict[str, Any]:
    """A cancelled scope waits for a worker thread."""

    async def child() -> None:
        await anyio.to_thread.run_sync(time.sleep, amount)

    return {"percent": await _idle_under_cancelled_scope(child)}


async def idle_swallow(amount: float) -> dict[str, Any]:
    """A cancelled scope waits for a child that awaits a task which swallows cancellations."""
    stubborn = StubbornTask(amount)

    async def child() -> None:
        await stubborn.task

    percent = await _idle_under_cancelled_scope(child)
    return {"percent": percent, "cancels": stubborn.swallowed}


async def idle_refuse(amount: float) -> dict[str, Any]:
    """A cancelled scope waits for a child that awaits a future which refuses cancellation."""
    future = RefusingFuture()
    asyncio.get_running_loop().call_later(amount, future.set_result, None)

    async def child() -> None:
        await future

    percent = await _idle_under_cancelled_scope(child)
    return {"percent": percent, "cancels": future.refused}


async def depth(amount: int) -> dict[str, Any]:
    """Time of a checkpoint under so many nested scopes."""
    times, best = 2000, float("inf")
    with contextlib.ExitStack() as stack:
        for _ in range(amount):
            stack.enter_context(anyio.CancelScope())
        for _ in range(5):
            watch = Stopwatch()
            watch.start()
            for _ in range(times):
                await anyio.lowlevel.checkpoint()
            watch.stop()
            best = min(best, watch.cpu)
    return {"seconds": best / times}


async def growth(amount: int) -> dict[str, Any]:
    """Memory left behind by timeouts that were entered and left."""
    for _ in range(1000):
        with anyio.move_on_after(HOUR):
            await anyio.lowlevel.checkpoint()
    gauge = MemoryGauge()
    for number in range(amount):
        with anyio.move_on_after(HOUR):
            if number % 100 == 0:
                await anyio.lowlevel.checkpoint()
    return {"bytes": gauge.used()}
