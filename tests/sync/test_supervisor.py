"""Supervision: children that fail one by one, and are restarted."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable
from typing import Any, Literal

import pytest
from harness.core import gone, without_gc

import nurseryio
from nurseryio import ChildFailure, Event, current_time, open_supervisor, sleep, sleep_forever
from nurseryio.testing import MockClock, Schedule, cancel_at_every_await, wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class Failing:
    """Fails a number of times, after a time, and then returns."""

    def __init__(self, times: float, seconds: float = 1) -> None:
        self.left = times
        self.seconds = seconds
        self.began: list[float] = []

    async def __call__(self, *args: object) -> None:
        self.began.append(current_time())
        await sleep(self.seconds)
        if self.left:
            self.left -= 1
            raise OSError("failed")


def always(
    decision: Literal["restart", "drop", "raise"],
) -> Callable[[ChildFailure], Literal["restart", "drop", "raise"]]:
    return lambda failure: decision


async def test_a_failing_child_is_restarted_and_its_siblings_continue(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    child, sibling = Failing(2), Failing(0, 60)
    with caplog.at_level(logging.ERROR, "nurseryio.supervisor"):
        async with open_supervisor() as group:
            group.start_soon(child, name="child")
            group.start_soon(sibling)
            await sleep(30)
            assert len(group.child_tasks) == 1
    assert len(child.began) == 3
    assert len(sibling.began) == 1
    assert caplog.messages == ["child has failed"] * 2
    assert caplog.records[0].exc_info is not None


async def test_the_pause_before_a_restart_doubles_up_to_its_limit(
    autojump_clock: MockClock,
) -> None:
    child = Failing(5, 0)
    start = current_time()
    async with open_supervisor(always("restart"), max_restarts=9, pause=1, max_pause=5) as group:
        group.start_soon(child)
    assert [when - start for when in child.began] == [0, 1, 3, 7, 12, 17]


async def test_the_pause_begins_again_after_a_child_has_run_long_enough(
    autojump_clock: MockClock,
) -> None:
    child = Failing(3, 10)
    start = current_time()
    async with open_supervisor(always("restart"), within=5, pause=1) as group:
        group.start_soon(child)
    assert [when - start for when in child.began] == [0, 11, 22, 33]


async def test_too_many_restarts_in_a_time_raise_the_error_and_cancel_all(
    autojump_clock: MockClock,
) -> None:
    child = Failing(99, 1)
    with pytest.RaisesGroup(OSError) as caught:
        async with open_supervisor(always("restart"), max_restarts=2, within=10, pause=0) as group:
            group.start_soon(sleep_forever)
            group.start_soon(child, name="child")
    assert len(child.began) == 3
    assert caught.value.exceptions[0].__notes__[0] == (
        "child is not restarted: 2 restarts of all children in 10 seconds are the limit"
    )


async def test_restarts_that_are_longer_ago_do_not_count(autojump_clock: MockClock) -> None:
    child = Failing(9, 6)
    async with open_supervisor(always("restart"), max_restarts=2, within=10) as group:
        group.start_soon(child)
    assert len(child.began) == 10


async def test_the_limit_of_restarts_is_for_all_children_together(
    autojump_clock: MockClock,
) -> None:
    with pytest.RaisesGroup(OSError):
        async with open_supervisor(always("restart"), max_restarts=3, within=10) as group:
            for _ in range(4):
                group.start_soon(Failing(1))


async def test_a_dropped_child_ends_and_its_siblings_continue(autojump_clock: MockClock) -> None:
    child, sibling = Failing(1), Failing(0, 60)
    async with open_supervisor(always("drop")) as group:
        group.start_soon(child)
        group.start_soon(sibling)
        await sleep(30)
        assert group.statistics().dropped == 1
        assert group.statistics().running == 1
    assert len(child.began) == 1


async def test_the_decision_to_raise_is_as_in_any_nursery(autojump_clock: MockClock) -> None:
    with pytest.RaisesGroup(OSError):
        async with open_supervisor(always("raise")) as group:
            group.start_soon(sleep_forever)
            group.start_soon(Failing(1))


async def test_the_handler_gets_the_error_the_name_and_the_number_of_restarts(
    autojump_clock: MockClock,
) -> None:
    failures: list[ChildFailure] = []

    def decide(failure: ChildFailure) -> Literal["restart", "drop"]:
        failures.append(failure)
        return "restart" if failure.restarts < 2 else "drop"

    async with open_supervisor(decide) as group:
        group.start_soon(Failing(99), name="child")
    assert [(f.name, f.restarts, type(f.error)) for f in failures] == [
        ("child", number, OSError) for number in range(3)
    ]


async def test_an_error_of_the_handler_is_raised_with_the_childs_error_as_context(
    autojump_clock: MockClock,
) -> None:
    def breaks(failure: ChildFailure) -> Literal["drop"]:
        raise KeyError("handler")

    with pytest.RaisesGroup(KeyError) as caught:
        async with open_supervisor(breaks) as group:
            group.start_soon(Failing(1))
    assert isinstance(caught.value.exceptions[0].__context__, OSError)


async def test_a_decision_that_does_not_exist_is_an_error(autojump_clock: MockClock) -> None:
    def wrong(failure: ChildFailure) -> Any:
        return None

    with pytest.RaisesGroup(TypeError):
        async with open_supervisor(wrong) as group:
            group.start_soon(Failing(1))


async def test_an_async_error_handler_is_refused_without_a_warning(
    autojump_clock: MockClock,
) -> None:
    async def decide(failure: ChildFailure) -> str:
        raise AssertionError("never awaited")

    with pytest.RaisesGroup(pytest.RaisesExc(TypeError, match="on_error must return")):
        async with open_supervisor(decide) as group:  # type: ignore[arg-type]
            group.start_soon(Failing(1))


async def test_a_scope_that_a_child_has_left_open_does_not_cancel_its_next_run(
    autojump_clock: MockClock,
) -> None:
    open_scopes = []

    async def leaves_a_scope_open() -> None:
        if not open_scopes:
            open_scopes.append(nurseryio.CancelScope(relative_deadline=5))
            open_scopes[0].__enter__()
            raise OSError("failed")
        await sleep(60)
        open_scopes.append(nurseryio.CancelScope())

    failures = []

    def decide(failure: ChildFailure) -> Literal["restart"]:
        failures.append(failure.error)
        return "restart"

    async with open_supervisor(decide) as group:
        group.start_soon(leaves_a_scope_open)
    assert len(open_scopes) == 2  # the second run has come to its end
    assert isinstance(failures[0], RuntimeError)
    assert isinstance(failures[0].__context__, OSError)


async def test_a_child_that_is_cancelled_natively_ends_and_its_siblings_continue(
    autojump_clock: MockClock,
) -> None:
    sibling = Failing(0, 60)
    async with open_supervisor(always("restart")) as group:
        group.start_soon(sibling)
        group.start_soon(sleep_forever, name="cancelled")
        await wait_all_tasks_blocked()
        for task in group.child_tasks:
            if task.name == "cancelled":
                task.asyncio_task.cancel()
        await sleep(30)
        assert len(group.child_tasks) == 1
    assert len(sibling.began) == 1


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
async def test_exits_are_not_handled(error: type[BaseException]) -> None:
    async def ends() -> None:
        raise error

    asked: list[ChildFailure] = []
    with pytest.raises((error, BaseExceptionGroup)):
        async with open_supervisor(lambda failure: asked.append(failure) or "drop") as group:
            group.start_soon(ends)
    assert not asked


async def test_a_cancelled_supervisor_restarts_no_child() -> None:
    begun: list[int] = []

    async def fails_in_its_cleanup() -> None:
        begun.append(1)
        try:
            await sleep_forever()
        finally:
            raise OSError("cleanup")

    async with open_supervisor(always("restart")) as group:
        group.start_soon(fails_in_its_cleanup)
        await wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert begun == [1]
    assert group.statistics().dropped == 1


async def test_a_stop_request_ends_the_pause_before_a_restart(autojump_clock: MockClock) -> None:
    child = Failing(9)
    start = current_time()
    async with open_supervisor(always("restart"), pause=30, max_pause=30) as group:
        group.start_soon(child)
        await sleep(5)
        assert group.statistics().pausing == 1
        group.cancel_scope.request_stop()
    assert current_time() - start == 5
    assert group.statistics().dropped == 1
    assert len(child.began) == 1


async def test_statistics_count_children_and_restarts(autojump_clock: MockClock) -> None:
    async with open_supervisor(always("restart"), pause=10) as group:
        group.start_soon(Failing(1, 1))
        group.start_soon(Failing(0, 15))
        await sleep(0.5)
        stats = group.statistics()
        assert (stats.running, stats.pausing, stats.restarts, stats.dropped) == (2, 0, 0, 0)
        await sleep(5)
        stats = group.statistics()
        assert (stats.running, stats.pausing, stats.restarts, stats.dropped) == (1, 1, 0, 0)
        assert "2 children" in repr(group)
    stats = group.statistics()
    assert (stats.running, stats.pausing, stats.restarts, stats.dropped) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"max_restarts": -1}, ValueError),
        ({"max_restarts": 1.5}, TypeError),
        ({"within": 0}, ValueError),
        ({"within": "5"}, TypeError),
        ({"pause": -1}, ValueError),
        ({"pause": 50}, ValueError),
        ({"max_pause": float("nan")}, ValueError),
        ({"on_error": 3}, TypeError),
    ],
)
async def test_wrong_arguments_of_open_supervisor_are_refused_by_the_call(
    options: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        open_supervisor(**options)


async def test_the_block_of_a_supervisor_must_be_open_to_start_children() -> None:
    async with open_supervisor() as group:
        with pytest.raises(TypeError):
            group.start_soon(3)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="closed"):
        group.start_soon(sleep_forever)


async def test_an_error_of_the_body_cancels_the_children_and_is_raised() -> None:
    with pytest.RaisesGroup(ZeroDivisionError):
        async with open_supervisor() as group:
            group.start_soon(sleep_forever)
            await wait_all_tasks_blocked()
            raise ZeroDivisionError


async def test_supervised_workers_lose_no_item_when_one_of_them_fails() -> None:
    send, receive = nurseryio.open_memory_channel[int](20)
    done: list[int] = []
    failed: list[int] = []

    async def worker() -> None:
        async for item in receive:
            if item % 7 == 3 and item not in failed:
                failed.append(item)
                send.send_nowait(item)
                raise OSError(item)
            done.append(item)
            if len(done) == 20:
                send.close()

    async with open_supervisor(always("restart"), pause=0) as group:
        for item in range(20):
            send.send_nowait(item)
        for _ in range(3):
            group.start_soon(worker)
    receive.close()
    assert sorted(done) == list(range(20))
    assert failed == [3, 10, 17]


async def test_a_supervisor_can_be_cancelled_at_every_await() -> None:
    async def scenario(schedule: Schedule) -> None:
        async def work() -> None:
            async with open_supervisor(always("restart"), pause=0) as group:
                failed = Event()

                async def child() -> None:
                    await schedule.pause()
                    if not failed.is_set():
                        failed.set()
                        raise OSError

                group.start_soon(child)
                await failed.wait()

        await schedule.run(work)

    await cancel_at_every_await(scenario)


async def test_an_error_that_was_raised_leaves_no_cyclic_garbage() -> None:
    class Error(Exception):
        pass

    async def fails() -> None:
        raise Error

    async def work() -> weakref.ref[Error]:
        try:
            async with open_supervisor(always("restart"), max_restarts=1, pause=0) as group:
                group.start_soon(fails)
        except BaseException as group_:
            return weakref.ref(group_.exceptions[0])  # type: ignore[attr-defined]
        raise AssertionError("no error")

    with without_gc():
        reference = await work()
        await nurseryio.lowlevel.checkpoint()
        assert gone(reference)
