"""The clock, sleeping, and time limits on blocks."""

from __future__ import annotations

import asyncio
from math import inf, nan
from typing import Any

import pytest

import nurseryio
from nurseryio import (
    CancelScope,
    TooSlowError,
    current_effective_deadline,
    current_time,
    fail_after,
    fail_at,
    move_on_after,
    move_on_at,
    sleep,
    sleep_forever,
    sleep_until,
)
from nurseryio.testing import assert_checkpoints


async def test_time_is_the_time_of_the_loop() -> None:
    before = asyncio.get_running_loop().time()
    assert before <= current_time() <= asyncio.get_running_loop().time()


async def test_sleeping_takes_the_time_it_is_given(autojump_clock: Any) -> None:
    begin = current_time()
    await sleep(3600)
    assert current_time() == begin + 3600
    await sleep_until(begin + 7200)
    assert current_time() == begin + 7200


@pytest.mark.parametrize("when", [0, 5.0])
async def test_a_sleep_of_no_time_is_a_checkpoint(when: float) -> None:
    with assert_checkpoints():
        await sleep(0)
    with assert_checkpoints():
        await sleep_until(current_time() - when)


async def test_a_sleep_never_ends_before_its_time() -> None:
    for _ in range(5):
        begin = current_time()
        await sleep(0.0017)
        assert current_time() >= begin + 0.0017


@pytest.mark.parametrize(
    ("sleeper", "seconds"), [(sleep, -1), (sleep, nan), (sleep_until, nan), (sleep, -inf)]
)
async def test_bad_times_are_refused(sleeper: Any, seconds: float) -> None:
    with pytest.raises(ValueError, match="must"):
        await sleeper(seconds)


@pytest.mark.parametrize("limit", [move_on_after, fail_after])
@pytest.mark.parametrize("seconds", [-1, nan, -inf])
def test_bad_limits_are_refused_where_they_are_given(limit: Any, seconds: float) -> None:
    with pytest.raises(ValueError, match=r"^`seconds` must (not be NaN|be non-negative)$"):
        limit(seconds)


@pytest.mark.parametrize("limit", [move_on_at, fail_at])
def test_a_deadline_that_is_no_number_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"^deadline must not be NaN$"):
        limit(nan)


async def test_a_block_that_is_too_slow_is_left(autojump_clock: Any) -> None:
    begin = current_time()
    with move_on_after(10) as scope:
        await sleep_forever()
    assert scope.cancelled_caught
    assert current_time() == begin + 10
    with move_on_at(begin + 30) as scope:
        await asyncio.get_running_loop().create_future()
    assert scope.cancelled_caught
    assert current_time() == begin + 30


async def test_a_block_that_is_quick_is_left_alone() -> None:
    with move_on_after(60) as scope:
        await sleep(0)
    assert not scope.cancel_called
    with fail_after(60) as scope:
        await sleep(0)
    assert not scope.cancelled_caught


async def test_failing_limits_raise_what_says_so() -> None:
    with pytest.raises(TooSlowError) as caught:
        with fail_after(0):
            await sleep_forever()
    assert str(caught.value.__cause__) == "cancelled due to deadline"
    with pytest.raises(TooSlowError):
        with fail_at(current_time() - 1):
            await sleep_forever()


async def test_a_failing_limit_lets_other_errors_pass() -> None:
    with pytest.raises(KeyError):
        with fail_after(60):
            raise KeyError


async def test_a_failing_limit_that_was_cancelled_otherwise_fails_as_well() -> None:
    with pytest.raises(TooSlowError):
        with fail_after(60) as scope:
            scope.cancel()
            await sleep(0)


async def test_limits_may_be_shields() -> None:
    with CancelScope() as outer:
        outer.cancel()
        with move_on_after(60, shield=True), fail_after(60, shield=True):
            with move_on_at(inf, shield=True), fail_at(inf, shield=True):
                await sleep(0)
        with pytest.raises(nurseryio.Cancelled):
            await sleep(0)


async def test_a_cancelled_sleep_leaves_nothing_in_the_heap() -> None:
    from nurseryio._core.task import current_state

    with CancelScope() as scope:
        scope.cancel()
        await sleep(60)
    assert scope.cancelled_caught
    assert len(current_state().deadlines) == 0


async def test_ten_thousand_tasks_sleep_at_once(autojump_clock: Any) -> None:
    awake = 0

    async def sleeper(seconds: int) -> None:
        nonlocal awake
        await sleep(seconds)
        awake += 1

    begin = current_time()
    async with nurseryio.open_nursery() as nursery:
        for number in range(10_000):
            nursery.start_soon(sleeper, number % 100)
    assert awake == 10_000
    assert current_time() == begin + 99


async def test_a_million_timeouts_leave_no_growth() -> None:
    from nurseryio._core.task import current_state

    heap = current_state().deadlines
    for _ in range(2000):
        with move_on_after(60):
            pass
    assert len(heap) == 0
    assert len(heap._heap) < 200


# -- the effective deadline -----------------------------------------------------


async def test_the_effective_deadline_is_the_earliest_up_to_a_shield() -> None:
    assert current_effective_deadline() == inf
    now = current_time()
    with move_on_at(now + 10), move_on_at(now + 20):
        assert current_effective_deadline() == now + 10
        with move_on_at(now + 5) as inner:
            assert current_effective_deadline() == now + 5
            inner.deadline = now + 15
            assert current_effective_deadline() == now + 10
        with move_on_at(now + 30, shield=True) as shield:
            assert current_effective_deadline() == now + 30
            shield.shield = False
            assert current_effective_deadline() == now + 10
    assert current_effective_deadline() == inf


async def test_a_cancelled_task_has_no_time_left() -> None:
    with CancelScope() as scope:
        scope.cancel()
        assert current_effective_deadline() == -inf


def test_outside_of_tasks_there_is_neither_time_nor_deadline() -> None:
    for ask in (current_time, current_effective_deadline):
        with pytest.raises(RuntimeError, match="must be called from async context"):
            ask()
