"""A handle of one child."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest
from harness.core import gone, without_gc

import nurseryio
from nurseryio import CancelScope, Event, TaskHandle, open_nursery, sleep_forever
from nurseryio.testing import (
    Schedule,
    assert_checkpoints,
    cancel_at_every_await,
    wait_all_tasks_blocked,
)


async def give(value: Any, after: Event | None = None) -> Any:
    if after is not None:
        await after.wait()
    return value


async def fail(error: BaseException) -> None:
    raise error


async def test_a_handle_has_the_result_of_its_child() -> None:
    go = Event()
    async with open_nursery() as nursery:
        handle = TaskHandle.start_soon(nursery, give, 7, go)
        nothing = TaskHandle.start_soon(nursery, give, None)
        assert not handle.done()
        assert "running" in repr(handle)
        await nothing.wait()
        assert nothing.result() is None
        with pytest.raises(RuntimeError, match="still running"):
            handle.result()
        with pytest.raises(RuntimeError, match="still running"):
            handle.exception()
        go.set()
        await handle.wait()
        assert handle.result() == 7
        assert handle.exception() is None
        assert handle.done()
        assert not handle.cancelled()
        assert "done" in repr(handle)


async def test_waiting_for_an_ended_child_is_a_checkpoint() -> None:
    async with open_nursery() as nursery:
        handle = TaskHandle.start_soon(nursery, give, 1)
        await handle.wait()
        with assert_checkpoints():
            await handle.wait()


async def test_a_handle_cancels_its_child_alone() -> None:
    async with open_nursery() as nursery:
        one = TaskHandle.start_soon(nursery, sleep_forever)
        two = TaskHandle.start_soon(nursery, sleep_forever)
        await wait_all_tasks_blocked()
        one.cancel("enough")
        assert "being cancelled" in repr(one)
        await one.wait()
        assert one.cancelled()
        assert one.exception() is None
        with pytest.raises(RuntimeError, match="was cancelled"):
            one.result()
        assert not two.done()
        one.cancel()
        two.cancel()
    assert two.cancelled()
    assert not nursery.cancel_scope.cancel_called


async def test_a_child_that_is_cancelled_before_its_first_step_runs_to_its_first_checkpoint() -> (
    None
):
    begun: list[int] = []

    async def child() -> None:
        begun.append(1)
        await sleep_forever()

    async with open_nursery() as nursery:
        handle = TaskHandle.start_soon(nursery, child)
        handle.cancel()
    assert begun == [1]
    assert handle.cancelled()


async def test_an_error_reaches_the_nursery_and_can_be_seen_in_the_handle() -> None:
    error = KeyError("child")
    with pytest.RaisesGroup(KeyError) as caught:
        async with open_nursery() as nursery:
            handle = TaskHandle.start_soon(nursery, fail, error)
            await sleep_forever()
    assert caught.value.exceptions == (error,)
    assert handle.exception() is error
    assert not handle.cancelled()
    with pytest.raises(RuntimeError, match="has failed") as raised:
        handle.result()
    assert raised.value.__cause__ is error
    assert "KeyError" in repr(handle)


async def test_an_error_reaches_the_nursery_although_another_task_waits_for_the_child() -> None:
    go = Event()
    seen: list[BaseException | None] = []

    async def fails() -> None:
        await go.wait()
        raise KeyError("child")

    async def waits(handle: TaskHandle[None]) -> None:
        await handle.wait()
        seen.append(handle.exception())

    async with open_nursery() as outer:
        with pytest.RaisesGroup(KeyError):
            async with open_nursery() as nursery:
                handle = TaskHandle.start_soon(nursery, fails)
                outer.start_soon(waits, handle)
                await wait_all_tasks_blocked()
                go.set()
    assert [type(error) for error in seen] == [KeyError]


async def test_an_error_of_a_cancelled_child_is_an_error() -> None:
    async def cleans_up_badly() -> None:
        try:
            await sleep_forever()
        finally:
            raise KeyError("cleanup")

    with pytest.RaisesGroup(KeyError):
        async with open_nursery() as nursery:
            handle = TaskHandle.start_soon(nursery, cleans_up_badly)
            await wait_all_tasks_blocked()
            handle.cancel()
    assert isinstance(handle.exception(), KeyError)


async def test_a_child_that_was_cancelled_with_its_nursery_has_no_result() -> None:
    async with open_nursery() as nursery:
        handle = TaskHandle.start_soon(nursery, sleep_forever)
        nursery.cancel_scope.cancel()
    assert handle.cancelled()


async def test_a_child_that_was_cancelled_with_a_nursery_of_its_own_has_no_error() -> None:
    async def opens_nursery() -> None:
        async with open_nursery() as inner:
            inner.start_soon(sleep_forever)
            await sleep_forever()

    async with open_nursery() as nursery:
        handle = TaskHandle.start_soon(nursery, opens_nursery)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    # It has raised a group of Cancelled.
    assert handle.cancelled()
    assert handle.exception() is None


async def test_the_error_of_a_cancelled_child_is_shown_without_cancelled() -> None:
    async def cleans_up_badly() -> None:
        try:
            await sleep_forever()
        finally:
            raise KeyError

    async def opens_nursery() -> None:
        async with open_nursery() as inner:
            inner.start_soon(cleans_up_badly)
            await sleep_forever()

    with pytest.RaisesGroup(pytest.RaisesGroup(KeyError)):
        async with open_nursery() as nursery:
            handle = TaskHandle.start_soon(nursery, opens_nursery)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert not handle.cancelled()
    assert pytest.RaisesGroup(KeyError).matches(handle.exception())


@pytest.mark.parametrize("begun", [True, False])
async def test_a_child_whose_asyncio_task_is_cancelled_natively_ends_its_handle(
    begun: bool,
) -> None:
    async with open_nursery() as nursery:
        handle = TaskHandle.start_soon(nursery, give, 1, Event())
        if begun:
            await wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        task.asyncio_task.cancel()
        await handle.wait()
        assert handle.cancelled()


async def test_a_wait_for_a_handle_can_be_cancelled_and_the_child_continues() -> None:
    go = Event()
    async with open_nursery() as nursery:
        handle = TaskHandle.start_soon(nursery, give, 1, go)
        task = asyncio.ensure_future(handle.wait())
        await wait_all_tasks_blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with CancelScope() as scope:
            scope.cancel()
            await handle.wait()
        assert scope.cancelled_caught
        assert not handle.done()
        go.set()
    assert handle.result() == 1


async def test_a_handle_cannot_be_made_by_hand_or_from_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="no public constructor"):
        TaskHandle()
    with pytest.raises(TypeError, match="needs a nursery"):
        TaskHandle.start_soon(3, sleep_forever)  # type: ignore[arg-type]
    async with open_nursery() as nursery:
        with pytest.raises(TypeError):
            TaskHandle.start_soon(nursery, 3)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            TaskHandle.start_soon(nursery, give)  # type: ignore[call-arg]
        with pytest.raises(RuntimeError, match=r"thread|loop"):
            await nurseryio.to_thread.run_sync(
                lambda: TaskHandle.start_soon(nursery, sleep_forever)
            )
    with pytest.raises(RuntimeError, match="closed"):
        TaskHandle.start_soon(nursery, sleep_forever)
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        TaskHandle.start_soon(open_nursery(), sleep_forever)


async def test_the_task_of_a_handle_has_the_name_of_the_function() -> None:
    async def name() -> str:
        return nurseryio.lowlevel.current_task().name

    async with open_nursery() as nursery:
        one = TaskHandle.start_soon(nursery, name)
        two = TaskHandle.start_soon(nursery, name, name="mine")
    assert one.result().endswith("name")
    assert two.result() == "mine"


async def test_a_failed_child_leaves_no_cyclic_garbage() -> None:
    class Error(Exception):
        pass

    async def fails() -> None:
        raise Error

    async def work() -> weakref.ref[Error]:
        try:
            async with open_nursery() as nursery:
                TaskHandle.start_soon(nursery, fails)
        except BaseException as group:
            return weakref.ref(group.exceptions[0])  # type: ignore[attr-defined]
        raise AssertionError("no error")

    with without_gc():
        reference = await work()
        await nurseryio.lowlevel.checkpoint()
        assert gone(reference)


async def test_handles_can_be_cancelled_at_every_await() -> None:
    async def scenario(schedule: Schedule) -> None:
        handles: list[TaskHandle[None]] = []

        async def work() -> None:
            async with open_nursery() as nursery:
                handles.append(TaskHandle.start_soon(nursery, schedule.pause))
                handles.append(TaskHandle.start_soon(nursery, sleep_forever))
                await handles[0].wait()
                handles[1].cancel()
                await handles[1].wait()

        await schedule.run(work)
        assert all(handle.done() for handle in handles)

    await cancel_at_every_await(scenario)
