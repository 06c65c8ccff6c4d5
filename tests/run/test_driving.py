"""Driving a loop until something is done, whatever leaves it."""

# Covered below 95 %: calls that fail while a loop is started or ended are in test_injection.py as
# far as they have tests.

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from harness import matrix

from nurseryio._run import driving
from nurseryio._run.driving import Driver

Left = list[BaseException]


class Drive:
    """A driver with its own loop, and the errors that it has reported."""

    def __init__(self, kind: str) -> None:
        self.loop = matrix.new_loop(kind)
        self.left: Left = []
        self.failed: Left = []
        self.begun = self.stopped = 0
        self.driver = Driver(self.loop, self.begin, self.stop, self.left.append)

    def begin(self) -> None:
        self.begun += 1

    def stop(self) -> None:
        self.stopped += 1

    def run(self, async_fn: Any) -> None:
        self.driver.until(self.driver.spawn(async_fn, "a task", self.failed.append))


@pytest.fixture(params=list(matrix.KINDS))
def drive(request: pytest.FixtureRequest) -> Iterator[Drive]:
    drive = Drive(request.param)
    yield drive
    for task in asyncio.all_tasks(drive.loop):
        task.cancel()
    while not drive.loop.is_closed():
        with contextlib.suppress(SystemExit, RuntimeError):  # an exit or a stop may be on its way
            drive.loop.run_until_complete(asyncio.sleep(0))
            drive.loop.close()


def test_the_driver_runs_a_function_in_a_task_to_its_end(drive: Drive) -> None:
    names = []

    async def work() -> None:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        names.append(task.get_name())

    drive.run(work)
    assert names == ["a task"]
    assert not drive.left and not drive.failed
    assert drive.begun == drive.stopped == 1


@pytest.mark.parametrize("error", [KeyError(), SystemExit(3), asyncio.CancelledError()])
def test_an_error_of_the_function_is_reported_and_leaves_no_loop(
    drive: Drive, error: BaseException
) -> None:
    async def fail() -> None:
        raise error

    drive.run(fail)
    assert drive.failed == [error]
    assert not drive.left


def test_after_a_system_exit_in_a_callback_the_loop_is_run_again(drive: Drive) -> None:
    async def work() -> None:
        for code in (3, 4):
            drive.loop.call_soon(sys.exit, code)
            await asyncio.sleep(0.001)

    drive.run(work)
    assert [str(error) for error in drive.left] == ["3", "4"]
    assert drive.begun == drive.stopped == 3
    assert not drive.driver.given_up


async def exit_without_end() -> None:
    while True:
        asyncio.get_running_loop().call_soon(sys.exit, 3)
        await asyncio.sleep(0)


def test_endless_system_exits_make_the_driver_give_up(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "EXITS_IN_VAIN", 5)
    drive.run(exit_without_end)
    assert drive.driver.given_up
    assert len(drive.left) == 6


def test_a_system_exit_long_after_another_makes_the_driver_give_up_if_no_task_has_ended(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "LATE", -1.0)
    drive.run(exit_without_end)
    assert drive.driver.given_up
    assert len(drive.left) == 2


def test_system_exits_of_tasks_that_end_never_make_the_driver_give_up(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "EXITS_IN_VAIN", 2)
    drive.loop.set_exception_handler(lambda _loop, _context: None)

    async def leave() -> None:
        await asyncio.sleep(0)
        sys.exit(3)

    async def work() -> None:
        tasks = [asyncio.ensure_future(leave()) for _ in range(20)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)

    drive.run(work)
    assert not drive.driver.given_up


def test_a_loop_that_is_stopped_is_run_once_more(drive: Drive) -> None:
    async def work() -> None:
        for _ in range(3):
            drive.loop.stop()
            await asyncio.sleep(0.001)

    drive.run(work)
    assert [type(error) for error in drive.left] == [RuntimeError, RuntimeError]
    assert drive.driver.given_up


def test_a_closed_loop_makes_the_driver_give_up(drive: Drive) -> None:
    future = drive.loop.create_future()
    drive.loop.close()
    drive.driver.until(future)
    assert drive.driver.given_up
    assert [type(error) for error in drive.left] == [RuntimeError]


