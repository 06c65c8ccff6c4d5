"""Cancel scopes: entering, leaving, what is caught, attributes that change, and misnesting."""

# Covered below 95 %: failures while a scope is entered or left are in test_injection.py and
# test_recursion.py; shields of anyio in test_anyio_bridge.py; another thread in
# test_wrong_thread.py.

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest
from harness.core import (
    HAS_COUNTS,
    cancelling,
    forever,
    gone,
    leaves,
    needs_counts,
    settle,
    turns,
    validate,
    without_gc,
)

from nurseryio import (
    Cancelled,
    CancelReason,
    CancelScope,
    Lock,
    TooSlowError,
    current_effective_deadline,
    current_time,
    fail_after,
    move_on_after,
    move_on_at,
    open_nursery,
    sleep,
    sleep_forever,
)
from nurseryio._core.task import current_state
from nurseryio.lowlevel import checkpoint, current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.limit(20)


# -- entering, leaving, cancelling ----------------------------------------------


async def test_a_cancel_scope_that_is_not_cancelled_does_nothing() -> None:
    with CancelScope() as scope:
        await checkpoint()
    assert not scope.cancel_called and not scope.cancelled_caught
    with pytest.raises(KeyError):
        with CancelScope():
            raise KeyError


async def test_a_cancelled_scope_catches_its_cancellation() -> None:
    with CancelScope() as scope:
        scope.cancel()
        await checkpoint()
        raise AssertionError("not reached")
    assert scope.cancel_called and scope.cancelled_caught


async def test_a_scope_may_be_cancelled_before_it_is_entered() -> None:
    scope = CancelScope()
    scope.cancel()
    assert scope.cancel_called
    for wait in (forever, checkpoint):
        scope = CancelScope()
        scope.cancel()
        with scope:
            await wait()
        assert scope.cancelled_caught


async def test_cancelling_twice_or_after_the_end_changes_nothing() -> None:
    with CancelScope() as scope:
        scope.cancel(reason="first")
        scope.cancel(reason="second")
        with pytest.raises(Cancelled) as caught:
            await checkpoint()
        assert caught.value.args[0].reason == "first"
    scope.cancel()
    await checkpoint()
    with CancelScope() as scope:
        pass
    scope.cancel()
    assert scope.cancel_called and not scope.cancelled_caught
    await checkpoint()


async def test_a_cancel_scope_cannot_be_entered_twice() -> None:
    scope = CancelScope()
    with scope:
        with pytest.raises(RuntimeError, match="single 'with' block"):
            scope.__enter__()
        await checkpoint()
    with pytest.raises(RuntimeError, match="single 'with' block"):
        with scope:
            pass
    validate()


def test_a_scope_can_be_made_and_cancelled_without_a_loop_but_not_entered() -> None:
    scope = CancelScope(deadline=5)
    assert "unbound" in repr(scope)
    with pytest.raises(RuntimeError, match="must be called from async context"):
        with scope:
            pass
    scope = CancelScope()
    scope.cancel()
    assert scope.cancel_called


async def test_a_scope_cannot_be_entered_in_a_callback() -> None:
    caught = []

    def callback() -> None:
        try:
            CancelScope().__enter__()
        except RuntimeError as exc:
            caught.append(str(exc))

    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0)
    assert len(caught) == 1
    assert "must be called from async context" in caught[0]


async def test_the_cancel_reason_of_a_cancel_from_a_callback_names_no_task() -> None:
    with CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel, "bye")
        with pytest.raises(Cancelled) as caught:
            await sleep_forever()
        # In debug mode the stack of the call follows.
        assert str(caught.value).partition(";")[0] == "cancelled due to explicit with reason 'bye'"


async def test_a_cancel_reason_must_be_a_str() -> None:
    with CancelScope() as scope:
        with pytest.raises(TypeError, match="reason must be a string or None, not int"):
            scope.cancel(reason=5)  # type: ignore[arg-type]
        assert not scope.cancel_called


async def test_the_cancel_reason_says_whether_a_deadline_or_cancel_was_the_source() -> None:
    with move_on_after(0):
        with pytest.raises(Cancelled) as caught:
            await checkpoint()
    assert caught.value.args[0].source == "deadline"
    # In debug mode the stack of the line that has set the deadline follows.
    assert str(caught.value).partition(";")[0] == "cancelled due to deadline"
    with CancelScope() as scope:
        scope.cancel()
        with pytest.raises(Cancelled) as caught:
            await checkpoint()
    me = repr(current_task())
    # In debug mode the stack of the call follows.
    assert str(caught.value).partition(";")[0] == f"cancelled due to explicit from task {me}"


