"""The instrument ``OpenTelemetry``, with the real SDK and its exporters in memory."""

from __future__ import annotations

import asyncio
import builtins
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from harness.core import forever
from harness.forks import in_child

import nurseryio
from nurseryio import CancelScope, open_nursery, to_thread
from nurseryio.instruments import OpenTelemetry
from nurseryio.lowlevel import add_instrument, remove_instrument
from nurseryio.testing import wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

# Not in a test, because it opens descriptors.
try:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
except ImportError:
    HAS_SDK = False
else:
    HAS_SDK = True


def test_opentelemetry_without_its_package_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def fails(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fails)
    with pytest.raises(ImportError, match=r"pip install 'nurseryio\[otel\]'"):
        OpenTelemetry()


class Telemetry:
    """The SDK, with exporters in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("the program")
        self.instrument = self.make()
        self.is_closed = False

    def make(self, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options
        )

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.tracer_provider.shutdown()
            self.meter_provider.shutdown()

    def __enter__(self) -> Telemetry:
        add_instrument(self.instrument)
        return self

    def __exit__(self, *_details: object) -> None:
        remove_instrument(self.instrument)
        self.instrument.close()

    def span(self, name: str) -> Any:
        """The one span of a name."""
        (span,) = [each for each in self._exporter.get_finished_spans() if each.name == name]
        return span

    def around(self, inner: Any) -> Any:
        """The parent of a span."""
        spans = {span.context.span_id: span for span in self._exporter.get_finished_spans()}
        return spans[inner.parent.span_id]

    def names(self) -> Counter[str]:
        return Counter(span.name for span in self._exporter.get_finished_spans())

    def path(self, name: str) -> list[str]:
        """The names of a span and those around it, inner first."""
        spans = {span.context.span_id: span for span in self._exporter.get_finished_spans()}
        span = self.span(name)
        found = [name]
        while span.parent is not None:
            span = spans[span.parent.span_id]
            found.append(span.name)
        return found

    def metrics(self) -> dict[str, list[Any]]:
        data: Any = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def value(self, name: str) -> int:
        return sum(point.value for point in self.metrics().get(name, ()))


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    if not HAS_SDK:
        pytest.skip("needs opentelemetry-sdk: python -m pip install '.[wild]'")
    telemetry = Telemetry()
    yield telemetry
    telemetry.close()


@pytest.fixture(autouse=True)
def instrument_must_not_fail(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An instrument that raises is removed, and that is logged."""
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- spans of tasks --------------------------------------------------------------


def test_span_of_a_child_is_below_its_nursery_and_that_below_the_main_task(
    telemetry: Telemetry,
) -> None:
    async def main() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="child")

    with telemetry.tracer.start_as_current_span("program"):
        nurseryio.run(main, instruments=[telemetry.instrument])
    name = f"{__name__}.{main.__qualname__}"
    assert telemetry.path("child") == ["child", "nursery", name, "program"]
    assert set(telemetry.names()) == {"child", "nursery", name, "program"}
    assert len({telemetry.span(each).context.trace_id for each in telemetry.names()}) == 1


async def test_spans_of_the_program_inside_a_child_are_below_the_span_of_the_child(
    telemetry: Telemetry,
) -> None:
    async def child() -> None:
        with telemetry.tracer.start_as_current_span("first step"):
            await nurseryio.sleep(0)
        with telemetry.tracer.start_as_current_span("later step"):
            pass

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(child, name="child")
    assert telemetry.path("first step")[:3] == ["first step", "child", "nursery"]
    assert telemetry.path("later step")[:3] == ["later step", "child", "nursery"]


async def test_nursery_in_a_span_of_the_program_is_below_that_span(telemetry: Telemetry) -> None:
    with telemetry, telemetry.tracer.start_as_current_span("request"):
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="child")
    assert telemetry.path("child") == ["child", "nursery", "request"]
    assert telemetry.span("child").links == ()


