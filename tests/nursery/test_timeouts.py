"""Sleeping and time limits."""

from __future__ import annotations

import asyncio
import gc
import pickle
import weakref
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest
from harness.core import cancelling, needs_counts, settle, validate
from harness.resisting import Nameless

import nurseryio
from nurseryio import (
    Cancelled,
    CancelScope,
    TooSlowError,
    current_effective_deadline,
    current_time,
    fail_after,
    fail_at,
    move_on_after,
    move_on_at,
    open_nursery,
    sleep,
    sleep_forever,
    sleep_until,
)
from nurseryio._base.util import safe_repr
from nurseryio._core.deadlines import SWEEP_AT
from nurseryio._core.task import current_state
from nurseryio.lowlevel import checkpoint

pytestmark = pytest.mark.limit(20)


# -- the clock ------------------------------------------------------------------


async def test_current_time_is_the_loops_time() -> None:
    before = asyncio.get_running_loop().time()
    assert before <= current_time() <= asyncio.get_running_loop().time()


def test_current_time_outside_a_loop_raises() -> None:
    with pytest.raises(RuntimeError, match="must be called from async context"):
        current_time()


# -- sleeping -------------------------------------------------------------------


async def test_sleep_takes_its_time_on_the_virtual_clock(autojump_clock: Any) -> None:
    start = current_time()
    await sleep(2.5)
    assert current_time() - start == 2.5
    await sleep_until(current_time() + 1)
    assert current_time() - start == 3.5


async def test_a_real_sleep_takes_at_least_its_time() -> None:
    start = current_time()
    await sleep(0.005)
    # uvloop counts milliseconds, so that a sum may be off in the last digits.
    assert current_time() - start >= 0.005 - 1e-9


async def test_sleeping_tasks_wake_in_the_order_of_their_times(autojump_clock: Any) -> None:
    woken = []

    async def sleeper(seconds: float) -> None:
        await sleep(seconds)
        woken.append(seconds)

    async with open_nursery() as nursery:
        for seconds in (3, 1, 2, 0.5):
            nursery.start_soon(sleeper, seconds)
    assert woken == [0.5, 1, 2, 3]


async def test_sleep_zero_is_a_checkpoint() -> None:
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    await sleep(0)
    assert seen == [1]
    asyncio.get_running_loop().call_soon(seen.append, 2)
    await sleep_until(current_time() - 5)
    assert seen == [1, 2]


async def test_sleep_forever_adds_no_deadline_and_ends_by_a_cancellation() -> None:
    state = current_state()
    before = len(state.deadlines._heap)
    async with open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(sleep_forever)
        await settle()
        assert len(state.deadlines._heap) == before
        nursery.cancel_scope.cancel()
    with CancelScope() as scope:
        scope.cancel()
        await sleep_forever()
    assert scope.cancelled_caught
    validate()


async def test_garbage_collection_does_not_take_a_task_that_only_sleeps_for_ever() -> None:
    ended = []

    async def adopted() -> None:
        try:
            await sleep_forever()
        finally:
            ended.append(True)

    reference = weakref.ref(asyncio.create_task(adopted()))
    await settle()
    gc.collect()
    assert not ended
    task = reference()
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_sleep_refuses_negative_seconds_and_nan() -> None:
    with pytest.raises(ValueError, match="must be non-negative"):
        await sleep(-1)
    with pytest.raises(ValueError, match="must not be NaN"):
        await sleep(nan)
    with pytest.raises(ValueError, match="must not be NaN"):
        await sleep_until(nan)


@pytest.mark.parametrize(
    "wrong", ["1", None, [], b"1", timedelta(seconds=1), Nameless()], ids=safe_repr
)
async def test_sleep_of_something_that_is_not_a_number_is_refused_with_what_to_write(
    wrong: Any,
) -> None:
    advice = "total_seconds" if isinstance(wrong, timedelta) else "sleep_forever"
    with pytest.raises(TypeError, match=rf"`seconds` must be a number, not .*; .*{advice}"):
        await sleep(wrong)
    with pytest.raises(TypeError, match=rf"`deadline` must be a time on .*; .*{advice}"):
        await sleep_until(wrong)
    advice = "current_time.* total_seconds" if advice == "total_seconds" else "give math.inf"
    for limit in (move_on_at, fail_at):
        with pytest.raises(TypeError, match=rf"`deadline` must be .*; .*{advice}"):
            limit(wrong)


