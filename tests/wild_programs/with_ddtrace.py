"""Datadog's asyncio patch: the code of BaseEventLoop.create_task is replaced.

The function object stays the same, and only its ``__code__`` changes. While a trace is active, the
patch wraps each coroutine, so that the task begins inside the trace of its creator.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

os.environ["DD_INSTRUMENTATION_TELEMETRY_ENABLED"] = "false"
os.environ["DD_REMOTE_CONFIGURATION_ENABLED"] = "false"
os.environ["DD_TRACE_STARTUP_LOGS"] = "false"

from ddtrace.contrib.internal.asyncio.patch import patch, unpatch
from ddtrace.internal import core
from ddtrace.trace import TraceFilter, tracer

FIRST = "--first" in sys.argv
if FIRST:
    patch()

from battery import Tool, asyncio_task, run_battery

import nurseryio
from nurseryio import open_nursery


class Kept(TraceFilter):
    """Keeps the spans of each trace, and has none of them sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def process_trace(self, trace: list[Any]) -> list[Any] | None:
        self.spans += trace
        return None


kept = Kept()
tracer.configure(trace_processors=[kept])


class Ddtrace(Tool):
    """Patched, with a trace that is active at each spawn: else the patch wraps nothing.

    Attributes:
        created: how many tasks the patch has seen while they were made.
    """

    created = 0

    @asynccontextmanager
    async def installed(self) -> AsyncIterator[None]:
        def count(_data: dict[str, Any]) -> None:
            self.created += 1

        if not FIRST:
            patch()
        self.created = 0
        core.on("asyncio.create_task", count, name="battery")
        kept.spans.clear()
        with tracer.trace("battery"):
            yield
        core.reset_listeners("asyncio.create_task", count)
        if not FIRST:
            unpatch()


async def each_child_passes_the_patch(ddtrace: Any) -> None:
    """On the loops that the patch reaches it sees each child, named or not, once."""

    async def child() -> None:
        await nurseryio.sleep(0)

    async def starting(*, task_status: Any) -> None:
        task_status.started()

    reached = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
    async with ddtrace.installed(), open_nursery() as nursery:
        for name in (None, "a name"):
            nursery.start_soon(child, name=name)
            assert ddtrace.created == (1 if reached else 0), (name, ddtrace.created)
            ddtrace.created = 0
        await nursery.start(starting)
        assert ddtrace.created == (1 if reached else 0), ("start()", ddtrace.created)


async def a_childs_spans_belong_to_the_spawners(ddtrace: Tool) -> None:
    """A span that a child opens is below the span in which the child was started."""

    async def child(name: str) -> None:
        with tracer.trace(name):
            await nurseryio.sleep(0)
            async with open_nursery() as inner:
                inner.start_soon(grandchild, name)

    async def grandchild(name: str) -> None:
        with tracer.trace(f"below {name}"):
            await nurseryio.sleep(0)

    async def part(name: str) -> None:
        with tracer.trace(f"around {name}"):
            async with open_nursery() as inner:
                inner.start_soon(child, name)

    async with ddtrace.installed():
        async with open_nursery() as nursery:
            nursery.start_soon(part, "one")
            nursery.start_soon(part, "two", name="a name")
    spans = {span.name: span for span in kept.spans}
    assert len(spans) == len(kept.spans) == 7, kept.spans
    for name in ("one", "two"):
        assert spans[name].parent_id == spans[f"around {name}"].span_id
        assert spans[f"below {name}"].parent_id == spans[name].span_id


async def without_a_trace_all_is_as_ever(ddtrace: Tool) -> None:
    """Where no trace is active, the patch hands each coroutine on as it is."""
    seen = []

    async def child() -> None:
        await nurseryio.sleep(0)
        seen.append(asyncio_task().get_coro().__qualname__)  # type: ignore[union-attr]

    patch()
    async with open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(child, name="a name")
    if not FIRST:
        unpatch()
    assert seen == [child.__qualname__] * 2, seen


if __name__ == "__main__":
    tool = Ddtrace()
    tool.own_steps = (
        each_child_passes_the_patch,
        a_childs_spans_belong_to_the_spawners,
        without_a_trace_all_is_as_ever,
    )
    run_battery(tool)