async def test_child_that_another_task_spawns_has_a_link_to_the_span_of_the_spawner(
    telemetry: Telemetry,
) -> None:
    async def spawns(nursery: nurseryio.Nursery) -> None:
        with telemetry.tracer.start_as_current_span("spawning"):
            nursery.start_soon(nurseryio.sleep, 0, name="child")

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(spawns, nursery, name="spawner")
    assert telemetry.path("child")[:2] == ["child", "nursery"]
    assert telemetry.path("spawner")[:2] == ["spawner", "nursery"]
    (link,) = telemetry.span("child").links
    assert link.context == telemetry.span("spawning").context


async def test_child_of_start_is_below_the_nursery_that_it_moves_to(telemetry: Telemetry) -> None:
    async def child(task_status: nurseryio.TaskStatus[None]) -> None:
        await nurseryio.sleep(0)
        task_status.started()
        await nurseryio.sleep(0)

    async def host() -> None:
        async with open_nursery() as nursery:
            await nursery.start(child, name="child")

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(host, name="host")
    assert telemetry.path("child")[:3] == ["child", "nursery", "host"]
    assert telemetry.path("start")[:3] == ["start", "nursery", "host"]
    assert telemetry.span("start").end_time <= telemetry.span("child").end_time


async def test_spans_of_nested_nurseries_are_below_each_other(telemetry: Telemetry) -> None:
    async def middle() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="leaf")

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(middle, name="middle")
    inner = telemetry.around(telemetry.span("leaf"))
    assert inner.name == "nursery"
    assert telemetry.around(inner) == telemetry.span("middle")


async def test_spans_in_a_thread_are_below_the_span_of_the_task(telemetry: Telemetry) -> None:
    def in_thread() -> None:
        with telemetry.tracer.start_as_current_span("in the thread"):
            nurseryio.from_thread.run(back, name_of_task)

    name_of_task = "back"

    async def back(name: str) -> None:
        with telemetry.tracer.start_as_current_span(name):
            await nurseryio.sleep(0)

    async def child() -> None:
        await to_thread.run_sync(in_thread)

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(child, name="child")
    assert telemetry.path("in the thread")[:2] == ["in the thread", "child"]
    assert "in the thread" in telemetry.path("back")


def test_span_of_a_task_of_asyncio_is_below_the_span_that_made_it(telemetry: Telemetry) -> None:
    async def child() -> None:
        with telemetry.tracer.start_as_current_span("inside"):
            await asyncio.sleep(0)

    async def main() -> None:
        with telemetry, telemetry.tracer.start_as_current_span("request"):
            await asyncio.create_task(child(), name="made by asyncio")

    asyncio.run(main())
    assert telemetry.path("inside") == ["inside", "made by asyncio", "request"]


async def test_span_of_a_task_is_not_current_after_its_end(telemetry: Telemetry) -> None:
    import contextvars

    from opentelemetry import trace

    context = contextvars.copy_context()

    async def child() -> None:
        pass

    with telemetry:
        if sys.version_info >= (3, 11):
            await asyncio.create_task(child(), context=context)
    assert context.run(trace.get_current_span) is trace.INVALID_SPAN


async def test_span_of_a_failing_child_has_the_status_error_and_the_exception(
    telemetry: Telemetry,
) -> None:
    async def fails() -> None:
        raise ValueError("bad")

    with telemetry, pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            nursery.start_soon(fails, name="fails")
            nursery.start_soon(forever, name="sibling")
    span, sibling = map(telemetry.span, ("fails", "sibling"))
    block = telemetry.around(span)
    assert (span.status.status_code.name, span.status.description) == ("ERROR", "ValueError: bad")
    assert span.attributes["error.type"] == "ValueError"
    (event,) = span.events
    assert event.attributes["exception.message"] == "bad"
    assert "raise ValueError" in event.attributes["exception.stacktrace"]
    assert sibling.status.status_code.name == "UNSET"
    assert sibling.attributes["nurseryio.task.cancelled"] is True
    assert block.status.status_code.name == "ERROR"
    assert block.attributes["nurseryio.cancel.source"] == "nursery"


