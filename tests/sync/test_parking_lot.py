"""The queue that the blocking primitives wait in."""

from __future__ import annotations

import asyncio
from math import inf
from typing import Any

import pytest
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio._checks.schedules import Schedule
from nurseryio.lowlevel import (
    ParkingLot,
    Task,
    add_parking_lot_breaker,
    current_task,
    remove_parking_lot_breaker,
)
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked


class Crowd:
    """Tasks parked in a lot one after the other, and a record of who woke, in order."""

    def __init__(self, nursery: nurseryio.Nursery, lot: ParkingLot) -> None:
        self.nursery = nursery
        self.lot = lot
        self.woken: list[Any] = []
        self.scopes: dict[Any, nurseryio.CancelScope] = {}

    async def park(self, *names: Any) -> None:
        for name in names:
            self.nursery.start_soon(self._live, name)
            await wait_all_tasks_blocked()

    async def _live(self, name: Any) -> None:
        with nurseryio.CancelScope() as self.scopes[name]:
            await self.lot.park()
            self.woken.append(name)
        if self.scopes[name].cancelled_caught:
            self.woken.append(("cancelled", name))


async def test_fairness_unpark_wakes_tasks_in_fifo_order() -> None:
    lot = ParkingLot()
    async with nurseryio.open_nursery() as nursery:
        crowd = Crowd(nursery, lot)
        await crowd.park(1, 2, 3, 4, 5)
        assert len(lot) == 5
        assert lot
        assert lot.statistics().tasks_waiting == 5
        assert "5 tasks parked" in repr(lot)
        assert len(lot.unpark()) == 1
        assert len(lot.unpark(count=2)) == 2
        assert len(lot.unpark_all()) == 2
        assert not lot
    assert crowd.woken == [1, 2, 3, 4, 5]


async def test_unpark_returns_the_tasks_that_it_woke_at_most_all() -> None:
    lot = ParkingLot()
    assert lot.unpark(count=10) == lot.unpark_all() == lot.unpark(count=inf) == []
    async with nurseryio.open_nursery() as nursery:
        await Crowd(nursery, lot).park(1, 2)
        tasks = lot.unpark(count=100)
        assert set(tasks) == nursery.child_tasks


@pytest.mark.parametrize("count", [1.5, float("nan")])
def test_unpark_and_repark_refuse_a_count_that_is_not_an_integer(count: float) -> None:
    with pytest.raises(ValueError, match="non-integer"):
        ParkingLot().unpark(count=count)
    with pytest.raises(ValueError, match="non-integer"):
        ParkingLot().repark(ParkingLot(), count=count)


async def test_park_is_a_checkpoint() -> None:
    lot = ParkingLot()
    asyncio.get_running_loop().call_soon(lot.unpark)
    with assert_checkpoints():
        await lot.park()
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await lot.park()
    assert scope.cancelled_caught
    assert not lot


async def test_a_cancelled_task_leaves_the_parking_lot_at_once() -> None:
    lot = ParkingLot()
    async with nurseryio.open_nursery() as nursery:
        crowd = Crowd(nursery, lot)
        await crowd.park(1, 2, 3)
        crowd.scopes[2].cancel()
        assert len(lot) == 2
        await wait_all_tasks_blocked()
        lot.unpark_all()
    assert crowd.woken == [("cancelled", 2), 1, 3]


async def test_repark_moves_tasks_in_order_without_waking_them() -> None:
    here, there = ParkingLot(), ParkingLot()
    async with nurseryio.open_nursery() as nursery:
        crowd = Crowd(nursery, here)
        await crowd.park(1, 2, 3, 4)
        here.repark(there)
        here.repark(there, count=2)
        assert (len(here), len(there)) == (1, 3)
        await wait_all_tasks_blocked()
        assert crowd.woken == []
        here.repark_all(there)
        assert (len(here), len(there)) == (0, 4)
        there.unpark_all()
    assert crowd.woken == [1, 2, 3, 4]


async def test_a_reparked_task_that_is_cancelled_leaves_the_new_parking_lot() -> None:
    here, there = ParkingLot(), ParkingLot()
    async with nurseryio.open_nursery() as nursery:
        crowd = Crowd(nursery, here)
        await crowd.park(1, 2)
        here.repark_all(there)
        crowd.scopes[1].cancel()
        assert len(there) == 1
        here.unpark_all()
        there.unpark_all()
    assert set(crowd.woken) == {("cancelled", 1), 2}


def test_repark_takes_only_a_parking_lot() -> None:
    with pytest.raises(TypeError, match="must be a ParkingLot"):
        ParkingLot().repark([])  # type: ignore[arg-type]


def test_a_parking_lot_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match="does not support subclassing"):
        type("Mine", (ParkingLot,), {})


# -- breaking -------------------------------------------------------------------


