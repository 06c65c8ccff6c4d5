"""One task at a time, in the order of arrival, and only the owner may release."""

# Covered below 95 %: a lock that is granted while something fails is in test_injection.py.

from __future__ import annotations

import asyncio
import weakref

import pytest
from harness.late_errors import LateFuture, OutOfTime
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio import Condition, Lock, StrictFIFOLock
from nurseryio._checks.schedules import Schedule
from nurseryio._core import wait_queue
from nurseryio._nursery.compiled import replaced
from nurseryio.lowlevel import ParkingLot, Task, current_task
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked

LockClass = type[Lock] | type[StrictFIFOLock]

both_kinds = pytest.mark.parametrize("kind", [Lock, StrictFIFOLock], ids=lambda cls: cls.__name__)


@both_kinds
async def test_a_lock_is_held_inside_its_block(kind: LockClass) -> None:
    lock = kind()
    assert not lock.locked()
    assert lock.statistics().owner is None
    with assert_checkpoints():
        async with lock:
            assert lock.locked()
            assert lock.statistics().locked
            assert lock.statistics().owner is current_task()
            assert kind.__name__ in repr(lock)
            assert repr(current_task()) in repr(lock)
    assert not lock.locked()
    assert f"{kind.__name__} at" in repr(lock)
    assert "unlocked" in repr(lock)


@both_kinds
async def test_acquiring_a_free_lock_is_a_checkpoint(kind: LockClass) -> None:
    lock = kind()
    with assert_checkpoints():
        await lock.acquire()
    lock.release()
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await lock.acquire()
    assert scope.cancelled_caught
    assert not lock.locked()


@both_kinds
async def test_a_lock_is_released_after_an_error(kind: LockClass) -> None:
    lock = kind()
    with pytest.raises(ZeroDivisionError):
        async with lock:
            raise ZeroDivisionError
    assert not lock.locked()


@both_kinds
async def test_fairness_tasks_acquire_the_lock_in_fifo_order(kind: LockClass) -> None:
    lock = kind()
    order = []

    async def work(name: int) -> None:
        for _ in range(3):
            async with lock:
                order.append(name)
                await nurseryio.lowlevel.checkpoint()

    async with nurseryio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(work, name)
    assert order == [0, 1, 2, 3] * 3


@both_kinds
async def test_fairness_a_released_lock_is_handed_to_the_next_waiter_at_once(
    kind: LockClass,
) -> None:
    lock = kind()
    await lock.acquire()
    async with nurseryio.open_nursery() as nursery:

        async def work() -> None:
            async with lock:
                pass

        nursery.start_soon(work)
        await wait_all_tasks_blocked()
        assert lock.statistics().tasks_waiting == 1
        lock.release()
        assert lock.statistics().owner in nursery.child_tasks
        assert lock.statistics().tasks_waiting == 0
        with pytest.raises(nurseryio.WouldBlock):
            lock.acquire_nowait()


@both_kinds
async def test_acquiring_twice_and_releasing_without_holding_the_lock_are_errors(
    kind: LockClass,
) -> None:
    lock = kind()
    with pytest.raises(RuntimeError, match="don't own"):
        lock.release()
    lock.acquire_nowait()
    with pytest.raises(RuntimeError, match="already held"):
        lock.acquire_nowait()
    with pytest.raises(RuntimeError, match="already held"):
        await lock.acquire()

    async def intrude() -> None:
        with pytest.raises(nurseryio.WouldBlock):
            lock.acquire_nowait()
        with pytest.raises(RuntimeError, match="don't own"):
            lock.release()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(intrude)
    lock.release()


@both_kinds
def test_locks_are_final_and_weakly_referable(kind: LockClass) -> None:
    lock = kind()
    assert weakref.ref(lock)() is lock
    with pytest.raises(TypeError, match="does not support subclassing"):
        type("Mine", (kind,), {})


async def test_a_cancelled_waiter_never_takes_the_lock() -> None:
    lock = Lock()
    await lock.acquire()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(lock.acquire)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert lock.statistics().tasks_waiting == 0
        lock.release()
        assert not lock.locked()


# -- owners that end ------------------------------------------------------------


async def test_acquiring_a_lock_whose_owner_has_ended_raises_broken_resource_error() -> None:
    lock = Lock()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(lock.acquire)
        await wait_all_tasks_blocked()
    owner = lock.statistics().owner
    with pytest.raises(nurseryio.BrokenResourceError) as caught:
        await lock.acquire()
    assert str(caught.value) == f"Owner of this lock exited without releasing: {owner}"
    assert caught.value.__cause__ is None
    assert lock.locked()


async def test_waiters_of_a_lock_whose_owner_ends_get_broken_resource_error() -> None:
    lock = Lock()
    failed = []

    async def wait() -> None:
        with pytest.raises(nurseryio.BrokenResourceError, match="exited without releasing"):
            await lock.acquire()
        failed.append(1)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(lock.acquire)
        nursery.start_soon(wait)
        nursery.start_soon(wait)
    assert failed == [1, 1]


