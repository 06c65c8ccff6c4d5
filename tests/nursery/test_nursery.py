"""Nurseries: spawning, waiting, errors, native cancels of host and children, misnesting."""

# Covered below 95 %: children of task factories are in test_task_factories.py; entering and
# spawning that fail in test_injection.py and test_recursion.py; who waits for whom is noted on
# Python 3.14 and later.

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import sys
import warnings
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest
from harness.core import (
    cancelling,
    gone,
    leaves,
    needs_counts,
    settle,
    task_factory,
    turns,
    until,
    validate,
    without_gc,
)

from nurseryio import (
    Cancelled,
    CancelScope,
    Event,
    Nursery,
    TrioDeprecationWarning,
    move_on_after,
    open_nursery,
    sleep,
    sleep_forever,
)
from nurseryio._asyncio.compat import COUNTS_GO_STALE
from nurseryio._core.task import records
from nurseryio._nursery.nursery import SLOW_EXIT_PREDICTION
from nurseryio.lowlevel import checkpoint, current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.limit(20)


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


# How a nursery waits for its end depends on whether the one before it lasted (rule 2 there).
both_ends = pytest.mark.parametrize("previous", ["short", "long"])


async def a_nursery_before(previous: str) -> None:
    # One more: during the first, that of run() itself turns out to last.
    lengths = [0] * (SLOW_EXIT_PREDICTION + 1) if previous == "short" else [3]
    for length in lengths:
        async with open_nursery() as nursery:
            nursery.start_soon(turns, length)


async def fail(error: BaseException) -> None:
    raise error


async def fail_after_turns(error: BaseException, number: int = 3) -> None:
    await turns(number)
    raise error


async def do_nothing() -> None:
    pass


def types_of(error: BaseException) -> list[type[BaseException]]:
    return [type(leaf) for leaf in leaves(error)]


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


async def test_a_child_never_runs_before_start_soon_returns() -> None:
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
            f"{__name__}.forever",
            f"{__name__}.do_nothing",
        }
        assert all(isinstance(task.asyncio_task, asyncio.Task) for task in nursery.child_tasks)
        assert "by hand" in repr(records_by_name["by hand"])
        nursery.cancel_scope.cancel()


async def test_the_asyncio_task_of_a_child_ends_without_an_error() -> None:
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


async def test_a_child_runs_in_a_copy_of_the_spawners_context() -> None:
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


async def test_a_nursery_knows_its_tasks() -> None:
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


async def test_children_may_be_spawned_while_the_block_waits() -> None:
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


async def test_a_child_lives_in_the_nurserys_scope_not_in_the_spawners() -> None:
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


async def test_a_callback_may_spawn() -> None:
    seen = []

    async def child() -> None:
        seen.append(1)

    async with open_nursery() as nursery:
        asyncio.get_running_loop().call_soon(nursery.start_soon, child)
        await turns(2)
    assert seen == [1]


async def test_a_long_nursery_keeps_nothing_of_children_that_have_ended() -> None:
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


async def test_what_is_no_async_function_is_refused() -> None:
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


def test_a_plain_with_is_refused_with_advice() -> None:
    with pytest.raises(RuntimeError, match="use 'async with open_nursery"):
        with open_nursery():  # type: ignore[attr-defined]
            pass


async def test_a_closed_nursery_accepts_nobody() -> None:
    async with open_nursery() as nursery:
        pass
    with pytest.raises(RuntimeError, match=r"Nursery is closed to new arrivals.*still open"):
        nursery.start_soon(do_nothing)
    with pytest.raises(RuntimeError, match="Nursery is closed to new arrivals"):
        await nursery.start(do_nothing)
    with pytest.raises(RuntimeError, match="single 'with' block"):
        async with nursery:
            pass


async def test_a_nursery_that_is_not_entered_accepts_nobody() -> None:
    nursery = open_nursery()
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        nursery.start_soon(do_nothing)
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        await nursery.start(do_nothing)


async def test_the_exit_of_a_nursery_that_was_never_entered_is_an_error_that_says_so() -> None:
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


