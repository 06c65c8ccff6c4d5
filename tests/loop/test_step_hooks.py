"""Instruments on a running loop: they see every task, also asyncio's, and leave nothing behind."""

# Covered below 95 %: failing hooks that stop a step are in test_injection.py.

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import sys
from typing import Any

import pytest
from harness import fake_loops

import nurseryio
from nurseryio._core.task import current_state
from nurseryio.abc import Instrument
from nurseryio.lowlevel import (
    Task,
    add_instrument,
    checkpoint,
    current_task,
    in_trio_task,
    remove_instrument,
)


class Recorder(Instrument):
    def __init__(self) -> None:
        self.events: list[tuple[str, Task]] = []

    def of(self, name: str) -> list[str]:
        # Some loops name a task after they have made it.
        return [what for what, who in self.events if who.asyncio_task.get_name() == name]

    def events_of(self, asyncio_task: asyncio.Task[Any]) -> list[str]:
        return [what for what, who in self.events if who.asyncio_task is asyncio_task]

    def task_spawned(self, task: Task) -> None:
        self.events.append(("spawned", task))

    def task_scheduled(self, task: Task) -> None:
        self.events.append(("scheduled", task))

    def before_task_step(self, task: Task) -> None:
        assert current_task() is task
        self.events.append(("before", task))

    def after_task_step(self, task: Task) -> None:
        assert current_task() is task
        self.events.append(("after", task))

    def task_exited(self, task: Task) -> None:
        self.events.append(("exited", task))


LIFE = ["spawned", "scheduled", "before", "scheduled", "after", "before", "exited", "after"]


async def one_checkpoint() -> None:
    await checkpoint()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