def test_a_task_that_is_cancelled_before_its_first_step_is_reported(drive: Drive) -> None:
    async def work() -> None:
        raise AssertionError("must not run")

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        options.pop("eager_start", None)
        task = asyncio.Task(coro, loop=loop, **options)
        task.cancel()
        return task

    drive.loop.set_task_factory(factory)
    drive.run(work)
    drive.loop.set_task_factory(None)
    (error,) = drive.failed
    assert "has ended, but its coroutine has not" in str(error)


def test_an_error_thrown_into_the_loop_leaves_it_once(drive: Drive) -> None:
    error = KeyError("thrown")

    async def work() -> None:
        drive.driver.throw(error)
        drive.driver.throw(ValueError("too late"))
        await asyncio.sleep(0.001)

    drive.run(work)
    assert drive.left == [error]
    assert drive.begun == 2
    assert not drive.driver.given_up


def test_an_error_thrown_in_the_last_iteration_is_not_lost(drive: Drive) -> None:
    error = KeyError("thrown")

    async def work() -> None:
        drive.driver.throw(error)

    drive.run(work)
    assert drive.left == [error]


def test_an_error_in_the_iteration_of_a_tasks_end_does_not_stop_the_next_run(drive: Drive) -> None:
    async def leave() -> None:
        # In the iteration in which asyncio is about to stop the loop.
        drive.loop.call_soon(drive.loop.call_soon, sys.exit, 3)

    async def work() -> None:
        await asyncio.sleep(0.001)

    drive.run(leave)
    drive.run(work)
    assert not any(isinstance(error, RuntimeError) for error in drive.left)
    assert not drive.failed


def test_an_error_after_the_loop_has_stopped_is_reported(drive: Drive) -> None:
    error = MemoryError()
    stop = drive.driver._stopped

    def fail() -> None:
        stop()
        if drive.stopped == 1:
            raise error

    drive.driver._stopped = fail

    async def work() -> None:
        await asyncio.sleep(0)

    drive.run(work)
    assert drive.left == [error]


def test_the_error_that_leaves_is_not_the_context_of_what_follows(drive: Drive) -> None:
    contexts = []

    def left_by(_error: BaseException) -> None:
        try:
            raise ValueError
        except ValueError as error:
            contexts.append(error.__context__)

    drive.driver._left_by = left_by

    async def work() -> None:
        drive.loop.call_soon(sys.exit, 3)
        await asyncio.sleep(0.001)

    drive.run(work)
    assert contexts == [None]


@pytest.mark.parametrize("place", ["make_task", "TaskMaking"])
def test_the_driver_does_not_wait_for_a_task_that_cannot_be_made(
    drive: Drive, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    error = MemoryError()

    def fail(*_args: object) -> None:
        raise error

    monkeypatch.setattr(driving, place, fail)

    async def work() -> None:
        raise AssertionError("not reached")

    drive.run(work)
    assert drive.failed == [error]


def test_a_failure_after_the_task_was_made_cancels_it(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = MemoryError()

    class Full(dict[Any, None]):
        def __setitem__(self, _key: object, _value: object) -> None:
            raise error

    drive.driver._strong = Full()

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    drive.run(work)
    assert error in drive.failed
    drive.loop.run_until_complete(asyncio.sleep(0))
    assert not asyncio.all_tasks(drive.loop)


def test_a_failure_at_the_end_of_the_task_does_not_keep_the_driver_waiting(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[object] = []
    drive.loop.set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
    error = MemoryError()

    class Stuck(dict[Any, None]):
        def pop(self, *_args: object) -> None:  # type: ignore[override]
            raise error

    drive.driver._strong = Stuck()

    async def work() -> None:
        await asyncio.sleep(0)

    drive.run(work)
    assert reports == [error]


def test_a_task_that_has_not_begun_when_the_driver_gives_up_is_dropped_without_a_report(
    drive: Drive,
) -> None:
    problems: list[object] = []
    drive.loop.set_exception_handler(lambda _loop, context: problems.append(context))

    async def wait() -> None:
        await asyncio.sleep(60)  # not even that, unless tasks are eager

    def interrupt() -> None:
        drive.driver.given_up = True
        raise KeyboardInterrupt

    future = drive.driver.spawn(wait, "waits", problems.append)
    drive.loop.call_soon(interrupt)
    drive.driver.until(future)
    drive.loop.close()
    del future
    gc.collect()
    assert problems == []
