"""The asyncio boundary: the private parts of this Python's asyncio are as ``compat`` expects."""

# Covered below 95 %: branches for Pythons before 3.12 run there alone; task factories are in
# test_task_factories.py, futures without a result in test_delivery.py, Ctrl-C in test_presses.py.

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import io
import sys
from typing import Any

import pytest
from harness import fake_loops
from harness.core import forever, task_factory

import nurseryio
from nurseryio._asyncio import compat
from nurseryio._core.task import current_state
from nurseryio._nursery import (
    nursery as nursery_module,
    task_exit as ending_module,
    task_status as status_module,
)

VAR = contextvars.ContextVar("VAR", default="unset")


async def test_a_waiting_task_shows_the_future_that_it_awaits() -> None:
    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    assert isinstance(compat.waiter(task), asyncio.Future)
    assert compat.has_run(task.get_coro())
    assert not compat.is_running(task)
    task.cancel()
    assert compat.waiter(task).done()
    await asyncio.wait([task])
    assert compat.waiter(task) is None


async def test_the_running_task_is_seen_as_running() -> None:
    me = asyncio.current_task()
    assert me is not None
    assert compat.current_task_or_none() is me
    assert compat.is_running(me)
    assert compat.waiter(me) is None


def test_outside_a_loop_no_task_runs() -> None:
    assert compat.current_task_or_none() is None


async def test_must_cancel_is_seen_and_a_bare_yield_raises_it() -> None:
    me = asyncio.current_task()
    assert me is not None
    me.cancel("message")
    assert compat.must_cancel(me)
    with pytest.raises(asyncio.CancelledError, match="message"):
        await compat.BARE_YIELD
    assert not compat.must_cancel(me)
    compat.uncancel(me)
    assert compat.cancelling(me) == 0


async def test_a_native_cancel_put_back_is_raised_at_the_next_await() -> None:
    me = asyncio.current_task()
    assert me is not None
    me.cancel("first")
    with pytest.raises(asyncio.CancelledError):
        await compat.BARE_YIELD
    before = compat.cancelling(me)
    compat.recancel(me, ("first",))
    assert compat.cancelling(me) == before
    with pytest.raises(asyncio.CancelledError, match="first"):
        await compat.BARE_YIELD
    compat.uncancel(me)


async def test_a_bare_yield_lets_every_ready_callback_run_once() -> None:
    record = []
    loop = asyncio.get_running_loop()
    loop.call_soon(record.append, 1)
    await compat.BARE_YIELD
    assert record == [1]


async def test_tasks_are_made_with_name_and_context() -> None:
    seen = []

    async def child() -> None:
        seen.append(VAR.get())

    context = contextvars.copy_context()
    context.run(VAR.set, "given")
    making = compat.TaskMaking(asyncio.get_running_loop())

    def make(name: str | None, context: contextvars.Context | None) -> asyncio.Task[None]:
        return compat.make_task(making, child(), name, context)

    first = make("first", context)
    second = make(None, None)
    await asyncio.wait([first, second])
    assert sorted(seen) == ["given", "unset"]
    assert first.get_name() == "first"
    if sys.version_info >= (3, 12):
        assert compat.task_context(first) is context


async def test_new_tasks_are_made_by_the_task_factory() -> None:
    made = []

    def factory(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    with task_factory(factory):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 0)
    assert len(made) == 1


async def test_new_tasks_are_made_by_a_proxy_that_equals_create_task() -> None:
    loop: Any = asyncio.get_running_loop()
    proxy = loop.create_task = fake_loops.EqualProxy(loop.create_task)
    try:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 0)
            nursery.start_soon(asyncio.sleep, 0, name="named")
    finally:
        del loop.create_task
    assert proxy.calls == 2


async def test_the_task_of_a_ready_handle_is_found() -> None:
    seen = []
    loop = asyncio.get_running_loop()
    original = loop.call_soon

    def call_soon(callback: Any, *args: Any, context: Any = None) -> Any:
        seen.append(compat.owner_of(callback))
        return original(callback, *args, context=context)

    loop.call_soon = call_soon  # type: ignore[method-assign,assignment]
    try:
        await compat.BARE_YIELD
    finally:
        del loop.call_soon
    assert seen == [asyncio.current_task()]
    assert compat.owner_of(print) is None
    assert compat.owner_of(seen[0].cancel) is None


