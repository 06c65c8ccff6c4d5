"""Asyncio's tasks and futures, supervised by a nursery: they end before it does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from typing import Any

import pytest
from harness.core import leaves, settle

import nurseryio
from nurseryio.aio import supervise

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("in the task")


async def test_a_supervised_tasks_result_is_there_after_the_block() -> None:
    task = asyncio.ensure_future(answer())
    async with nurseryio.open_nursery() as nursery:
        assert supervise(nursery, task) is task
    assert task.result() == 42


async def test_a_failing_supervised_task_cancels_the_nursery_and_is_raised_once() -> None:
    task = asyncio.ensure_future(fail())
    with pytest.raises(BaseExceptionGroup) as caught:
        async with nurseryio.open_nursery() as nursery:
            supervise(nursery, task)
            await nurseryio.sleep_forever()
    assert [str(leaf) for leaf in leaves(caught.value) if isinstance(leaf, ValueError)] == [
        "in the task"
    ]


async def test_supervise_of_a_task_that_has_failed_already_fails_the_nursery() -> None:
    task = asyncio.ensure_future(fail())
    await settle()
    with pytest.raises(BaseExceptionGroup):
        async with nurseryio.open_nursery() as nursery:
            supervise(nursery, task)


async def test_cancelling_the_nursery_cancels_the_supervised_task_and_waits_for_its_end() -> None:
    steps = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            steps.append("cleaned up")

    task = asyncio.ensure_future(work())
    async with nurseryio.open_nursery() as nursery:
        supervise(nursery, task)
        await settle()
        nursery.cancel_scope.cancel()
    assert steps == ["cleaned up"]
    assert task.cancelled()


async def test_a_supervised_task_that_swallows_its_cancellation_keeps_its_result() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
        return "done all the same"

    task = asyncio.ensure_future(stubborn())
    async with nurseryio.open_nursery() as nursery:
        supervise(nursery, task)
        await settle()
        nursery.cancel_scope.cancel()
    assert task.result() == "done all the same"


async def test_a_native_cancel_of_a_supervised_task_by_other_code_is_not_an_error() -> None:
    task = asyncio.ensure_future(asyncio.sleep(10))
    async with nurseryio.open_nursery() as nursery:
        supervise(nursery, task)
        await settle()
        task.cancel()
        await settle()
        assert not nursery.cancel_scope.cancel_called
    assert task.cancelled()


async def test_supervise_takes_an_asyncio_future_too() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with nurseryio.open_nursery() as nursery:
        supervise(nursery, future)
        asyncio.get_running_loop().call_soon(future.set_result, 3)
    assert future.result() == 3


async def test_the_name_of_the_supervising_child_names_the_task() -> None:
    task = asyncio.ensure_future(answer())
    task.set_name("the answer")
    async with nurseryio.open_nursery() as nursery:
        supervise(nursery, task)
        assert [child.name for child in nursery.child_tasks] == ["supervises the answer"]


async def test_supervise_refuses_what_cannot_be_supervised_at_the_call() -> None:
    wrong: Any = supervise
    threads: concurrent.futures.Future[int] = concurrent.futures.Future()
    other = asyncio.new_event_loop()
    foreign = other.create_future()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep, 0)
        (child,) = nursery.child_tasks
        with pytest.raises(TypeError, match=r"asyncio\.wrap_future"):
            wrong(nursery, threads)
        with pytest.raises(TypeError, match="start_soon"):
            wrong(nursery, answer())
        with pytest.raises(TypeError, match="takes an asyncio task or future, not 7"):
            wrong(nursery, 7)
        with pytest.raises(ValueError, match="another event loop"):
            supervise(nursery, foreign)
        with pytest.raises(ValueError, match="waits for itself"):
            supervise(nursery, nursery.parent_task.asyncio_task)
        with pytest.raises(ValueError, match="child of a nursery already"):
            supervise(nursery, child.asyncio_task)
    other.close()
    task = asyncio.ensure_future(answer())
    with pytest.raises(RuntimeError, match="closed"):
        supervise(nursery, task)
    await task
