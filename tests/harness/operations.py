"""Operations that wake tasks or change scopes, each tried once in a bad moment and then made well.

A scenario is given a function ``attempt``, which makes an operation where it may fail. It returns
whether the operation was made; if not, the scenario makes it again. In the end everything must be
as if it had been made once: each waiter is awake, no item is lost, the lock has one owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import pytest

import nurseryio
from nurseryio import (
    BrokenResourceError,
    CancelScope,
    Condition,
    Event,
    Lock,
    Semaphore,
    StrictFIFOLock,
    current_time,
    move_on_after,
    open_memory_channel,
    open_nursery,
    sleep_forever,
)
from nurseryio.lowlevel import (
    Abort,
    ParkingLot,
    UnboundedQueue,
    checkpoint,
    current_task,
    reschedule,
    wait_task_rescheduled,
)

from .core import settle, validate

Attempt = Callable[[Callable[[], Any]], bool]
Scenario = Callable[[Attempt], Awaitable[None]]
SCENARIOS: list[Scenario] = []


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


# -- operations that wake tasks ---------------------------------------------------------


class Waiters:
    """Tasks that wait, and what each of them got."""

    def __init__(self, number: int, wait: Callable[[], Awaitable[Any]]) -> None:
        self.got: list[Any] = []
        self.wait = wait
        self.number = number

    async def one(self) -> None:
        try:
            self.got.append(await self.wait())
        except Exception as error:
            self.got.append(type(error))

    async def sleep_in(self, nursery: nurseryio.Nursery) -> None:
        for _ in range(self.number):
            nursery.start_soon(self.one)
        await settle()
        assert self.got == []


@scenario
async def event_set(attempt: Attempt) -> None:
    event = Event()
    waiters = Waiters(3, event.wait)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        if not attempt(event.set):
            event.set()
    assert waiters.got == [None] * 3
    assert event.is_set()
    await event.wait()


@scenario
async def lock_release(attempt: Attempt) -> None:
    await release_of(Lock(), attempt)


@scenario
async def strict_lock_release(attempt: Attempt) -> None:
    await release_of(StrictFIFOLock(), attempt)


async def release_of(lock: Any, attempt: Attempt) -> None:
    holders: list[Any] = []

    async def hold() -> None:
        async with lock:
            holders.append(current_task())
            assert lock.statistics().owner is current_task()
            await checkpoint()

    async with open_nursery() as nursery:
        await lock.acquire()
        for _ in range(3):
            nursery.start_soon(hold)
        await settle()
        attempt(lock.release)
        if lock.statistics().owner is current_task():
            lock.release()
        assert lock.statistics().owner not in (current_task(), None)
    assert len(set(holders)) == 3
    assert not lock.locked()
    assert not current_task()._extra.breakers


@scenario
async def semaphore_release(attempt: Attempt) -> None:
    semaphore = Semaphore(0, max_value=3)
    waiters = Waiters(2, semaphore.acquire)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        if not attempt(semaphore.release):
            semaphore.release()
        await settle()
        assert waiters.got == [None]
        semaphore.release()
    assert waiters.got == [None] * 2
    assert semaphore.value == 0


@scenario
async def limiter_release(attempt: Attempt) -> None:
    limiter = nurseryio.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("body")
    numbers = iter(range(2))
    waiters = Waiters(2, lambda: limiter.acquire_on_behalf_of(next(numbers)))
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        attempt(lambda: limiter.release_on_behalf_of("body"))
        if "body" in limiter.statistics().borrowers:
            limiter.release_on_behalf_of("body")
        await settle()
        assert waiters.got == [None]
        assert limiter.statistics().borrowers == [0]
        limiter.release_on_behalf_of(0)
    assert waiters.got == [None] * 2
    assert limiter.statistics().borrowers == [1]


@scenario
async def limiter_total_tokens(attempt: Attempt) -> None:
    limiter = nurseryio.CapacityLimiter(0)
    numbers = iter(range(3))
    waiters = Waiters(3, lambda: limiter.acquire_on_behalf_of(next(numbers)))

    def more() -> None:
        limiter.total_tokens = 2

    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        if not attempt(more):
            more()
        await settle()
        assert waiters.got == [None] * 2
        assert limiter.statistics().borrowers == [0, 1]
        limiter.total_tokens = inf
    assert limiter.statistics().borrowers == [0, 1, 2]


@scenario
async def condition_notify(attempt: Attempt) -> None:
    condition = Condition()
    got: list[int] = []

    async def wait(number: int) -> None:
        async with condition:
            await condition.wait()
            got.append(number)
            assert condition.statistics().lock_statistics.owner is current_task()

    async with open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
        await settle()
        async with condition:
            if not attempt(lambda: condition.notify(2)):
                moved = condition.statistics().lock_statistics.tasks_waiting
                condition.notify(2 - moved)
        await settle()
        assert got == [0, 1]
        async with condition:
            condition.notify_all()
    assert got == [0, 1, 2]


@scenario
async def condition_notify_all(attempt: Attempt) -> None:
    condition = Condition()

    async def wait() -> str:
        async with condition:
            await condition.wait()
        return "notified"

    waiters = Waiters(3, wait)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        async with condition:
            if not attempt(condition.notify_all):
                condition.notify_all()
    assert waiters.got == ["notified"] * 3
    assert not condition.locked()


@scenario
async def lot_unpark(attempt: Attempt) -> None:
    lot = ParkingLot()
    waiters = Waiters(3, lot.park)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        attempt(lambda: lot.unpark(count=2))
        lot.unpark(count=len(lot) - 1)
        await settle()
        assert waiters.got == [None] * 2
        lot.unpark()
    assert waiters.got == [None] * 3


@scenario
async def lot_unpark_all(attempt: Attempt) -> None:
    lot = ParkingLot()
    waiters = Waiters(3, lot.park)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        if not attempt(lot.unpark_all):
            lot.unpark_all()
    assert waiters.got == [None] * 3
    assert len(lot) == 0


@scenario
async def lot_repark(attempt: Attempt) -> None:
    lot, other = ParkingLot(), ParkingLot()
    waiters = Waiters(3, lot.park)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        attempt(lambda: lot.repark(other, count=2))
        assert len(lot) + len(other) == 3
        lot.repark(other, count=len(lot) - 1)
        assert (len(lot), len(other)) == (1, 2)
        # A cancelled task leaves the lot in which it is.
        (first, *_rest) = other._parked
        first.parent_nursery.cancel_scope.cancel()
    assert (len(lot), len(other)) == (0, 0)
    assert waiters.got == []


@scenario
async def lot_break(attempt: Attempt) -> None:
    lot = ParkingLot()
    waiters = Waiters(3, lot.park)
    task = current_task()
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        if not attempt(lambda: lot.break_lot(task)):
            lot.break_lot(task)
    assert waiters.got == [BrokenResourceError] * 3
    with pytest.raises(BrokenResourceError):
        await lot.park()


@scenario
async def trap_reschedule(attempt: Attempt) -> None:
    waiters = Waiters(1, lambda: wait_task_rescheduled(lambda _raise_cancel: Abort.SUCCEEDED))
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        (task,) = nursery.child_tasks
        if not attempt(lambda: reschedule(task)):
            reschedule(task)
    assert waiters.got == [None]


# -- channels: items are conserved --------------------------------------------------------


@scenario
async def send_to_a_receiver(attempt: Attempt) -> None:
    send, receive = open_memory_channel[int](0)
    waiters = Waiters(2, receive.receive)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        if not attempt(lambda: send.send_nowait(1)):
            send.send_nowait(1)
        send.send_nowait(2)
    assert waiters.got == [1, 2]
    assert receive.statistics().tasks_waiting_receive == 0


@scenario
async def send_to_the_buffer(attempt: Attempt) -> None:
    send, receive = open_memory_channel[int](3)
    if not attempt(lambda: send.send_nowait(1)):
        send.send_nowait(1)
    send.send_nowait(2)
    assert [receive.receive_nowait() for _ in range(2)] == [1, 2]
    assert receive.statistics().current_buffer_used == 0


@scenario
async def receive_from_a_sender(attempt: Attempt) -> None:
    send, receive = open_memory_channel[int](1)
    send.send_nowait(0)
    numbers = iter([1, 2])
    waiters = Waiters(2, lambda: send.send(next(numbers)))
    got: list[int] = []
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        attempt(lambda: got.append(receive.receive_nowait()))
        while len(got) < 3:
            got.append(await receive.receive())
    assert got == [0, 1, 2]
    assert waiters.got == [None] * 2
    assert receive.statistics().current_buffer_used == 0


@scenario
async def close_the_sending_end(attempt: Attempt) -> None:
    send, receive = open_memory_channel[int](0)
    waiters = Waiters(3, receive.receive)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        if not attempt(send.close):
            send.close()
    assert waiters.got == [nurseryio.EndOfChannel] * 3
    assert receive.statistics().open_send_channels == 0
    with pytest.raises(nurseryio.EndOfChannel):
        receive.receive_nowait()


@scenario
async def close_a_sending_end_with_senders(attempt: Attempt) -> None:
    send, receive = open_memory_channel[int](0)
    clone = send.clone()
    waiters = Waiters(2, lambda: send.send(1))
    others = Waiters(1, lambda: clone.send(2))
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        await others.sleep_in(nursery)
        if not attempt(send.close):
            send.close()
        await settle()
        assert waiters.got == [nurseryio.ClosedResourceError] * 2
        assert others.got == []
        assert await receive.receive() == 2
    assert others.got == [None]
    assert receive.statistics().open_send_channels == 1


@scenario
async def close_the_receiving_end(attempt: Attempt) -> None:
    send, receive = open_memory_channel[int](0)
    waiters = Waiters(3, lambda: send.send(1))
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        if not attempt(receive.close):
            receive.close()
    assert waiters.got == [BrokenResourceError] * 3
    assert send.statistics().open_receive_channels == 0


@scenario
async def close_a_receiving_end_with_receivers(attempt: Attempt) -> None:
    send, receive = open_memory_channel[int](0)
    clone = receive.clone()
    waiters = Waiters(2, receive.receive)
    others = Waiters(1, clone.receive)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        await others.sleep_in(nursery)
        if not attempt(receive.close):
            receive.close()
        await settle()
        assert waiters.got == [nurseryio.ClosedResourceError] * 2
        assert others.got == []
        await send.send(2)
    assert others.got == [2]


@scenario
async def put_into_a_queue(attempt: Attempt) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        queue: UnboundedQueue[int] = UnboundedQueue()
    waiters = Waiters(1, queue.get_batch)
    async with open_nursery() as nursery:
        await waiters.sleep_in(nursery)
        if not attempt(lambda: queue.put_nowait(1)):
            queue.put_nowait(1)
        queue.put_nowait(2)
    assert waiters.got == [[1, 2]]
    assert queue.empty()
    if not attempt(lambda: queue.put_nowait(3)):
        queue.put_nowait(3)
    assert await queue.get_batch() == [3]


# -- scopes and nurseries ---------------------------------------------------------------------


class Sleepers:
    """Tasks in all kinds of waits inside one scope."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.lot = ParkingLot()

    async def one(self, how: str) -> None:
        waits: dict[str, Callable[[], Awaitable[Any]]] = {
            "ours": sleep_forever,
            "foreign": asyncio.get_running_loop().create_future,  # type: ignore[dict-item]
            "parked": self.lot.park,
            "shielded": sleep_forever,
            "nested": self.nested,
        }
        try:
            with CancelScope(shield=how == "shielded") as self.inner:
                await waits[how]()
        finally:
            self.ended.append(how)

    async def nested(self) -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(sleep_forever)
            with move_on_after(100):
                await sleep_forever()

    async def sleep_in(self, nursery: nurseryio.Nursery, *hows: str) -> None:
        for how in hows:
            nursery.start_soon(self.one, how)
        await settle()
        assert self.ended == []


