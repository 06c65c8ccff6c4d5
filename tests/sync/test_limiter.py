"""A bag of tokens that borrowers take and bring back."""

# Covered below 95 %: borrowing for another task's sake from another thread is in
# test_wrong_thread.py; giving the token back when the yield fails has no test.

from __future__ import annotations

import asyncio
from math import inf, nan
from typing import Any

import pytest
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio import CapacityLimiter
from nurseryio._checks.schedules import Schedule
from nurseryio.lowlevel import current_task
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked


def state(limiter: CapacityLimiter) -> tuple[Any, ...]:
    statistics = limiter.statistics()
    assert statistics.borrowed_tokens == len(statistics.borrowers) == limiter.borrowed_tokens
    assert statistics.total_tokens == limiter.total_tokens
    return (statistics.borrowers, statistics.tasks_waiting)


async def test_a_limiter_token_belongs_to_the_task_that_acquired_it() -> None:
    limiter = CapacityLimiter(2)
    assert (limiter.total_tokens, limiter.borrowed_tokens, limiter.available_tokens) == (2, 0, 2)
    limiter.acquire_nowait()
    assert (limiter.borrowed_tokens, limiter.available_tokens) == (1, 1)
    assert state(limiter) == ([current_task()], 0)
    assert "1 of 2 tokens borrowed, 0 tasks waiting" in repr(limiter)
    limiter.release()
    with assert_checkpoints():
        await limiter.acquire()
    limiter.release()
    with assert_checkpoints():
        async with limiter:
            assert state(limiter) == ([current_task()], 0)
    assert state(limiter) == ([], 0)


async def test_a_child_that_acquires_is_the_borrower_itself() -> None:
    limiter = CapacityLimiter(1)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire)
        (child,) = nursery.child_tasks
    assert state(limiter) == ([child], 0)
    limiter.release_on_behalf_of(child)


async def test_a_borrower_cannot_hold_two_tokens_or_release_one_that_it_does_not_hold() -> None:
    limiter = CapacityLimiter(3)
    with pytest.raises(RuntimeError, match="isn't holding"):
        limiter.release()
    with pytest.raises(RuntimeError, match="isn't holding"):
        limiter.release_on_behalf_of("somebody")
    async with limiter:
        with pytest.raises(RuntimeError, match="already holding"):
            limiter.acquire_nowait()
        with pytest.raises(RuntimeError, match="already holding"):
            await limiter.acquire()
        await limiter.acquire_on_behalf_of("somebody")
        with pytest.raises(RuntimeError, match="already holding"):
            limiter.acquire_on_behalf_of_nowait("somebody")
        limiter.release_on_behalf_of("somebody")
    assert state(limiter) == ([], 0)


async def test_fairness_limiter_acquire_waits_in_fifo_order() -> None:
    limiter = CapacityLimiter(1)
    await limiter.acquire_on_behalf_of("a")
    async with nurseryio.open_nursery() as nursery:
        for name in "bcd":
            nursery.start_soon(limiter.acquire_on_behalf_of, name)
            await wait_all_tasks_blocked()
        assert state(limiter) == (["a"], 3)
        for name, following in ("ab", "bc", "cd"):
            limiter.release_on_behalf_of(name)
            assert limiter.statistics().borrowers == [following]
            with pytest.raises(nurseryio.WouldBlock, match="no token is free"):
                limiter.acquire_nowait()
    limiter.release_on_behalf_of("d")
    assert state(limiter) == ([], 0)


async def test_fairness_newcomers_do_not_overtake_even_if_a_token_is_free() -> None:
    limiter = CapacityLimiter(0)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire_on_behalf_of, "a")
        await wait_all_tasks_blocked()
        limiter.total_tokens = 1
        assert state(limiter) == (["a"], 0)
        with pytest.raises(nurseryio.WouldBlock):
            limiter.acquire_nowait()