# -- what is caught -------------------------------------------------------------


async def test_an_error_that_replaces_cancelled_passes_the_scope() -> None:
    with pytest.raises(KeyError):
        with CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            finally:
                raise KeyError
    assert not scope.cancelled_caught


async def test_a_cancelled_scope_splits_its_cancelled_off_an_exception_group() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        with CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except Cancelled as exc:
                raise BaseExceptionGroup("both", [exc, KeyError()]) from None
    assert [type(leaf) for leaf in leaves(caught.value)] == [KeyError]
    assert type(caught.value) is ExceptionGroup
    assert scope.cancelled_caught


async def test_a_cancelled_scope_swallows_an_exception_group_of_cancelled_only() -> None:
    with CancelScope() as scope:
        scope.cancel()
        try:
            await checkpoint()
        except Cancelled as exc:
            raise BaseExceptionGroup("", [exc, BaseExceptionGroup("", [exc])]) from None
    assert scope.cancelled_caught


async def test_a_scope_that_is_not_cancelled_catches_nothing() -> None:
    with CancelScope() as outer:
        with pytest.raises(Cancelled), CancelScope() as inner:
            outer.cancel()
            await checkpoint()
        assert not inner.cancelled_caught
    assert not outer.cancelled_caught


async def test_the_outermost_cancelled_scope_catches() -> None:
    with CancelScope() as outer:
        with CancelScope() as middle:
            with CancelScope() as inner:
                inner.cancel()
                outer.cancel()
                await checkpoint()
            raise AssertionError("not reached")
    assert outer.cancelled_caught
    assert not middle.cancelled_caught and not inner.cancelled_caught


async def test_the_inner_cancelled_scope_catches_and_the_outer_scope_goes_on() -> None:
    reached = False
    with CancelScope() as outer:
        with CancelScope() as inner:
            inner.cancel()
            await checkpoint()
        await checkpoint()
        reached = True
    assert reached and inner.cancelled_caught and not outer.cancel_called


async def test_a_shielded_cancelled_scope_catches_inside_a_cancelled_one() -> None:
    with CancelScope() as outer:
        outer.cancel()
        with CancelScope(shield=True) as inner:
            inner.cancel()
            await checkpoint()
        assert inner.cancelled_caught
        await checkpoint()
    assert outer.cancelled_caught


async def test_an_outer_scope_cancelled_after_the_inner_one_catches_the_cancelled() -> None:
    with CancelScope() as outer:
        with CancelScope() as inner:
            inner.cancel()
            try:
                await checkpoint()
            finally:
                outer.cancel()
        raise AssertionError("the exception belongs to the outer scope now")
    assert outer.cancelled_caught and not inner.cancelled_caught


async def test_nested_shields_each_keep_out_cancels_from_outside() -> None:
    with CancelScope() as a:
        with CancelScope(shield=True) as b:
            with CancelScope(shield=True) as c:
                a.cancel()
                b.cancel()
                await checkpoint()
                c.shield = False
                with pytest.raises(Cancelled):
                    await checkpoint()
                c.shield = True
                await checkpoint()
            with pytest.raises(Cancelled):
                await checkpoint()
            b.shield = False
            await checkpoint()
    assert a.cancelled_caught
    validate()


async def test_a_thousand_nested_scopes_are_cancelled_at_once() -> None:
    around = current_task().scope
    with contextlib.ExitStack() as stack:
        outer = stack.enter_context(CancelScope())
        inner = [stack.enter_context(CancelScope()) for _ in range(1000)]
        asyncio.get_running_loop().call_soon(outer.cancel)
        await sleep_forever()
    assert outer.cancelled_caught
    assert not any(scope.cancelled_caught for scope in inner)
    assert cancelling() == 0
    assert current_task().scope is around


async def test_a_thousand_nested_cancelled_scopes_unwind() -> None:
    with contextlib.ExitStack() as stack:
        scopes = [stack.enter_context(CancelScope()) for _ in range(1000)]
        for scope in scopes:
            scope.cancel()
        await forever()
    assert [scope.cancelled_caught for scope in scopes] == [True, *[False] * 999]
    assert cancelling() == 0


# -- native cancels -------------------------------------------------------------


