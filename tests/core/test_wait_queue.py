"""The short way to sleep and to yield keeps the contract of the general one."""

# Covered below 95 %: waking that fails half-way, and the way back, are in test_injection.py and
# test_recursion.py; tasks of another loop in test_wrong_thread.py.

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from typing import Any

import pytest

import nurseryio
from nurseryio._base.outcome import Value
from nurseryio._core.task import MAX_YIELD_CREDIT
from nurseryio._core.wait_queue import maybe_yield, move, park
from nurseryio.lowlevel import Task, current_task, reschedule
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked


class Error:
    """An outcome of another class: only ``unwrap`` is needed."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def unwrap(self) -> None:
        raise self.error


class Sleepers:
    """Tasks in one queue, and what became of them."""

    def __init__(self) -> None:
        self.queue: OrderedDict[Task, None] = OrderedDict()
        self.ends: list[Any] = []

    async def sleep(self) -> None:
        task = current_task()
        self.queue[task] = None
        try:
            self.ends.append(await park(task, self.queue))
        except BaseException as error:
            self.ends.append(type(error))
            raise
        finally:
            assert task._park is task._abort is task._extra.outcome is None

    def wake(self, outcome: Any = None) -> None:
        task, _ = self.queue.popitem(last=False)
        reschedule(task, outcome)


async def test_a_parked_task_wakes_with_the_value_of_unpark() -> None:
    sleepers = Sleepers()
    for outcome in (None, Value(5), Error(KeyError())):
        task = asyncio.create_task(sleepers.sleep())
        await wait_all_tasks_blocked()
        sleepers.wake(outcome)
        await asyncio.gather(task, return_exceptions=True)
    assert sleepers.ends == [None, 5, KeyError]


async def test_park_and_maybe_yield_are_schedule_points() -> None:
    queue: dict[Task, None] = {current_task(): None}
    asyncio.get_running_loop().call_soon(reschedule, current_task())
    with assert_checkpoints():
        await park(current_task(), queue)
    turns = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await maybe_yield(current_task())
    assert turns == [1]


async def test_park_in_a_cancelled_scope_raises_and_leaves_the_wait_queue() -> None:
    sleepers = Sleepers()
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await sleepers.sleep()
    assert scope.cancelled_caught
    assert sleepers.ends == [nurseryio.Cancelled]
    assert not sleepers.queue


async def test_a_scopes_cancel_removes_the_task_from_the_wait_queue_at_once() -> None:
    sleepers = Sleepers()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(sleepers.sleep)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert not sleepers.queue
    assert sleepers.ends == [nurseryio.Cancelled]


async def test_a_native_cancel_removes_the_task_from_the_wait_queue_when_it_wakes() -> None:
    sleepers = Sleepers()
    task = asyncio.create_task(sleepers.sleep())
    await wait_all_tasks_blocked()
    task.cancel()
    assert sleepers.queue
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not sleepers.queue


@pytest.mark.parametrize("woken_first", [True, False])
async def test_a_value_of_unpark_wins_over_a_native_cancel_which_is_raised_next(
    woken_first: bool,
) -> None:
    sleepers = Sleepers()

    async def sleep_twice() -> None:
        await sleepers.sleep()
        await asyncio.sleep(0)
        raise AssertionError("not reached")

    task = asyncio.create_task(sleep_twice())
    await wait_all_tasks_blocked()
    if woken_first:
        sleepers.wake(Value("item"))
    task.cancel()
    if not woken_first:
        sleepers.wake(Value("item"))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sleepers.ends == ["item"]


async def test_a_cancelled_task_that_was_moved_leaves_its_present_wait_queue() -> None:
    for native in (True, False):
        sleepers = Sleepers()
        scope = nurseryio.CancelScope()

        async def sleep(
            sleepers: Sleepers = sleepers, scope: nurseryio.CancelScope = scope
        ) -> None:
            with scope:
                await sleepers.sleep()

        task = asyncio.create_task(sleep())
        await wait_all_tasks_blocked()
        ((record, _),) = sleepers.queue.items()
        other = {record: None}
        sleepers.queue.clear()
        move(record, other)
        if native:
            task.cancel()
        else:
            scope.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert other == {}
        assert sleepers.ends == [nurseryio.Cancelled]


async def test_a_shielded_parked_task_sleeps_on_and_is_cancelled_after_the_shield() -> None:
    sleepers = Sleepers()
    async with nurseryio.open_nursery() as nursery:

        async def sleep_shielded() -> None:
            with nurseryio.CancelScope(shield=True):
                await sleepers.sleep()
            await nurseryio.sleep_forever()

        nursery.start_soon(sleep_shielded)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        await nurseryio.lowlevel.cancel_shielded_checkpoint()
        assert len(sleepers.queue) == 1
        sleepers.wake()
    assert sleepers.ends == [None]


async def test_a_task_woken_and_cancelled_is_cancelled_at_its_next_asyncio_await() -> None:
    sleepers = Sleepers()
    async with nurseryio.open_nursery() as nursery:

        async def sleep_then_wait() -> None:
            await sleepers.sleep()
            await asyncio.get_running_loop().create_future()

        nursery.start_soon(sleep_then_wait)
        await wait_all_tasks_blocked()
        sleepers.wake()
        nursery.cancel_scope.cancel()
    assert sleepers.ends == [None]


async def test_maybe_yield_defers_cancellations_until_the_next_checkpoint() -> None:
    record = []

    async def operate(scope: nurseryio.CancelScope) -> None:
        with scope:
            await maybe_yield(current_task())
            record.append("completed")
            await asyncio.sleep(0)
            raise AssertionError("not reached")

    for native in (True, False):
        scope = nurseryio.CancelScope()
        task = asyncio.create_task(operate(scope))
        while scope._task is None:
            await asyncio.sleep(0)
        if native:
            task.cancel()
        else:
            scope.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled() is native
    assert record == ["completed"] * 2


async def test_fairness_ready_tasks_run_before_an_operation_that_does_not_wait_returns() -> None:
    loop = asyncio.get_running_loop()
    task = current_task()
    for _ in range(40):
        ran: list[bool] = []
        loop.call_soon(ran.append, True)
        await maybe_yield(task)
        assert ran == [True]


async def test_fairness_the_loop_polls_for_io_within_sixteen_operations_that_do_not_wait() -> None:
    loop = asyncio.get_running_loop()
    lock = nurseryio.Lock()
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        heard: list[bytes] = []
        loop.add_reader(reader, lambda: heard.append(reader.recv(10)))
        try:
            for _ in range(3):
                heard.clear()
                writer.send(b"news")
                operations = 0
                while not heard:
                    async with lock:
                        operations += 1
                    # One more callback: the loop runs it after this task's step.
                    assert operations <= MAX_YIELD_CREDIT + 2
        finally:
            loop.remove_reader(reader)


async def test_fairness_under_assert_checkpoints_every_operation_yields() -> None:
    lock = nurseryio.Lock()
    for _ in range(MAX_YIELD_CREDIT + 2):
        with assert_checkpoints():
            await lock.acquire()
        lock.release()
