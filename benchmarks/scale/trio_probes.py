"""Probes in Trio's idiom, for Trio and for nurseryio under the name `trio`.

See the folder's docstring.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ..flavour import trio
from ..stopwatch import Stopwatch
from ..work import HOUR
from .probe_tools import IdleGauge, MemoryGauge, RefusingFuture, StubbornTask


async def sleeping_tasks(amount: int) -> dict[str, Any]:
    """Memory per task that sleeps."""
    gauge = MemoryGauge()
    async with trio.open_nursery() as nursery:
        for _ in range(amount):
            nursery.start_soon(trio.sleep, HOUR)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        used = gauge.used()
        nursery.cancel_scope.cancel()
    return {"bytes": used / amount}


async def _idle_under_cancelled_scope(child: Callable[[], Awaitable[Any]]) -> float:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
        gauge = IdleGauge()
    return gauge.share()


async def idle_shield(amount: float) -> dict[str, Any]:
    """A cancelled scope waits for a shielded child."""

    async def child() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(amount)

    return {"percent": await _idle_under_cancelled_scope(child)}


async def idle_thread(amount: float) -> dict[str, Any]:
    """A cancelled scope waits for a worker thread."""

    async def child() -> None:
        await trio.to_thread.run_sync(time.sleep, amount)

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
            stack.enter_context(trio.CancelScope())
        for _ in range(5):
            watch = Stopwatch()
            watch.start()
            for _ in range(times):
                await trio.lowlevel.checkpoint()
            watch.stop()
            best = min(best, watch.cpu)
    return {"seconds": best / times}


async def growth(amount: int) -> dict[str, Any]:
    """Memory left behind by timeouts that were entered and left."""
    for _ in range(1000):
        with trio.move_on_after(HOUR):
            await trio.lowlevel.checkpoint()
    gauge = MemoryGauge()
    for number in range(amount):
        with trio.move_on_after(HOUR):
            if number % 100 == 0:
                await trio.lowlevel.checkpoint()
    return {"bytes": gauge.used()}
