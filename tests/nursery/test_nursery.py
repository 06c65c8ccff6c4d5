"""Nurseries: spawning, wrong calls, task factories, no reference cycles."""

# Covered below 95 %: children of task factories are in test_task_factories.py; entering and
# spawning that fail in test_injection.py and test_recursion.py; who waits for whom is noted on
# Python 3.14 and later.

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from harness.core import (
    do_nothing,
    fail,
    forever,
    gone,
    settle,
    task_factory,
    turns,
    validate,
    without_gc,
)

from nurseryio import (
    Cancelled,
    CancelScope,
    Nursery,
    open_nursery,
    sleep_forever,
)
from nurseryio._core.task import records
from nurseryio.lowlevel import checkpoint, current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.limit(20)


# -- spawning -------------------------------------------------------------------


async def test_children_run_with_their_arguments_and_the_block_waits_for_them() -> None:
    seen = []

    async def child(*args: object) -> None:
        await turns(3)
        seen.append(args)

    async with open_nursery() as nursery:
        nursery.start_soon(child, 1, 2)
        nursery.start_soon(functools.partial(child, 3))
        assert seen == []
    assert sorted(seen) == [(1, 2), (3,)]


async def test_a_child_never_runs_before_start_soon_returns_eager_task_factory_or_not() -> None:
    seen = []

    async def child() -> None:
        seen.append("child")

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        seen.append("parent")
        validate()
    assert seen == ["parent", "child"]


async def test_a_child_is_an_asyncio_task_with_its_name() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(sleep_forever, name="by hand")
        nursery.start_soon(forever)
        nursery.start_soon(forever, name=do_nothing)
        await checkpoint()
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert {"by hand", "forever"} <= names
        records_by_name = {task.name: task for task in nursery.child_tasks}
        assert set(records_by_name) == {
            "by hand",
            "harness.core.forever",
            "harness.core.do_nothing",
        }
        assert all(isinstance(task.asyncio_task, asyncio.Task) for task in nursery.child_tasks)
        assert "by hand" in repr(records_by_name["by hand"])
        nursery.cancel_scope.cancel()


async def test_the_asyncio_task_of_a_failed_or_cancelled_child_ends_without_an_error() -> None:
    ends: list[tuple[BaseException | None, bool]] = []

    def note(task: asyncio.Task[Any]) -> None:
        ends.append((task.exception(), task.cancelled()))

    async def child(error: BaseException | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(note)
        await checkpoint()
        if error is not None:
            raise error
        await sleep_forever()

    with pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            nursery.start_soon(child, None)
            nursery.start_soon(child, KeyError("x"))
    await turns(3)
    assert ends == [(None, False)] * 2


async def test_a_child_runs_in_a_copy_of_the_spawners_contextvars_context() -> None:
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="none")
    seen = []

    async def child() -> None:
        seen.append(var.get())
        var.set("child")

    async def spawner(nursery: Nursery) -> None:
        var.set("spawner")
        nursery.start_soon(child)

    var.set("parent")
    async with open_nursery() as nursery:
        nursery.start_soon(child)
        var.set("later")
        nursery.start_soon(spawner, nursery)
    assert seen == ["parent", "spawner"]
    assert var.get() == "later"


async def test_nursery_has_child_tasks_and_parent_task() -> None:
    async with open_nursery() as nursery:
        assert nursery.parent_task is current_task()
        assert nursery.child_tasks == frozenset()
        nursery.start_soon(sleep_forever)
        (child,) = nursery.child_tasks
        assert child.parent_nursery is nursery
        assert child.eventual_parent_nursery is None
        assert child.child_nurseries == []
        assert current_task().child_nurseries[-1] is nursery
        assert "open, 1 children" in repr(nursery)
        with pytest.raises(AttributeError):
            nursery.child_tasks = frozenset()  # type: ignore[misc]
        nursery.cancel_scope.cancel()
    assert nursery.child_tasks == frozenset()
    assert ", closed>" in repr(nursery)
    assert ", not entered>" in repr(open_nursery())


async def test_start_soon_works_while_the_block_waits_in_aexit() -> None:
    seen = []

    async def child(nursery: Nursery, depth: int) -> None:
        seen.append(depth)
        if depth:
            nursery.start_soon(child, nursery, depth - 1)
            await checkpoint()

    async with open_nursery() as nursery:
        nursery.start_soon(child, nursery, 5)
    assert seen == [5, 4, 3, 2, 1, 0]


