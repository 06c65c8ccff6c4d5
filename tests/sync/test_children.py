"""Waiting for all children without leaving the block."""

from __future__ import annotations

import asyncio

import pytest

import nurseryio
from nurseryio import (
    CancelScope,
    Event,
    open_nursery,
    open_service_nursery,
    sleep,
    sleep_forever,
    wait_children,
)
from nurseryio.testing import (
    MockClock,
    Schedule,
    assert_checkpoints,
    cancel_at_every_await,
    wait_all_tasks_blocked,
)


async def test_wait_children_returns_when_all_have_ended_and_the_nursery_stays_open(
    autojump_clock: MockClock,
) -> None:
    done: list[float] = []

    async def child(seconds: float) -> None:
        await sleep(seconds)
        done.append(seconds)

    async with open_nursery() as nursery:
        for seconds in (3, 1, 2):
            nursery.start_soon(child, seconds)
        await wait_children(nursery)
        assert done == [1, 2, 3]
        nursery.start_soon(child, 4)
        await wait_children(nursery)
        assert done == [1, 2, 3, 4]


async def test_wait_children_waits_for_children_that_are_started_meanwhile() -> None:
    done: list[int] = []

    async def child(generation: int) -> None:
        await nurseryio.lowlevel.checkpoint()
        if generation:
            nursery.start_soon(child, generation - 1)
        done.append(generation)

    async with open_nursery() as nursery:
        nursery.start_soon(child, 3)
        await wait_children(nursery)
        assert done == [3, 2, 1, 0]


async def test_wait_children_without_children_is_a_checkpoint() -> None:
    async with open_nursery() as nursery:
        with assert_checkpoints():
            await wait_children(nursery)


async def test_a_child_that_calls_wait_children_waits_for_the_others() -> None:
    go = Event()
    order: list[str] = []

    async def last() -> None:
        await wait_children(nursery)
        order.append("last")

    async def other() -> None:
        await go.wait()
        order.append("other")

    async with open_nursery() as nursery:
        nursery.start_soon(last)
        nursery.start_soon(other)
        await wait_all_tasks_blocked()
        go.set()
    assert order == ["other", "last"]


async def test_an_error_of_a_child_cancels_wait_children_inside_the_nursery() -> None:
    async def fails() -> None:
        raise KeyError("child")

    after: list[int] = []
    with pytest.RaisesGroup(KeyError):
        async with open_nursery() as nursery:
            nursery.start_soon(sleep_forever)
            nursery.start_soon(fails)
            await wait_children(nursery)
            after.append(1)
    assert not after


async def test_wait_children_can_be_cancelled_and_the_children_continue() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(sleep_forever)
        with CancelScope() as scope:
            async with open_nursery() as waiters:
                waiters.start_soon(wait_children, nursery)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()


async def test_a_child_that_is_cancelled_natively_before_its_first_step_has_ended() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(sleep_forever)
        for task in nursery.child_tasks:
            task.asyncio_task.cancel()
        await wait_children(nursery)
        assert not nursery.child_tasks


async def test_a_native_cancel_passes_through_wait_children() -> None:
    async def waits() -> None:
        await wait_children(nursery)

    async with open_nursery() as nursery:
        nursery.start_soon(sleep_forever)
        task = asyncio.ensure_future(waits())
        await wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        nursery.cancel_scope.cancel()


async def test_wait_children_waits_for_services_too() -> None:
    go = Event()
    async with open_service_nursery() as services:
        services.start_soon(go.wait)
        await wait_all_tasks_blocked()
        go.set()
        await wait_children(services)
        assert not services.child_tasks


async def test_wait_children_refuses_what_is_not_an_open_nursery_of_this_loop() -> None:
    with pytest.raises(TypeError, match="needs a nursery"):
        await wait_children(asyncio)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        await wait_children(open_nursery())
    async with open_nursery() as nursery:
        with pytest.raises(RuntimeError, match="loop"):
            await nurseryio.to_thread.run_sync(lambda: asyncio.run(wait_children(nursery)))


async def test_wait_children_can_be_cancelled_at_every_await() -> None:
    async def scenario(schedule: Schedule) -> None:
        async def work() -> None:
            async with open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(schedule.pause)
                await wait_children(nursery)
                assert not nursery.child_tasks

        await schedule.run(work)

    await cancel_at_every_await(scenario)