async def test_a_class_whose_entry_fails_before_its_nursery_is_entered_can_still_say_why() -> None:
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


async def test_a_nursery_works_on_its_own_loop_only() -> None:
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


# -- errors ---------------------------------------------------------------------


async def test_an_error_of_a_child_leaves_in_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(fail, KeyError("x"))
    assert types_of(caught.value) == [KeyError]
    assert caught.value.__context__ is None


async def test_an_error_of_the_block_leaves_in_a_group() -> None:
    error = KeyError("x")
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery():
            raise error
    assert leaves(caught.value) == [error]


async def test_every_error_leaves_once() -> None:
    errors = [KeyError(n) for n in range(4)]
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            for error in errors[:3]:
                nursery.start_soon(fail, error)
            raise errors[3]
    assert sorted(map(id, leaves(caught.value))) == sorted(map(id, errors))


async def test_an_error_cancels_everybody_else() -> None:
    ended = []

    async def sibling(wait: Any) -> None:
        try:
            await wait()
        finally:
            ended.append(wait)

    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(sibling, forever)
            nursery.start_soon(sibling, sleep_forever)
            nursery.start_soon(sibling, Event().wait)
            nursery.start_soon(fail_after_turns, KeyError())
            await sibling(forever)
    assert len(ended) == 4
    assert types_of(caught.value) == [KeyError]
    assert nursery.cancel_scope.cancelled_caught


async def test_a_child_fails_while_the_others_clean_up_and_all_is_told() -> None:
    async def cleans_up() -> None:
        try:
            await forever()
        finally:
            with CancelScope(shield=True):
                await asyncio.sleep(0.001)
            raise OSError

    async def swallows() -> None:
        with contextlib.suppress(Cancelled):
            await forever()
        with pytest.raises(Cancelled):
            await forever()
        raise LookupError

    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(cleans_up)
            nursery.start_soon(swallows)
            nursery.start_soon(fail_after_turns, KeyError())
    assert sorted(t.__name__ for t in types_of(caught.value)) == [
        "KeyError",
        "LookupError",
        "OSError",
    ]


async def test_a_child_fails_while_others_are_shielded_and_their_work_is_done() -> None:
    done = []

    async def shielded() -> None:
        with CancelScope(shield=True):
            await asyncio.sleep(0.002)
            await sleep(0.002)
            done.append(1)
        await checkpoint()
        done.append("not reached")

    with pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            nursery.start_soon(shielded)
            nursery.start_soon(fail_after_turns, KeyError())
    assert done == [1]


async def test_a_child_fails_before_the_others_have_started() -> None:
    seen = []

    async def late() -> None:
        seen.append("started")
        await checkpoint()
        seen.append("not reached")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
            for _ in range(3):
                nursery.start_soon(late)
    assert seen == ["started"] * 3
    assert types_of(caught.value) == [KeyError]


async def test_a_child_that_fails_while_the_block_runs_interrupts_it() -> None:
    reached = []
    with pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
            for _ in range(3):
                with contextlib.suppress(Cancelled):
                    await forever()
                reached.append(1)
    assert len(reached) == 3


async def test_the_reason_tells_who_failed() -> None:
    reasons: list[Any] = []
    with pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            nursery.start_soon(fail, KeyError("oops"), name="culprit")
            try:
                await sleep_forever()
            except Cancelled as exc:
                reasons.append(exc.args[0])
                raise
    with pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:

            async def child() -> None:
                try:
                    await forever()
                except Cancelled as exc:
                    reasons.append(exc.args[0])
                    raise

            nursery.start_soon(child)
            await turns(2)
            raise KeyError("mine")
    assert [reason.source for reason in reasons] == ["nursery", "nursery"]
    assert "child task raised exception KeyError('oops')" in reasons[0].reason
    assert "culprit" in reasons[0].source_task
    assert "Code block inside nursery contextmanager raised exception" in reasons[1].reason
    assert "cancelled due to nursery with reason" in str(reasons[1])


