"""New Relic's agent: proxies around create_task, on BaseEventLoop and on single loops.

The proxy of the class compares equal to the function and shows its ``__code__``. ``asyncio.Runner``
and ``asyncio.set_event_loop()`` put one more proxy on the loop itself, if the class has none. Each
notes for a new task in which trace it was made.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

os.environ["NEW_RELIC_STARTUP_DEBUG"] = "false"

FIRST = "--first" in sys.argv
if not FIRST:
    import nurseryio

import newrelic.agent
from newrelic.core.trace_cache import trace_cache

newrelic.agent.global_settings().developer_mode = True  # sends nothing
newrelic.agent.initialize()
application = newrelic.agent.register_application(timeout=5.0)

from battery import Tool, asyncio_task, run_battery

import nurseryio
from nurseryio import open_nursery


class NewRelic(Tool):
    """The agent cannot be taken off: a transaction is open in the body, and not afterwards."""

    @asynccontextmanager
    async def installed(self) -> AsyncIterator[None]:
        with newrelic.agent.BackgroundTask(application, name="battery") as self.transaction:
            yield

    def check_uninstalled(self) -> None:
        assert newrelic.agent.current_transaction() is None
        assert asyncio_task().__class__.__name__ == "Task"


async def each_child_is_in_the_trace_of_its_spawner(tool: Any) -> None:
    """The agent notes each child at once, named or not, and forgets it when the child has ended."""
    seen = []

    async def child() -> None:
        trace = newrelic.agent.current_trace()
        seen.append(trace.name if trace is not None else "no trace")
        with newrelic.agent.FunctionTrace(name="in the child"):
            await nurseryio.sleep(0)

    async def starting(*, task_status: Any) -> None:
        task_status.started()
        await child()

    async with tool.installed():
        with newrelic.agent.FunctionTrace(name="around the nursery"):
            async with open_nursery() as nursery:
                nursery.start_soon(child)
                nursery.start_soon(child, name="a name")
                for task in nursery.child_tasks:
                    assert id(task.asyncio_task) in trace_cache(), task
                await nursery.start(starting)
    assert seen == ["around the nursery"] * 3, seen
    assert len(trace_cache()) == 0, trace_cache()


async def the_loop_itself_is_patched_later(tool: Any) -> None:
    """set_event_loop() puts a proxy on the running loop; children that come later pass it too."""
    called = []

    async def child() -> None:
        await nurseryio.sleep(0)

    async with tool.installed():
        loop = asyncio.get_running_loop()
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            before = loop.create_task

            def create_task(*args: Any, **kwargs: Any) -> asyncio.Task[Any]:
                called.append(kwargs)
                return before(*args, **kwargs)

            loop.create_task = create_task  # type: ignore[method-assign]
            nursery.start_soon(child)
            nursery.start_soon(child, name="a name")
            assert len(called) == 2, called
            del loop.create_task
            nursery.start_soon(child)
        assert len(called) == 2, called


if __name__ == "__main__":
    tool = NewRelic()
    tool.own_steps = (each_child_is_in_the_trace_of_its_spawner, the_loop_itself_is_patched_later)
    run_battery(tool)