@pytest.mark.parametrize("kind", [asyncio.Task, asyncio.tasks._PyTask])  # type: ignore[attr-defined]
async def test_a_task_class_in_python_is_a_task(kind: Any) -> None:
    task = kind(asyncio.sleep(0), loop=asyncio.get_running_loop())
    assert compat.is_task(task)
    await task
    assert not compat.is_task(asyncio.get_running_loop().create_future())
    assert not compat.is_task(nurseryio.lowlevel.current_task())


async def test_waiting_tasks_and_tasks_that_are_ready_are_counted() -> None:
    loop = asyncio.get_running_loop()
    living, _ = compat.count_tasks(loop)
    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    assert compat.count_tasks(loop)[0] == living + 1
    assert compat.waiter(task) in compat.waiters(loop)
    task.cancel()
    await asyncio.wait([task])


async def test_a_timer_handle_of_nurseryio_runs_its_callback_unless_cancelled() -> None:
    record: list[int] = []
    loop = asyncio.get_running_loop()
    context = contextvars.Context()
    compat.run_handle(compat.new_timer(loop, 0, record.append, (1,), context))
    cancelled = asyncio.Handle(record.append, (2,), loop, context)
    cancelled.cancel()
    compat.run_handle(cancelled)
    assert record == [1]


# -- what tools see of a nursery's child -----------------------------------------------


async def inner_wait() -> None:
    await asyncio.get_running_loop().create_future()


async def a_handler() -> None:
    await inner_wait()


async def ready(*, task_status: Any) -> None:
    await asyncio.sleep(0)
    task_status.started()
    await a_handler()


def is_plain() -> bool:
    return current_state().making.is_plain()


def printed_stack(task: Any) -> str:
    file = io.StringIO()
    task.print_stack(file=file)
    return file.getvalue()


@pytest.mark.parametrize("how", ["start_soon", "named", "start", "partial"])
async def test_debugging_tools_see_get_coro_of_a_child_as_the_users_function(how: str) -> None:
    function = ready if how == "start" else a_handler
    async with nurseryio.open_nursery() as nursery:
        if how == "start":
            await nursery.start(ready)
        elif how == "named":
            nursery.start_soon(a_handler, name="a name")
        elif how == "partial":
            nursery.start_soon(functools.partial(a_handler))
        else:
            nursery.start_soon(a_handler)
        (record,) = nursery.child_tasks
        task: Any = record.asyncio_task
        before = repr(task)  # of one that has not begun, except by start()
        for _ in range(3):
            await asyncio.sleep(0)
        assert task in asyncio.all_tasks()
        assert task.get_name() == ("a name" if how == "named" else function.__name__)
        assert record.coro.__qualname__ == function.__name__
        assert task.get_coro().__qualname__ == function.__name__
        for text in (before, repr(task), repr(record)):
            assert "_run_child" not in text
        assert function.__name__ in before
        if is_plain():
            assert task.get_coro() is record.coro
            stack = printed_stack(task)
            assert 'nursery.py", line' not in stack
            assert f"in {function.__name__}" in stack
            assert task.get_stack()[0].f_code is function.__code__
            assert "test_compat.py" in repr(task)
            assert type(task).__name__ == "Task"
        nursery.cancel_scope.cancel()
    assert task.done()
    assert "_run_child" not in repr(task)
    if is_plain():
        assert printed_stack(task).startswith("No stack for")


async def test_debugging_tools_may_call_get_stack_and_get_coro_at_any_moment() -> None:
    seen: list[str] = []
    tasks: list[Any] = []

    async def child() -> None:
        me: Any = asyncio.current_task()
        tasks.append(me)
        seen.extend([repr(me), me.get_coro().__qualname__])
        assert printed_stack(me)  # of a task that runs: with everything that has called it
        await asyncio.sleep(0)
        raise ValueError

    with pytest.RaisesGroup(ValueError):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child)
    seen.extend([repr(tasks[0]), printed_stack(tasks[0])])
    assert not any("_run_child" in text for text in seen)
    assert sum("child" in text for text in seen) >= 3