async def test_span_of_a_nursery_whose_body_fails_has_the_status_error(
    telemetry: Telemetry,
) -> None:
    with telemetry, pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="child")
            raise ValueError("bad")
    block = telemetry.around(telemetry.span("child"))
    assert block.status.status_code.name == "ERROR"
    assert block.attributes["error.type"] == "ValueError"


def test_span_of_the_main_task_has_its_error(telemetry: Telemetry) -> None:
    async def main() -> None:
        raise ValueError("bad")

    with pytest.raises(ValueError):
        nurseryio.run(main, instruments=[telemetry.instrument])
    (name,) = telemetry.names()
    assert telemetry.span(name).status.description == "ValueError: bad"


async def test_span_of_an_error_whose_text_fails(telemetry: Telemetry) -> None:
    class Error(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def fails() -> None:
        raise Error

    with telemetry, pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            nursery.start_soon(fails, name="fails")
    span = telemetry.span("fails")
    assert (span.status.status_code.name, span.status.description) == ("ERROR", "Error")


async def test_span_of_a_task_names_its_function_by_the_semantic_conventions(
    telemetry: Telemetry,
) -> None:
    async def child() -> None:
        pass

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(child, name="child")
    attributes = telemetry.span("child").attributes
    assert attributes["code.function.name"] == child.__qualname__
    assert attributes["code.file.path"] == __file__
    assert attributes["code.line.number"] == child.__code__.co_firstlineno


# -- spans of scopes -------------------------------------------------------------


async def test_span_of_a_scope_has_its_deadline_and_that_it_timed_out(
    telemetry: Telemetry,
) -> None:
    async def child() -> None:
        with CancelScope(relative_deadline=0.01, shield=True):
            await forever()

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(child, name="child")
    span = telemetry.span("cancel scope")
    assert telemetry.path("cancel scope")[1] == "child"
    attributes = dict(span.attributes)
    # From the end of the step in which it was entered.
    assert attributes.pop("nurseryio.scope.deadline") < 0.011
    # In debug mode the line that has set the deadline follows.
    reason = attributes.pop("nurseryio.cancel.reason").partition(", set at")[0]
    assert reason == "cancelled due to deadline"
    assert attributes == {
        "nurseryio.scope.shield": True,
        "nurseryio.scope.cancelled": True,
        "nurseryio.scope.cancelled_caught": True,
        "nurseryio.cancel.source": "deadline",
    }
    assert span.status.status_code.name == "UNSET"


async def test_span_of_a_cancelled_scope_has_the_reason_and_the_moment(
    telemetry: Telemetry,
) -> None:
    scopes: list[CancelScope] = []

    async def child() -> None:
        with CancelScope() as scope:
            scopes.append(scope)
            try:
                await forever()
            finally:
                with CancelScope(shield=True):
                    await nurseryio.sleep(0)

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(child, name="child")
            await wait_all_tasks_blocked()
            scopes[0].cancel("the user has left")
    spans = [s for s in telemetry._exporter.get_finished_spans() if s.name == "cancel scope"]
    (span,) = [span for span in spans if not span.attributes["nurseryio.scope.shield"]]
    assert span.attributes["nurseryio.cancel.source"] == "explicit"
    assert "'the user has left'" in span.attributes["nurseryio.cancel.reason"]
    assert "\n" not in span.attributes["nurseryio.cancel.reason"]
    assert [event.name for event in span.events] == ["cancelled"]


async def test_span_of_a_scope_in_a_span_of_the_program_is_below_that_span(
    telemetry: Telemetry,
) -> None:
    async def child() -> None:
        with CancelScope():
            await nurseryio.sleep(0)
            with telemetry.tracer.start_as_current_span("query"):
                with CancelScope(shield=True):
                    await nurseryio.sleep(0)

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(child, name="child")
    spans = {span.context.span_id: span for span in telemetry._exporter.get_finished_spans()}
    parents = {
        span.attributes["nurseryio.scope.shield"]: spans[span.parent.span_id].name
        for span in spans.values()
        if span.name == "cancel scope"
    }
    assert parents == {False: "child", True: "query"}


async def test_no_spans_of_scopes_but_of_nurseries(telemetry: Telemetry) -> None:
    telemetry.instrument = telemetry.make(scopes=False)

    async def child() -> None:
        with nurseryio.move_on_after(0.01):
            async with open_nursery() as nursery:
                nursery.start_soon(forever, name="grandchild")

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(child, name="child")
    assert telemetry.names()["cancel scope"] == 0
    assert telemetry.path("grandchild")[:4] == ["grandchild", "nursery", "child", "nursery"]
    assert telemetry.value("nurseryio.scopes.timed_out") == 1


async def test_spans_of_tasks_that_go_on_end_when_the_instrument_is_closed(
    telemetry: Telemetry,
) -> None:
    async with open_nursery() as nursery:
        with telemetry:
            nursery.start_soon(forever, name="goes on")
            await wait_all_tasks_blocked()
            assert telemetry.names()["goes on"] == 0
            assert telemetry.value("nurseryio.tasks.active") > 0
        assert telemetry.names()["goes on"] == 1
        assert telemetry.value("nurseryio.tasks.active") == 0
        nursery.cancel_scope.cancel()


async def test_spans_of_a_deep_tree_that_exists_when_the_instrument_is_added(
    telemetry: Telemetry,
) -> None:
    depth = 300
    ready, go_on = nurseryio.Event(), nurseryio.Event()

    async def level(below: int) -> None:
        if below == 0:
            ready.set()
            await go_on.wait()
            async with open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep, 0, name="leaf")
            return
        async with open_nursery() as nursery:
            nursery.start_soon(level, below - 1, name=f"level {below - 1}")

    async with open_nursery() as nursery:
        nursery.start_soon(level, depth, name="top")
        await ready.wait()
        limit = sys.getrecursionlimit()
        with telemetry:
            go_on.set()
            sys.setrecursionlimit(depth)
            try:
                await nurseryio.sleep(0)
            finally:
                sys.setrecursionlimit(limit)
            while nursery.child_tasks:
                await nurseryio.sleep(0)
    path = telemetry.path("leaf")
    assert path[:2] == ["leaf", "nursery"]
    assert path[2] == "level 0"
    assert "top" in path