async def in_a_task(function: Any) -> Any:
    task = asyncio.get_running_loop().create_task(function())
    (result,) = await asyncio.gather(task, return_exceptions=True)
    return result


@pytest.mark.parametrize("wait", [forever, sleep_forever])
async def test_a_native_cancel_passes_a_scope_that_is_not_cancelled(wait: Any) -> None:
    scope = CancelScope()

    async def main() -> None:
        with scope:
            await wait()

    task = asyncio.get_running_loop().create_task(main())
    await settle()
    task.cancel("native")
    with pytest.raises(Cancelled):
        await task
    assert not scope.cancelled_caught


@needs_counts
@pytest.mark.parametrize("native_first", [True, False])
@pytest.mark.parametrize("wait", [forever, sleep_forever, checkpoint])
async def test_a_native_cancel_passes_a_cancelled_scope_whatever_the_order(
    native_first: bool, wait: Any
) -> None:
    scope = CancelScope()
    counts = []

    async def main() -> None:
        try:
            with scope:
                while True:
                    await wait()
        except Cancelled:
            counts.append(cancelling())
            raise

    task = asyncio.get_running_loop().create_task(main())
    await turns(3)
    for cancel in (task.cancel, scope.cancel) if native_first else (scope.cancel, task.cancel):
        cancel()
    await settle()
    assert task.cancelled()
    assert counts == [1]
    assert not scope.cancelled_caught


@needs_counts
async def test_a_native_cancel_while_a_cancelled_scope_cleans_up_passes() -> None:
    scope = CancelScope()

    async def main() -> None:
        with scope:
            scope.cancel()
            try:
                await checkpoint()
            finally:
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    assert isinstance(await in_a_task(main), Cancelled)
    assert not scope.cancelled_caught


@needs_counts
async def test_a_native_cancel_swallowed_before_does_not_confuse_a_scope() -> None:
    async def main() -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with pytest.raises(Cancelled):
            await asyncio.sleep(0)
        with CancelScope() as scope:
            scope.cancel()
            await forever()
        assert scope.cancelled_caught
        return cancelling()

    assert await in_a_task(main) == 1


@needs_counts
async def test_a_native_cancel_taken_back_with_uncancel_inside_does_not_confuse_a_scope() -> None:
    with CancelScope() as scope:
        try:
            async with asyncio.timeout(0):
                await forever()
        except TimeoutError:
            pass
        scope.cancel()
        await forever()
    assert scope.cancelled_caught
    assert cancelling() == 0


@needs_counts
async def test_an_asyncio_timeout_around_a_scope_keeps_its_timeout_error() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            with CancelScope() as scope:
                await sleep_forever()
    assert not scope.cancelled_caught and cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            with CancelScope(shield=True):
                await sleep_forever()
    assert cancelling() == 0


async def test_asyncio_wait_for_around_a_scope_keeps_its_timeout_error() -> None:
    async def main() -> None:
        with CancelScope():
            await sleep_forever()

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(main(), 0.001)
    assert cancelling() == 0


@needs_counts
async def test_an_asyncio_task_group_around_a_scope_gets_its_errors_and_cancels_it() -> None:
    scope = CancelScope()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError

    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            with scope:
                await sleep_forever()
    assert [type(leaf) for leaf in leaves(caught.value)] == [KeyError]
    assert not scope.cancelled_caught and cancelling() == 0


@needs_counts
async def test_an_asyncio_task_group_in_a_cancelled_scope_cancels_its_tasks() -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    with CancelScope() as scope:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(child())
            await asyncio.sleep(0)
            scope.cancel()
            await asyncio.sleep(0)
    assert scope.cancelled_caught
    assert ended == [1, 1, 1]
    assert cancelling() == 0


@needs_counts
async def test_an_asyncio_task_group_that_cancels_again_leaves_cancelling_at_zero() -> None:
    with CancelScope() as scope:
        scope.cancel()
        async with asyncio.TaskGroup():
            async with open_nursery():
                await sleep_forever()
    assert scope.cancelled_caught and cancelling() == 0
    await checkpoint()
    async with open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        async with asyncio.TaskGroup():
            async with open_nursery():
                await sleep_forever()
    assert cancelling() == 0
    await checkpoint()


# -- attributes -----------------------------------------------------------------


