"""Stale cancelling counts: a request that asyncio.TaskGroup forgets does not confuse a scope.

Before Python 3.13 a group whose child fails while the end of its block waits leaves the task's
``cancelling()`` one too high. A real request, made before or after, must still be seen.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from harness.core import needs_counts, settle

import nurseryio

pytestmark = needs_counts


async def fail() -> None:
    raise ValueError


async def leave_a_request() -> None:
    """Have a group fail while the end of its block waits."""
    with pytest.raises(BaseException, match="unhandled errors"):
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
            group.create_task(fail())


async def in_a_task(function: Any, *args: Any) -> Any:
    """The cancelling count of this new task does not matter afterwards."""
    return await asyncio.ensure_future(function(*args))


async def wait_ours() -> None:
    await nurseryio.sleep_forever()


async def wait_asyncio() -> None:
    await asyncio.get_running_loop().create_future()


async def wait_in_a_nursery() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)


async def wait_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
        group.create_task(asyncio.sleep(100))


each_wait = pytest.mark.parametrize(
    "wait", [wait_ours, wait_asyncio, wait_in_a_nursery, wait_in_a_group]
)


@each_wait
async def test_a_stale_cancelling_count_of_a_task_group_does_not_confuse_a_scope(wait: Any) -> None:
    async def main() -> None:
        for _ in range(2):
            with nurseryio.CancelScope() as scope:
                await leave_a_request()
                asyncio.get_running_loop().call_soon(scope.cancel)
                await wait()
            assert scope.cancelled_caught

    await in_a_task(main)


@each_wait
async def test_a_stale_cancelling_count_of_a_task_group_does_not_confuse_a_nursery(
    wait: Any,
) -> None:
    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
            await leave_a_request()
            nursery.start_soon(nurseryio.sleep_forever)
            asyncio.get_running_loop().call_soon(nursery.cancel_scope.cancel)
            await wait()
        assert nursery.cancel_scope.cancelled_caught

    await in_a_task(main)


async def test_a_stale_cancelling_count_does_not_confuse_a_nursery_that_only_waits() -> None:
    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
            await leave_a_request()
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught

    await in_a_task(main)


@each_wait
@pytest.mark.parametrize("native_first", [False, True])
async def test_a_native_cancel_in_the_same_iteration_as_a_scopes_cancel_passes(
    wait: Any, native_first: bool
) -> None:
    scope = nurseryio.CancelScope()

    async def main() -> None:
        with scope:
            await leave_a_request()
            await wait()
        raise AssertionError("the native request was lost")

    task = asyncio.ensure_future(main())
    await settle()
    for cancel in (task.cancel, scope.cancel) if native_first else (scope.cancel, task.cancel):
        cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@each_wait
async def test_a_native_cancel_replaced_by_a_scopes_cancellation_is_not_lost(wait: Any) -> None:
    scope = nurseryio.CancelScope()

    async def main() -> None:
        with scope:
            try:
                await wait()
            finally:
                asyncio.get_running_loop().call_soon(scope.cancel)
                await wait()
        raise AssertionError("the native request was lost")

    task = asyncio.ensure_future(main())
    await settle()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_native_cancel_that_is_still_pending_is_not_lost() -> None:
    scope = nurseryio.CancelScope()

    async def slow_to_end() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            await settle()

    async def main() -> None:
        with scope:
            await asyncio.ensure_future(slow_to_end())
        raise AssertionError("the native request was lost")

    task = asyncio.ensure_future(main())
    await settle()
    task.cancel()
    await asyncio.sleep(0)
    scope.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