async def test_nursery_whose_task_has_ended_is_not_followed(telemetry: Telemetry) -> None:
    reports: list[Any] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, report: reports.append(report))
    nursery = open_nursery()
    released = asyncio.Event()

    async def child() -> None:
        while not released.is_set():
            with CancelScope(shield=True):
                await released.wait()

    async def host() -> None:
        await nursery.__aenter__()
        nursery.start_soon(child, name="orphan")
        await asyncio.sleep(0)

    await asyncio.create_task(host())
    await asyncio.sleep(0)
    with telemetry:
        released.set()
        while nursery.child_tasks:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    loop.set_exception_handler(before)
    assert telemetry.names()["orphan"] == 1
    assert telemetry.value("nurseryio.tasks.active") == 0


# -- metrics ----------------------------------------------------------------------


def test_metrics_count_tasks_and_steps_and_scopes(telemetry: Telemetry) -> None:
    active: list[int] = []

    async def child() -> None:
        for _ in range(9):
            await nurseryio.lowlevel.cancel_shielded_checkpoint()

    async def main() -> None:
        async with open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(child)
            active.append(telemetry.value("nurseryio.tasks.active"))
        with CancelScope() as scope:
            scope.cancel()
        with nurseryio.move_on_after(0.001):
            await forever()
        async with open_nursery() as nursery:
            nursery.start_soon(forever)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    nurseryio.run(main, instruments=[telemetry.instrument])
    assert active == [4]
    assert telemetry.value("nurseryio.tasks.active") == 0
    assert telemetry.value("nurseryio.task.steps") >= 3 * 10
    assert telemetry.value("nurseryio.scopes.timed_out") == 1
    # A scope that is entered and left in one step is not seen.
    assert telemetry.value("nurseryio.scopes.cancelled") == 1
    (lag,) = telemetry.metrics()["nurseryio.loop.lag"]
    assert lag.count == telemetry.value("nurseryio.task.steps")