ALL_WAITS = ("ours", "foreign", "parked", "nested")


@scenario
async def scope_cancel(attempt: Attempt) -> None:
    sleepers = Sleepers()
    with CancelScope() as scope:
        async with open_nursery() as nursery:
            await sleepers.sleep_in(nursery, *ALL_WAITS)
            if not attempt(scope.cancel):
                scope.cancel()
    assert sorted(sleepers.ended) == sorted(ALL_WAITS)
    assert scope.cancelled_caught


@scenario
async def nursery_scope_cancel(attempt: Attempt) -> None:
    sleepers = Sleepers()
    async with open_nursery() as nursery:
        await sleepers.sleep_in(nursery, *ALL_WAITS)
        if not attempt(nursery.cancel_scope.cancel):
            nursery.cancel_scope.cancel()
    assert sorted(sleepers.ended) == sorted(ALL_WAITS)
    assert nursery.cancel_scope.cancelled_caught


async def assigning(attempt: Attempt, name: str, value: Callable[[], float]) -> None:
    sleepers = Sleepers()
    with CancelScope() as scope:
        scope.deadline = current_time() + 1000
        async with open_nursery() as nursery:
            await sleepers.sleep_in(nursery, *ALL_WAITS)
            when = value()
            if not attempt(lambda: setattr(scope, name, when)):
                setattr(scope, name, when)
    assert sorted(sleepers.ended) == sorted(ALL_WAITS)
    assert scope.cancelled_caught