async def test_an_asyncio_task_that_ends_as_owner_breaks_the_lock_too() -> None:
    lock = Lock()

    async def take_and_end() -> None:
        await lock.acquire()

    await asyncio.create_task(take_and_end())
    await asyncio.sleep(0)
    with pytest.raises(nurseryio.BrokenResourceError):
        await lock.acquire()


async def test_a_task_that_has_handed_the_lock_on_may_end() -> None:
    lock = Lock()

    async def take_turns() -> None:
        async with lock:
            await nurseryio.lowlevel.checkpoint()

    async with nurseryio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(take_turns)
    async with lock:
        pass


@pytest.mark.parametrize("kind", [Lock, StrictFIFOLock, Condition])
async def test_a_lock_is_released_even_if_waking_the_next_waiter_fails(
    kind: type[Lock] | type[Condition], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = kind()

    def wake_first(parked: object) -> None:
        monkeypatch.undo()
        raise MemoryError

    async def second() -> None:
        async with lock:
            order.append("second")

    order: list[str] = []
    async with nurseryio.open_nursery() as nursery:
        with pytest.raises(MemoryError):
            async with lock:
                nursery.start_soon(second)
                await wait_all_tasks_blocked()
                monkeypatch.setattr("nurseryio._sync.lock.wake_first", wake_first)
        order.append("first")
    assert order == ["first", "second"]
    assert not lock.locked()


@both_kinds
async def test_a_new_owner_whose_breaker_registration_fails_can_release_the_lock(
    kind: LockClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = kind()

    def register(task: Task, lot: ParkingLot) -> None:
        monkeypatch.undo()
        raise MemoryError

    async def ends_as_owner() -> None:
        await lock.acquire()

    async with nurseryio.open_nursery() as nursery:
        with pytest.raises(MemoryError):
            async with lock:
                nursery.start_soon(ends_as_owner)
                await wait_all_tasks_blocked()
                monkeypatch.setattr("nurseryio._sync.lock.add_parking_lot_breaker", register)
    with pytest.raises(nurseryio.BrokenResourceError):
        await lock.acquire()


async def test_a_lock_is_handed_over_once_if_waking_the_new_owner_raises_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = Lock()
    inside = 0

    async def user() -> None:
        nonlocal inside
        async with lock:
            inside += 1
            assert inside == 1
            await nurseryio.lowlevel.checkpoint()
            inside -= 1

    async with nurseryio.open_nursery() as nursery:
        with pytest.raises(OutOfTime):
            async with lock:
                # On the compiled build the function in C makes asyncio's own futures alone.
                python_park = replaced.get(wait_queue.park, wait_queue.park)
                monkeypatch.setattr("nurseryio._sync.lock.park", python_park)
                monkeypatch.setattr("nurseryio._core.wait_queue.new_future", LateFuture)
                nursery.start_soon(user)
                await nurseryio.lowlevel.checkpoint()
                await nurseryio.lowlevel.checkpoint()
                monkeypatch.undo()
                nursery.start_soon(user)
                await wait_all_tasks_blocked()
        assert lock.locked()
        async with lock:
            assert inside == 0
    assert not lock.locked()


# -- races ----------------------------------------------------------------------


async def test_a_lock_granted_before_a_native_cancel_is_held_and_released() -> None:
    for released_first in (True, False):
        lock = Lock()
        record = []

        async def work(lock: Lock = lock, record: list[str] = record) -> None:
            async with lock:
                record.append("held")
                await asyncio.sleep(0)
                record.append("not reached")

        await lock.acquire()
        task = asyncio.create_task(work())
        await wait_all_tasks_blocked()
        if released_first:
            lock.release()
        task.cancel()
        if not released_first:
            lock.release()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert record == ["held"]
        assert not lock.locked()


async def test_a_native_cancel_in_the_yield_of_acquire_is_raised_inside_the_block() -> None:
    lock = Lock()
    record = []

    async def work() -> None:
        async with lock:
            record.append("held")
            await asyncio.sleep(0)
            record.append("not reached")

    task = asyncio.create_task(work())
    while not lock.locked():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert record == ["held"]
    assert not lock.locked()


@both_kinds
async def test_under_any_schedule_one_task_holds_the_lock_and_in_the_end_it_is_free(
    loop_case: Case, kind: LockClass
) -> None:
    async def scenario(schedule: Schedule) -> None:
        lock = kind()
        inside = 0

        async def work() -> None:
            nonlocal inside
            for _ in range(3):
                async with lock:
                    inside += 1
                    try:
                        assert inside == 1
                        await schedule.pause()
                    finally:
                        inside -= 1
                await schedule.pause()

        await schedule.run(work, work, work)
        assert not lock.locked()
        assert lock.statistics().tasks_waiting == 0
        await lock.acquire()
        lock.release()

    await stress(scenario, loop_case)


async def test_would_block_of_a_lock_says_that_another_task_holds_it() -> None:
    lock = Lock()
    async with nurseryio.open_nursery() as nursery, lock:

        async def tries() -> None:
            with pytest.raises(nurseryio.WouldBlock, match="another task holds the lock"):
                lock.acquire_nowait()

        nursery.start_soon(tries)
        await wait_all_tasks_blocked()