def test_cancel_scope_refuses_wrong_arguments_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="deadline must not be NaN"):
        CancelScope(deadline=nan)
    with pytest.raises(ValueError, match="relative deadline must not be NaN"):
        CancelScope(relative_deadline=nan)
    with pytest.raises(ValueError, match="must be non-negative"):
        CancelScope(relative_deadline=-1)
    with pytest.raises(ValueError, match="both a deadline and a relative deadline"):
        CancelScope(deadline=5, relative_deadline=5)
    with pytest.raises(TypeError, match="shield must be a bool"):
        CancelScope(shield=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        CancelScope(5)  # type: ignore[misc]


async def test_the_deadline_may_be_changed_before_and_after_entering(autojump_clock: Any) -> None:
    start = current_time()
    scope = CancelScope(deadline=start + 100)
    scope.deadline = start + 50
    with scope:
        assert scope.deadline == start + 50
        scope.deadline = start + 10
        await sleep(5)
        scope.deadline = start + 7
        await sleep(100)
    assert scope.cancelled_caught and current_time() == start + 7
    with CancelScope(deadline=start + 8) as scope:
        scope.deadline = inf
        await sleep(10)
        assert len(current_state().deadlines) == 0
        scope.deadline = current_time() + 10
        validate()
        scope.deadline = current_time() + 20
        validate()
        await sleep(15)
    assert not scope.cancel_called


async def test_a_deadline_changed_by_another_task_takes_effect(autojump_clock: Any) -> None:
    start = current_time()

    async def shorten(scope: CancelScope) -> None:
        await sleep(1)
        scope.deadline = start + 2

    async with open_nursery() as nursery:
        with move_on_after(100) as scope:
            nursery.start_soon(shorten, scope)
            await sleep_forever()
    assert current_time() == start + 2


@pytest.mark.parametrize("wait", [checkpoint, sleep_forever, forever])
async def test_a_deadline_set_into_the_past_cancels_at_the_next_wait(wait: Any) -> None:
    with CancelScope() as scope:
        scope.deadline = current_time() - 1
        await wait()
        raise AssertionError("not reached")
    assert scope.cancelled_caught
    with CancelScope() as scope:
        scope.deadline = -inf
        await wait()
    assert scope.cancelled_caught
    with CancelScope(deadline=current_time() - 1) as scope:
        assert scope.cancel_called
        await wait()
    assert scope.cancelled_caught


async def test_a_deadline_that_has_passed_is_seen_in_cancel_called(mock_clock: Any) -> None:
    entered, waiting = CancelScope(deadline=current_time() + 1), CancelScope(deadline=1)
    with entered:
        assert not entered.cancel_called and not waiting.cancel_called
        mock_clock.jump(2)
        assert entered.cancel_called and waiting.cancel_called
    assert not entered.cancelled_caught
    left = CancelScope(deadline=current_time() + 1)
    with left:
        pass
    mock_clock.jump(2)
    assert not left.cancel_called


async def test_a_deadline_after_the_cancel_or_the_end_changes_nothing(autojump_clock: Any) -> None:
    with CancelScope() as scope:
        scope.cancel()
        scope.deadline = current_time() + 1
        assert len(current_state().deadlines) == 0
    with CancelScope() as scope:
        pass
    scope.deadline = current_time() - 1
    assert not scope.cancel_called
    assert len(current_state().deadlines) == 0


async def test_deadlines_refuse_nan_and_wrong_values() -> None:
    scope = CancelScope()
    with pytest.raises(ValueError, match="deadline must not be NaN"):
        scope.deadline = nan
    with pytest.raises(ValueError, match="relative deadline must not be NaN"):
        scope.relative_deadline = nan
    with pytest.raises(ValueError, match="relative deadline must be non-negative"):
        scope.relative_deadline = -1
    with pytest.raises(TypeError, match="shield must be a bool"):
        scope.shield = None  # type: ignore[assignment]


async def test_relative_deadline_becomes_absolute_on_entering(autojump_clock: Any) -> None:
    scope = CancelScope(relative_deadline=5)
    assert scope.is_relative is True
    assert scope.relative_deadline == 5
    with pytest.raises(RuntimeError, match="does not have an absolute deadline"):
        _ = scope.deadline
    with pytest.raises(RuntimeError, match="does not have an absolute deadline"):
        scope.deadline = 3
    scope.relative_deadline = 3
    with scope:
        assert scope.is_relative is None
        assert scope.deadline == current_time() + 3
        await sleep(1)
        assert scope.relative_deadline == 2
        scope.relative_deadline = 10
        assert scope.deadline == current_time() + 10
        await sleep(9)
    assert not scope.cancel_called


async def test_is_relative_is_false_for_an_absolute_deadline() -> None:
    scope = CancelScope(deadline=current_time() + 100)
    assert scope.is_relative is False
    with pytest.raises(RuntimeError, match="does not have a relative deadline"):
        _ = scope.relative_deadline
    with pytest.raises(RuntimeError, match="does not have a relative deadline"):
        scope.relative_deadline = 5
    assert CancelScope().is_relative is False
    assert CancelScope().relative_deadline == inf


async def test_repr_of_a_cancel_scope_shows_its_state(mock_clock: Any) -> None:
    scope = CancelScope()
    assert repr(scope).endswith(", unbound>")
    assert repr(scope).startswith("<nurseryio.CancelScope at 0x")
    with scope:
        assert repr(scope).endswith(", active>")
        scope.deadline = current_time() + 10
        assert repr(scope).endswith(", active, deadline is 10.00 seconds from now>")
        mock_clock.jump(12)
        assert repr(scope).endswith(", active, deadline is 2.00 seconds ago>")
        scope.cancel()
        assert repr(scope).endswith(", active, cancelled>")
    assert repr(scope).endswith(", exited, cancelled>")
    relative = CancelScope(relative_deadline=3)
    assert repr(relative).endswith(", unbound, deadline is 3.00 seconds after entry>")


async def test_the_effective_deadline_is_the_earliest_up_to_the_shield(mock_clock: Any) -> None:
    assert current_effective_deadline() == inf
    with CancelScope(deadline=5) as outer:
        with CancelScope(deadline=10) as inner:
            assert current_effective_deadline() == 5
            inner.deadline = 3
            assert current_effective_deadline() == 3
            inner.shield = True
            inner.deadline = 10
            assert current_effective_deadline() == 10
            outer.cancel()
            assert current_effective_deadline() == 10
            inner.shield = False
            assert current_effective_deadline() == -inf


def test_there_is_no_effective_deadline_outside_a_task() -> None:
    with pytest.raises(RuntimeError, match="must be called from async context"):
        current_effective_deadline()


def test_a_cancel_scope_cannot_be_subclassed_and_takes_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        CancelScope().surprise = 1  # type: ignore[attr-defined]


# -- nothing is kept alive ------------------------------------------------------


@pytest.mark.parametrize("how", ["left", "cancelled", "deadline", "foreign", "error", "shield"])
async def test_a_scope_and_what_it_caught_are_freed_at_once(how: str) -> None:
    class Witness:
        pass

    watched: list[weakref.ref[Any]] = []

    async def once() -> None:
        witness = Witness()
        watched.append(weakref.ref(witness))
        scope = CancelScope(shield=how == "shield")
        watched.append(weakref.ref(scope))
        with contextlib.suppress(KeyError), scope:
            if how == "deadline":
                scope.deadline = -inf
            elif how in ("cancelled", "foreign", "shield"):
                scope.cancel()
            elif how == "error":
                raise KeyError
            await (forever() if how == "foreign" else checkpoint())

    await once()
    with without_gc():
        for _ in range(3):
            await once()
            await turns(2)
            assert all(map(gone, watched))


# -- misnesting -----------------------------------------------------------------


async def test_misnesting_scopes_left_in_the_wrong_order_is_an_error_that_says_what_to_do() -> None:
    first, second = CancelScope(), CancelScope()
    first.__enter__()
    second.__enter__()
    with pytest.raises(RuntimeError, match="Cancel scope stack corrupted") as caught:
        first.__exit__(None, None, None)
    text = str(caught.value)
    assert repr(second) in text or "CancelScope" in text
    assert repr(current_task()) in text
    assert "as_safe_channel" in text
    # Outside of the outer scope, all is well.
    await checkpoint()
    second.__exit__(None, None, None)
    await checkpoint()
    validate()
    assert cancelling() == 0


async def test_misnesting_an_exit_stack_in_the_wrong_order_affects_nothing_outside() -> None:
    with CancelScope() as healthy:
        outer, inner = CancelScope(), CancelScope()
        with pytest.raises(RuntimeError, match="Cancel scope stack corrupted"):
            with contextlib.ExitStack() as stack:
                inner_stack = contextlib.ExitStack()
                stack.callback(inner_stack.close)
                outer.__enter__()
                inner_stack.enter_context(inner)
                outer.__exit__(None, None, None)
        await checkpoint()
        await asyncio.sleep(0)
    assert not healthy.cancel_called


async def test_misnesting_a_scope_left_open_inside_an_exited_one_is_abandoned() -> None:
    outer, inner = CancelScope(), CancelScope(shield=True)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="Cancel scope stack corrupted"):
        outer.__exit__(None, None, None)
    assert inner._abandoned and inner._effective
    inner.__exit__(None, None, None)
    await checkpoint()