@scenario
async def scope_deadline_in_the_past(attempt: Attempt) -> None:
    await assigning(attempt, "deadline", lambda: current_time() - 1)


@scenario
async def scope_deadline_in_the_future(attempt: Attempt) -> None:
    await assigning(attempt, "deadline", lambda: current_time() + 0.001)


@scenario
async def scope_relative_deadline(attempt: Attempt) -> None:
    await assigning(attempt, "relative_deadline", lambda: 0.001)


@scenario
async def scope_deadline_taken_away(attempt: Attempt) -> None:
    with move_on_after(100) as scope:

        def never() -> None:
            scope.deadline = inf

        if not attempt(never):
            never()
        assert scope.deadline == inf
        validate()
    assert not scope.cancel_called


@scenario
async def scope_shield_lowered(attempt: Attempt) -> None:
    sleepers = Sleepers()
    with CancelScope() as scope:
        async with open_nursery() as nursery:
            await sleepers.sleep_in(nursery, "shielded")
            scope.cancel()
            with CancelScope(shield=True):
                await settle()

            def lower() -> None:
                sleepers.inner.shield = False

            assert sleepers.ended == []
            if not attempt(lower):
                lower()
            assert sleepers.inner.shield is False
    assert sleepers.ended == ["shielded"]


@scenario
async def scope_shield_raised(attempt: Attempt) -> None:
    sleepers = Sleepers()
    with CancelScope() as scope:
        async with open_nursery() as nursery:
            await sleepers.sleep_in(nursery, "ours")

            def put_up() -> None:
                sleepers.inner.shield = True

            if not attempt(put_up):
                put_up()
            assert sleepers.inner.shield is True
            scope.cancel()
            with CancelScope(shield=True):
                await settle()
            assert sleepers.ended == []
            sleepers.inner.cancel()
    assert sleepers.ended == ["ours"]