async def test_the_context_of_errors_is_what_users_made_it() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
            try:
                raise OSError
            except OSError:
                raise LookupError from None
    by_type = {type(leaf): leaf for leaf in leaves(caught.value)}
    assert by_type[KeyError].__context__ is None
    assert type(by_type[LookupError].__context__) is OSError


async def test_the_traceback_of_an_error_begins_in_the_users_function() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
    (leaf,) = leaves(caught.value)
    assert leaf.__traceback__ is not None
    assert leaf.__traceback__.tb_frame.f_code.co_name == "fail"


async def test_nested_nurseries_nest_their_groups() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery():
            async with open_nursery() as inner:
                inner.start_soon(fail, KeyError())
    (group,) = caught.value.exceptions
    assert isinstance(group, ExceptionGroup)
    assert types_of(group) == [KeyError]


# -- cancellations in groups ----------------------------------------------------


async def test_a_cancelled_nursery_swallows_its_own() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(sleep_forever)
        nursery.start_soon(forever)
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    async with open_nursery() as nursery:
        nursery.cancel_scope.cancel()
    assert not nursery.cancel_scope.cancelled_caught


async def test_a_nursery_in_a_cancelled_scope_raises_a_group_up_to_the_scope() -> None:
    seen: list[BaseException] = []
    with CancelScope() as scope:
        scope.cancel()
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(sleep_forever)
                nursery.start_soon(forever)
        except BaseException as exc:
            seen.append(exc)
            raise
    assert scope.cancelled_caught
    assert isinstance(seen[0], BaseExceptionGroup)
    assert types_of(seen[0]) == [Cancelled, Cancelled]


async def test_errors_and_cancellations_leave_together_and_the_scope_takes_its_own() -> None:
    seen: list[BaseException] = []

    async def fails_in_cleanup() -> None:
        try:
            await sleep_forever()
        finally:
            raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        with CancelScope() as scope:
            scope.cancel()
            try:
                async with open_nursery() as nursery:
                    nursery.start_soon(sleep_forever)
                    nursery.start_soon(fails_in_cleanup)
            except BaseException as exc:
                seen.append(exc)
                raise
    assert sorted(t.__name__ for t in types_of(seen[0])) == ["CancelledError", "KeyError"]
    assert types_of(caught.value) == [KeyError]
    assert scope.cancelled_caught


@both_ends
async def test_the_end_of_a_nursery_is_no_cancellation_point_of_its_own(previous: str) -> None:
    await a_nursery_before(previous)
    with CancelScope() as scope:
        scope.cancel()
        async with open_nursery():
            pass
        async with open_nursery() as nursery:
            nursery.start_soon(do_nothing)
    assert not scope.cancelled_caught


@both_ends
async def test_the_end_of_a_nursery_always_lets_others_run(previous: str) -> None:
    await a_nursery_before(previous)
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    async with open_nursery():
        pass
    assert seen == [1]


async def test_after_a_long_nursery_some_wait_without_a_turn_and_then_it_is_tried_again() -> None:
    async def turns_at_the_end() -> int:
        passed = 0

        def another() -> None:
            nonlocal handle, passed
            passed += 1
            handle = loop.call_soon(another)

        loop = asyncio.get_running_loop()
        async with open_nursery() as nursery:
            handle = loop.call_soon(another)
            nursery.start_soon(turns, 0)
        handle.cancel()
        return passed

    await a_nursery_before("short")
    assert [await turns_at_the_end() for _ in range(3)] == [1] * 3
    await a_nursery_before("long")
    assert [await turns_at_the_end() for _ in range(SLOW_EXIT_PREDICTION)] == [
        2
    ] * SLOW_EXIT_PREDICTION
    assert [await turns_at_the_end() for _ in range(3)] == [1] * 3


async def test_a_scope_cancelled_while_its_nursery_waits_cancels_the_children() -> None:
    with CancelScope() as scope:
        async with open_nursery() as nursery:
            nursery.start_soon(forever)
            asyncio.get_running_loop().call_later(0.001, scope.cancel)
    assert scope.cancelled_caught
    assert not nursery.cancel_scope.cancelled_caught


async def nest(depth: int) -> None:
    async with open_nursery() as nursery:
        if depth:
            nursery.start_soon(nest, depth - 1)
        else:
            await sleep_forever()


