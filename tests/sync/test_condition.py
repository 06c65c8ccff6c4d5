"""Waiting, inside a lock, until another task says that something has changed."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio import Condition, Lock, Semaphore, StrictFIFOLock
from nurseryio._checks.schedules import Schedule
from nurseryio._core.wait_queue import park
from nurseryio.lowlevel import Task, current_task
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked


async def test_a_condition_is_a_lock_as_well() -> None:
    lock = Lock()
    condition = Condition(lock)
    with assert_checkpoints():
        await condition.acquire()
    assert lock.locked()
    assert condition.locked()
    condition.release()
    condition.acquire_nowait()
    with pytest.raises(RuntimeError, match="already held"):
        condition.acquire_nowait()
    condition.release()
    with assert_checkpoints():
        async with condition:
            assert condition.locked()
    assert not condition.locked()


@pytest.mark.parametrize("wrong", [Semaphore(1), StrictFIFOLock(), Lock])
def test_a_condition_takes_only_a_lock(wrong: Lock) -> None:
    with pytest.raises(TypeError, match=r"must be a nurseryio\.Lock"):
        Condition(wrong)


async def test_wait_and_notify_without_the_lock_are_errors() -> None:
    condition = Condition()
    with pytest.raises(RuntimeError, match="must hold the lock to wait"):
        await condition.wait()
    with pytest.raises(RuntimeError, match="must hold the lock to notify"):
        condition.notify()
    with pytest.raises(RuntimeError, match="must hold the lock to notify"):
        condition.notify_all()
    with pytest.raises(RuntimeError, match="don't own"):
        condition.release()


async def test_fairness_notified_tasks_get_the_lock_one_by_one_in_fifo_order() -> None:
    condition = Condition()
    done = []

    async def wait(name: int) -> None:
        async with condition:
            await condition.wait()
            assert condition.locked()
            done.append(name)

    async with nurseryio.open_nursery() as nursery:
        for name in range(6):
            nursery.start_soon(wait, name)
            await wait_all_tasks_blocked()
        async with condition:
            condition.notify()
            condition.notify(2)
            statistics = condition.statistics()
            assert statistics.tasks_waiting == 3
            assert statistics.lock_statistics.tasks_waiting == 3
            assert "3 tasks waiting, with <Lock" in repr(condition)
            await wait_all_tasks_blocked()
            assert done == []
        await wait_all_tasks_blocked()
        assert done == [0, 1, 2]
        async with condition:
            condition.notify_all()
    assert done == [0, 1, 2, 3, 4, 5]


async def test_notify_without_waiting_tasks_does_nothing() -> None:
    condition = Condition()
    async with condition:
        condition.notify()
        condition.notify_all()


async def test_condition_wait_is_a_checkpoint_and_a_cancelled_task_holds_the_lock_again() -> None:
    condition = Condition()
    with nurseryio.CancelScope() as scope:
        async with condition:
            scope.cancel()
            try:
                await condition.wait()
            finally:
                assert condition.locked()
    assert scope.cancelled_caught
    assert not condition.locked()


async def test_a_cancelled_wait_reacquires_the_lock_as_long_as_it_takes() -> None:
    condition = Condition()
    scope = nurseryio.CancelScope()
    record = []

    async def wait() -> None:
        with scope:
            async with condition:
                try:
                    await condition.wait()
                finally:
                    record.append("has the lock")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        async with condition:
            scope.cancel()
            await wait_all_tasks_blocked()
            assert record == []
    assert record == ["has the lock"]
    assert scope.cancelled_caught


async def test_a_native_cancel_reacquires_the_lock_too_and_is_re_raised() -> None:
    condition = Condition()
    scope = nurseryio.CancelScope()
    record = []

    async def wait() -> None:
        with scope:
            async with condition:
                try:
                    await condition.wait()
                finally:
                    record.append("has the lock")
        record.append("after the scope")

    for scope_too in (False, True):
        record.clear()
        scope = nurseryio.CancelScope()
        task = asyncio.create_task(wait())
        await wait_all_tasks_blocked()
        async with condition:
            if scope_too:
                scope.cancel()
                await wait_all_tasks_blocked()
            task.cancel("first")
            await wait_all_tasks_blocked()
            task.cancel("second")
            await wait_all_tasks_blocked()
            assert record == []
        # Code that cancels by asyncio's means recognises its own message.
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        if sys.version_info >= (3, 11):
            assert caught.value.args == ("second",)
        assert record == ["has the lock"]
        assert not condition.locked()


async def test_a_task_that_was_notified_and_then_cancelled_is_cancelled() -> None:
    condition = Condition()
    scope = nurseryio.CancelScope()

    async def wait() -> None:
        with scope:
            async with condition:
                await condition.wait()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        async with condition:
            condition.notify()
            scope.cancel()
    assert scope.cancelled_caught


async def test_a_condition_wait_that_fails_on_waking_reacquires_the_lock_only_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    condition = Condition()

    async def fails(task: Task, queue: Any, entry: Any = None) -> None:
        await park(task, queue, entry)
        raise MemoryError

    async def waiter() -> None:
        async with condition:
            monkeypatch.setattr("nurseryio._sync.condition.park", fails)
            with pytest.raises(MemoryError):
                await condition.wait()
            monkeypatch.undo()
            assert condition._lock._owner is current_task()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(waiter)
        await wait_all_tasks_blocked()
        async with condition:
            condition.notify()
    assert not condition.locked()


async def test_a_condition_wait_whose_lock_is_broken_raises() -> None:
    condition = Condition()

    async def wait() -> None:
        await condition.acquire()
        with pytest.raises(nurseryio.BrokenResourceError, match="exited without releasing"):
            await condition.wait()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()

        async def break_it() -> None:
            await condition.acquire()
            condition.notify()

        nursery.start_soon(break_it)


async def test_under_any_schedule_the_lock_is_held_after_condition_wait(loop_case: Case) -> None:
    async def scenario(schedule: Schedule) -> None:
        condition = Condition()
        inside = 0
        rounds = 0

        async def wait() -> None:
            nonlocal inside
            async with condition:
                while rounds < 3:
                    inside += 1
                    assert inside == 1
                    inside -= 1
                    try:
                        await condition.wait()
                    finally:
                        assert condition.locked()

        async def change() -> None:
            nonlocal rounds
            try:
                while rounds < 3:
                    async with condition:
                        await schedule.pause()
                        rounds += 1
                        condition.notify(schedule.random.choice([1, 2]))
            finally:
                rounds = 3
                native: asyncio.CancelledError | None = None
                with nurseryio.CancelScope(shield=True):
                    while condition.statistics().tasks_waiting:
                        try:
                            async with condition:
                                condition.notify_all()
                        except asyncio.CancelledError as error:
                            native = error  # not shielded; goes on when this is done
                if native is not None:
                    raise native

        await schedule.run(wait, wait, change)
        assert not condition.locked()
        assert condition.statistics().tasks_waiting == 0

    await stress(scenario, loop_case)