def test_loop_lag_is_the_time_that_a_ready_task_waits_for_a_blocking_step(
    telemetry: Telemetry,
) -> None:
    import time

    async def blocks() -> None:
        time.sleep(0.03)

    async def main() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(blocks)
            nursery.start_soon(nurseryio.sleep, 0)

    nurseryio.run(main, instruments=[telemetry.instrument])
    (lag,) = telemetry.metrics()["nurseryio.loop.lag"]
    assert lag.max >= 0.03
    assert lag.sum < 3
    assert 0.025 in lag.explicit_bounds


async def test_opentelemetry_without_an_sdk_does_nothing() -> None:
    pytest.importorskip("opentelemetry")
    instrument = OpenTelemetry()
    add_instrument(instrument)
    async with open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep, 0)
    remove_instrument(instrument)
    instrument.close()


# -- what stands around it -----------------------------------------------------------


async def test_steps_are_counted_before_the_loop_waits(telemetry: Telemetry) -> None:
    if "uvloop" in type(asyncio.get_running_loop()).__module__:
        pytest.skip("uvloop does not call before_io_wait")
    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever, name="child")
            await nurseryio.sleep(0.02)
            nursery.start_soon(nurseryio.sleep, 0)
            # Those of the time before the sleep; fewer than it takes for a group of them.
            assert 1 <= telemetry.value("nurseryio.task.steps") < 20
            nursery.cancel_scope.cancel()


async def test_exporter_that_raises_does_not_disturb_the_program(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    from opentelemetry.sdk.trace.export import SpanExporter

    class Raises(SpanExporter):
        def export(self, spans: Any) -> Any:
            raise RuntimeError("no connection")

    telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(Raises()))
    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="child")
    assert telemetry.names()["child"] == 1
    # It is the SDK that catches it.
    assert {record.name.partition(".")[0] for record in caplog.records} == {"opentelemetry"}
    caplog.clear()


async def test_span_processor_that_raises_removes_the_instrument_and_the_program_goes_on(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    from opentelemetry.sdk.trace import SpanProcessor

    class Raises(SpanProcessor):
        def on_end(self, span: Any) -> None:
            raise RuntimeError("not in order")

    telemetry.tracer_provider.add_span_processor(Raises())
    ran: list[int] = []

    async def child(number: int) -> None:
        await nurseryio.sleep(0)
        ran.append(number)

    add_instrument(telemetry.instrument)
    async with open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(child, number)
    assert len(ran) == 5
    assert [record.name for record in caplog.records] == ["nurseryio.abc.Instrument"]
    with pytest.raises(KeyError):
        remove_instrument(telemetry.instrument)
    caplog.clear()


async def test_exporter_that_blocks_in_its_thread_does_not_block_the_loop(
    telemetry: Telemetry,
) -> None:
    import threading

    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    blocked, go_on = threading.Event(), threading.Event()

    class Blocks(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            blocked.set()
            go_on.wait(60)
            return SpanExportResult.SUCCESS

    processor = BatchSpanProcessor(Blocks(), schedule_delay_millis=1)
    telemetry.tracer_provider.add_span_processor(processor)
    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="first")
        await to_thread.run_sync(blocked.wait, 60)
        # The exporter is in the middle of the first batch.
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="second")
        go_on.set()
    processor.shutdown()
    assert telemetry.names()["second"] == 1