async def test_exiting_a_scope_twice_is_an_error() -> None:
    scope = CancelScope()
    with scope:
        pass
    with pytest.raises(RuntimeError, match="had already been exited"):
        scope.__exit__(None, None, None)
    with pytest.raises(RuntimeError, match="had already been exited"):
        scope.__exit__(None, None, None)


@pytest.mark.parametrize("make", [CancelScope, lambda: fail_after(1), lambda: move_on_after(1)])
async def test_the_exit_of_a_scope_that_was_never_entered_is_an_error_that_says_so(
    make: Any,
) -> None:
    mistake = ValueError("the entry")
    with pytest.raises(RuntimeError, match=r"unbound.*, which has not been entered") as caught:
        make().__exit__(None, None, None)
    assert caught.value.__context__ is None
    with pytest.raises(RuntimeError, match="which has not been entered") as caught:
        make().__exit__(ValueError, mistake, None)
    assert caught.value.__context__ is mistake
    assert "stack corrupted" not in str(caught.value)
    scope = make()
    with pytest.raises(RuntimeError, match="which has not been entered"):
        scope.__exit__(None, None, None)
    with scope:  # it is as good as new
        await checkpoint()
    validate()


@pytest.mark.parametrize("make", [CancelScope, lambda: fail_after(1), lambda: move_on_after(1)])
async def test_async_with_a_scope_is_refused_with_advice_and_enters_nothing(make: Any) -> None:
    before = current_task().scope
    manager = make()
    with pytest.raises(RuntimeError, match="use 'with', not 'async with'"):
        async with manager:
            raise AssertionError
    async with AsyncExitStack() as stack:
        with pytest.raises(RuntimeError, match="use 'with', not 'async with'"):
            await stack.enter_async_context(manager)
    assert current_task().scope is before
    with manager:
        await checkpoint()
    validate()


