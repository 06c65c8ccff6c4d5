"""The rare part of a task's record: shared while it is empty, its own once something is noted."""

from __future__ import annotations

import contextvars

import nurseryio
from nurseryio._core.task_extra import NO_EXTRA, Extra
from nurseryio.lowlevel import current_task


def fields(extra: Extra) -> dict[str, object]:
    return {name: getattr(extra, name) for name in Extra.__slots__}


async def test_an_ordinary_child_shares_the_empty_task_extra() -> None:
    seen: list[Extra] = []

    async def child() -> None:
        await nurseryio.sleep(0)
        seen.append(current_task()._extra)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(child)
    assert seen == [NO_EXTRA, NO_EXTRA]


async def test_task_extra_of_one_task_is_not_seen_in_another() -> None:
    seen: list[object] = []

    async def child(data: object) -> None:
        if data is not None:
            current_task().custom_sleep_data = data
        seen.append(current_task().custom_sleep_data)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, "noted")
        nursery.start_soon(child, None)
    assert seen == ["noted", None]


async def test_a_task_gets_its_own_task_extra_once() -> None:
    seen: list[bool] = []

    async def child() -> None:
        task = current_task()
        first = task._own_extra()
        seen.append(first is not NO_EXTRA)
        seen.append(task._own_extra() is first is task._extra)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert seen == [True, True]


async def test_the_shared_task_extra_stays_empty() -> None:
    async def started(task_status: nurseryio.TaskStatus[None]) -> None:
        task_status.started()
        async with nurseryio.Lock():
            await nurseryio.sleep(0)

    async with nurseryio.open_nursery() as nursery:
        await nursery.start(started)
        current_task().custom_sleep_data = 1
        await nurseryio.sleep(0)
        nurseryio.lowlevel.spawn_system_task(nurseryio.sleep, 0, context=contextvars.Context())
        with nurseryio.move_on_after(0):
            await nurseryio.sleep_forever()
        nursery.cancel_scope.cancel()
    assert fields(NO_EXTRA) == fields(Extra())