async def test_a_broken_parking_lot_refuses_park_and_names_its_breaker() -> None:
    lot = ParkingLot()
    lot.break_lot()
    lot.break_lot()
    assert lot.broken_by == [current_task()] * 2
    assert "broken by" in repr(lot)
    with pytest.raises(nurseryio.BrokenResourceError, match="Attempted to park") as caught:
        await lot.park()
    assert repr(current_task()) in str(caught.value)


async def test_break_lot_wakes_all_parked_tasks_with_broken_resource_error() -> None:
    lot = ParkingLot()
    broken = []

    async def park() -> None:
        with pytest.raises(nurseryio.BrokenResourceError, match="Parking lot broken by"):
            await lot.park()
        broken.append(1)

    async with nurseryio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(park)
        await wait_all_tasks_blocked()
        lot.break_lot()
        assert not lot
    assert broken == [1, 1, 1]


async def sleeper(*, task_status: nurseryio.TaskStatus[Task]) -> None:
    task_status.started(current_task())
    await nurseryio.sleep_forever()


async def test_a_parking_lot_breaks_when_its_breaker_task_ends() -> None:
    lot = ParkingLot()
    async with nurseryio.open_nursery() as nursery:
        breaker = await nursery.start(sleeper)
        other = await nursery.start(sleeper)
        add_parking_lot_breaker(breaker, lot)
        add_parking_lot_breaker(other, lot)
        nursery.cancel_scope.cancel()
    assert set(lot.broken_by) == {breaker, other}


async def test_an_asyncio_task_can_be_a_parking_lot_breaker() -> None:
    lot = ParkingLot()
    tasks: list[Task] = []

    async def native() -> None:
        tasks.append(current_task())
        add_parking_lot_breaker(current_task(), lot)

    await asyncio.create_task(native())
    await asyncio.sleep(0)
    assert lot.broken_by == tasks


async def test_remove_parking_lot_breaker_keeps_the_lot_from_breaking() -> None:
    lot = ParkingLot()
    task = current_task()
    add_parking_lot_breaker(task, lot)
    add_parking_lot_breaker(task, lot)
    remove_parking_lot_breaker(task, lot)
    remove_parking_lot_breaker(task, lot)
    with pytest.raises(RuntimeError, match="not registered for"):
        remove_parking_lot_breaker(task, lot)
    async with nurseryio.open_nursery() as nursery:
        breaker = await nursery.start(sleeper)
        with pytest.raises(RuntimeError, match="not registered for"):
            remove_parking_lot_breaker(breaker, lot)
        add_parking_lot_breaker(breaker, lot)
        remove_parking_lot_breaker(breaker, lot)
        nursery.cancel_scope.cancel()
    assert lot.broken_by == []


async def test_an_ended_task_cannot_become_a_breaker_but_can_be_named_by_break_lot() -> None:
    lot = ParkingLot()
    async with nurseryio.open_nursery() as nursery:
        breaker = await nursery.start(sleeper)
        nursery.cancel_scope.cancel()
    with pytest.raises(nurseryio.BrokenResourceError, match="already exited task"):
        add_parking_lot_breaker(breaker, lot)
    lot.break_lot(breaker)
    assert lot.broken_by == [breaker]


# -- races ----------------------------------------------------------------------


async def test_a_task_unparked_before_a_native_cancel_counts_as_woken() -> None:
    lot = ParkingLot()
    record = []

    async def park() -> None:
        await lot.park()
        record.append("woken")
        await asyncio.sleep(0)
        record.append("not reached")

    for woken_first in (True, False):
        record.clear()
        task = asyncio.create_task(park())
        await wait_all_tasks_blocked()
        if woken_first:
            lot.unpark()
        task.cancel()
        if not woken_first:
            # It does not know yet, and so is still in the queue.
            lot.unpark()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert record == ["woken"]
        assert not lot


async def test_under_any_schedule_each_unpark_wakes_one_parked_task_or_none(
    loop_case: Case,
) -> None:
    async def scenario(schedule: Schedule) -> None:
        here, there = ParkingLot(), ParkingLot()
        woken: set[Task] = set()
        finished: set[Task] = set()

        async def park() -> None:
            for _ in range(2):
                await schedule.pause()
                await here.park()
                finished.add(current_task())

        async def wake() -> None:
            while running:
                await nurseryio.lowlevel.checkpoint()
                if schedule.random.random() < 0.4:
                    here.repark(there)
                lot = schedule.random.choice([here, there])
                woken.update(lot.unpark(count=schedule.random.choice([0, 1, inf])))

        running = True
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wake)
            await schedule.run(park, park, park)
            running = False
        # A task that was woken came out of park() normally, whatever cancelled it then.
        assert woken == finished
        assert not here
        assert not there

    await stress(scenario, loop_case)