async def test_a_thousand_nested_nurseries_are_cancelled_at_once() -> None:
    with CancelScope() as scope:
        async with open_nursery() as nursery:
            nursery.start_soon(nest, 1000)
            with CancelScope(shield=True):
                await until(lambda: len(asyncio.all_tasks()) > 1000)
                validate()
            scope.cancel()
    assert scope.cancelled_caught
    assert cancelling() == 0


async def test_a_thousand_nurseries_nested_in_one_task_are_cancelled_at_once() -> None:
    with CancelScope() as scope:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(1000):
                nursery = await stack.enter_async_context(open_nursery())
                nursery.start_soon(sleep_forever)
            asyncio.get_running_loop().call_soon(scope.cancel)
            await sleep_forever()
    assert scope.cancelled_caught
    assert cancelling() == 0


async def test_an_error_a_thousand_nurseries_deep_arrives() -> None:
    async def dig(depth: int) -> None:
        async with open_nursery() as nursery:
            if depth:
                nursery.start_soon(dig, depth - 1)
            else:
                raise KeyError("deep down")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(dig, 1000)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert type(error) is KeyError


# -- native cancels of children -------------------------------------------------


async def test_a_child_cancelled_natively_ends_quietly_and_alone() -> None:
    for wait in (forever, sleep_forever):
        async with open_nursery() as nursery:
            nursery.start_soon(wait)
            await turns(2)
            (child,) = nursery.child_tasks
            child.asyncio_task.cancel()
            await turns(3)
            assert nursery.child_tasks == frozenset()
        assert not nursery.cancel_scope.cancel_called


@both_ends
async def test_a_child_cancelled_before_its_first_step_does_not_hang_the_nursery(
    previous: str,
) -> None:
    await a_nursery_before(previous)
    started = []

    async def child() -> None:
        started.append(1)

    for in_body in (True, False):
        async with open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(child)
            for task in nursery.child_tasks:
                task.asyncio_task.cancel()
            if in_body:
                await turns(5)
        validate()
        assert not nursery.cancel_scope.cancel_called
    assert started == []
    await settle()


