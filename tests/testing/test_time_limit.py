"""The signal of a time limit that arrives during a step.

How pytest-timeout's tests end: at the end of the file, and in test_thread_limit.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harness import matrix, timeouts

import nurseryio
from nurseryio.testing import time_limit
from nurseryio.testing.step_runner import StepRunner, StepTask

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs SIGALRM")


class OutOfTimeError(BaseException):
    """The error that the handler raises."""


def raise_alarm() -> None:
    signal.raise_signal(signal.SIGALRM)


@contextlib.contextmanager
def limited() -> Iterator[OutOfTimeError]:
    """While entered, the handler of the signal raises an error: this one."""
    error = OutOfTimeError()

    def handler(_number: int, _frame: object) -> None:
        raise error

    # The limit of the test itself uses the same signal.
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield error
        assert signal.getsignal(signal.SIGALRM) is handler
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 5
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(
    params=[(kind, where) for kind in timeouts.KINDS for where in ("main", "branch")], ids=str
)
def steps(request: pytest.FixtureRequest) -> Iterator[StepTask]:
    """A task for steps, with an open nursery from an earlier step."""
    kind, where = request.param
    home = StepRunner(loop_factory=lambda: matrix.new_loop(kind))
    steps: StepTask = home
    if where == "branch":
        steps = home.branch("branch", contextvars.copy_context())
    manager = nurseryio.open_nursery()
    nursery = steps.do(manager.__aenter__)

    async def leave() -> None:
        assert not nursery.cancel_scope.cancel_called
        nursery.cancel_scope.cancel()
        await manager.__aexit__(None, None, None)

    async def wait() -> None:
        nursery.start_soon(nurseryio.sleep_forever)
        await nurseryio.testing.wait_all_tasks_blocked()

    steps.do(wait)
    yield steps
    steps.do(leave)
    if steps is not home:
        home.close_branch(steps)
    home.close()


def soon(function: Callable[[], object] = raise_alarm) -> None:
    asyncio.get_running_loop().call_soon(function)


async def sleeps() -> None:
    soon()
    await nurseryio.sleep(1000)


async def sleeps_in_asyncio() -> None:
    soon()
    await asyncio.sleep(1000)


async def sleeps_in_a_shield() -> None:
    soon()
    with nurseryio.CancelScope(shield=True):
        await nurseryio.sleep(1000)


async def waits_for_children() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        nursery.start_soon(asyncio.sleep, 1000)
        soon()


async def is_busy() -> None:
    soon()
    while True:
        await nurseryio.lowlevel.checkpoint()


async def spins_in_callbacks() -> None:
    def spin() -> None:
        if not over:
            soon(spin)

    over = []
    soon(spin)
    soon()
    try:
        await nurseryio.sleep(1000)
    finally:
        over.append(True)


async def in_its_own_code() -> None:
    raise_alarm()


async def calls(async_fn: Any) -> None:
    await async_fn()


WAITS = [
    sleeps,
    sleeps_in_asyncio,
    sleeps_in_a_shield,
    waits_for_children,
    is_busy,
    spins_in_callbacks,
    in_its_own_code,
]


@pytest.mark.parametrize("wait", WAITS, ids=lambda wait: wait.__name__)
def test_a_time_limit_stops_the_step_and_the_next_one_can_close_what_is_open(
    steps: StepTask, wait: Any
) -> None:
    with limited() as error, pytest.raises(BaseException) as caught:
        steps.do(calls, wait)
    leaf: Any = caught.value
    while not isinstance(leaf, OutOfTimeError):
        (leaf,) = leaf.exceptions
    assert leaf is error
    assert steps.do(nurseryio.sleep, 0) is None


@pytest.mark.parametrize("wait", [sleeps, sleeps_in_asyncio, is_busy], ids=lambda w: w.__name__)
def test_the_traceback_of_a_time_limit_ends_where_the_step_was_waiting(
    steps: StepTask, wait: Any
) -> None:
    with limited() as error, pytest.raises(OutOfTimeError) as caught:
        steps.do(calls, wait)
    assert caught.value is error
    assert caught.traceback[-1].name == wait.__name__
    assert caught.value.__cause__ is None


def test_a_sigalrm_handler_that_raises_nothing_is_only_called(steps: StepTask) -> None:
    rings = []
    before = signal.signal(signal.SIGALRM, lambda *_: rings.append(True))
    try:

        async def wait() -> None:
            raise_alarm()
            soon()
            await nurseryio.testing.wait_all_tasks_blocked()

        steps.do(wait)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert rings == [True, True]


def test_in_another_thread_the_sigalrm_handler_is_left_alone() -> None:
    handlers = []

    async def look() -> None:
        handlers.append(signal.getsignal(signal.SIGALRM))

    def run() -> None:
        steps = StepRunner()
        steps.do(look)
        steps.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGALRM)]


# -- a step that goes on ------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "BLOCKED", 0.02)
    monkeypatch.setattr(time_limit, "GRACE", 0.02)


@pytest.mark.usefixtures("impatient")
def test_a_time_limit_finally_cancels_a_child_in_a_shield(steps: StepTask) -> None:
    async def shielded() -> None:
        with nurseryio.CancelScope(shield=True):
            await nurseryio.sleep_forever()

    async def wait() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(shielded)
            nursery.start_soon(shielded)
            soon()

    with limited() as error, pytest.raises(BaseException) as caught:
        steps.do(wait)
    leaf: Any = caught.value
    assert leaf is error or error in leaf.exceptions


@pytest.mark.usefixtures("impatient")
def test_a_time_limit_interrupts_code_that_blocks_the_loop(
    steps: StepTask, loop_errors: list[str]
) -> None:
    async def blocks() -> None:
        raise_alarm()
        time.sleep(1000)

    async def wait() -> None:
        await asyncio.create_task(blocks())

    with limited() as error, pytest.raises(OutOfTimeError) as caught:
        steps.do(wait)
    assert caught.value is error


# -- pytest-timeout -----------------------------------------------------------------


@timeouts.needs_timeout
@pytest.mark.parametrize("factory", timeouts.FACTORIES, ids=timeouts.KINDS)
def test_pytest_timeout_by_signal_stops_one_test_and_its_fixtures_are_torn_down(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    block = "time.sleep(3600)"
    result = timeouts.run_with_timeouts(pytester, monkeypatch, factory, block, "signal")
    timeouts.assert_only_the_limited_tests_are_stopped(result)


def test_a_drawing_at_the_limit_is_taken_once() -> None:
    loop = asyncio.new_event_loop()
    try:
        time_limit.take_drawing()
        assert time_limit.take_drawing() is None
        time_limit.draw_at_limit(loop)
        assert time_limit.take_drawing() == ""
        assert time_limit.take_drawing() is None
    finally:
        loop.close()


def test_a_drawing_at_the_limit_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_args: object) -> str:
        raise RuntimeError

    monkeypatch.setattr(time_limit, "draw_tasks", fails)
    loop = asyncio.new_event_loop()
    time_limit.draw_at_limit(loop)
    loop.close()
    assert time_limit.take_drawing() == "(the tasks cannot be shown: RuntimeError)"


@timeouts.needs_timeout
def test_the_report_of_a_pytest_asyncio_test_at_its_limit_has_its_tasks_and_no_code_of_the_plugin(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pytest_asyncio")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import asyncio
        import pytest

        @pytest.mark.asyncio
        @pytest.mark.timeout(0.2, method="signal")
        async def test_hangs():
            await asyncio.gather(asyncio.Event().wait())
        """
    )
    plugins = ["nurseryio.testing.pytest_plugin", "pytest_timeout", "pytest_asyncio.plugin"]
    options = [part for plugin in plugins for part in ("-p", plugin)]
    result = pytester.runpytest_subprocess(*options, timeout=50)
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "nurseryio: the tasks when the time was over" in text
    assert "waits for 1 asyncio task" in text
    assert "pytest_runtest_call" not in text