@pytest.mark.parametrize("kind", [Decimal, Fraction])
async def test_other_kinds_of_numbers_are_seconds_too(kind: Any, autojump_clock: Any) -> None:
    start = current_time()
    await sleep(kind("0.5"))
    with move_on_after(kind("0.5")) as scope:
        await sleep_forever()
    assert scope.cancelled_caught
    await sleep_until(kind(start + 2))
    assert current_time() - start == 2
    validate()


async def test_sleep_refuses_an_object_that_only_compares_like_a_number() -> None:
    class Compares:
        def __gt__(self, other: object) -> bool:
            return True

        __ge__ = __gt__

    wrong: Any = Compares()
    for wait in (sleep, move_on_after):
        with pytest.raises(TypeError, match="must be a number"):
            await wait(wrong)
    validate()


@pytest.mark.parametrize("seconds", [0, 100, inf])
@pytest.mark.parametrize("early", [True, False])
async def test_a_sleep_is_cancelled_with_its_scope(seconds: float, early: bool) -> None:
    with CancelScope() as scope:
        if early:
            scope.cancel()
        else:
            asyncio.get_running_loop().call_soon(scope.cancel)
        await sleep(seconds)
    assert scope.cancelled_caught
    assert len(current_state().deadlines) == 0
    validate()


async def test_sleep_forever_ends_by_a_cancellation_only() -> None:
    with move_on_after(0.002) as scope:
        await sleep_forever()
    assert scope.cancelled_caught
    with move_on_after(0.002) as scope:
        await sleep_until(inf)
    assert scope.cancelled_caught


async def test_a_native_cancel_ends_a_sleep_and_leaves_no_deadline_behind() -> None:
    task = asyncio.get_running_loop().create_task(sleep(100))
    await settle()
    assert len(current_state().deadlines) == 1
    task.cancel()
    await settle()
    assert task.cancelled()
    assert len(current_state().deadlines) == 0


async def test_a_sleep_whose_time_is_up_when_a_native_cancel_comes_returns(
    autojump_clock: Any,
) -> None:
    seen = []

    async def sleeper() -> None:
        await sleep(1)
        seen.append("slept")
        try:
            await checkpoint()
        except Cancelled:
            seen.append("struck")
            raise

    task = asyncio.get_running_loop().create_task(sleeper())
    await asyncio.sleep(0)
    current_state().add_deadline(current_time() + 1, lambda _: task.cancel(), None)
    await asyncio.wait([task])
    assert seen == ["slept", "struck"]
    assert task.cancelled()


# -- move_on and fail -----------------------------------------------------------


async def test_move_on_after_cancels_its_block_at_the_deadline(autojump_clock: Any) -> None:
    start = current_time()
    with move_on_after(1) as after:
        await sleep(5)
    with move_on_at(start + 3) as at:
        await sleep(5)
    assert current_time() - start == 3
    assert after.cancelled_caught and at.cancelled_caught


async def test_move_on_after_leaves_a_block_that_is_fast_enough_alone(autojump_clock: Any) -> None:
    with move_on_after(2) as scope:
        await sleep(1)
    assert not scope.cancel_called and not scope.cancelled_caught
    with fail_after(2) as scope:
        await sleep(1)
    assert not scope.cancel_called


async def test_fail_after_raises_too_slow_error_at_the_deadline(autojump_clock: Any) -> None:
    with pytest.raises(TooSlowError) as caught:
        with fail_after(1):
            await sleep(5)
    assert isinstance(caught.value.__cause__, Cancelled)
    with pytest.raises(TooSlowError):
        with fail_at(current_time() + 1):
            await sleep(5)