async def test_a_child_of_a_cancelled_nursery_starts_and_is_cancelled() -> None:
    seen = []

    async def child() -> None:
        seen.append("started")
        await checkpoint()
        seen.append("not reached")

    async with open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        nursery.start_soon(child)
        with CancelScope(shield=True):
            await settle()
        nursery.start_soon(child)
    assert seen == ["started", "started"]


async def test_a_child_runs_in_the_nurserys_cancel_scope_not_in_the_spawners() -> None:
    ended = []

    async def child() -> None:
        await turns(5)
        ended.append("child")

    async with open_nursery() as nursery:
        with CancelScope() as scope:
            nursery.start_soon(child)
            scope.cancel()
            await checkpoint()
    assert ended == ["child"]


async def test_start_soon_works_in_a_loop_callback() -> None:
    seen = []

    async def child() -> None:
        seen.append(1)

    async with open_nursery() as nursery:
        asyncio.get_running_loop().call_soon(nursery.start_soon, child)
        await turns(2)
    assert seen == [1]


async def test_a_long_lived_nursery_keeps_no_reference_to_children_that_have_ended() -> None:
    async with open_nursery() as nursery:
        before = len(records)
        for _ in range(50):
            nursery.start_soon(do_nothing)
            await turns(2)
        assert len(records) == before
        assert nursery.child_tasks == frozenset()


# -- wrong calls ----------------------------------------------------------------


async def test_a_coroutine_object_is_refused_with_advice_and_no_warning() -> None:
    async with open_nursery() as nursery:
        with pytest.raises(TypeError, match=r"did you write do_nothing\(x\) instead of do_nothing"):
            nursery.start_soon(do_nothing())  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="did you write do_nothing"):
            await nursery.start(do_nothing())  # type: ignore[arg-type]


async def test_start_soon_refuses_what_is_not_an_async_function() -> None:
    async def generator() -> AsyncIterator[int]:
        yield 1

    future = asyncio.get_running_loop().create_future()
    async with open_nursery() as nursery:
        wrong: Any
        for wrong, words in (
            (print, "appears to be synchronous"),
            (5, "expecting an async function"),
            (future, "expecting an async function"),
            (generator, "async generator"),
        ):
            with pytest.raises(TypeError, match=words):
                nursery.start_soon(wrong)
        with pytest.raises(TypeError, match="missing 1 required positional"):
            nursery.start_soon(fail)  # type: ignore[call-arg]
        assert nursery.child_tasks == frozenset()


def test_a_sync_with_on_a_nursery_is_refused_with_advice() -> None:
    with pytest.raises(RuntimeError, match="use 'async with open_nursery"):
        with open_nursery():  # type: ignore[attr-defined]
            pass


async def test_start_soon_in_a_closed_nursery_is_refused() -> None:
    async with open_nursery() as nursery:
        pass
    with pytest.raises(RuntimeError, match=r"Nursery is closed to new arrivals\n.*still open"):
        nursery.start_soon(do_nothing)
    with pytest.raises(RuntimeError, match="Nursery is closed to new arrivals"):
        await nursery.start(do_nothing)
    with pytest.raises(RuntimeError, match="single 'with' block"):
        async with nursery:
            pass


async def test_start_soon_in_a_nursery_that_is_not_entered_is_refused() -> None:
    nursery = open_nursery()
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        nursery.start_soon(do_nothing)
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        await nursery.start(do_nothing)


async def test_aexit_of_a_nursery_that_was_never_entered_is_an_error_that_says_so() -> None:
    nursery = open_nursery()
    mistake = ValueError("the entry of the class around it")
    for exc in (None, mistake):
        with pytest.raises(
            RuntimeError, match=r"not entered>, which has not been entered"
        ) as caught:
            await nursery.__aexit__(type(exc) if exc else None, exc, None)
        assert caught.value.__cause__ is exc
    async with nursery:  # it is as good as new
        nursery.start_soon(do_nothing)
    validate()


async def test_aexit_of_a_nursery_never_entered_keeps_the_error_that_the_caller_passes() -> None:
    class Client:
        nursery = open_nursery()

        async def __aenter__(self) -> None:
            try:
                raise ConnectionError
            except BaseException as exc:
                await self.nursery.__aexit__(type(exc), exc, exc.__traceback__)

        async def __aexit__(self, *_details: object) -> None:
            raise AssertionError

    with pytest.raises(RuntimeError, match="has not been entered") as caught:
        async with Client():
            raise AssertionError
    assert type(caught.value.__cause__) is ConnectionError