async def test_misnesting_a_scope_left_in_an_unrelated_task_names_both_tasks() -> None:
    scope = CancelScope()
    errors = []

    async def leave() -> None:
        try:
            scope.__exit__(None, None, None)
        except RuntimeError as exc:
            errors.append(str(exc))
        await checkpoint()

    async with open_nursery() as nursery:
        with scope:
            nursery.start_soon(leave, name="the leaver")
            await settle()
            await checkpoint()
            validate()
    assert len(errors) == 1
    assert "the leaver" in errors[0] and repr(current_task()) in errors[0]
    assert "Cancel scope stack corrupted" in errors[0]
    assert not scope.cancelled_caught


async def test_misnesting_a_scope_left_in_a_child_below_it_cancels_only_what_is_inside() -> None:
    seen: list[str] = []
    scope = CancelScope()

    async def leave() -> None:
        try:
            scope.__exit__(None, None, None)
        except RuntimeError as exc:
            seen.append(str(exc))
        await checkpoint()
        seen.append("the leaver goes on outside")

    async def bystander() -> None:
        for _ in range(5):
            await checkpoint()
        seen.append("bystander")

    async def owner() -> None:
        with scope:
            async with open_nursery() as inner:
                inner.start_soon(leave, name="the leaver")
                await sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(bystander)
            nursery.start_soon(owner, name="the owner")
    validate()
    assert "the leaver" in seen[0] and "the owner" in seen[0]
    assert all(isinstance(leaf, (RuntimeError, Cancelled)) for leaf in leaves(caught.value))
    assert cancelling() == 0
    await checkpoint()


async def test_misnesting_a_generator_with_a_scope_finished_in_another_task_is_an_error() -> None:
    async def numbers() -> AsyncIterator[int]:
        with CancelScope():
            yield 1
            yield 2

    seen: list[str] = []

    async def start(generator: Any) -> None:
        seen.append(await generator.__anext__())

    async def finish(generator: Any) -> None:
        try:
            await generator.aclose()
        except RuntimeError as exc:
            seen.append(str(exc))
        await checkpoint()
        seen.append("finisher goes on")

    generator = numbers()
    with contextlib.suppress(BaseExceptionGroup):
        async with open_nursery() as nursery:
            nursery.start_soon(start, generator, name="the starter")
    async with open_nursery() as nursery:
        nursery.start_soon(finish, generator, name="the finisher")
    assert seen[0] == 1
    assert seen[-1] == "finisher goes on"
    validate()
    await checkpoint()


