"""Something that happens once."""

# Covered below 95 %: set() that fails half-way is in test_recursion.py.

from __future__ import annotations

import asyncio

import pytest
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio import Event
from nurseryio._checks.schedules import Schedule
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked


async def test_an_event_wakes_all_waiting_tasks_in_fifo_order() -> None:
    event = Event()
    woken = []

    async def wait(name: int) -> None:
        await event.wait()
        woken.append(name)

    async with nurseryio.open_nursery() as nursery:
        for name in range(5):
            nursery.start_soon(wait, name)
        await wait_all_tasks_blocked()
        assert event.statistics().tasks_waiting == 5
        assert "not set, 5 tasks waiting" in repr(event)
        event.set()
        assert event.statistics().tasks_waiting == 0
        event.set()
    assert woken == [0, 1, 2, 3, 4]
    assert event.is_set()
    assert repr(event).endswith(", set>")


async def test_waiting_for_a_set_event_is_still_a_checkpoint() -> None:
    event = Event()
    assert not event.is_set()
    event.set()
    with assert_checkpoints():
        await event.wait()
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await event.wait()
    assert scope.cancelled_caught


async def test_waiting_for_an_event_in_a_cancelled_scope_leaves_no_waiter() -> None:
    event = Event()
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await event.wait()
    assert scope.cancelled_caught
    assert event.statistics().tasks_waiting == 0


async def test_a_cancelled_task_no_longer_counts_as_waiting_for_the_event() -> None:
    event = Event()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(event.wait)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert event.statistics().tasks_waiting == 0
        event.set()


def test_bool_of_an_event_is_an_error() -> None:
    with pytest.raises(NotImplementedError, match=r"event\.is_set\(\)"):
        bool(Event())


def test_an_event_can_be_set_where_no_task_runs() -> None:
    event = Event()
    event.set()
    assert event.is_set()


async def test_an_event_set_before_a_native_cancel_is_not_lost() -> None:
    for set_first in (True, False):
        event = Event()
        seen = []

        async def wait(event: Event = event, seen: list[int] = seen) -> None:
            await event.wait()
            seen.append(1)
            await asyncio.sleep(0)
            seen.append(2)

        task = asyncio.create_task(wait())
        await wait_all_tasks_blocked()
        if set_first:
            event.set()
        task.cancel()
        if not set_first:
            event.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert seen == [1]


async def test_under_any_schedule_no_task_misses_an_event(loop_case: Case) -> None:
    async def scenario(schedule: Schedule) -> None:
        events = [Event(), Event(), Event()]

        async def wait() -> None:
            for event in events:
                await schedule.pause()
                await event.wait()

        async def set_them() -> None:
            try:
                for event in events:
                    await schedule.pause()
                    event.set()
            finally:
                for event in events:
                    event.set()

        await schedule.run(wait, wait, set_them)
        assert [event.statistics().tasks_waiting for event in events] == [0, 0, 0]

    await stress(scenario, loop_case)
