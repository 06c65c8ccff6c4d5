"""The end of a task: the cleanup after its last step."""

# Covered below 95 %: children of task factories are in test_task_factories.py; the ends that fail
# half-way in test_injection.py and test_recursion.py.

from __future__ import annotations

import asyncio
import sys

import pytest

import nurseryio
from nurseryio import Nursery, open_nursery
from nurseryio._core.task import records
from nurseryio.lowlevel import (
    ParkingLot,
    add_parking_lot_breaker,
    checkpoint,
    current_task,
)
from nurseryio.testing import wait_all_tasks_blocked

if sys.version_info < (3, 11):
    pass


async def test_the_task_record_of_a_child_is_dropped_when_the_child_ends() -> None:
    seen = []

    async def child() -> None:
        seen.append(current_task().asyncio_task)
        assert seen[0] in records

    async with open_nursery() as nursery:
        nursery.start_soon(child)
    assert seen[0] not in records


async def test_the_task_record_of_an_asyncio_task_is_dropped_when_the_task_ends() -> None:
    async def native() -> None:
        await checkpoint()

    task = asyncio.create_task(native())
    await task
    await checkpoint()
    assert task not in records


@pytest.mark.parametrize("native", [False, True])
async def test_parking_lots_are_broken_when_their_breaker_task_ends(native: bool) -> None:
    lot = ParkingLot()
    errors = []

    async def breaker() -> None:
        add_parking_lot_breaker(current_task(), lot)
        await wait_all_tasks_blocked()

    async def parked() -> None:
        try:
            await lot.park()
        except nurseryio.BrokenResourceError as exc:
            errors.append(exc)

    async with open_nursery() as nursery:
        nursery.start_soon(parked)
        if native:
            await asyncio.create_task(breaker())
        else:
            nursery.start_soon(breaker)
    assert len(errors) == 1


async def test_misnesting_a_child_that_ends_inside_its_own_nursery_cancels_it() -> None:
    record = []
    left: list[Nursery] = []

    async def grandchild() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            record.append("grandchild ends")

    async def child() -> None:
        left.append(await open_nursery().__aenter__())
        left[0].start_soon(grandchild)
        await wait_all_tasks_blocked()

    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="^Nursery stack corrupted")):
        async with open_nursery() as nursery:
            nursery.start_soon(child)
    await wait_all_tasks_blocked()
    assert record == ["grandchild ends"]


@pytest.mark.app_only
async def test_misnesting_an_asyncio_task_that_ends_inside_an_open_nursery_is_reported(
    loop_errors: list[str],
) -> None:
    async def native() -> None:
        await open_nursery().__aenter__()

    await asyncio.create_task(native())
    await checkpoint()
    await checkpoint()
    assert len(loop_errors) == 1
    assert "a task ended inside a nursery" in loop_errors[0]
