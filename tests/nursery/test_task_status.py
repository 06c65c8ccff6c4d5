"""nursery.start(): a child that says when it is ready."""

# Covered below 95 %: started() that fails half-way is in test_injection.py; who waits for whom is
# noted on Python 3.14 and later.

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import nurseryio
from nurseryio import TASK_STATUS_IGNORED, CancelScope, TaskStatus, open_nursery
from nurseryio.lowlevel import Task, checkpoint, current_task
from nurseryio.testing import wait_all_tasks_blocked


async def test_nursery_start_waits_for_task_status_started_and_returns_its_value() -> None:
    record = []

    async def child(what: str, *, task_status: TaskStatus[str]) -> None:
        await checkpoint()
        record.append("starting")
        task_status.started(what)
        await checkpoint()
        record.append("running")

    async with open_nursery() as nursery:
        assert await nursery.start(child, "value") == "value"
        assert record == ["starting"]
    assert record == ["starting", "running"]


async def test_task_status_started_may_be_called_without_a_value() -> None:
    async def child(task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        task_status.started()

    async with open_nursery() as nursery:
        assert await nursery.start(child) is None
    await child()
    assert repr(TASK_STATUS_IGNORED) == "TASK_STATUS_IGNORED"


async def test_an_error_before_started_is_raised_bare_by_nursery_start() -> None:
    async def child(task_status: TaskStatus[None]) -> None:
        raise KeyError("early")

    async with open_nursery() as nursery:
        with pytest.raises(KeyError, match="early"):
            await nursery.start(child)
        assert not nursery.cancel_scope.cancel_called


async def test_an_error_after_started_is_raised_by_the_nursery() -> None:
    async def child(task_status: TaskStatus[None]) -> None:
        task_status.started()
        raise KeyError("late")

    with pytest.RaisesGroup(KeyError):
        async with open_nursery() as nursery:
            await nursery.start(child)
            await nurseryio.sleep_forever()


async def test_a_child_that_ends_without_calling_started_is_an_error() -> None:
    async def child(task_status: TaskStatus[None]) -> None:
        await checkpoint()

    async with open_nursery() as nursery:
        with pytest.raises(RuntimeError, match="child exited without calling"):
            await nursery.start(child)


async def test_task_status_started_twice_is_an_error() -> None:
    async def child(task_status: TaskStatus[int]) -> None:
        task_status.started(1)
        with pytest.raises(RuntimeError, match="called 'started' twice"):
            task_status.started(2)

    async with open_nursery() as nursery:
        assert await nursery.start(child) == 1


async def test_a_cancelled_caller_of_nursery_start_cancels_the_child() -> None:
    record = []

    async def child(task_status: TaskStatus[None]) -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            record.append("child ends")

    async with open_nursery() as nursery:
        with nurseryio.move_on_after(0.001) as scope:
            await nursery.start(child)
        assert scope.cancelled_caught
        assert record == ["child ends"]
        assert not nursery.cancel_scope.cancel_called


async def test_a_native_cancel_of_the_caller_of_nursery_start_is_raised_bare() -> None:
    async def child(task_status: TaskStatus[None]) -> None:
        await nurseryio.sleep_forever()

    async def caller() -> None:
        async with open_nursery() as nursery:
            await nursery.start(child)

    task = asyncio.create_task(caller())
    await wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_reparenting_after_started_the_callers_scopes_do_not_cancel_the_child() -> None:
    record = []

    async def child(task_status: TaskStatus[None]) -> None:
        task_status.started()
        await checkpoint()
        record.append("still running")

    async with open_nursery() as nursery:
        with CancelScope() as scope:
            await nursery.start(child)
            scope.cancel()
        await wait_all_tasks_blocked()
    assert record == ["still running"]


async def test_reparenting_a_child_inside_its_own_scopes_moves_with_them() -> None:
    record = []

    async def child(task_status: TaskStatus[None]) -> None:
        with CancelScope() as own, CancelScope():
            task_status.started()
            await nurseryio.sleep_forever()
        record.append(own.cancel_called)

    async with open_nursery() as nursery:
        await nursery.start(child)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert record == []


async def test_a_grandchild_may_call_task_status_started() -> None:
    async def grandchild(task_status: TaskStatus[str]) -> None:
        await checkpoint()
        task_status.started("from below")

    async def child(task_status: TaskStatus[str]) -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(grandchild, task_status)

    async with open_nursery() as nursery:
        assert await nursery.start(child) == "from below"


async def test_eventual_parent_nursery_of_a_child_of_nursery_start() -> None:
    seen: list[Any] = []

    async def child(task_status: TaskStatus[Task]) -> None:
        task = current_task()
        seen.append(task.eventual_parent_nursery)
        task_status.started(task)
        seen.append((task.eventual_parent_nursery, task.parent_nursery))

    async with open_nursery() as nursery:
        task = await nursery.start(child)
        assert task in nursery.child_tasks or task.asyncio_task.done()
    assert seen == [nursery, (None, nursery)]


async def test_started_reparents_the_child_into_a_cancelled_nursery_and_cancels_it() -> None:
    record = []

    async def child(task_status: TaskStatus[None]) -> None:
        with CancelScope(shield=True):
            await checkpoint()
            task_status.started()
        try:
            await nurseryio.sleep_forever()
        except nurseryio.Cancelled:
            record.append("cancelled")
            raise

    async with open_nursery() as outer, open_nursery() as caller:
        outer.cancel_scope.shield = True

        async def start() -> None:
            await outer.start(child)

        caller.start_soon(start)
        await checkpoint()
        outer.cancel_scope.cancel()
    assert record == ["cancelled"]


async def test_nursery_start_in_a_closed_nursery_is_refused() -> None:
    async with open_nursery() as nursery:
        pass
    with pytest.raises(RuntimeError, match="closed to new arrivals"):
        await nursery.start(checkpoint)


async def test_nursery_start_refuses_what_is_not_an_async_function() -> None:
    async def child(task_status: TaskStatus[None]) -> None:
        raise AssertionError

    async with open_nursery() as nursery:
        with pytest.raises(TypeError, match="got a coroutine object"):
            await nursery.start(child(TASK_STATUS_IGNORED))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="synchronous"):
            await nursery.start(lambda task_status: None)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="task_status"):
            await nursery.start(checkpoint)