async def test_providers_that_are_shut_down_in_the_middle_do_not_disturb_the_program(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    async def child(name: str) -> None:
        with nurseryio.move_on_after(5):
            await nurseryio.sleep(0)
        ran.append(name)

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(child, "before")
            await nurseryio.sleep(0)
            telemetry.close()
            nursery.start_soon(child, "after")
    assert sorted(ran) == ["after", "before"]
    assert not [record for record in caplog.records if record.name.startswith("nurseryio")]
    caplog.clear()


async def test_sampler_that_drops_all_traces_leaves_the_metrics_and_the_context(
    telemetry: Telemetry,
) -> None:
    from opentelemetry import trace
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(telemetry._exporter))
    telemetry.tracer_provider = provider
    telemetry.instrument = telemetry.make()
    seen: list[Any] = []

    async def child(task_status: Any) -> None:
        seen.append(trace.get_current_span())
        task_status.started()
        with nurseryio.move_on_after(0.001):
            await forever()
        raise ValueError("bad")

    with telemetry, pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            await nursery.start(child, name="child")
    assert telemetry.names() == {}
    assert not seen[0].is_recording()
    assert telemetry.value("nurseryio.scopes.timed_out") == 1
    provider.shutdown()


def test_instrument_of_two_loops_ends_the_tasks_of_the_loop_that_ends(
    telemetry: Telemetry,
) -> None:
    import threading

    other_is_there, other_may_end = threading.Event(), threading.Event()

    async def other() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(wait_for_main, name="of the other loop")

    async def wait_for_main() -> None:
        other_is_there.set()
        await to_thread.run_sync(other_may_end.wait, 60)

    async def main() -> None:
        await nurseryio.sleep(0)

    thread = threading.Thread(
        target=nurseryio.run, args=(other,), kwargs={"instruments": [telemetry.instrument]}
    )
    thread.start()
    assert other_is_there.wait(60)
    nurseryio.run(main, instruments=[telemetry.instrument])
    ended = telemetry.names()
    assert ended[f"{__name__}.{main.__qualname__}"] == 1
    assert ended["of the other loop"] == 0
    assert telemetry.value("nurseryio.tasks.active") == 2
    other_may_end.set()
    thread.join()
    assert telemetry.path("of the other loop")[1:] == [
        "nursery",
        f"{__name__}.{other.__qualname__}",
    ]
    assert telemetry.value("nurseryio.tasks.active") == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
async def test_forked_child_leaves_the_spans_of_its_parent_alone_and_makes_its_own(
    telemetry: Telemetry,
) -> None:
    async def in_the_child() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="task of the child")

    def child() -> None:
        asyncio.events._set_running_loop(None)
        telemetry._exporter.clear()
        nurseryio.run(in_the_child, instruments=[telemetry.instrument])
        assert telemetry.path("task of the child")[1] == "nursery"
        assert "task of the parent" not in telemetry.names()
        telemetry.instrument.close()
        assert "task of the parent" not in telemetry.names()

    with telemetry:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever, name="task of the parent")
            await nurseryio.sleep(0)
            assert in_child(child) == 0
            assert telemetry.names()["task of the parent"] == 0
            nursery.cancel_scope.cancel()
    assert telemetry.names()["task of the parent"] == 1
    assert telemetry.names()["task of the child"] == 0


async def test_consumer_of_a_channel_links_its_span_to_that_of_the_sender(
    telemetry: Telemetry,
) -> None:
    """The recipe of the documentation: the item carries the span context of its sender."""
    from opentelemetry import trace

    tracer = telemetry.tracer

    async def produce(channel: Any) -> None:
        async with channel:
            with tracer.start_as_current_span("order"):
                await channel.send(("A-17", trace.get_current_span().get_span_context()))

    async def consume(channel: Any) -> None:
        async for order, sender in channel:
            with tracer.start_as_current_span(f"pack {order}", links=[trace.Link(sender)]):
                await nurseryio.sleep(0)

    with telemetry:
        send, receive = nurseryio.open_memory_channel[Any](5)
        async with open_nursery() as nursery:
            nursery.start_soon(produce, send, name="producer")
            nursery.start_soon(consume, receive, name="consumer")
    (link,) = telemetry.span("pack A-17").links
    assert link.context == telemetry.span("order").context
    assert telemetry.path("pack A-17")[1:3] == ["consumer", "nursery"]
    assert telemetry.path("order")[1:3] == ["producer", "nursery"]
