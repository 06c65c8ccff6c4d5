"""Errors of a nursery: exception groups, strict and loose, SystemExit and KeyboardInterrupt."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import warnings
from typing import Any

import pytest
from harness.core import (
    a_nursery_before,
    both_ends,
    cancelling,
    do_nothing,
    fail,
    fail_after_turns,
    forever,
    leaves,
    turns,
    types_of,
    until,
    validate,
)

from nurseryio import (
    Cancelled,
    CancelScope,
    Event,
    TrioDeprecationWarning,
    open_nursery,
    sleep,
    sleep_forever,
)
from nurseryio._nursery.nursery import SLOW_EXIT_PREDICTION
from nurseryio.lowlevel import checkpoint

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.limit(20)


# -- errors ---------------------------------------------------------------------


async def test_an_error_of_a_child_is_raised_in_an_exception_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(fail, KeyError("x"))
    assert types_of(caught.value) == [KeyError]
    assert caught.value.__context__ is None


async def test_an_error_of_the_block_is_raised_in_an_exception_group() -> None:
    error = KeyError("x")
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery():
            raise error
    assert leaves(caught.value) == [error]


async def test_every_error_is_in_the_exception_group_once() -> None:
    errors = [KeyError(n) for n in range(4)]
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            for error in errors[:3]:
                nursery.start_soon(fail, error)
            raise errors[3]
    assert sorted(map(id, leaves(caught.value))) == sorted(map(id, errors))


async def test_an_error_of_a_child_cancels_its_siblings_and_the_block() -> None:
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


async def test_errors_that_siblings_raise_in_their_cleanup_are_in_the_exception_group_too() -> None:
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


async def test_a_failing_child_does_not_cancel_the_shielded_work_of_siblings() -> None:
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


async def test_a_child_that_fails_before_its_siblings_have_started_cancels_them() -> None:
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


async def test_a_child_that_fails_while_the_block_runs_cancels_the_block() -> None:
    reached = []
    with pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
            for _ in range(3):
                with contextlib.suppress(Cancelled):
                    await forever()
                reached.append(1)
    assert len(reached) == 3


async def test_the_cancel_reason_names_the_task_that_failed() -> None:
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


async def test_the_context_of_errors_is_left_as_it_was_raised() -> None:
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


async def test_nested_nurseries_nest_their_exception_groups() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery():
            async with open_nursery() as inner:
                inner.start_soon(fail, KeyError())
    (group,) = caught.value.exceptions
    assert isinstance(group, ExceptionGroup)
    assert types_of(group) == [KeyError]


# -- cancellations in groups ----------------------------------------------------


async def test_a_cancelled_nursery_swallows_its_own_cancellation() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(sleep_forever)
        nursery.start_soon(forever)
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    async with open_nursery() as nursery:
        nursery.cancel_scope.cancel()
    assert not nursery.cancel_scope.cancelled_caught


async def test_a_nursery_in_a_cancelled_scope_raises_a_group_of_cancelled_up_to_the_scope() -> None:
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


async def test_errors_and_cancelled_are_raised_in_one_group_and_the_scope_splits_it() -> None:
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
async def test_aexit_of_a_nursery_is_not_a_cancellation_point(previous: str) -> None:
    await a_nursery_before(previous)
    with CancelScope() as scope:
        scope.cancel()
        async with open_nursery():
            pass
        async with open_nursery() as nursery:
            nursery.start_soon(do_nothing)
    assert not scope.cancelled_caught


@both_ends
async def test_aexit_of_a_nursery_is_always_a_schedule_point(previous: str) -> None:
    await a_nursery_before(previous)
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    async with open_nursery():
        pass
    assert seen == [1]


async def test_slow_exit_prediction_skips_an_iteration_in_aexit_and_tries_again() -> None:
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


@pytest.mark.costly("many tasks")
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


@pytest.mark.costly("many tasks")
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


# -- groups, strict and not -----------------------------------------------------


async def test_strict_exception_groups_false_raises_a_single_error_bare_and_warns() -> None:
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


async def test_strict_exception_groups_false_collapses_groups_when_cancelled_is_split_off() -> None:
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
async def test_a_lone_system_exit_or_keyboard_interrupt_leaves_the_outermost_nursery_bare(
    error: BaseException,
) -> None:
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
async def test_a_system_exit_beside_other_errors_is_raised_in_the_exception_group() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(fail, SystemExit(3))
            nursery.start_soon(fail, KeyError())
    assert sorted(t.__name__ for t in types_of(caught.value)) == ["KeyError", "SystemExit"]


@pytest.mark.app_only
async def test_strict_exception_groups_true_keeps_the_group_around_a_system_exit() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery(strict_exception_groups=True) as nursery:
            nursery.start_soon(fail, SystemExit(3))
    assert types_of(caught.value) == [SystemExit]


async def test_a_system_exit_inside_another_nursery_is_in_a_group_like_any_error() -> None:
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