def test_a_nursery_cannot_be_made_by_hand_or_subclassed() -> None:
    with pytest.raises(TypeError, match="no public constructor"):
        Nursery(None)
    with pytest.raises(TypeError, match="does not support subclassing"):
        type("Mine", (Nursery,), {})


async def test_start_soon_from_another_loop_is_refused() -> None:
    async with open_nursery() as nursery:
        errors = []

        def thread() -> None:
            async def other() -> None:
                try:
                    nursery.start_soon(do_nothing)
                except RuntimeError as exc:
                    errors.append(str(exc))

            asyncio.run(other())
            try:
                nursery.start_soon(do_nothing)
            except RuntimeError as exc:
                errors.append(str(exc))

        await asyncio.get_running_loop().run_in_executor(None, thread)
    assert len(errors) == 2
    assert all("another thread or event loop" in error for error in errors)


async def test_a_nursery_cannot_be_entered_outside_a_task() -> None:
    caught = []

    def callback() -> None:
        try:
            open_nursery().__aenter__().send(None)  # type: ignore[attr-defined]
        except RuntimeError as exc:
            caught.append(str(exc))

    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0)
    assert "must be called from async context" in caught[0]


# -- task factories -------------------------------------------------------------


@pytest.fixture
def factory() -> Any:
    made: list[tuple[str | None, bool]] = []

    def make(loop: Any, coro: Any, **options: Any) -> Any:
        made.append((options.get("name"), "context" in options))
        return asyncio.Task(coro, loop=loop, **options)

    make.made = made  # type: ignore[attr-defined]
    return make


async def test_a_custom_task_factory_makes_the_children(factory: Any) -> None:
    with task_factory(factory):
        async with open_nursery() as nursery:
            nursery.start_soon(do_nothing)
            nursery.start_soon(do_nothing, name="named")
            assert len(factory.made) == 2
    assert len(factory.made) == 2


async def test_a_task_factory_that_fails_leaves_no_child_and_no_warning() -> None:
    def broken(_loop: Any, _coro: Any, **_options: Any) -> Any:
        raise OSError("no more tasks")

    with task_factory(broken):
        async with open_nursery() as nursery:
            with pytest.raises(OSError, match="no more tasks"):
                nursery.start_soon(do_nothing)
            assert nursery.child_tasks == frozenset()
            validate()


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="there asyncio.current_task() is None in such a task"
)
async def test_a_task_class_in_python_works_as_well(factory: Any) -> None:
    def make(loop: Any, coro: Any, **options: Any) -> Any:
        return asyncio.tasks._PyTask(coro, loop=loop, **options)  # type: ignore[attr-defined]

    seen = []

    async def child() -> None:
        try:
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await asyncio.sleep(0.001)
            seen.append(1)

    if asyncio.get_running_loop().get_task_factory() is not None:
        return  # an eager factory is asked for; the Python class is not made by it
    with task_factory(make):
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(forever)
            await turns(2)
            nursery.cancel_scope.cancel()
    assert seen == [1]


# -- nothing is kept alive ------------------------------------------------------


@pytest.mark.parametrize("how", ["empty", "children", "cancelled", "body", "child", "native"])
async def test_a_nursery_and_its_errors_are_freed_at_once(how: str) -> None:
    class Witness:
        pass

    class Mine(Exception):
        pass

    watched: list[weakref.ref[Any]] = []

    async def child() -> None:
        witness = Witness()
        watched.append(weakref.ref(witness))
        if how == "child":
            error = Mine()
            watched.append(weakref.ref(error))
            try:
                raise error
            finally:
                del error
        await (sleep_forever() if how == "cancelled" else checkpoint())

    async def once() -> None:
        try:
            async with open_nursery() as nursery:
                watched.append(weakref.ref(nursery))
                if how != "empty":
                    nursery.start_soon(child)
                    watched.extend(weakref.ref(task) for task in nursery.child_tasks)
                await checkpoint()
                if how == "cancelled":
                    nursery.cancel_scope.cancel()
                if how == "body":
                    raise Mine
                if how == "native":
                    asyncio.current_task().cancel()  # type: ignore[union-attr]
        except BaseExceptionGroup as group:
            watched.append(weakref.ref(group))
        except Cancelled:
            pass

    async def in_a_task() -> None:
        await asyncio.wait([asyncio.get_running_loop().create_task(once())])

    await in_a_task()
    watched.clear()
    with without_gc():
        for _ in range(2):
            await in_a_task()
            await turns(2)
            assert [ref() for ref in watched if not gone(ref)] == []
            watched.clear()
