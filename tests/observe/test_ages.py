"""Since when a task waits, a lock was held, a scope has been cancelled."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import weakref
from collections.abc import Iterator

import pytest
from harness.core import forever, settle
from harness.forks import in_child

import nurseryio
from nurseryio._observe import ages as module
from nurseryio._observe.ages import Ages
from nurseryio.instruments import TaskInfo, explain, task_tree
from nurseryio.lowlevel import current_task
from nurseryio.testing import wait_all_tasks_blocked


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Shown:
    """The ages of the running loop, on a clock that the test sets."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ages = Ages(asyncio.get_running_loop(), clock)

    def __enter__(self) -> Shown:
        self.ages.show()
        return self

    def __exit__(self, *_details: object) -> None:
        self.ages.hide()

    def look(self, now: float) -> None:
        self.clock.now = now
        self.ages.look()


def info(name: str) -> TaskInfo:
    (found,) = (task for task in task_tree().tasks if task.name == name)
    return found


def waited(name: str) -> float | None:
    wait = info(name).wait
    assert wait is not None
    return wait.waited


async def test_a_wait_is_as_old_as_the_first_look_that_has_found_it(clock: Clock) -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(forever, name="ours")
        asyncio_task = asyncio.create_task(forever(), name="native")
        await wait_all_tasks_blocked()
        with Shown(clock) as shown:
            assert waited("ours") is None
            shown.look(100.0)
            shown.look(103.0)
            clock.now = 104.25
            assert waited("ours") == waited("native") == 4.25
            assert ", for at least 4.2 s" in str(info("ours"))
            assert json.dumps(task_tree().as_dict()).count('"waited": 4.25') == 2
        assert waited("ours") is None
        assert "at least" not in str(info("ours"))
        asyncio_task.cancel()
        nursery.cancel_scope.cancel()


async def test_a_new_wait_of_the_same_task_at_the_same_line_is_not_the_old_one(
    clock: Clock,
) -> None:
    sender, receiver = nurseryio.open_memory_channel[int](0)

    async def consume() -> None:
        async for _ in receiver:
            pass

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(consume, name="consumer")
        await wait_all_tasks_blocked()
        with Shown(clock) as shown:
            shown.look(0.0)
            await sender.send(1)
            await wait_all_tasks_blocked()
            clock.now = 5.0
            assert waited("consumer") is None  # no look has found this wait yet
            shown.look(10.0)
            clock.now = 11.0
            assert waited("consumer") == 1.0
        sender.close()


async def test_a_lock_is_held_for_as_long_as_a_task_has_waited_for_its_owner(
    clock: Clock,
) -> None:
    lock, event = nurseryio.Lock(), nurseryio.Event()

    async def hold() -> None:
        async with lock:
            await event.wait()

    async with nurseryio.open_nursery() as nursery:
        for name in ("first", "second", "third"):
            nursery.start_soon(hold, name=name)
            await wait_all_tasks_blocked()
        with Shown(clock) as shown:
            shown.look(0.0)
            shown.look(10.0)
            wait = info("third").wait
            assert wait is not None
            assert (wait.waited, wait.held) == (10.0, 10.0)
            assert (
                "waits for a lock that 'first' holds (for at least 10.0 s), for at least 10.0 s"
            ) in str(info("third"))
            event.set()
            event = nurseryio.Event()
            await wait_all_tasks_blocked()
            wait = info("third").wait
            assert wait is not None
            assert (wait.waited, wait.held) == (10.0, None)  # no look has found the new owner
            shown.look(11.0)
            clock.now = 13.0
            wait = info("third").wait
            assert wait is not None
            assert (wait.waited, wait.held) == (13.0, 2.0)
        nursery.cancel_scope.cancel()


async def test_a_scope_has_been_cancelled_since_the_first_look_that_has_found_that(
    clock: Clock,
) -> None:
    event = nurseryio.Event()

    async def shielded() -> None:
        with nurseryio.CancelScope(shield=True):
            await event.wait()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(shielded, name="shielded")
        await settle()
        with Shown(clock) as shown:
            shown.look(0.0)
            nursery.cancel_scope.cancel()
            assert explain(nursery).cancelled_for is None
            shown.look(1.0)
            shown.look(5.0)
            clock.now = 7.5
            explanation = explain(nursery)
            assert explanation.cancelled_for == 6.5
            assert ", at least 6.5 s ago" in str(explanation).splitlines()[0]
            scopes = info(current_task().name).scopes
            assert scopes[-1].cancelled_for == 6.5
            assert "at least 6.5 s ago" in str(task_tree())
        event.set()


async def test_the_longest_of_several_ages_is_shown(clock: Clock) -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(forever, name="waits")
        await wait_all_tasks_blocked()
        with Shown(clock) as first, Shown(clock) as second:
            first.look(0.0)
            second.look(4.0)
            clock.now = 10.0
            assert waited("waits") == 10.0
        nursery.cancel_scope.cancel()


async def test_ages_keep_neither_tasks_nor_futures_alive(clock: Clock) -> None:
    future = asyncio.get_running_loop().create_future()

    async def wait(awaited: asyncio.Future[None]) -> None:
        await awaited

    task = asyncio.create_task(wait(future))
    await settle()
    ages = Ages(asyncio.get_running_loop(), clock)
    ages.look()
    assert ages.wait_of(task) is not None
    future.set_result(None)
    await task
    references = weakref.ref(task), weakref.ref(future)
    del task, future
    await settle()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


async def test_ages_leave_out_futures_that_cannot_be_looked_at(clock: Clock) -> None:
    class Odd(asyncio.Future[None]):
        raises = False

        def done(self) -> bool:
            if self.raises:
                raise ValueError
            return super().done()

    future = Odd(loop=asyncio.get_running_loop())

    async def wait() -> None:
        await future

    task = asyncio.create_task(wait(), name="odd")
    other = asyncio.create_task(forever(), name="other")
    await settle()
    ages = Ages(asyncio.get_running_loop(), clock)
    future.raises = True
    ages.look()
    future.raises = False
    assert ages.wait_of(task) is None
    assert ages.wait_of(other) is not None
    future.set_result(None)
    other.cancel()
    await asyncio.wait([task, other])


async def test_ages_of_another_loop_are_not_shown(clock: Clock) -> None:
    other = asyncio.new_event_loop()
    ages = Ages(other, clock)
    ages.show()
    try:
        assert module.waited_for(asyncio.get_running_loop(), asyncio.current_task()) is None
    finally:
        ages.hide()
        other.close()


@pytest.fixture
def own_ages() -> Iterator[Ages]:
    loop = asyncio.new_event_loop()
    ages = Ages(loop)
    ages.show()
    yield ages
    ages.hide()
    loop.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_ages_of_a_process_are_not_in_its_forked_children(own_ages: Ages) -> None:
    def check() -> None:
        assert not module._shown

    assert own_ages in module._shown
    assert in_child(check) == 0
