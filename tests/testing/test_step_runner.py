"""Steps of one task, called from plain code."""

# Covered below 95 %: whole test sessions are in test_pytest_plugin.py, steps that are interrupted
# in test_time_limit.py and test_thread_limit.py.

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import nurseryio
from nurseryio._run.run import Run
from nurseryio.testing import DeadlockError, MockClock
from nurseryio.testing.step_runner import StepRunner


@pytest.fixture
def steps() -> Iterator[StepRunner]:
    task = StepRunner(name="the steps")
    yield task
    task.close()


async def current_task() -> nurseryio.lowlevel.Task:
    return nurseryio.lowlevel.current_task()


async def raising(error: BaseException) -> None:
    raise error


def test_step_runner_steps_run_in_one_task_and_return_their_result(steps: StepRunner) -> None:
    task = steps.do(current_task)
    assert task is steps.do(current_task)
    assert task.name == "the steps"
    assert task.parent_nursery is not None


def test_a_step_raises_its_error_and_the_next_step_goes_on(steps: StepRunner) -> None:
    for error in (ValueError(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
        with pytest.raises(type(error)) as caught:
            steps.do(raising, error)
        assert caught.value is error
    assert steps.do(current_task).name == "the steps"


def test_a_step_refuses_what_is_not_an_async_function(steps: StepRunner) -> None:
    with pytest.raises(TypeError, match="appears to be synchronous"):
        steps.do(int)  # type: ignore[arg-type]


def test_a_step_inside_a_step_is_refused(steps: StepRunner) -> None:
    async def outer() -> None:
        steps.do(current_task)

    with pytest.raises(RuntimeError, match="another step is under way"):
        steps.do(outer)


def test_a_scope_or_nursery_opened_in_one_step_can_be_closed_in_a_later(
    steps: StepRunner,
) -> None:
    class Holder:
        async def open(self) -> None:
            self.manager = nurseryio.open_nursery()
            self.nursery = await self.manager.__aenter__()
            self.nursery.start_soon(nurseryio.sleep_forever)

        async def close(self) -> int:
            children = len(self.nursery.child_tasks)
            self.nursery.cancel_scope.cancel()
            await self.manager.__aexit__(None, None, None)
            return children

    holder = Holder()
    steps.do(holder.open)
    steps.do(nurseryio.sleep, 0)
    assert steps.do(holder.close) == 1


def test_a_scope_that_is_cancelled_cancels_each_step_until_it_is_left(steps: StepRunner) -> None:
    scope = nurseryio.CancelScope()

    async def enter() -> None:
        scope.__enter__()
        scope.cancel()

    async def leave() -> None:
        scope.__exit__(None, None, None)

    steps.do(enter)
    for _ in range(2):
        with pytest.raises(nurseryio.Cancelled):
            steps.do(nurseryio.sleep, 0)
        with pytest.raises(nurseryio.Cancelled):
            steps.do(asyncio.sleep, 0)
    steps.do(leave)
    assert steps.do(nurseryio.sleep, 0) is None


def test_background_tasks_do_not_run_between_the_steps(steps: StepRunner) -> None:
    ticks = []

    async def tick() -> None:
        while True:
            ticks.append(True)
            await nurseryio.lowlevel.checkpoint()

    async def begin() -> None:
        nurseryio.lowlevel.spawn_system_task(tick)
        await nurseryio.lowlevel.checkpoint()
        await nurseryio.lowlevel.checkpoint()

    steps.do(begin)
    count = len(ticks)
    assert count > 0
    steps.do(nurseryio.lowlevel.checkpoint)
    assert len(ticks) > count


def test_a_native_cancel_request_of_a_step_does_not_outlive_it(steps: StepRunner) -> None:
    async def cancel_and_catch() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass

    async def count() -> int:
        task = asyncio.current_task()
        return getattr(task, "cancelling", lambda: 0)()

    steps.do(cancel_and_catch)
    assert steps.do(count) == 0
    assert steps.do(nurseryio.sleep, 0) is None


def test_a_native_cancel_that_escapes_a_step_is_its_error(steps: StepRunner) -> None:
    async def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("mine")
        await asyncio.sleep(0)

    with pytest.raises(asyncio.CancelledError):
        steps.do(cancel)
    assert steps.do(nurseryio.sleep, 0) is None


def test_a_deadlock_ends_the_step_alone_and_shows_where_it_waited() -> None:
    steps = StepRunner(clock=MockClock(autojump_threshold=0))
    try:
        for _ in range(2):
            with pytest.raises(DeadlockError) as caught:
                steps.do(nurseryio.sleep_forever)
            assert caught.traceback[-1].path.name == "timeouts.py"
        steps.do(nurseryio.sleep, 10)
        assert steps.do(_now) == 10
    finally:
        steps.close()


async def _now() -> float:
    return nurseryio.current_time()


def test_step_runner_uses_the_given_instruments_and_loop_factory() -> None:
    record: list[str] = []

    class Counter(nurseryio.abc.Instrument):
        def before_run(self) -> None:
            record.append("before")

        def after_run(self) -> None:
            record.append("after")

    loops: list[Any] = []

    def factory() -> asyncio.AbstractEventLoop:
        loops.append(asyncio.new_event_loop())
        return loops[-1]

    steps = StepRunner(instruments=[Counter()], loop_factory=factory)
    assert steps.do(_loop) is loops[0]
    steps.close()
    assert record == ["before", "after"]
    assert loops[0].is_closed()


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_a_failing_system_task_ends_the_run_and_is_raised_by_close() -> None:
    steps = StepRunner()

    async def crash() -> None:
        nurseryio.lowlevel.spawn_system_task(raising, ValueError("boom"))
        await nurseryio.sleep_forever()

    with pytest.raises(nurseryio.Cancelled):
        steps.do(crash)
    with pytest.raises(nurseryio.TrioInternalError) as caught:
        steps.close()
    assert "boom" in repr(caught.value.__cause__)


def test_an_error_that_leaves_the_loop_is_raised_by_the_step_and_once(steps: StepRunner) -> None:
    error = SystemExit("raised by a callback")

    def leave() -> None:
        raise error

    async def children_wait() -> None:
        asyncio.get_running_loop().call_soon(leave)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)

    with pytest.raises(SystemExit) as caught:
        steps.do(children_wait)
    assert caught.value is error
    assert steps.do(nurseryio.sleep, 0) is None


def test_an_async_generator_that_is_dropped_is_closed_in_the_run(steps: StepRunner) -> None:
    record = []

    async def agen() -> Any:
        try:
            yield 1
        finally:
            record.append(nurseryio.lowlevel.current_root_task() is not None)

    async def drop() -> None:
        generator = agen()
        await generator.__anext__()
        del generator
        await nurseryio.testing.wait_all_tasks_blocked()

    for _ in range(2):
        with pytest.warns(ResourceWarning, match="was garbage collected"):
            steps.do(drop)
    assert record == [True, True]


@pytest.mark.parametrize("function", [nurseryio.sleep, asyncio.sleep])
def test_ctrl_c_raises_keyboard_interrupt_in_a_step_that_waits(
    steps: StepRunner, function: Any
) -> None:
    async def wait() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await function(1000)

    with pytest.raises(KeyboardInterrupt):
        steps.do(wait)
    assert steps.do(nurseryio.sleep, 0) is None


def test_between_the_steps_ctrl_c_is_handled_by_python(steps: StepRunner) -> None:
    steps.do(nurseryio.sleep, 0)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert steps.do(nurseryio.sleep, 0) is None


def test_an_error_that_leaves_the_loop_does_not_close_what_earlier_steps_opened(
    steps: StepRunner,
) -> None:
    manager = nurseryio.open_nursery()
    nursery = steps.do(manager.__aenter__)

    def leave(error: BaseException) -> None:
        raise error

    async def wait(error: BaseException) -> None:
        asyncio.get_running_loop().call_soon(leave, error)
        await nurseryio.sleep_forever()

    for error in (SystemExit(3), SystemExit(4)):
        with pytest.raises(SystemExit) as caught:
            steps.do(wait, error)
        assert caught.value is error
        assert not nursery.cancel_scope.cancel_called
        steps.do(nurseryio.sleep, 0)
    steps.do(manager.__aexit__, None, None, None)


# -- further tasks ------------------------------------------------------------------


def test_branches_run_steps_in_separate_tasks_on_the_same_loop(steps: StepRunner) -> None:
    branches = [steps.branch(name, contextvars.copy_context()) for name in ("one", "two")]
    tasks = [task.do(current_task) for task in (steps, *branches)]
    assert len(set(tasks)) == 3
    assert [task.name for task in tasks] == ["the steps", "one", "two"]
    assert {task.do(_loop) for task in (steps, *branches)} == {steps.loop}
    for branch in branches:
        steps.close_branch(branch)


def test_branches_may_be_closed_in_any_order(steps: StepRunner) -> None:
    branches = [steps.branch(name, contextvars.copy_context()) for name in ("one", "two")]
    managers = [nurseryio.open_nursery() for _ in branches]
    for branch, manager in zip(branches, managers, strict=True):
        branch.do(manager.__aenter__)
    for branch, manager in zip(branches, managers, strict=True):
        branch.do(manager.__aexit__, None, None, None)
        steps.close_branch(branch)


def test_misnesting_a_nursery_left_open_in_a_branch_is_an_error_of_its_close(
    steps: StepRunner,
) -> None:
    branches = [steps.branch(name, contextvars.copy_context()) for name in ("one", "two")]
    branches[0].do(nurseryio.open_nursery().__aenter__)
    with pytest.raises(BaseException) as caught:
        steps.close_branch(branches[0])
    assert "Nursery stack corrupted" in repr(caught.value)
    assert branches[1].do(nurseryio.sleep, 0) is None
    steps.close_branch(branches[1])


def test_ctrl_c_raises_keyboard_interrupt_in_the_branch_of_the_step(
    steps: StepRunner,
) -> None:
    branch = steps.branch("branch", contextvars.copy_context())

    async def wait() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await nurseryio.sleep_forever()

    for task in (branch, steps, branch):
        with pytest.raises(KeyboardInterrupt):
            task.do(wait)
        assert task.do(nurseryio.sleep, 0) is None
    steps.close_branch(branch)


def test_a_deadlock_in_a_branch_ends_its_step_alone() -> None:
    steps = StepRunner(clock=MockClock(autojump_threshold=0))
    branch = steps.branch("branch", contextvars.copy_context())
    with pytest.raises(DeadlockError):
        branch.do(nurseryio.sleep_forever)
    branch.do(nurseryio.sleep, 10)
    steps.close_branch(branch)
    steps.close()


def test_step_runner_can_run_in_a_shared_contextvars_context() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    context = contextvars.copy_context()
    context.run(variable.set, 1)
    steps = StepRunner(context=context)

    async def change() -> int:
        before = variable.get()
        variable.set(2)
        return before

    assert steps.do(change) == 1
    if sys.version_info >= (3, 11):
        assert context.run(variable.get) == 2
    steps.close()


def test_step_runner_that_cannot_be_started_leaves_no_loop_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = []

    def make() -> asyncio.AbstractEventLoop:
        made.append(asyncio.new_event_loop())
        return made[-1]

    def fail(*_args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Run, "start", fail)
    with pytest.raises(MemoryError):
        StepRunner(loop_factory=make)
    (loop,) = made
    assert loop.is_closed()


def test_step_runner_restricts_keyboard_interrupt_to_checkpoints_if_asked_to() -> None:
    passed = []

    async def press() -> None:
        signal.raise_signal(signal.SIGINT)
        passed.append("after the signal")
        await nurseryio.lowlevel.checkpoint()
        passed.append("after the checkpoint")

    steps = StepRunner(restrict_keyboard_interrupt_to_checkpoints=True)
    with pytest.raises(KeyboardInterrupt):
        steps.do(press)
    steps.close()
    assert passed == ["after the signal"]


def test_the_nurseries_of_a_step_runner_are_not_strict_if_asked_to() -> None:
    async def fail() -> None:
        async with nurseryio.open_nursery():
            raise ValueError

    steps = StepRunner(strict_exception_groups=False)
    with pytest.raises(ValueError):
        steps.do(fail)
    steps.close()