@both_ends
async def test_a_child_spawned_while_the_nursery_waits_may_be_cancelled_before_its_step(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def spawner(nursery: Nursery) -> None:
        await turns(3)
        nursery.start_soon(forever)
        for task in nursery.child_tasks - {current_task()}:
            task.asyncio_task.cancel()

    async with open_nursery() as nursery:
        nursery.start_soon(spawner, nursery)
    validate()


@both_ends
async def test_a_native_cancel_of_a_child_in_a_cancelled_nursery_is_no_matter(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def stubborn() -> None:
        with contextlib.suppress(Cancelled):
            await forever()
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await forever()

    async with open_nursery() as nursery:
        nursery.start_soon(stubborn)
        await turns(2)
        nursery.cancel_scope.cancel()
    assert cancelling() == 0


# -- native cancels of the host -------------------------------------------------


class Host:
    """An asyncio task around a nursery, and what it saw."""

    def __init__(self, body: Any) -> None:
        self.nursery: Any = None
        self.error: BaseException | None = None
        self.count = -1
        self.next_error: BaseException | None = None
        self.body = body
        self.task = asyncio.get_running_loop().create_task(self.run())

    async def run(self) -> None:
        try:
            async with open_nursery() as self.nursery:
                await self.body(self.nursery)
        except BaseException as exc:
            self.error = exc
        self.count = cancelling()
        try:
            await checkpoint()
            await asyncio.sleep(0)
        except Cancelled as exc:
            self.next_error = exc


@pytest.mark.parametrize("wait", [None, forever, sleep_forever])
@both_ends
async def test_a_native_cancel_of_the_host_ends_the_children_and_comes_out_bare(
    wait: Any,
    previous: str,
) -> None:
    await a_nursery_before(previous)
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    async def body(nursery: Nursery) -> None:
        nursery.start_soon(child)
        nursery.start_soon(child)
        if wait is not None:
            await wait()

    host = Host(body)
    await settle()
    host.task.cancel("for the host")
    await settle()
    assert ended == [1, 1]
    assert type(host.error) is Cancelled
    assert host.error.args == ("for the host",)
    assert host.count == (1 if sys.version_info >= (3, 11) else 0)
    assert host.next_error is None
    assert not host.nursery.cancel_scope.cancelled_caught


@both_ends
async def test_errors_of_children_go_first_and_the_native_cancel_strikes_next(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def child() -> None:
        try:
            await forever()
        finally:
            raise KeyError

    async def body(nursery: Nursery) -> None:
        nursery.start_soon(child)
        nursery.start_soon(forever)

    host = Host(body)
    await settle()
    host.task.cancel()
    await settle()
    assert isinstance(host.error, ExceptionGroup)
    assert types_of(host.error) == [KeyError]
    assert host.count == (1 if sys.version_info >= (3, 11) else 0)
    assert type(host.next_error) is Cancelled


@both_ends
async def test_a_native_cancel_again_and_again_does_not_shake_the_wait_off(previous: str) -> None:
    await a_nursery_before(previous)
    release = asyncio.Event()

    async def child() -> None:
        with CancelScope(shield=True):
            await release.wait()

    async def body(nursery: Nursery) -> None:
        nursery.start_soon(child)

    host = Host(body)
    await settle()
    for n in range(5):
        host.task.cancel(f"request {n}")
        await settle()
        assert not host.task.done()
    release.set()
    await settle()
    assert type(host.error) is Cancelled
    assert host.error.args == ("request 4",)
    assert host.count == (5 if sys.version_info >= (3, 11) else 0)


@both_ends
async def test_a_native_cancel_at_the_very_end_of_an_empty_nursery_is_not_lost(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def body(_nursery: Nursery) -> None:
        asyncio.current_task().cancel("late")  # type: ignore[union-attr]

    host = Host(body)
    await settle()
    assert type(host.error) is Cancelled
    assert host.next_error is None


@both_ends
async def test_a_native_cancel_that_comes_when_the_last_child_ends_is_not_lost(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def body(nursery: Nursery) -> None:
        async def child() -> None:
            await turns(2)
            host.task.cancel("late")

        nursery.start_soon(child)

    host = Host(body)
    await settle()
    assert type(host.error) is Cancelled or type(host.next_error) is Cancelled


@needs_counts
@pytest.mark.parametrize("native_first", [True, False])
@both_ends
async def test_native_and_own_cancel_in_one_turn_both_count(
    native_first: bool,
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def body(nursery: Nursery) -> None:
        nursery.start_soon(forever)
        await forever()

    host = Host(body)
    await settle()
    both = [host.task.cancel, host.nursery.cancel_scope.cancel]
    for cancel in both if native_first else reversed(both):
        cancel()
    await settle()
    assert type(host.error) is Cancelled
    assert host.count == 1
    assert host.next_error is None


@needs_counts
async def test_an_asyncio_timeout_around_a_nursery() -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    for body in (do_nothing, sleep_forever, forever):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002):
                async with open_nursery() as nursery:
                    nursery.start_soon(child)
                    await body()
        assert cancelling() == 0
    assert ended == [1, 1, 1]
    await checkpoint()


@needs_counts
@pytest.mark.skipif(COUNTS_GO_STALE, reason="a swallowed request looks like one of a TaskGroup's")
@pytest.mark.parametrize("around", [open_nursery, None])
async def test_a_timeout_that_the_block_swallowed_is_known_by_a_nursery_cancelled_later(
    around: Any,
) -> None:
    async def block(scope: CancelScope) -> None:
        with contextlib.suppress(Cancelled):
            await sleep_forever()
        async with open_nursery() as inner:
            inner.start_soon(checkpoint)
            scope.cancel()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.002):
            if around is None:
                with CancelScope() as scope:
                    await block(scope)
            else:
                async with around() as nursery:
                    await block(nursery.cancel_scope)
    assert cancelling() == 0
    await checkpoint()


@needs_counts
async def test_errors_beside_a_timeout_that_the_block_swallowed_leave_alone() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(0.002):
            async with open_nursery() as nursery:
                nursery.start_soon(sleep_forever)
                with contextlib.suppress(Cancelled):
                    await sleep_forever()
                raise ValueError("body")
    assert [repr(leaf) for leaf in leaves(caught.value)] == ["ValueError('body')"]
    assert cancelling() == 0


async def test_wait_for_around_a_nursery() -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    async def main() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(child)

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(main(), 0.002)
    assert ended == [1]
    assert cancelling() == 0
    await checkpoint()


@needs_counts
async def test_a_task_group_around_a_nursery() -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_after_turns(KeyError()))
            async with open_nursery() as nursery:
                nursery.start_soon(child)
    assert types_of(caught.value) == [KeyError]
    assert ended == [1]
    assert cancelling() == 0


@needs_counts
async def test_a_task_group_inside_a_nursery() -> None:
    async def child() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_after_turns(KeyError()))
            await sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(forever)
    assert types_of(caught.value) == [KeyError]
    async with open_nursery() as nursery:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(forever())
            await turns(2)
            nursery.cancel_scope.cancel()
            await asyncio.sleep(0)
    assert task.cancelled() and nursery.cancel_scope.cancelled_caught
    assert cancelling() == 0


@needs_counts
async def test_a_timeout_of_asyncio_inside_a_cancelled_nursery_and_out_again() -> None:
    async with open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        async with asyncio.timeout(100):
            await forever()
    assert nursery.cancel_scope.cancelled_caught
    assert cancelling() == 0


# -- groups, strict and not -----------------------------------------------------


async def test_loose_groups_let_a_single_error_out_bare_and_warn() -> None:
    with pytest.warns(TrioDeprecationWarning, match="strict_exception_groups=False"):
        nursery = open_nursery(strict_exception_groups=False)
    with pytest.raises(KeyError):
        async with nursery:
            nursery.start_soon(fail, KeyError())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrioDeprecationWarning)
        nursery = open_nursery(strict_exception_groups=False)
    with pytest.raises(ExceptionGroup) as caught:
        async with nursery:
            nursery.start_soon(fail, KeyError())
            nursery.start_soon(fail, OSError())
    assert sorted(t.__name__ for t in types_of(caught.value)) == ["KeyError", "OSError"]


async def test_loose_groups_collapse_when_the_cancellations_are_taken_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrioDeprecationWarning)
        nursery = open_nursery(strict_exception_groups=False)

    async def fails_in_cleanup() -> None:
        try:
            await sleep_forever()
        finally:
            raise KeyError

    with pytest.raises(KeyError):
        with CancelScope() as scope:
            scope.cancel()
            async with nursery:
                nursery.start_soon(fails_in_cleanup)
                nursery.start_soon(sleep_forever)