class CountingTask(asyncio.Task[Any]):
    """A task that counts its done-callbacks, in an attribute that it sets late (Pyodide)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.callbacks = 0

    def add_done_callback(self, fn: Any, /, *, context: Any = None) -> None:
        self.callbacks += 1
        super().add_done_callback(fn, context=context)


async def test_instruments_see_a_child_from_its_spawn_to_its_exit() -> None:
    recorder = Recorder()
    add_instrument(recorder)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(one_checkpoint, name="child")
    remove_instrument(recorder)
    seen = recorder.of("child")
    if seen.count("before") == 3:  # under an eager factory the child first gives way
        del seen[2:5]
    assert seen == LIFE


@pytest.mark.skipif(
    not hasattr(asyncio, "Runner"), reason="3.10 does not tell a task's coroutine in time"
)
async def test_instruments_see_asyncio_tasks_as_well(loop_kind: str) -> None:
    recorder = Recorder()
    add_instrument(recorder)
    task = asyncio.create_task(one_checkpoint(), name="native")
    await task
    remove_instrument(recorder)
    seen = recorder.of("native")
    if loop_kind == "eager":  # its first step was over before it was scheduled
        assert seen == ["scheduled", "before", "exited", "after"]
    else:
        assert seen == LIFE


async def test_without_instruments_call_soon_of_the_loop_is_its_own() -> None:
    loop = asyncio.get_running_loop()
    before = dict(vars(loop))
    recorder = Recorder()
    add_instrument(recorder)
    assert "call_soon" in vars(loop)
    await checkpoint()
    remove_instrument(recorder)
    assert vars(loop).get("call_soon") is before.get("call_soon")
    with pytest.raises(KeyError):
        remove_instrument(recorder)


async def test_an_instrument_may_come_and_go_in_the_middle_of_a_task() -> None:
    first, second = Recorder(), Recorder()
    add_instrument(first)
    await checkpoint()
    add_instrument(second)
    remove_instrument(first)
    await checkpoint()
    remove_instrument(second)
    me = current_task().asyncio_task.get_name()
    assert "before" in first.of(me)
    assert "before" in second.of(me)
    events = len(first.events)
    await checkpoint()
    assert len(first.events) == events


async def test_an_instrument_that_raises_disturbs_nothing_and_the_loop_is_unhooked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Instrument):
        def task_scheduled(self, task: Task) -> None:
            raise ValueError

    add_instrument(Failing())
    for _ in range(3):
        await checkpoint()
    assert "Instrument has been disabled" in caplog.text
    assert not [name for name in ("call_soon",) if name in vars(asyncio.get_running_loop())]


def test_before_run_comes_first_and_after_run_last_on_a_running_loop() -> None:
    events: list[Any] = []

    class Border(Recorder):
        def before_run(self) -> None:
            events.append(("before_run", asyncio.get_running_loop().is_running(), in_trio_task()))

        def after_run(self) -> None:
            events.append(("after_run", asyncio.get_running_loop().is_running(), in_trio_task()))

        def task_spawned(self, task: Task) -> None:
            events.append("spawned")

    nurseryio.run(one_checkpoint, instruments=[Border()])
    assert events[0] == ("before_run", True, False)
    assert events[-1] == ("after_run", True, False)
    assert events.count("spawned") >= 2


def test_before_io_wait_and_after_io_wait_are_called_on_an_asyncio_loop() -> None:
    waits: list[float] = []

    class IOWaiters(Instrument):
        def before_io_wait(self, timeout: float) -> None:
            waits.append(timeout)

        def after_io_wait(self, timeout: float) -> None:
            waits.append(-timeout)

    nurseryio.run(nurseryio.sleep, 0.01, instruments=[IOWaiters()])
    assert len(waits) % 2 == 0
    assert any(0 < wait <= 0.011 for wait in waits)
    assert all(before == -after for before, after in zip(waits[::2], waits[1::2], strict=True))


def test_add_instrument_outside_a_loop_raises() -> None:
    for use in (add_instrument, remove_instrument):
        with pytest.raises(RuntimeError, match="must be called from async context"):
            use(Recorder())


# -- contexts that change -----------------------------------------------------------

word: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


def context_with(value: str) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(word.set, value)
    return context


async def test_a_task_runs_in_its_newly_assigned_context_from_its_next_step() -> None:
    context = context_with("other")
    seen = []

    async def child() -> None:
        word.set("own")
        current_task().context = context
        seen.append(word.get())
        await checkpoint()
        seen.append(word.get())
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        word.set("changed")
        seen.append(word.get())

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert seen == ["own", "other", "changed"]
    assert context[word] == "changed"
    assert word.get() == "none"


async def test_tasks_can_share_a_contextvars_context() -> None:
    context = context_with("start")
    seen = []

    async def share(value: str) -> None:
        task = current_task()
        task.context = context
        assert task.context is context
        await checkpoint()
        seen.append(word.get())
        word.set(value)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(share, "one")
        nursery.start_soon(share, "two")
    assert sorted(seen) in (["one", "start"], ["start", "two"])


async def test_call_soon_is_restored_when_tasks_with_an_assigned_context_have_ended() -> None:
    loop = asyncio.get_running_loop()

    async def child() -> None:
        current_task().context = context_with("x")
        await checkpoint()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    await checkpoint()
    assert "call_soon" not in vars(loop)


async def test_instruments_and_assigned_contexts_do_not_disturb_each_other() -> None:
    recorder = Recorder()

    async def child() -> None:
        current_task().context = context_with("x")
        await checkpoint()
        assert word.get() == "x"
        remove_instrument(recorder)
        await checkpoint()
        assert word.get() == "x"

    add_instrument(recorder)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, name="child")
    assert recorder.of("child")[:2] == LIFE[:2]
    await checkpoint()
    assert "call_soon" not in vars(asyncio.get_running_loop())


async def test_assigning_something_that_is_not_a_context_or_to_an_ended_task_is_an_error() -> None:
    task = current_task()
    with pytest.raises(TypeError, match=r"must be a contextvars\.Context"):
        task.context = {}  # type: ignore[assignment]
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(checkpoint)
        (child,) = nursery.child_tasks
    with pytest.raises(RuntimeError, match="has ended"):
        child.context = contextvars.copy_context()


# -- patches of call_soon, by nurseryio and by other code -----------------------------


class Patch:
    """Somebody else's replacement of ``call_soon`` on the loop object."""

    def __init__(self) -> None:
        self.loop: Any = asyncio.get_running_loop()
        self.inner = self.loop.call_soon
        self.calls = 0
        self.loop.call_soon = self.call_soon = self._call_soon

    def _call_soon(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return self.inner(*args, **options)

    def in_place(self) -> bool:
        return vars(self.loop).get("call_soon") is self.call_soon


@pytest.mark.parametrize("order", ["before", "between", "around", "removed first"])
async def test_a_patch_of_call_soon_by_other_code_outlives_an_instrument(order: str) -> None:
    loop: Any = asyncio.get_running_loop()
    recorder = Recorder()
    if order == "between":
        add_instrument(recorder)
        patch = Patch()
    else:
        patch = Patch()
        add_instrument(recorder)
    over = Patch() if order == "around" else None
    await asyncio.sleep(0)
    assert recorder.events and patch.calls
    if order == "removed first":
        # Its owner removes it while nurseryio's patch is on top of it.
        loop.call_soon = patch.inner
        remove_instrument(recorder)
        assert vars(loop).get("call_soon") == patch.inner
    else:
        remove_instrument(recorder)
        assert (over or patch).in_place()
    seen, calls = len(recorder.events), patch.calls
    await asyncio.sleep(0)
    assert len(recorder.events) == seen
    assert (patch.calls > calls) == (order != "removed first")
    # An instrument that comes again sees everything.
    add_instrument(recorder)
    await asyncio.sleep(0)
    remove_instrument(recorder)
    assert len(recorder.events) > seen
    vars(loop).pop("call_soon", None)


@pytest.mark.parametrize("ends", ["at once", "after a step", "with an error", "cancelled"])
@pytest.mark.parametrize("native", [False, True])
async def test_a_context_assigned_in_the_last_step_leaves_nothing_behind(
    ends: str, native: bool
) -> None:
    loop = asyncio.get_running_loop()
    tasks: list[Any] = []
    before = vars(loop).get("call_soon")

    async def child() -> None:
        tasks.append(asyncio.current_task())
        try:
            if ends == "after a step":
                await checkpoint()
            elif ends == "cancelled":
                await nurseryio.sleep_forever()
        finally:
            current_task().context = contextvars.Context()
            if ends == "with an error":
                raise ValueError

    for _ in range(3):
        if native:
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if ends == "cancelled":
                task.cancel()
            await asyncio.wait([task])
            assert ends != "with an error" or isinstance(task.exception(), ValueError)
            del task
        else:
            with contextlib.ExitStack() as stack:
                if ends == "with an error":
                    stack.enter_context(pytest.RaisesGroup(ValueError))
                async with nurseryio.open_nursery() as nursery:
                    nursery.start_soon(child)
                    if ends == "cancelled":
                        await checkpoint()
                        await checkpoint()
                        nursery.cancel_scope.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(tasks) == 3
    assert current_task()._state.step_hooks is None
    assert vars(loop).get("call_soon") == before


async def test_a_task_that_cannot_be_made_does_not_hide_the_next_from_instruments() -> None:
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    recorder = Recorder()
    add_instrument(recorder)

    def fails(_loop: Any, _coro: Any, **_options: Any) -> Any:
        raise ZeroDivisionError

    async with nurseryio.open_nursery() as nursery:
        loop.set_task_factory(fails)
        with pytest.raises(ZeroDivisionError):
            nursery.start_soon(one_checkpoint)
        loop.set_task_factory(None)
        task = asyncio.create_task(one_checkpoint(), name="plain")
        await task
    loop.set_task_factory(factory)
    remove_instrument(recorder)
    assert recorder.of("plain")[:2] == ["spawned", "scheduled"]
    assert "exited" in recorder.of("plain")


# -- loops that look like asyncio's own, and instruments that cannot be added -----------------


@pytest.mark.parametrize("make", fake_loops.FAKES)
def test_an_instrument_comes_and_goes_on_a_loop_that_does_not_wait_in_its_selector(
    make: Any,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        before = dict(vars(loop))
        recorder = Recorder()
        add_instrument(recorder)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(one_checkpoint, name="child")
        remove_instrument(recorder)
        assert recorder.of("child") == LIFE
        assert vars(loop).keys() == before.keys()
        with pytest.raises(KeyError):
            remove_instrument(recorder)

    with contextlib.closing(make()) as loop:
        loop.run_until_complete(main())


async def test_an_instrument_that_cannot_be_added_leaves_no_hook_in_the_loop() -> None:
    class Broken(Instrument):
        @property
        def task_exited(self) -> Any:
            raise ValueError("not now")

    await checkpoint()
    loop = asyncio.get_running_loop()
    selector = current_state().selector
    before = vars(loop).get("call_soon")
    broken, recorder = Broken(), Recorder()
    with pytest.raises(ValueError, match="not now"):
        add_instrument(broken)
    assert vars(loop).get("call_soon") is before
    assert selector is None or "select" not in vars(selector)
    with pytest.raises(KeyError):
        remove_instrument(broken)
    # Beside another instrument, which stays.
    add_instrument(recorder)
    with pytest.raises(ValueError, match="not now"):
        add_instrument(broken)
    assert vars(loop).get("call_soon") is not before
    await checkpoint()
    remove_instrument(recorder)
    assert vars(loop).get("call_soon") is before
    assert recorder.events


async def test_a_selector_that_cannot_be_hooked_leaves_no_instrument_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_state: object) -> None:
        raise MemoryError

    await checkpoint()
    loop = asyncio.get_running_loop()
    before = vars(loop).get("call_soon")
    state = current_state()
    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(state, "selector", object())
        patch.setattr("nurseryio._loop.selector_idle.selector_idle_of._make", fail)
        with pytest.raises(MemoryError):
            add_instrument(recorder)
    assert vars(loop).get("call_soon") is before
    assert state.instruments is None
    await checkpoint()
    assert recorder.events == []
    with pytest.raises(KeyError):
        remove_instrument(recorder)


@pytest.mark.app_only
async def test_a_failure_as_a_step_hook_returns_does_not_keep_the_task_from_its_step(
    monkeypatch: pytest.MonkeyPatch, loop_errors: list[str]
) -> None:
    def fail() -> None:
        monkeypatch.undo()
        raise MemoryError

    class FailsOnce(Instrument):
        def before_task_step(self, task: Task) -> None:
            if task.name == "the child" and not steps:
                # What is called first after the hook has returned.
                monkeypatch.setattr("nurseryio._asyncio.compat.current_task", fail)

    async def child() -> None:
        steps.append(asyncio.current_task())

    steps: list[Any] = []
    instrument = FailsOnce()
    add_instrument(instrument)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, name="the child")
    remove_instrument(instrument)
    assert len(steps) == 1
    await checkpoint()
    assert len(loop_errors) == 1


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="asyncio.current_task() does not know such a task there"
)
async def test_an_instrument_sees_the_steps_of_a_task_class_in_python() -> None:
    loop, recorder = asyncio.get_running_loop(), Recorder()
    made: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
    add_instrument(recorder)
    await made(one_checkpoint(), loop=loop, name="in python")
    remove_instrument(recorder)
    assert recorder.of("in python")[-3:] == ["before", "exited", "after"]
    assert recorder.of("in python").count("before") == recorder.of("in python").count("after") == 2


