"""Leftover tasks: run() waits for them after its main task, and logs what it waits for."""

# Covered below 95 %: a run with leftovers to its end is in test_run.py; a tree that cannot be drawn
# needs a name that raises.

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import warnings
from typing import Any

import pytest
from harness import matrix

import nurseryio
from nurseryio._run import leftovers
from nurseryio.lowlevel import spawn_system_task
from nurseryio.testing import MockClock

Log = pytest.LogCaptureFixture


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SILENCE", 0.01)


class Stubborn:
    """Swallows cancellations until the run has said that it waits."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def wait(self) -> None:
        while not warnings_in(self.log):
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                pass

    def block(self) -> None:
        give_up = time.monotonic() + 30
        while not warnings_in(self.log) and time.monotonic() < give_up:
            time.sleep(0.001)


def warnings_in(log: Log) -> list[str]:
    return [record.message for record in log.records if record.name == "nurseryio"]


async def leave_task(stubborn: Stubborn) -> None:
    leave_task.kept = asyncio.create_task(  # type: ignore[attr-defined]
        stubborn.wait(), name="the stubborn one"
    )
    await asyncio.sleep(0)


async def leave_system_task(stubborn: Stubborn) -> None:
    spawn_system_task(stubborn.wait, name="the stubborn one")
    await asyncio.sleep(0)


async def leave_generator(stubborn: Stubborn) -> None:
    async def the_stubborn_one() -> Any:
        try:
            yield
        finally:
            await stubborn.wait()

    leave_generator.kept = the_stubborn_one()  # type: ignore[attr-defined]
    await leave_generator.kept.__anext__()  # type: ignore[attr-defined]


async def leave_thread(stubborn: Stubborn) -> None:
    asyncio.get_running_loop().run_in_executor(None, stubborn.block)


@pytest.mark.parametrize("kind", matrix.KINDS)
@pytest.mark.parametrize(
    "leave, text",
    [
        (leave_task, "tasks of asyncio code:\nasyncio task the stubborn one at test_leftovers.py:"),
        (leave_system_task, "tasks:\nsystem task the stubborn one at test_leftovers.py:"),
        (leave_generator, f"async generators to be closed:\n{__name__}.leave_generator."),
        (leave_thread, "threads of the loop's default executor:\n"),
    ],
)
def test_a_run_that_waits_long_for_leftover_tasks_logs_once_what_it_waits_for(
    leave: Any, text: str, kind: str, caplog: Log, impatient: None
) -> None:
    nurseryio.run(leave, Stubborn(caplog), loop_factory=lambda: matrix.new_loop(kind))
    (message,) = warnings_in(caplog)
    assert message.startswith(f"run() has waited for 0.01 s, for {text}")


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_the_leftovers_warning_goes_by_real_time_under_a_mock_clock(
    kind: str, caplog: Log, impatient: None
) -> None:
    async def stubborn() -> None:
        while not warnings_in(caplog):
            try:
                await asyncio.to_thread(time.sleep, 0.001)
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        main.task = asyncio.create_task(stubborn())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    nurseryio.run(main, clock=MockClock(), loop_factory=lambda: matrix.new_loop(kind))
    assert len(warnings_in(caplog)) == 1


def test_the_leftovers_warning_is_logged_where_warnings_are_errors(
    caplog: Log, impatient: None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nurseryio.run(leave_task, Stubborn(caplog))
    assert caplog.records[0].levelno == logging.WARNING


def test_a_run_without_slow_leftovers_starts_no_timer_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object) -> None:
        raise AssertionError("no timer is needed")

    monkeypatch.setattr(threading, "Timer", refuse)

    async def main() -> int:
        spawn_system_task(nurseryio.sleep_forever)
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        return len(task.get_name()) > 0

    assert nurseryio.run(main)


def test_the_leftovers_timer_of_a_run_that_ends_in_time_is_cancelled(caplog: Log) -> None:
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            for _ in range(100):
                await asyncio.sleep(0)
            names.append([thread for thread in threading.enumerate() if is_timer(thread)])

    async def main() -> None:
        main.task = asyncio.create_task(slow())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    names: list[list[threading.Thread]] = []
    nurseryio.run(main)
    ((timer,),) = names
    timer.join(10)
    assert not timer.is_alive()
    assert not warnings_in(caplog)


def is_timer(thread: threading.Thread) -> bool:
    return isinstance(thread, threading.Timer)


def test_a_system_exit_of_a_leftover_task_is_not_reported_as_an_error() -> None:
    reports: list[Any] = []

    async def left() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            sys.exit(5)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(context["message"]))
        main.task = asyncio.create_task(left())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    with pytest.raises(SystemExit) as caught:
        nurseryio.run(main)
    assert caught.value.code == 5
    assert not reports


def test_a_scope_in_a_leftover_task_does_not_swallow_the_cancellation() -> None:
    ended = []

    async def leftover() -> None:
        try:
            for _ in range(100):
                with nurseryio.move_on_after(60):
                    async with nurseryio.open_nursery():
                        pass
            ended.append("by itself")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        keep.append(asyncio.create_task(leftover()))
        await nurseryio.sleep(0)

    keep: list[asyncio.Task[None]] = []
    nurseryio.run(main)
    assert ended == ["cancelled"]