# -- the ends of programs -------------------------------------------------------


@pytest.mark.app_only
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
async def test_a_lone_exit_leaves_the_outermost_nursery_bare(error: BaseException) -> None:
    cleaned_up = []

    async def sibling() -> None:
        try:
            await forever()
        finally:
            cleaned_up.append(1)

    with pytest.raises(type(error)) as caught:
        async with open_nursery() as outer:
            outer.start_soon(sibling)
            async with open_nursery() as inner:
                inner.start_soon(sibling)
                inner.start_soon(fail_after_turns, error)
    assert caught.value is error
    assert cleaned_up == [1, 1]


@pytest.mark.app_only
async def test_an_exit_beside_other_errors_leaves_in_the_group() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(fail, SystemExit(3))
            nursery.start_soon(fail, KeyError())
    assert sorted(t.__name__ for t in types_of(caught.value)) == ["KeyError", "SystemExit"]


@pytest.mark.app_only
async def test_groups_asked_for_are_kept_around_an_exit() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(fail, SystemExit(3))
    assert types_of(caught.value) == [SystemExit]


async def test_inside_an_exit_is_an_error_like_any_other() -> None:
    groups: list[BaseException] = []

    async def inner() -> None:
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(forever)
                nursery.start_soon(fail, SystemExit(3))
        except BaseException as exc:
            groups.append(exc)

    async with open_nursery() as nursery:
        nursery.start_soon(inner)
    assert isinstance(groups[0], BaseExceptionGroup)
    assert types_of(groups[0]) == [SystemExit]


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


