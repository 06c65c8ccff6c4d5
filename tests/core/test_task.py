"""Records of tasks and of loops."""

# Covered below 95 %: spawns that fail are in test_injection.py; the context of a task that is
# replaced is in test_gauge.py.

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import sys
import weakref
from typing import Any

import pytest
from harness import pypy
from harness.late_errors import LateFuture, OutOfTime

import nurseryio
from nurseryio import open_nursery
from nurseryio._base.exc_fields import notes_of
from nurseryio._core import loop_state as loop_state_module, task as task_module
from nurseryio._core.task import (
    name_of,
    records,
    wake_future,
)
from nurseryio.lowlevel import Task, checkpoint, current_task
from nurseryio.testing import wait_all_tasks_blocked

VAR = contextvars.ContextVar("VAR", default="unset")


async def test_a_task_has_one_record() -> None:
    task = current_task()
    assert current_task() is task
    await checkpoint()
    assert current_task() is task
    assert task.asyncio_task is asyncio.current_task()
    assert records[task.asyncio_task] is task


def test_current_task_outside_of_tasks_raises() -> None:
    with pytest.raises(RuntimeError, match="must be called from async context"):
        current_task()

    async def main() -> list[str]:
        errors = []

        def callback() -> None:
            try:
                current_task()
            except RuntimeError as exc:
                errors.extend([str(exc), *notes_of(exc)])

        asyncio.get_running_loop().call_soon(callback)
        await checkpoint()
        await checkpoint()
        return errors

    error, note = nurseryio.run(main)
    assert error == "must be called from async context"
    assert "not in a callback" in note
    assert "start_soon" in note


@pytest.mark.parametrize(
    "call", [current_task, nurseryio.current_time, lambda: checkpoint().send(None)]
)
def test_outside_of_a_loop_the_error_names_from_thread_run_sync_and_the_token(call: Any) -> None:
    with pytest.raises(RuntimeError) as caught:
        call()
    assert str(caught.value) == "must be called from async context"
    (note,) = notes_of(caught.value)
    assert "from_thread.run_sync(function, trio_token=token)" in note
    assert "nurseryio.lowlevel.current_trio_token()" in note


async def test_a_lock_released_in_a_thread_is_an_error_that_names_from_thread_run_sync() -> None:
    lock = nurseryio.Lock()
    token = nurseryio.lowlevel.current_trio_token()

    def by_the_token() -> None:
        nurseryio.from_thread.run_sync(event.set, trio_token=token)

    event = nurseryio.Event()
    async with lock:
        with pytest.raises(RuntimeError, match=r"from_thread\.run_sync.*trio_token=token"):
            await asyncio.get_running_loop().run_in_executor(None, lock.release)
        assert lock.locked()
        await asyncio.get_running_loop().run_in_executor(None, by_the_token)
    assert event.is_set()


def test_task_cannot_be_instantiated() -> None:
    with pytest.raises(TypeError, match="no public constructor"):
        Task()  # type: ignore[call-arg]


async def named() -> None:
    await checkpoint()


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (named, f"{__name__}.named"),
        (functools.partial(functools.partial(named)), f"{__name__}.named"),
        ("a name", "a name"),
        (5, "5"),
    ],
)
def test_a_task_name_is_made_of_the_function_or_of_any_object(thing: object, name: str) -> None:
    assert name_of(thing) == name


async def test_task_has_name_coro_parent_nursery_and_child_nurseries() -> None:
    seen: list[Task] = []

    async def child() -> None:
        seen.append(current_task())
        await nurseryio.sleep_forever()

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(child, name="by name")
        nursery.start_soon(child, name=named)
        await wait_all_tasks_blocked()
        assert {task.name.rpartition(".")[2] for task in seen} == {"child", "by name", "named"}
        assert all(task.parent_nursery is nursery for task in seen)
        assert all(task.coro.__name__ == "child" for task in seen)
        assert repr(seen[1]).startswith("<Task 'by name' at 0x")
        assert "by name" in {task.get_name() for task in asyncio.all_tasks()}
        seen[0].name = "renamed"
        assert seen[0].asyncio_task.get_name() == "renamed"
        nursery.cancel_scope.cancel()


async def test_child_nurseries_of_a_task_are_listed_from_outer_to_inner() -> None:
    task = current_task()
    assert task.child_nurseries == []
    async with open_nursery() as outer:
        with nurseryio.CancelScope():
            async with open_nursery() as inner:
                assert task.child_nurseries == [outer, inner]
            assert task.child_nurseries == [outer]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python does not tell a task's context")
async def test_a_task_runs_in_its_contextvars_context() -> None:
    seen = []

    async def child() -> None:
        VAR.set("child")
        seen.append(current_task().context.get(VAR))

    VAR.set("parent")
    async with open_nursery() as nursery:
        nursery.start_soon(child)
    assert seen == ["child"]
    assert current_task().context.get(VAR) == "parent"


async def test_iter_await_frames_walks_the_frames_in_which_a_task_waits() -> None:
    async def generator_of() -> object:
        await inner()
        yield 1

    async def inner() -> None:
        await nurseryio.sleep_forever()

    async def child() -> None:
        async for _ in generator_of():
            raise AssertionError

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await wait_all_tasks_blocked()
        [task] = nursery.child_tasks
        names = [frame.f_code.co_name for frame, _ in task.iter_await_frames()]
        assert names[:4] == ["child", "generator_of", "inner", "sleep_forever"]
        nursery.cancel_scope.cancel()


@pypy.needs_reference_counting
async def test_a_task_record_keeps_no_reference_to_the_locals_of_a_child_that_has_ended() -> None:
    class Thing:
        pass

    kept = []

    async def child() -> None:
        thing = Thing()
        kept.append(weakref.ref(thing))
        await checkpoint()

    gc.disable()
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
        assert kept[0]() is None
    finally:
        gc.enable()


# -- loops ----------------------------------------------------------------------


async def test_a_task_whose_futures_set_result_raises_afterwards_wakes_once() -> None:
    woken = []

    async def sleeper() -> None:
        woken.append(await future)
        await checkpoint()
        await checkpoint()

    future = LateFuture()
    async with open_nursery() as nursery:
        nursery.start_soon(sleeper)
        await wait_all_tasks_blocked()
        with pytest.raises(OutOfTime):
            wake_future(future)
        wake_future(future)  # nothing is left to be done
    assert woken == [None]


def test_the_table_of_records_is_not_iterated_while_other_threads_may_change_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Table(dict[Any, Any]):
        def __iter__(self) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

        items = values = keys = __iter__

    monkeypatch.setattr(task_module, "records", Table())
    monkeypatch.setattr(loop_state_module, "_states", Table())
    loop_state_module.sweep_closed_loops()
    assert loop_state_module.all_states() == []


async def test_a_task_that_does_not_show_its_waiter_is_refused_at_its_first_use() -> None:
    """As those of PySide6.QtAsyncio. A deadline would pass, and nothing would be cancelled."""

    class OddTask(asyncio.Future[None]):
        def get_coro(self) -> None:
            return None

    odd: Any = OddTask(loop=asyncio.get_running_loop())
    with pytest.raises(RuntimeError, match=r"OddTask do not show what they wait for") as caught:
        task_module.adopt(odd)
    assert notes_of(caught.value) == ["use an event loop whose tasks are those of asyncio"]
    assert odd not in task_module.records