async def test_the_text_of_too_slow_error_has_the_limit_its_line_and_the_line_that_was_waiting(
    autojump_clock: Any,
) -> None:
    async def slow() -> None:
        await sleep(10)  # waits

    with pytest.raises(TooSlowError) as caught:
        with fail_after(1.5):
            await slow()
    assert caught.value.args == ()
    first, waits = slow.__code__.co_firstlineno + 3, slow.__code__.co_firstlineno + 1
    name = "test_the_text_of_too_slow_error_has_the_limit_its_line_and_the_line_that_was_waiting()"
    assert str(caught.value) == (
        f"fail_after(1.5) at test_timeouts.py:{first + 1} in {name} ran out of time; "
        f"it was waiting at test_timeouts.py:{waits} in slow()"
    )
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy)) == (TooSlowError, str(caught.value))
    with pytest.raises(TooSlowError) as caught:
        with fail_at(current_time() + 1):
            await sleep(10)
    assert str(caught.value).startswith("fail_at() at test_timeouts.py:")


async def test_the_text_of_too_slow_error_has_the_reason_of_an_explicit_cancel() -> None:
    with pytest.raises(TooSlowError) as caught:
        with fail_after(100) as scope:
            scope.cancel("enough")
            async with open_nursery():
                await checkpoint()
    assert " was cancelled due to explicit with reason 'enough' from task " in str(caught.value)


def test_too_slow_error_made_by_other_code_has_the_text_given_to_it() -> None:
    assert str(TooSlowError("mine")) == "mine"
    assert str(TooSlowError()) == ""
    assert pickle.loads(pickle.dumps(TooSlowError("mine"))).args == ("mine",)
    assert pickle.loads(pickle.dumps(TooSlowError())).args == ()


async def test_fail_after_raises_too_slow_error_too_if_its_scope_was_cancelled_by_hand() -> None:
    with pytest.raises(TooSlowError):
        with fail_after(100) as scope:
            scope.cancel()
            await checkpoint()


async def test_fail_after_does_not_raise_if_the_block_met_no_checkpoint(
    autojump_clock: Any,
) -> None:
    with fail_after(1) as scope:
        autojump_clock.jump(5)
    assert scope.cancel_called is False or not scope.cancelled_caught
    with fail_after(0) as scope:
        pass
    assert scope.cancel_called and not scope.cancelled_caught


async def test_other_errors_pass_through_fail_after() -> None:
    with pytest.raises(KeyError):
        with fail_after(0):
            raise KeyError


async def test_fail_after_inside_a_cancelled_scope_leaves_the_cancellation_to_it() -> None:
    with CancelScope() as outer:
        outer.cancel()
        with fail_after(100):
            await checkpoint()
        raise AssertionError("not reached")
    assert outer.cancelled_caught


async def test_the_inner_timeout_may_be_the_longer_one(autojump_clock: Any) -> None:
    start = current_time()
    with move_on_after(1) as outer:
        with fail_after(5):
            await sleep(10)
    assert outer.cancelled_caught
    assert current_time() - start == 1


async def test_a_timeout_of_zero_cancels_at_the_first_checkpoint() -> None:
    for scope in (move_on_after(0), move_on_at(current_time()), move_on_at(-inf)):
        reached = False
        with scope:
            reached = True
            await checkpoint()
            raise AssertionError("not reached")
        assert reached and scope.cancelled_caught


async def test_an_infinite_timeout_never_cancels(autojump_clock: Any) -> None:
    for scope in (move_on_after(inf), move_on_at(inf)):
        with scope:
            await sleep(1e6)
        assert not scope.cancel_called
    assert len(current_state().deadlines) == 0


async def test_a_relative_deadline_counts_from_entering(autojump_clock: Any) -> None:
    scope = move_on_after(2)
    assert scope.is_relative
    await sleep(5)
    start = current_time()
    with scope:
        assert scope.deadline == start + 2
        await sleep(10)
    assert current_time() - start == 2


