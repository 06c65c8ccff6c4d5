"""OpenTelemetry's asyncio instrumentation: functions of the module asyncio are replaced.

``asyncio.create_task``, ``ensure_future``, ``gather``, ``wait``, ``wait_for``, ``to_thread`` and
others wrap the coroutines and functions that they are given, as ``TaskGroup.create_task`` does. A
nursery uses none of them: its children are not traced, and what they call through asyncio is.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

os.environ["OTEL_PYTHON_ASYNCIO_COROUTINE_NAMES_TO_TRACE"] = "traced,_run_child,_root,child"
os.environ["OTEL_PYTHON_ASYNCIO_FUTURE_TRACE_ENABLED"] = "true"

from opentelemetry.instrumentation.asyncio import AsyncioInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
tracer = provider.get_tracer("battery")

FIRST = "--first" in sys.argv
if FIRST:
    AsyncioInstrumentor().instrument(tracer_provider=provider)

from battery import Tool, run_battery

import nurseryio
from nurseryio import open_nursery


class OpenTelemetry(Tool):
    """Instrumented, with a span that is current at each spawn."""

    @asynccontextmanager
    async def installed(self) -> AsyncIterator[None]:
        exporter.clear()
        self.metrics = InMemoryMetricReader()
        if not FIRST:
            AsyncioInstrumentor().instrument(
                tracer_provider=provider,
                meter_provider=MeterProvider([self.metrics], shutdown_on_exit=False),
            )
        with tracer.start_as_current_span("battery"):
            yield
        if not FIRST:
            AsyncioInstrumentor().uninstrument()

    def check_uninstalled(self) -> None:
        super().check_uninstalled()
        assert FIRST or type(asyncio.create_task) is type(run_battery)


async def spans_bear_the_functions_names(tool: Tool) -> None:
    """Spans of children and of what they call are below the spawner's; none is the library's."""

    async def traced() -> None:
        await nurseryio.sleep(0)

    async def child(name: str) -> None:
        with tracer.start_as_current_span(name):
            await asyncio.create_task(traced())
            await asyncio.wait_for(traced(), 5)
            await asyncio.to_thread(time.sleep, 0)
            async with open_nursery() as inner:
                inner.start_soon(grandchild, name)

    async def grandchild(name: str) -> None:
        with tracer.start_as_current_span(f"below {name}"):
            await nurseryio.sleep(0)

    async with tool.installed(), open_nursery() as nursery:
        nursery.start_soon(child, "one")
        nursery.start_soon(child, "two", name="a name")
    spans = exporter.get_finished_spans()
    below: dict[str, list[str]] = {span.name: [] for span in spans}
    names = {span.context.span_id: span.name for span in spans}
    for span in spans:
        if span.parent is not None:
            below[names[span.parent.span_id]].append(span.name)
    assert sorted(below.pop("battery")) == ["one", "two"], below
    calls = ["asyncio coro-traced", "asyncio coro-traced"]
    for name in ("one", "two"):
        found = sorted(below.pop(name))
        assert found == [*calls, f"below {name}"], found
        assert below.pop(f"below {name}") == []
    assert not any(below.values()) and below.keys() == set(calls), below


async def metrics_bear_the_functions_names(tool: Any) -> None:
    """A child is counted if asyncio was asked to run it, and then under its function's name."""

    async def child() -> None:
        await nurseryio.sleep(0)

    async def opens() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(child)

    async with tool.installed():
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(opens)
        await asyncio.gather(opens(), asyncio.create_task(opens()))
    if FIRST:
        return  # the metrics were set up elsewhere
    counted = [
        point.attributes["name"]
        for resource in tool.metrics.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    assert set(counted) == {"opens"}, counted


if __name__ == "__main__":
    tool = OpenTelemetry()
    tool.own_steps = (spans_bear_the_functions_names, metrics_bear_the_functions_names)
    run_battery(tool)
