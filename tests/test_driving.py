"""Driving a loop until something is done, whatever leaves it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from harness import matrix

from nurseryio._core import driving
from nurseryio._core.driving import Driver

Left = list[BaseException]


class Drive:
    """A driver with a loop of its own, and what it has reported."""

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
        with contextlib.suppress(SystemExit):  # one may be on its way
            drive.loop.run_until_complete(asyncio.sleep(0))
            drive.loop.close()


def test_a_function_runs_in_a_task_to_its_end(drive: Drive) -> None:
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


def test_after_an_exit_the_loop_is_run_again(drive: Drive) -> None:
    async def work() -> None:
        for code in (3, 4):
            drive.loop.call_soon(sys.exit, code)
            await asyncio.sleep(0.001)

    drive.run(work)
    assert [str(error) for error in drive.left] == ["3", "4"]
    assert drive.begun == drive.stopped == 3
    assert not drive.driver.given_up


def test_exits_without_end_are_given_up(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "EXITS_IN_VAIN", 5)

    async def work() -> None:
        while True:
            drive.loop.call_soon(sys.exit, 3)
            await asyncio.sleep(0)

    drive.run(work)
    assert drive.driver.given_up
    assert len(drive.left) == 6


def test_an_exit_long_after_another_is_given_up_if_no_task_has_ended(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "LATE", -1.0)

    async def work() -> None:
        while True:
            drive.loop.call_soon(sys.exit, 3)
            await asyncio.sleep(0)

    drive.run(work)
    assert drive.driver.given_up
    assert len(drive.left) == 2


def test_exits_of_tasks_that_end_are_never_given_up(
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


def test_a_closed_loop_is_given_up(drive: Drive) -> None:
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