@pytest.mark.parametrize("kind", [asyncio.Task, asyncio.tasks._PyTask])  # type: ignore[attr-defined]
async def test_a_method_of_a_task_as_a_callback_is_not_a_step_of_the_task(kind: Any) -> None:
    loop, recorder = asyncio.get_running_loop(), Recorder()
    waiting = kind(forever(), loop=loop, name="waiting")
    await checkpoint()
    add_instrument(recorder)
    loop.call_soon(waiting.set_name, "renamed")
    loop.call_soon(waiting.set_name, "waiting")
    await checkpoint()
    await checkpoint()
    assert recorder.events_of(waiting) == []
    loop.call_soon(waiting.cancel)
    await asyncio.wait([waiting])
    remove_instrument(recorder)
    assert recorder.events_of(waiting).count("before") == 1


async def test_an_instrument_sees_a_task_that_is_not_complete_at_its_first_call_soon() -> None:
    """asyncio schedules the first step in ``Task.__init__``, before that of a subclass ends."""
    loop, recorder = asyncio.get_running_loop(), Recorder()
    add_instrument(recorder)
    task = CountingTask(one_checkpoint(), loop=loop, name="counting")
    await task
    remove_instrument(recorder)
    assert recorder.of("counting")[:3] == ["spawned", "scheduled", "before"]
    assert "exited" in recorder.of("counting")
    assert task.callbacks == 1  # that of the await
