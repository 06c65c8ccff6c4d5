"""What goes on from the end of a nursery's block."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import nurseryio
from nurseryio import Cancelled, open_nursery
from nurseryio._core.leaving import at_border
from nurseryio.lowlevel import checkpoint, current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


async def test_only_at_the_border_to_asyncio_an_exit_leaves_bare() -> None:
    group: Any = BaseExceptionGroup("g", [SystemExit(3)])
    record = []

    async def native() -> None:
        task = current_task()
        leaf = at_border(task, None, group)
        record.append(type(leaf))
        record.append(at_border(task, True, group) is group)
        async with open_nursery():
            record.append(at_border(task, None, group) is group)

    async def child() -> None:
        record.append(at_border(current_task(), None, group) is group)

    await asyncio.create_task(native())
    async with open_nursery() as nursery:
        nursery.start_soon(child)
    assert record == [SystemExit, True, True, True]


async def test_errors_that_no_scope_has_to_do_with_leave_as_they_are() -> None:
    errors = [ValueError("one"), KeyError("two")]

    async def fail(error: Exception) -> None:
        raise error

    caught = None
    with nurseryio.CancelScope() as outer:
        try:
            async with open_nursery() as nursery:
                for error in errors:
                    nursery.start_soon(fail, error)
        except BaseExceptionGroup as group:
            caught = group
    assert caught is not None
    assert set(caught.exceptions) == set(errors)
    assert nursery.cancel_scope.cancel_called
    assert not nursery.cancel_scope.cancelled_caught
    assert not outer.cancelled_caught


async def test_every_cancelled_task_counts_in_the_group_that_leaves() -> None:
    caught: Any = None
    with nurseryio.CancelScope() as outer:
        try:
            async with open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(nurseryio.sleep_forever)
                await checkpoint()
                outer.cancel("enough")
        except BaseExceptionGroup as group:
            caught = group
            raise
    assert outer.cancelled_caught
    assert [type(error) for error in caught.exceptions] == [Cancelled] * 5
    assert {error.args[0].reason for error in caught.exceptions} == {"enough"}


async def test_an_error_among_cancelled_tasks_is_what_remains() -> None:
    caught: Any = None

    async def sleep_then_fail() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            raise ValueError

    try:
        async with open_nursery() as nursery:
            for child in (nurseryio.sleep_forever, sleep_then_fail, nurseryio.sleep_forever):
                nursery.start_soon(child)
            await checkpoint()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        caught = group
    assert [type(error) for error in caught.exceptions] == [ValueError]
    assert nursery.cancel_scope.cancelled_caught


async def test_a_native_cancel_leaves_after_the_errors_and_strikes_again() -> None:
    steps: list[object] = []

    async def fail_when_cancelled() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            raise ValueError

    async def host() -> None:
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
        except BaseExceptionGroup as group:
            steps.append([type(error) for error in group.exceptions])
        await checkpoint()
        steps.append("not reached")

    task = asyncio.create_task(host())
    await checkpoint()
    await checkpoint()
    await checkpoint()
    task.cancel()
    await asyncio.wait([task])
    assert steps == [[ValueError]]
    assert task.cancelled()


async def test_children_cancelled_after_the_host_swallowed_a_native_cancel_end_in_the_nursery() -> (
    None
):
    async def host() -> object:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
            try:
                await nurseryio.sleep_forever()
            except asyncio.CancelledError:
                nursery.cancel_scope.cancel()  # and the native cancel is not heard of again
        return nursery.cancel_scope.cancelled_caught

    task = asyncio.create_task(host())
    await checkpoint()
    await checkpoint()
    task.cancel()
    assert await task is True