@pytest.mark.stock_only("uvloop writes no such message")
async def test_the_slow_callback_message_of_debug_mode_names_the_childs_function(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    debug, duration = loop.get_debug(), loop.slow_callback_duration

    async def slow() -> None:
        await asyncio.sleep(0)

    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    try:
        with caplog.at_level("WARNING", "asyncio"):
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(slow)
    finally:
        loop.slow_callback_duration = duration
        loop.set_debug(debug)
    told = [r.getMessage() for r in caplog.records if "name='" in r.getMessage()]
    assert any("slow()" in message for message in told)
    assert not any("_run_child" in message for message in told)


class Books:
    """Stands for asyncio's record of which task awaits which (3.14 on), on every Python."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.edges: set[tuple[Any, Any]] = set()
        self.count = 0
        for module in (compat, nursery_module, ending_module, status_module):
            for name, function in (
                ("note_who_awaits", self.note),
                ("forget_who_awaits", self.forget),
            ):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, function)

    def note(self, task: Any, by: Any) -> None:
        assert (task, by) not in self.edges
        self.edges.add((task, by))
        self.count += 1

    def forget(self, task: Any, by: Any) -> None:
        self.edges.discard((task, by))


def expected_error(end: str) -> contextlib.AbstractContextManager[object]:
    """What the nursery raises whose child has this end."""
    return pytest.RaisesGroup(ValueError) if end == "fails" else contextlib.nullcontext()


@pytest.mark.skipif(nurseryio.__compiled__, reason="the C module calls asyncio's own functions")
@pytest.mark.parametrize("end", ["returns", "fails", "cancelled", "before its first step"])
async def test_asyncio_call_graph_shows_a_child_as_awaited_by_its_nurserys_task_until_it_ends(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books(monkeypatch)
    me = asyncio.current_task()

    async def child() -> None:
        await asyncio.sleep(0)
        if end == "fails":
            raise ValueError
        if end == "cancelled":
            await nurseryio.sleep_forever()

    with expected_error(end):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child)
            (record,) = nursery.child_tasks
            assert books.edges == {(record.asyncio_task, me)}
            if end == "before its first step":
                record.asyncio_task.cancel()
            elif end == "cancelled":
                await asyncio.sleep(0)
                nursery.cancel_scope.cancel()
    assert books.edges == set()
    assert books.count == 1


@pytest.mark.skipif(not hasattr(asyncio, "capture_call_graph"), reason="new in Python 3.14")
@pytest.mark.parametrize("end", ["returns", "fails", "cancelled", "before its first step"])
async def test_capture_call_graph_shows_who_awaits_a_child_on_both_builds(end: str) -> None:
    capture: Any = asyncio.capture_call_graph  # type: ignore[attr-defined]
    waits = asyncio.Event()

    async def child() -> None:
        await waits.wait()
        if end == "fails":
            raise ValueError

    def awaiting() -> list[Any]:
        return [graph.future for graph in capture(made).awaited_by]

    with expected_error(end):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child)
            (record,) = nursery.child_tasks
            made = record.asyncio_task
            assert awaiting() == [asyncio.current_task()]
            if end == "before its first step":
                made.cancel()
            await asyncio.sleep(0)
            if end == "cancelled":
                nursery.cancel_scope.cancel()
            waits.set()
    assert made.done()
    assert awaiting() == []


async def test_asyncio_call_graph_shows_a_child_of_nursery_start_as_awaited_throughout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    books = Books(monkeypatch)
    steps: list[set[Any]] = []
    me = asyncio.current_task()

    async def child(*, task_status: Any) -> None:
        own = asyncio.current_task()
        steps.append({by for task, by in books.edges if task is own})
        task_status.started()
        steps.append({by for task, by in books.edges if task is own})
        await asyncio.sleep(0)

    async def starter() -> None:
        steps.append({asyncio.current_task()})
        await nursery.start(child)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(starter)
    assert steps == [steps[0], steps[0], {me}]
    assert books.edges == set()