@pytest.mark.parametrize("limit", [move_on_after, fail_after])
def test_timeouts_refuse_negative_seconds_and_nan(limit: Any) -> None:
    with pytest.raises(ValueError, match="must be non-negative"):
        limit(-1)
    with pytest.raises(ValueError, match="must not be NaN"):
        limit(nan)
    with pytest.raises(ValueError, match="must not be NaN"):
        (move_on_at if limit is move_on_after else fail_at)(nan)


@pytest.mark.parametrize("limit", [move_on_after, fail_after])
def test_none_as_a_timeout_is_refused_and_the_error_names_math_inf(limit: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a number, not None; .* give math.inf"):
        limit(None)


@pytest.mark.parametrize("name", ["move_on_after", "move_on_at", "fail_after", "fail_at"])
async def test_move_on_after_and_fail_after_take_shield(name: str) -> None:
    with CancelScope() as outer:
        outer.cancel()
        with getattr(nurseryio, name)(100 + current_time(), shield=True) as scope:
            assert scope.shield
            await checkpoint()
        with getattr(nurseryio, name)(0, shield=False) as scope:
            assert not scope.shield
        with pytest.raises(TypeError, match="shield must be a bool"):
            getattr(nurseryio, name)(1, shield="yes")


async def test_a_timeout_cannot_be_entered_twice() -> None:
    for scope in (move_on_after(1), fail_after(1)):
        with scope:
            pass
        with pytest.raises(RuntimeError, match="single 'with' block"):
            with scope:
                pass


async def test_a_hundred_thousand_timeouts_that_do_not_expire_leave_nothing() -> None:
    state = current_state()
    for _ in range(20_000):
        with move_on_after(1000):
            pass
    assert len(state.deadlines) == 0
    assert len(state.deadlines._heap) < 200
    validate()


async def test_current_effective_deadline_shows_the_earliest_timeout(autojump_clock: Any) -> None:
    now = current_time()
    assert current_effective_deadline() == inf
    with move_on_after(5):
        with move_on_after(10):
            assert current_effective_deadline() == now + 5
        with move_on_after(2):
            assert current_effective_deadline() == now + 2
        with fail_after(7, shield=True):
            assert current_effective_deadline() == now + 7


@needs_counts
async def test_nurseryio_and_asyncio_timeouts_nest_both_ways() -> None:
    with move_on_after(0.002) as scope:
        async with asyncio.timeout(100):
            await asyncio.sleep(100)
    assert scope.cancelled_caught and cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.002):
            with move_on_after(100) as scope:
                await sleep(100)
    assert not scope.cancel_called and cancelling() == 0


@needs_counts
async def test_nurseryio_and_asyncio_timeouts_that_expire_together_both_take_effect(
    autojump_clock: Any,
) -> None:
    for wait in (sleep, asyncio.sleep):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                with move_on_after(1) as scope:
                    await wait(5)
        with move_on_after(1) as scope:
            try:
                async with asyncio.timeout(1):
                    await wait(5)
            except TimeoutError:
                await checkpoint()
                raise AssertionError("not reached") from None
        assert scope.cancelled_caught
        assert cancelling() == 0


# -- nothing grows --------------------------------------------------------------


@pytest.mark.parametrize("blocks", [False, True])
async def test_timeouts_entered_and_left_leave_no_timer_with_the_loop(blocks: bool) -> None:
    state = current_state()
    before, most = len(state.deadlines), 0
    for n in range(2_000):
        with move_on_after(3600 + n % 7), fail_after(7200):
            if blocks:
                await checkpoint()
        most = max(most, len(state.deadlines._heap))
    assert len(state.deadlines) == before
    # Deadlines of blocks that were left are pruned in good time.
    assert most <= before + SWEEP_AT + 5


async def test_a_time_limit_that_is_awaited_says_to_use_with() -> None:
    with pytest.raises(RuntimeError, match=r"use 'with fail_after\(\.\.\.\):'"):
        await fail_after(1)  # type: ignore[misc]
