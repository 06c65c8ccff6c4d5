"""Whether the caller is in a run or in a task, and statistics of the loop."""

from __future__ import annotations

import asyncio
from math import inf

import nurseryio
from nurseryio.lowlevel import checkpoint, current_statistics, in_trio_run, in_trio_task


async def test_in_trio_run_and_in_trio_task_inside_a_task() -> None:
    assert in_trio_run()
    assert in_trio_task()
    seen = []
    asyncio.get_running_loop().call_soon(lambda: seen.append((in_trio_run(), in_trio_task())))
    await checkpoint()
    await checkpoint()
    assert seen == [(True, False)]


def test_in_trio_run_and_in_trio_task_outside_a_loop_are_false() -> None:
    assert not in_trio_run()
    assert not in_trio_task()


async def test_current_statistics_counts_tasks_and_deadlines() -> None:
    await checkpoint()
    await checkpoint()
    before = current_statistics()
    assert before.seconds_to_next_deadline == inf
    assert before.run_sync_soon_queue_size == 0
    with nurseryio.move_on_after(60):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
            during = current_statistics()
            assert during.tasks_living == before.tasks_living + 1
            assert during.tasks_runnable == 1
            assert 59 < during.seconds_to_next_deadline <= 60
            await checkpoint()
            assert current_statistics().tasks_runnable == 0
            nursery.cancel_scope.cancel()
    assert during.io_statistics.backend