async def test_misnesting_a_generator_that_leaves_its_scope_open_is_an_error() -> None:
    async def numbers() -> AsyncIterator[int]:
        with CancelScope():
            yield 1

    with CancelScope() as healthy:
        generator = numbers()
        with pytest.raises(RuntimeError, match="Cancel scope stack corrupted"):
            with CancelScope():
                await generator.__anext__()  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):
            await generator.aclose()  # type: ignore[attr-defined]
        await checkpoint()
    assert not healthy.cancel_called
    validate()
    assert cancelling() == 0


async def test_misnesting_a_task_that_ends_inside_an_open_scope_affects_nothing_else() -> None:
    scopes = []

    async def careless() -> None:
        scope = CancelScope(deadline=current_time() + 1000)
        scope.__enter__()
        scopes.append(scope)

    async with open_nursery() as nursery:
        nursery.start_soon(careless)
        await settle()
        await checkpoint()
    await asyncio.get_running_loop().create_task(careless())
    await settle()
    for scope in scopes:
        scope.cancel()
    validate()
    await checkpoint()


async def test_misnesting_a_task_that_ends_inside_a_scope_leaves_no_deadline() -> None:
    async def careless() -> None:
        CancelScope(deadline=current_time() + 1000).__enter__()

    async with open_nursery() as nursery:
        nursery.start_soon(careless)
    await asyncio.get_running_loop().create_task(careless())
    await settle()
    assert len(current_state().deadlines) == 0
    assert HAS_COUNTS or cancelling() == 0


def test_a_scope_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match="does not support subclassing"):

        class Mine(CancelScope):  # type: ignore[misc]
            pass


@needs_counts
async def test_a_pending_native_cancel_is_not_taken_for_the_scopes_own() -> None:
    record = []

    async def cancelled_before_it_enters() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        with CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        record.append("not reached")

    async def cancelled_while_it_takes_a_lock(lock: Lock) -> None:
        # A callback is ready, so the lock yields when it is taken. That yield is not interrupted:
        # the request is deferred.
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
        async with lock:
            record.append("has the lock")
            with move_on_after(0):
                async with open_nursery():
                    pass
            record.append("not reached")

    task = asyncio.create_task(cancelled_before_it_enters())
    await asyncio.wait([task])
    assert task.cancelled()
    assert record == []

    task = asyncio.create_task(cancelled_while_it_takes_a_lock(lock := Lock()))
    await asyncio.wait([task])
    assert task.cancelled()
    assert record == ["has the lock"]
    assert not lock.locked()


@needs_counts
async def test_a_native_cancel_swallowed_before_the_scope_is_stale() -> None:
    async def native() -> str:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        with contextlib.suppress(Cancelled):
            await checkpoint()
        with CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        return "went on" if scope.cancelled_caught else "lost"

    assert await asyncio.create_task(native()) == "went on"


async def test_a_nurserys_cancel_scope_has_the_same_initial_fields_as_any_other() -> None:
    plain, nurserys = CancelScope(), open_nursery().cancel_scope
    slots = [name for cls in type(plain).__mro__ for name in getattr(cls, "__slots__", ())]
    empty = object()
    values = [
        [getattr(scope, name, empty) for name in slots if name != "__weakref__"]
        for scope in (plain, nurserys)
    ]
    assert values[0] == values[1]


# -- deadlines that are not numbers --------------------------------------------------


class FailingRepr:
    """Is not a number, and has no text either."""

    def __repr__(self) -> str:
        raise OSError("repr")


class FailingSum:
    """Fails when it is added to a number."""

    def __add__(self, other: object) -> float:
        raise OverflowError("sum")


