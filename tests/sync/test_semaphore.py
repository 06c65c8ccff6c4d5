"""A number that tasks count down and up."""

# Covered below 95 %: a unit that is given while something fails is in test_injection.py.

from __future__ import annotations

import asyncio

import pytest
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio import Semaphore
from nurseryio._checks.schedules import Schedule
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked


async def test_acquire_lowers_and_release_raises_the_semaphore_value() -> None:
    semaphore = Semaphore(1)
    assert (semaphore.value, semaphore.max_value) == (1, None)
    semaphore.release()
    assert semaphore.value == 2
    semaphore.acquire_nowait()
    with assert_checkpoints():
        await semaphore.acquire()
    assert semaphore.value == 0
    with pytest.raises(nurseryio.WouldBlock, match="the value is zero"):
        semaphore.acquire_nowait()
    semaphore.release()
    with assert_checkpoints():
        async with semaphore:
            assert semaphore.value == 0
    assert semaphore.value == 1


async def test_fairness_tasks_acquire_the_semaphore_in_fifo_order() -> None:
    semaphore = Semaphore(0)
    order = []

    async def work(name: int) -> None:
        await semaphore.acquire()
        order.append(name)

    async with nurseryio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(work, name)
        await wait_all_tasks_blocked()
        assert semaphore.statistics().tasks_waiting == 4
        assert "value 0, 4 tasks waiting" in repr(semaphore)
        for _ in range(4):
            semaphore.release()
        # They own the released permits: no other task can take one.
        assert semaphore.value == 0
        with pytest.raises(nurseryio.WouldBlock):
            semaphore.acquire_nowait()
    assert order == [0, 1, 2, 3]
    assert semaphore.value == 0


async def test_a_semaphore_with_max_value_refuses_one_release_too_many() -> None:
    semaphore = Semaphore(1, max_value=1)
    assert semaphore.max_value == 1
    assert "value 1 of 1" in repr(semaphore)
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    assert semaphore.value == 1
    async with semaphore:
        pass
    assert semaphore.value == 1


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"initial_value": 1.0}, TypeError, "initial_value must be an int"),
        ({"initial_value": "1"}, TypeError, "initial_value must be an int"),
        ({"initial_value": -1}, ValueError, "initial value must be >= 0"),
        ({"initial_value": 1, "max_value": 1.0}, TypeError, "max_value must be None or an int"),
        ({"initial_value": 2, "max_value": 1}, ValueError, "max_values must be >= initial_value"),
    ],
)
def test_a_semaphore_refuses_wrong_initial_and_max_values(
    arguments: dict[str, int], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        Semaphore(**arguments)


async def test_acquire_in_a_cancelled_scope_leaves_the_semaphore_value() -> None:
    semaphore = Semaphore(1)
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await semaphore.acquire()
    assert scope.cancelled_caught
    assert semaphore.value == 1


async def test_fairness_a_cancelled_waiter_gives_its_place_to_the_next() -> None:
    semaphore = Semaphore(0)
    async with nurseryio.open_nursery() as nursery:
        with nurseryio.move_on_after(0):
            await semaphore.acquire()
        nursery.start_soon(semaphore.acquire)
        await wait_all_tasks_blocked()
        semaphore.release()
    assert semaphore.value == 0


async def test_a_semaphore_permit_granted_before_a_native_cancel_is_not_lost() -> None:
    for released_first in (True, False):
        semaphore = Semaphore(0)

        async def work(semaphore: Semaphore = semaphore) -> None:
            async with semaphore:
                await asyncio.sleep(0)
                raise AssertionError("not reached")

        task = asyncio.create_task(work())
        await wait_all_tasks_blocked()
        if released_first:
            semaphore.release()
        task.cancel()
        if not released_first:
            semaphore.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert semaphore.value == 1


async def test_under_any_schedule_no_semaphore_permit_is_lost_or_doubled(loop_case: Case) -> None:
    async def scenario(schedule: Schedule) -> None:
        semaphore = Semaphore(2, max_value=2)
        inside = 0

        async def work() -> None:
            nonlocal inside
            for _ in range(3):
                async with semaphore:
                    inside += 1
                    try:
                        assert inside <= 2
                        await schedule.pause()
                    finally:
                        inside -= 1

        await schedule.run(work, work, work, work)
        assert semaphore.value == 2
        assert semaphore.statistics().tasks_waiting == 0

    await stress(scenario, loop_case)
