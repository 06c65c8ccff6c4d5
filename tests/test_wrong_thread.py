"""A call from another thread or loop that wakes a task or changes a scope raises RuntimeError."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from harness import matrix, operations
from harness.core import settle, validate
from harness.operations import Scenario

import nurseryio
from nurseryio import (
    CancelScope,
    Condition,
    Event,
    Lock,
    Semaphore,
    fail_after,
    open_memory_channel,
    open_nursery,
    sleep_forever,
)
from nurseryio.lowlevel import checkpoint

pytestmark = pytest.mark.limit(20)


# -- where a call comes from ----------------------------------------------------------


def in_a_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def in_a_thread_with_a_loop(call: Callable[[], None]) -> None:
    async def main() -> None:
        call()

    in_a_thread(lambda: asyncio.run(main()))


def in_a_callback_of_another_loop(call: Callable[[], None]) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(call)
        await asyncio.sleep(0)

    in_a_thread(lambda: asyncio.run(main()))


def in_a_run_of_ours(call: Callable[[], None]) -> None:
    async def main() -> None:
        call()

    in_a_thread(lambda: nurseryio.run(main))


PLACES = [
    in_a_thread,
    in_a_thread_with_a_loop,
    in_a_callback_of_another_loop,
    in_a_run_of_ours,
]
place = pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)


class Elsewhere:
    """Makes an operation somewhere else, and notes how it went."""

    def __init__(self, place: Callable[[Callable[[], None]], None]) -> None:
        self.place = place
        self.errors: list[BaseException] = []

    def __call__(self, operation: Callable[[], Any]) -> bool:
        made: list[bool] = []

        def call() -> None:
            try:
                operation()
                made.append(True)
            except BaseException as error:
                self.errors.append(error)

        self.place(call)
        validate()
        return bool(made)


# Operations that need the right task, not only the right loop, see below; these wake no task.
NOT_HERE = {
    "lock_release",
    "strict_lock_release",
    "condition_notify",
    "condition_notify_all",
    "lot_repark",
    "send_to_the_buffer",
    "enter_and_leave_a_scope",
    "leave_a_cancelled_scope",
}
WAKING = [one for one in operations.SCENARIOS if one.__name__ not in NOT_HERE]


@place
@pytest.mark.parametrize("scenario", WAKING, ids=lambda one: one.__name__)
async def test_an_operation_from_another_thread_is_an_error_and_changes_nothing(
    scenario: Scenario, place: Any
) -> None:
    attempt = Elsewhere(place)
    with fail_after(5):
        await scenario(attempt)
    assert attempt.errors
    for error in attempt.errors:
        assert type(error) is RuntimeError
        assert "from_thread.run_sync" in str(error)
        assert "trio_token" in str(error)


@place
async def test_a_call_from_another_thread_leaves_the_state_unchanged(place: Any) -> None:
    event, semaphore, limiter = Event(), Semaphore(0), nurseryio.CapacityLimiter(1)
    send, receive = open_memory_channel[int](0)
    elsewhere = Elsewhere(place)
    limiter.acquire_on_behalf_of_nowait("body")
    with CancelScope() as scope:
        async with open_nursery() as nursery:
            for wait in (event.wait, semaphore.acquire, limiter.acquire, receive.receive):
                nursery.start_soon(wait)
            await settle()
            before = scope.deadline, scope.shield, scope.cancel_called
            calls: list[Callable[[], Any]] = [
                event.set,
                semaphore.release,
                lambda: limiter.release_on_behalf_of("body"),
                lambda: setattr(limiter, "total_tokens", 2),
                lambda: send.send_nowait(1),
                send.close,
                receive.close,
                scope.cancel,
                lambda: setattr(scope, "deadline", 0),
                lambda: setattr(scope, "shield", True),
                nursery.cancel_scope.cancel,
                lambda: nursery.start_soon(checkpoint),
            ]
            for call in calls:
                assert not elsewhere(call)
            assert (scope.deadline, scope.shield, scope.cancel_called) == before
            assert not event.is_set()
            assert semaphore.value == 0
            assert event.statistics().tasks_waiting == 1
            assert semaphore.statistics().tasks_waiting == 1
            assert limiter.statistics().borrowers == ["body"]
            assert limiter.statistics().tasks_waiting == 1
            statistics = receive.statistics()
            assert (statistics.tasks_waiting_receive, statistics.open_send_channels) == (1, 1)
            assert statistics.open_receive_channels == 1
            assert len(nursery.child_tasks) == 4
            await settle()
            assert len(nursery.child_tasks) == 4
            nursery.cancel_scope.cancel()


@place
async def test_locks_and_conditions_cannot_be_released_from_another_thread(place: Any) -> None:
    lock, condition = Lock(), Condition()
    elsewhere = Elsewhere(place)
    async with open_nursery() as nursery:
        await lock.acquire()
        await condition.acquire()
        nursery.start_soon(lock.acquire)
        await settle()
        for call in (lock.release, condition.notify, condition.release):
            assert not elsewhere(call)
        assert {type(error) for error in elsewhere.errors} == {RuntimeError}
        assert lock.statistics().tasks_waiting == 1
        assert lock.locked() and condition.locked()
        lock.release()
        condition.release()
        nursery.cancel_scope.cancel()


@place
async def test_nursery_start_is_refused_in_another_loop(place: Any) -> None:
    elsewhere = Elsewhere(place)

    async def child(*, task_status: Any) -> None:
        raise AssertionError

    def begin() -> None:
        coro = nursery.start(child)
        try:
            coro.send(None)
        finally:
            coro.close()

    async with open_nursery() as nursery:
        assert not elsewhere(begin)
        assert type(elsewhere.errors[0]) is RuntimeError
        assert not nursery.child_tasks


@place
async def test_operations_that_wake_no_task_work_in_every_thread(place: Any) -> None:
    elsewhere = Elsewhere(place)
    event, semaphore, scope = Event(), Semaphore(0), CancelScope()
    send, receive = open_memory_channel[int](1)
    for call in (event.set, semaphore.release, scope.cancel, lambda: send.send_nowait(1)):
        assert elsewhere(call)
    assert event.is_set() and semaphore.value == 1 and scope.cancel_called
    assert await receive.receive() == 1
    assert elsewhere(send.close) and elsewhere(receive.close)


async def test_from_thread_run_sync_works_as_the_wrong_thread_error_says() -> None:
    event = Event()
    token = nurseryio.lowlevel.current_trio_token()

    def from_thread() -> None:
        nurseryio.from_thread.run_sync(event.set, trio_token=token)

    async with open_nursery() as nursery:
        nursery.start_soon(event.wait)
        await settle()
        await asyncio.get_running_loop().run_in_executor(None, from_thread)
    assert event.is_set()


# -- a loop that does not run, or is closed ------------------------------------------------


def loop_with_waiters(kind: str) -> tuple[Any, Any, dict[str, Any]]:
    """A loop that has been stopped while tasks wait on it."""
    loop = matrix.new_loop(kind)
    things: dict[str, Any] = {}

    async def host() -> None:
        event, semaphore = Event(), Semaphore(0)
        send, receive = open_memory_channel[int](0)
        with CancelScope() as scope:
            async with open_nursery() as nursery:
                for wait in (event.wait, semaphore.acquire, receive.receive, sleep_forever):
                    nursery.start_soon(wait)
                things.update(
                    event=event, semaphore=semaphore, send=send, scope=scope, nursery=nursery
                )
                await settle()
                loop.stop()

    task = loop.create_task(host())
    loop.run_forever()
    return loop, task, things


KINDS = [kind for kind in ("stock", "uvloop") if kind in matrix.KINDS]


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_while_the_loop_does_not_run_any_thread_may_call(kind: str, thread: bool) -> None:
    loop, task, things = loop_with_waiters(kind)
    errors: list[BaseException] = []

    def calls() -> None:
        try:
            things["event"].set()
            things["semaphore"].release()
            things["send"].send_nowait(1)
            things["scope"].deadline = 0
            things["scope"].cancel()
        except BaseException as error:
            errors.append(error)

    try:
        in_a_thread(calls) if thread else calls()
        assert errors == []
        loop.run_until_complete(asyncio.wait_for(task, 5))
    finally:
        loop.close()
    assert things["scope"].cancelled_caught
    assert things["event"].is_set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_child_cannot_be_started_while_the_loop_does_not_run(kind: str) -> None:
    loop, task, things = loop_with_waiters(kind)
    try:
        with pytest.raises(RuntimeError, match="no event loop is running"):
            things["nursery"].start_soon(checkpoint)
        things["scope"].cancel()
        loop.run_until_complete(asyncio.wait_for(task, 5))
    finally:
        loop.close()


@pytest.mark.parametrize("kind", KINDS)
def test_calls_on_objects_of_a_closed_loop_are_silent(kind: str, loop_errors: list[str]) -> None:
    loop, task, things = loop_with_waiters(kind)
    loop.close()
    in_a_thread(things["event"].set)
    for call in (
        things["event"].set,
        things["semaphore"].release,
        lambda: things["send"].send_nowait(1),
        things["send"].close,
        lambda: setattr(things["scope"], "shield", True),
        things["scope"].cancel,
        things["nursery"].cancel_scope.cancel,
    ):
        call()
    assert things["event"].is_set()
    assert not task.done()


# -- waiting where a task of another loop waits -----------------------------------------


def waits_for_event() -> Any:
    event = Event()
    return event.wait, event.set


def waits_for_lock() -> Any:
    lock = Lock()
    lock.acquire_nowait()
    return lock.acquire, lock.release


def waits_for_channel() -> Any:
    sending, receiving = open_memory_channel[int](0)
    return receiving.receive, lambda: sending.send_nowait(1)


def waits_for_semaphore() -> Any:
    semaphore = Semaphore(0)
    return semaphore.acquire, semaphore.release


@pytest.mark.parametrize(
    "make", [waits_for_event, waits_for_lock, waits_for_channel, waits_for_semaphore]
)
async def test_a_wait_beside_a_task_of_another_loop_is_an_error_and_changes_nothing(
    make: Callable[[], Any],
) -> None:
    wait, wake = make()
    errors = []

    async def stray() -> None:
        with pytest.raises(RuntimeError, match="a task of another event loop") as caught:
            await wait()
        errors.append(caught.value)

    async with open_nursery() as nursery:
        nursery.start_soon(wait)
        await settle()
        in_a_thread(lambda: asyncio.run(stray()))
        wake()
    assert len(errors) == 1
