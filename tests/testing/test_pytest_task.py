"""The meaning of a test's steps for pytest. For the view of pytest see test_pytest_plugin.py."""

# Covered below 95 %: the mistakes in fixtures are made in test_pytest_plugin.py; the groups of
# Python 3.10 run there alone.

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import nurseryio
from nurseryio.testing.pytest_shared import SharedRun
from nurseryio.testing.pytest_task import Options, TestTask, is_ours

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@pytest.fixture
def item() -> Any:
    return SimpleNamespace(funcargs={}, name="test_imagined")


@pytest.fixture
def task(item: Any, request: pytest.FixtureRequest) -> Iterator[TestTask]:
    task = TestTask(item, request, None, SharedRun(), Options())
    yield task
    task.close()


async def raising(error: BaseException) -> None:
    raise error


async def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_no_loop_is_made_before_it_is_needed(item: Any, request: pytest.FixtureRequest) -> None:
    loops = []

    def factory() -> asyncio.AbstractEventLoop:
        loops.append(asyncio.new_event_loop())
        return loops[-1]

    task = TestTask(item, request, factory, SharedRun(), Options())
    task.close()
    assert not loops
    task = TestTask(item, request, factory, SharedRun(), Options())
    assert task.do("test", loop) is loops[0]
    task.close()


@pytest.mark.parametrize(
    "error",
    [
        pytest.skip.Exception("x"),
        pytest.fail.Exception("x"),
        pytest.xfail.Exception("x"),
        pytest.exit.Exception("x"),
        SystemExit(3),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_pytest_outcomes_are_unwrapped_from_a_group_that_holds_nothing_else(
    task: TestTask, error: BaseException
) -> None:
    group = BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [error])])
    with pytest.raises(type(error)) as caught:
        task.do("test", raising, group)
    assert caught.value is error


def test_other_exception_groups_stay(task: TestTask) -> None:
    for group in (
        BaseExceptionGroup("", [ValueError()]),
        BaseExceptionGroup("", [KeyboardInterrupt(), ValueError()]),
    ):
        with pytest.raises(BaseExceptionGroup) as caught:
            task.do("test", raising, group)
        assert caught.value is group


def test_a_cancelled_of_nurseryio_fails_the_step_and_a_native_one_is_raised(task: TestTask) -> None:
    ours = nurseryio.Cancelled(nurseryio.CancelReason("deadline"))
    assert is_ours(ours)
    assert not is_ours(nurseryio.Cancelled())
    with pytest.raises(
        pytest.fail.Exception, match="the fixture 'x' was cancelled due to deadline"
    ):
        task.do("fixture 'x'", raising, ours)
    with pytest.raises(asyncio.CancelledError):
        task.do("test", raising, asyncio.CancelledError("native"))


def test_a_fixture_generator_is_run_to_its_yield_and_then_to_its_end(task: TestTask) -> None:
    record = []

    async def fixture() -> AsyncIterator[int]:
        record.append("up")
        yield 3
        record.append("down")

    generator: Any = fixture()
    assert task.begin("fixture", generator) == 3
    assert record == ["up"]
    task.end("fixture", generator)
    assert record == ["up", "down"]


def test_a_fixture_cancelled_in_its_teardown_leaves_the_error_to_the_scope(task: TestTask) -> None:
    async def cut_short(error: BaseException) -> AsyncIterator[None]:
        yield
        raise error

    ours: Any = cut_short(nurseryio.Cancelled(nurseryio.CancelReason("explicit")))
    task.begin("fixture", ours)
    assert task.end("fixture", ours) is None
    native: Any = cut_short(asyncio.CancelledError())
    task.begin("fixture", native)
    with pytest.raises(RuntimeError, match="has raised CancelledError") as caught:
        task.end("fixture", native)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


def test_a_clock_among_the_fixtures_is_used_and_must_not_come_late(
    task: TestTask, item: Any
) -> None:
    async def clock() -> Any:
        return nurseryio.lowlevel.current_clock()

    item.funcargs["clock"] = nurseryio.testing.MockClock()
    assert task.do("test", clock) is item.funcargs["clock"]
    item.funcargs["clock"] = nurseryio.testing.MockClock()
    with pytest.raises(pytest.fail.Exception, match="came too late"):
        task.call(clock)


def test_two_clocks_are_refused(task: TestTask, item: Any) -> None:
    for name in "ab":
        item.funcargs[name] = nurseryio.testing.MockClock()
    with pytest.raises(pytest.fail.Exception, match="one clock"):
        task.call(loop)


def test_instruments_are_installed_once_early_or_late(task: TestTask, item: Any) -> None:
    class Counter(nurseryio.abc.Instrument):
        steps = 0

        def before_task_step(self, task: object) -> None:
            self.steps += 1

    async def wait() -> None:
        await nurseryio.sleep(0)

    early = item.funcargs["early"] = Counter()
    task.do("fixture", loop)
    late = item.funcargs["late"] = Counter()
    task.call(wait)
    task.call(wait)
    assert early.steps > late.steps > 0
