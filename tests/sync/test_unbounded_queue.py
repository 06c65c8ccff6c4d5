"""A queue emptied in batches."""

from __future__ import annotations

import asyncio

import pytest
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio._checks.schedules import Schedule
from nurseryio.lowlevel import UnboundedQueue
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked

pytestmark = pytest.mark.filterwarnings("ignore:nurseryio.lowlevel.UnboundedQueue is deprecated")


def test_an_unbounded_queue_is_deprecated_and_points_to_memory_channels() -> None:
    with pytest.warns(nurseryio.TrioDeprecationWarning, match="open_memory_channel") as caught:
        UnboundedQueue()
    assert [warning.filename for warning in caught] == [__file__]


async def test_get_batch_returns_everything_in_the_queue() -> None:
    queue: UnboundedQueue[int] = UnboundedQueue()
    assert queue.empty()
    for item in range(3):
        queue.put_nowait(item)
    assert (queue.qsize(), queue.empty()) == (3, False)
    assert "3 items, 0 tasks waiting" in repr(queue)
    with assert_checkpoints():
        assert await queue.get_batch() == [0, 1, 2]
    assert (queue.qsize(), queue.empty()) == (0, True)
    with pytest.raises(nurseryio.WouldBlock, match="the queue is empty"):
        queue.get_batch_nowait()
    queue.put_nowait(4)
    assert queue.get_batch_nowait() == [4]


async def test_iterating_an_unbounded_queue_gives_one_batch_after_the_other() -> None:
    queue = UnboundedQueue[int]()
    batches = []

    async def consume() -> None:
        async for batch in queue:
            batches.append(batch)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(consume)
        await wait_all_tasks_blocked()
        assert queue.statistics().tasks_waiting == 1
        for item in range(3):
            queue.put_nowait(item)
        assert queue.statistics().qsize == 3
        await wait_all_tasks_blocked()
        queue.put_nowait(3)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert batches == [[0, 1, 2], [3]]


async def test_several_items_wake_one_task_which_gets_them_all() -> None:
    queue = UnboundedQueue[int]()
    record = []

    async def consume(name: str) -> None:
        record.append((name, await queue.get_batch()))

    async with nurseryio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(consume, name)
            await wait_all_tasks_blocked()
        for item in range(5):
            queue.put_nowait(item)
        with pytest.raises(nurseryio.WouldBlock):
            queue.get_batch_nowait()
        await wait_all_tasks_blocked()
        assert record == [("a", [0, 1, 2, 3, 4])]
        queue.put_nowait(5)
    assert record[1:] == [("b", [5])]


async def test_get_batch_in_a_cancelled_scope_takes_nothing() -> None:
    queue = UnboundedQueue[int]()
    for filled in (False, True):
        if filled:
            queue.put_nowait(1)
        with nurseryio.CancelScope() as scope:
            scope.cancel()
            await queue.get_batch()
        assert scope.cancelled_caught
    assert queue.get_batch_nowait() == [1]


async def test_a_batch_assigned_before_a_native_cancel_is_delivered() -> None:
    for put_first in (True, False):
        queue = UnboundedQueue[int]()
        got = []

        async def consume(queue: UnboundedQueue[int] = queue, got: list[list[int]] = got) -> None:
            got.append(await queue.get_batch())
            await asyncio.sleep(0)
            raise AssertionError("not reached")

        task = asyncio.create_task(consume())
        await wait_all_tasks_blocked()
        if put_first:
            queue.put_nowait(1)
        task.cancel()
        if not put_first:
            queue.put_nowait(1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert got == [[1]]


async def test_under_any_schedule_no_item_is_lost_or_doubled(loop_case: Case) -> None:
    async def scenario(schedule: Schedule) -> None:
        queue = UnboundedQueue[int]()
        put: list[int] = []
        got: list[int] = []

        async def produce() -> None:
            for _ in range(4):
                queue.put_nowait(len(put))
                put.append(len(put))
                await schedule.pause()

        async def consume() -> None:
            for _ in range(2):
                got.extend(await queue.get_batch())

        async def unblock() -> None:
            while running:
                await nurseryio.lowlevel.checkpoint()
                if queue.statistics().tasks_waiting:
                    queue.put_nowait(len(put))
                    put.append(len(put))

        running = True
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(unblock)
            await schedule.run(produce, consume, consume)
            running = False
        if not queue.empty():
            got.extend(queue.get_batch_nowait())
        assert sorted(got) == put

    await stress(scenario, loop_case)