NO_NUMBERS = ["1", None, timedelta(seconds=1), 1j, [], FailingRepr(), FailingSum(), 10**400, nan]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
async def test_a_deadline_that_is_not_a_number_is_refused_and_changes_nothing(value: Any) -> None:
    errors = (TypeError, ValueError, OverflowError)
    task = current_task()
    before = task.scope
    with pytest.raises(errors):
        CancelScope(deadline=value)
    with pytest.raises(errors):
        CancelScope(relative_deadline=value)
    fresh = CancelScope()
    with pytest.raises(errors):
        fresh.deadline = value
    with pytest.raises(errors):
        fresh.relative_deadline = value
    assert fresh.deadline == fresh.relative_deadline == inf
    for limit in (move_on_after, fail_after):
        with pytest.raises(errors), limit(value):
            raise AssertionError
    with pytest.raises(errors):
        await sleep(value)
    assert task.scope is before
    with move_on_after(100) as scope:
        deadline = scope.deadline
        with pytest.raises(errors):
            scope.deadline = value
        with pytest.raises(errors):
            scope.relative_deadline = value
        assert scope.deadline == deadline
        validate()
        scope.deadline = current_time() - 1
        await checkpoint()
    assert scope.cancelled_caught
    with CancelScope():
        pass
    assert task.scope is before


@pytest.mark.parametrize("kind", [Decimal, Fraction])
async def test_deadlines_take_every_kind_of_number(kind: Any) -> None:
    when = kind(int(current_time()) + 50)
    scopes = [CancelScope(deadline=when), move_on_at(when), CancelScope()]
    scopes[2].deadline = when
    for scope in scopes:
        assert scope.deadline == when
        with scope:
            scope.deadline = when
            assert type(scope.deadline) is float
            scope.relative_deadline = kind("0.5")
            assert 0 < scope.deadline - current_time() <= 0.5
    relative = [CancelScope(relative_deadline=kind("0.5")), CancelScope()]
    relative[1].relative_deadline = kind("0.5")
    for scope in relative:
        assert type(scope.relative_deadline) is float
        with scope:
            assert 0 < scope.deadline - current_time() <= 0.5
    validate()


def test_the_error_for_a_wrong_deadline_says_what_to_write() -> None:
    wrong: Any
    scope = CancelScope()
    for wrong, clock_advice, advice in (
        (None, "for no time limit give math.inf", "for no time limit give math.inf"),
        ("1", "for no time limit give math.inf", "for no time limit give math.inf"),
        (
            timedelta(seconds=1),
            "give current_time() + its total_seconds()",
            "give its total_seconds()",
        ),
    ):
        clock = re.escape(
            f"`deadline` must be a time on the clock of current_time(), not {wrong!r}; "
            + clock_advice
        )
        relative = re.escape(f"`relative_deadline` must be a number, not {wrong!r}; {advice}")
        with pytest.raises(TypeError, match=f"^{clock}$"):
            CancelScope(deadline=wrong)
        with pytest.raises(TypeError, match=f"^{clock}$"):
            move_on_at(wrong)
        with pytest.raises(TypeError, match=f"^{clock}$"):
            scope.deadline = wrong
        with pytest.raises(TypeError, match=f"^{relative}$"):
            CancelScope(relative_deadline=wrong)
        with pytest.raises(TypeError, match=f"^{relative}$"):
            scope.relative_deadline = wrong


async def test_a_bool_an_int_and_a_fraction_are_numbers_for_deadlines() -> None:
    for value in (True, 1, 1.0, Fraction(1, 2)):
        with move_on_after(value) as scope:
            assert scope.deadline - current_time() <= 1
            assert type(scope.deadline) is float
        validate()


async def cancelled_here() -> BaseException:
    """Cancel a scope, and return the error."""
    with CancelScope() as scope:
        scope.cancel("why")
        try:
            await checkpoint()
        except Cancelled as error:
            caught: BaseException = error
            raise
    return caught


async def test_reason_of_a_cancel_has_the_stack_of_the_call_in_debug_mode() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_debug()
    loop.set_debug(True)
    try:
        error = await cancelled_here()
    finally:
        loop.set_debug(before)
    assert 'scope.cancel("why")' in str(error)
    assert "in cancelled_here" in str(error)
    assert error.args[0] == CancelReason("explicit", "why", repr(current_task()))


async def test_reason_of_a_cancel_has_no_stack_without_debug_mode() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_debug()
    loop.set_debug(False)
    try:
        error = await cancelled_here()
    finally:
        loop.set_debug(before)
    assert error.args[0].stack is None
    assert "\n" not in str(error)


async def test_message_of_fail_after_does_not_have_the_stack_of_the_cancel() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_debug()
    loop.set_debug(True)
    try:
        with pytest.raises(TooSlowError) as caught, fail_after(5) as scope:
            scope.cancel("why")
            await checkpoint()
    finally:
        loop.set_debug(before)
    assert "with reason 'why'" in str(caught.value)
    assert "\n" not in str(caught.value)