# -- misnesting -----------------------------------------------------------------


async def test_a_task_that_ends_inside_its_nursery_raises_an_error_with_its_name() -> None:
    async def careless() -> None:
        nursery = open_nursery()
        await nursery.__aenter__()
        nursery.start_soon(forever)
        nursery.start_soon(fail_after_turns, KeyError())

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(careless, name="the careless")
    messages = [str(leaf) for leaf in leaves(caught.value) if isinstance(leaf, RuntimeError)]
    assert len(messages) == 1
    assert "Nursery stack corrupted" in messages[0] and "the careless" in messages[0]
    assert "as_safe_channel" in messages[0]
    await settle()
    validate()


async def test_an_asyncio_task_that_ends_inside_its_nursery_is_reported(
    loop_errors: list[str],
) -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    async def careless() -> None:
        nursery = open_nursery()
        await nursery.__aenter__()
        nursery.start_soon(child)
        await turns(2)

    await asyncio.get_running_loop().create_task(careless())
    await settle()
    assert ended == [1]
    assert len(loop_errors) == 1
    assert "Nursery stack corrupted" in loop_errors[0]
    validate()


async def test_a_nursery_left_in_an_unrelated_task_names_both_and_stays_open() -> None:
    errors = []
    async with open_nursery() as outer:
        async with open_nursery() as nursery:

            async def leave() -> None:
                try:
                    await nursery.__aexit__(None, None, None)
                except RuntimeError as exc:
                    errors.append(str(exc))
                await checkpoint()

            outer.start_soon(leave, name="the leaver")
            await settle()
            nursery.start_soon(do_nothing)
            validate()
    assert len(errors) == 1
    assert "the leaver" in errors[0] and repr(current_task()) in errors[0]


async def test_nurseries_left_in_the_wrong_order_are_found_out_and_harm_nobody() -> None:
    ended = []

    async def child(name: str) -> None:
        try:
            await forever()
        finally:
            ended.append(name)

    async def careless() -> None:
        outer, inner = open_nursery(), open_nursery()
        await outer.__aenter__()
        await inner.__aenter__()
        outer.start_soon(child, "outer")
        inner.start_soon(child, "inner")
        await turns(2)
        try:
            outer.cancel_scope.cancel()
            with CancelScope(shield=True):
                await outer.__aexit__(None, None, None)
        finally:
            await inner.__aexit__(*sys.exc_info())

    with contextlib.suppress(BaseExceptionGroup, RuntimeError):
        async with open_nursery() as nursery:
            nursery.start_soon(careless)
    assert sorted(ended) == ["inner", "outer"]
    await settle()
    validate()
    assert cancelling() == 0
    await checkpoint()


async def test_a_generator_with_a_nursery_closed_elsewhere_is_found_out() -> None:
    async def numbers() -> AsyncIterator[int]:
        async with open_nursery() as nursery:
            nursery.start_soon(forever)
            yield 1

    seen: list[str] = []
    generator: Any = numbers()

    async def start() -> None:
        await generator.__anext__()
        await turns(5)

    async def finish() -> None:
        await turns(3)
        try:
            await generator.aclose()
        except RuntimeError as exc:
            seen.append(str(exc))
        await checkpoint()
        seen.append("goes on")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(start, name="the starter")
            nursery.start_soon(finish, name="the finisher")
    messages = seen[:1] + [str(leaf) for leaf in leaves(caught.value)]
    assert any("the starter" in text and "the finisher" in text for text in messages), messages
    assert types_of(caught.value) == [RuntimeError]
    await settle()
    validate()
    await checkpoint()


async def test_limits_around_a_nursery_hold_for_its_children(autojump_clock: Any) -> None:
    with move_on_after(5) as scope:
        async with open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(sleep, 10)
    assert scope.cancelled_caught
    assert not nursery.cancel_scope.cancelled_caught