async def test_raising_total_tokens_wakes_waiters_and_lowering_it_takes_no_token_away() -> None:
    limiter = CapacityLimiter(2)
    async with nurseryio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(limiter.acquire_on_behalf_of, number)
            await wait_all_tasks_blocked()
        assert state(limiter) == ([0, 1], 3)
        limiter.total_tokens += 2
        assert state(limiter) == ([0, 1, 2, 3], 1)
        limiter.total_tokens = 1
        assert state(limiter) == ([0, 1, 2, 3], 1)
        assert limiter.available_tokens == -3
        for number in range(3):
            limiter.release_on_behalf_of(number)
        assert state(limiter) == ([3], 1)
        limiter.release_on_behalf_of(3)
        assert state(limiter) == ([4], 0)


async def test_total_tokens_may_be_zero_or_infinite() -> None:
    limiter = CapacityLimiter(0)
    with pytest.raises(nurseryio.WouldBlock):
        limiter.acquire_nowait()
    limiter.total_tokens = inf
    for number in range(100):
        limiter.acquire_on_behalf_of_nowait(number)
    assert limiter.available_tokens == inf
    assert limiter.borrowed_tokens == 100


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(1.0, TypeError), ("1", TypeError), (nan, TypeError), (None, TypeError), (-1, ValueError)],
)
def test_total_tokens_refuses_other_numbers(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="total_tokens must be"):
        CapacityLimiter(wrong)
    limiter = CapacityLimiter(3)
    with pytest.raises(error, match="total_tokens must be"):
        limiter.total_tokens = wrong
    assert limiter.total_tokens == 3


async def test_acquiring_in_a_cancelled_scope_borrows_nothing() -> None:
    limiter = CapacityLimiter(1)
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire()
    assert scope.cancelled_caught
    assert state(limiter) == ([], 0)


async def test_a_cancelled_waiter_leaves_the_limiter_queue_at_once() -> None:
    limiter = CapacityLimiter(0)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert state(limiter) == ([], 0)
        limiter.total_tokens = 1
        assert state(limiter) == ([], 0)


async def test_a_limiter_token_granted_before_a_native_cancel_is_not_lost() -> None:
    for granted_first in (True, False):
        limiter = CapacityLimiter(0)

        async def work(limiter: CapacityLimiter = limiter) -> None:
            async with limiter:
                await asyncio.sleep(0)
                raise AssertionError("not reached")

        task = asyncio.create_task(work())
        await wait_all_tasks_blocked()
        if granted_first:
            limiter.total_tokens = 1
        task.cancel()
        if not granted_first:
            limiter.total_tokens = 1
        assert limiter.borrowed_tokens == 1
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state(limiter) == ([], 0)


async def test_under_any_schedule_no_limiter_token_is_lost_or_doubled(loop_case: Case) -> None:
    async def scenario(schedule: Schedule) -> None:
        limiter = CapacityLimiter(2)
        inside = 0

        async def work() -> None:
            nonlocal inside
            for _ in range(3):
                async with limiter:
                    inside += 1
                    try:
                        assert inside <= 3
                        await schedule.pause()
                        limiter.total_tokens = schedule.random.choice([1, 2, 3])
                    finally:
                        inside -= 1

        await schedule.run(work, work, work, work)
        assert state(limiter) == ([], 0)

    await stress(scenario, loop_case)


async def test_no_limiter_token_is_lost_if_waking_a_natively_cancelled_task_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limiter = CapacityLimiter(1)
    await limiter.acquire_on_behalf_of("owner")
    waiting = []

    async def wait() -> None:
        waiting.append(current_task())
        await limiter.acquire_on_behalf_of("waiter")

    def fail(*_args: object) -> None:
        raise MemoryError

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        waiting[0].asyncio_task.cancel()  # its future is cancelled, and the task does not know yet
        with monkeypatch.context() as patch:
            patch.setattr("nurseryio._core.traps._hand_over", fail)
            with pytest.raises(MemoryError):
                limiter.total_tokens = 2
        assert state(limiter) == (["owner"], 1)