@scenario
async def enter_and_leave_a_scope(attempt: Attempt) -> None:
    task = current_task()
    before = task.scope

    def block() -> None:
        with move_on_after(100):
            pass

    attempt(block)
    assert task.scope is before
    await checkpoint()
    assert len(task._state.deadlines) == 0 or task._state.deadlines.next() < current_time() + 50
    with move_on_after(0.001) as scope:
        await sleep_forever()
    assert scope.cancelled_caught


@scenario
async def leave_a_cancelled_scope(attempt: Attempt) -> None:
    task = current_task()
    before = task.scope

    def block() -> None:
        with CancelScope() as scope:
            scope.cancel()

    attempt(block)
    assert task.scope is before
    await checkpoint()
    assert not task.scope._effective
    assert getattr(asyncio.current_task(), "cancelling", lambda: 0)() == 0


@scenario
async def nursery_start_soon(attempt: Attempt) -> None:
    ran: list[int] = []

    async def child(number: int) -> None:
        await checkpoint()
        ran.append(number)

    async with open_nursery() as nursery:
        if not attempt(lambda: nursery.start_soon(child, 1)):
            assert not nursery.child_tasks
            nursery.start_soon(child, 1)
        if not attempt(lambda: nursery.start_soon(child, 2, name="named")):
            nursery.start_soon(child, 2)
        assert len(nursery.child_tasks) in (2, 3)
    assert sorted(ran) == [1, 2]


@scenario
async def start_soon_in_a_cancelled_nursery(attempt: Attempt) -> None:
    began: list[int] = []

    async def child() -> None:
        began.append(1)
        await checkpoint()
        began.append(2)

    async with open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        if not attempt(lambda: nursery.start_soon(child)):
            nursery.start_soon(child)
    assert began == [1]


@scenario
async def status_started(attempt: Attempt) -> None:
    ready = Event()
    status: list[Any] = []
    ended: list[str] = []

    async def child(*, task_status: Any) -> None:
        status.append(task_status)
        try:
            await sleep_forever()
        finally:
            ended.append("child")

    async def starter() -> None:
        ended.append(await outer.start(child))
        ready.set()

    async with open_nursery() as outer:
        async with open_nursery() as nursery:
            nursery.start_soon(starter)
            await settle()
            if not attempt(lambda: status[0].started("value")):
                with contextlib.suppress(RuntimeError):  # if it has been called already
                    status[0].started("value")
            await ready.wait()
        assert ended == ["value"]
        assert len(outer.child_tasks) == 1
        outer.cancel_scope.cancel()
    assert ended == ["value", "child"]
