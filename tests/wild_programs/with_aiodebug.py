"""aiodebug: Handle._run is replaced to report slow callbacks; a task measures the loop's lag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aiodebug import log_slow_callbacks, monitor_loop_lag
from battery import Tool, run_battery

import nurseryio
from nurseryio import open_nursery

slow: list[str] = []


class Statsd:
    """Takes what the lag's monitor sends."""

    def timing(self, metric: str, value: float) -> None:
        pass


class Aiodebug(Tool):
    """Slow callbacks are put down in ``slow``."""

    @asynccontextmanager
    async def installed(self) -> AsyncIterator[None]:
        slow.clear()
        run = asyncio.Handle._run
        log_slow_callbacks.enable(0.05, lambda name, duration: slow.append(name))
        before = asyncio.all_tasks()
        monitor_loop_lag.enable(Statsd(), interval=0.01, loop=asyncio.get_running_loop())
        (monitor,) = asyncio.all_tasks() - before
        yield
        monitor.cancel()
        with suppress(asyncio.CancelledError):
            await monitor
        asyncio.Handle._run = run  # type: ignore[method-assign]


async def a_slow_child_is_named(tool: Tool) -> None:
    """The report of a slow step names the child's function; debug mode's does so anyway."""

    async def blocks() -> None:
        await nurseryio.sleep(0)
        time.sleep(0.1)
        await nurseryio.sleep(0)

    async with tool.installed():
        async with open_nursery() as nursery:
            nursery.start_soon(blocks)
            nursery.start_soon(blocks, name="a name")
    if isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        named = [name for name in slow if f"coro=<{blocks.__qualname__}()" in name]
        assert len(named) == len(slow) == 2, slow


if __name__ == "__main__":
    tool = Aiodebug()
    tool.own_steps = (a_slow_child_is_named,)
    run_battery(tool)
