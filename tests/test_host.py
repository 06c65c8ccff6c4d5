"""The asyncio boundary: what the private parts of this Python's asyncio really say."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from math import inf
from typing import Any

import pytest

import nurseryio
from nurseryio._core import host

VAR = contextvars.ContextVar("VAR", default="unset")


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_task_that_waits_shows_its_future() -> None:
    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    assert isinstance(host.waiter(task), asyncio.Future)
    assert host.has_run(task.get_coro())
    assert not host.is_running(task)
    task.cancel()
    assert host.waiter(task).done()
    await asyncio.wait([task])
    assert host.waiter(task) is None


async def test_the_running_task_is_seen_as_running() -> None:
    me = asyncio.current_task()
    assert me is not None
    assert host.current_task_or_none() is me
    assert host.is_running(me)
    assert host.waiter(me) is None


def test_outside_a_loop_no_task_runs() -> None:
    assert host.current_task_or_none() is None


async def test_a_pending_cancellation_is_seen_and_a_yield_raises_it() -> None:
    me = asyncio.current_task()
    assert me is not None
    me.cancel("message")
    assert host.must_cancel(me)
    with pytest.raises(asyncio.CancelledError, match="message"):
        await host.BARE_YIELD
    assert not host.must_cancel(me)
    host.uncancel(me)
    assert host.cancelling(me) == 0


async def test_a_cancellation_that_is_put_back_strikes_at_the_next_await() -> None:
    me = asyncio.current_task()
    assert me is not None
    me.cancel("first")
    with pytest.raises(asyncio.CancelledError):
        await host.BARE_YIELD
    before = host.cancelling(me)
    host.put_back(me, ("first",))
    assert host.cancelling(me) == before
    with pytest.raises(asyncio.CancelledError, match="first"):
        await host.BARE_YIELD
    host.uncancel(me)


async def test_a_yield_lets_everybody_make_one_step() -> None:
    record = []
    loop = asyncio.get_running_loop()
    loop.call_soon(record.append, 1)
    await host.BARE_YIELD
    assert record == [1]


async def test_tasks_are_made_with_name_and_context() -> None:
    seen = []

    async def child() -> None:
        seen.append(VAR.get())

    context = contextvars.copy_context()
    context.run(VAR.set, "given")
    making = host.TaskMaking(asyncio.get_running_loop())

    def make(name: str | None, context: contextvars.Context | None) -> asyncio.Task[None]:
        return host.make_task(making, child(), name, context)

    first = make("first", context)
    second = make(None, None)
    await asyncio.wait([first, second])
    assert sorted(seen) == ["given", "unset"]
    assert first.get_name() == "first"
    if sys.version_info >= (3, 12):
        assert host.task_context(first) is context


async def test_a_task_factory_is_honoured() -> None:
    made = []
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def factory(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 0)
    finally:
        loop.set_task_factory(before)
    assert len(made) == 1


async def test_the_owner_of_a_step_is_found() -> None:
    seen = []
    loop = asyncio.get_running_loop()
    original = loop.call_soon

    def call_soon(callback: Any, *args: Any, context: Any = None) -> Any:
        seen.append(host.owner_of(callback))
        return original(callback, *args, context=context)

    loop.call_soon = call_soon  # type: ignore[method-assign,assignment]
    try:
        await host.BARE_YIELD
    finally:
        del loop.call_soon
    assert seen == [asyncio.current_task()]
    assert host.owner_of(print) is None


async def test_waiting_tasks_and_tasks_that_are_ready_are_counted() -> None:
    loop = asyncio.get_running_loop()
    living, _ = host.count_tasks(loop)
    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    assert host.count_tasks(loop)[0] == living + 1
    assert host.waiter(task) in host.waiters(loop)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.stock_only("uvloop has no selector")
async def test_a_stock_loop_shows_its_timers_and_its_descriptors() -> None:
    loop = asyncio.get_running_loop()
    assert host.selector_of(loop) is not None
    assert host.outside_wakers(loop) == 0
    before = host.next_timer(loop)
    timer = loop.call_later(5, print)
    assert host.next_timer(loop) <= timer.when()
    timer.cancel()
    assert host.next_timer(loop) == before or before == inf


async def test_a_timer_of_ours_runs_its_callback_unless_cancelled() -> None:
    record: list[int] = []
    loop = asyncio.get_running_loop()
    context = contextvars.Context()
    host.run_handle(host.new_timer(loop, 0, record.append, (1,), context))
    cancelled = asyncio.Handle(record.append, (2,), loop, context)
    cancelled.cancel()
    host.run_handle(cancelled)
    assert record == [1]


def test_notes_can_be_added_on_every_python() -> None:
    error = ValueError()
    host.add_note(error, "one")
    host.add_note(error, "two")
    assert error.__notes__ == ["one", "two"]  # type: ignore[attr-defined]
