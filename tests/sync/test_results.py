"""Results from concurrent functions."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from harness import pypy
from harness.matrix import Case
from harness.resisting import KINDS, Frozen, make
from harness.stress import stress

import nurseryio
from nurseryio import Event, amap, as_safe_channel, gather, open_memory_channel, race
from nurseryio._checks.schedules import Schedule
from nurseryio.lowlevel import checkpoint, current_task
from nurseryio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


async def give(value: Any, after: Event | None = None) -> Any:
    if after is not None:
        await after.wait()
    return value


async def fail(error: BaseException | None = None) -> None:
    raise error or ZeroDivisionError


class Forever:
    """An async function that never returns, and knows whether it was cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    async def __call__(self, *_args: object) -> None:
        try:
            await nurseryio.sleep_forever()
        except nurseryio.Cancelled:
            self.cancelled = True
            raise


def only_errors(group: ExceptionGroup[Exception]) -> list[type[BaseException]]:
    return [type(e) for e in group.exceptions if not isinstance(e, nurseryio.Cancelled)]


# -- all of them ----------------------------------------------------------------


async def test_gather_gives_results_in_the_order_of_the_functions() -> None:
    first, second = Event(), Event()

    async def release() -> str:
        second.set()
        await wait_all_tasks_blocked()
        first.set()
        return "c"

    with assert_checkpoints():
        results = await gather(partial(give, "a", first), partial(give, "b", second), release)
    assert results == ("a", "b", "c")


async def test_gather_of_nothing_is_still_a_checkpoint() -> None:
    with assert_checkpoints():
        assert await gather() == ()
    with assert_checkpoints():
        assert await gather(partial(give, None)) == (None,)
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await gather(partial(give, 1))
    assert scope.cancelled_caught


async def test_an_error_in_gather_cancels_the_others_and_is_raised_in_a_group() -> None:
    forever = Forever()
    with pytest.raises(ExceptionGroup) as caught:
        await gather(forever, fail)
    assert only_errors(caught.value) == [ZeroDivisionError]
    assert forever.cancelled


async def test_gather_takes_lambdas_which_see_the_callers_contextvars() -> None:
    assert await gather(lambda: give(1), lambda: give(2)) == (1, 2)


async def test_tasks_are_named_after_the_functions_that_they_run() -> None:
    async def name() -> str:
        return current_task().name

    for running in (gather(name), gather(partial(name)), race(name)):
        result = await running
        assert "name" in str(result)
        assert "gather" not in str(result)


async def test_a_gathered_task_that_was_cancelled_on_its_own_has_no_result() -> None:
    async def cancel_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    for running in (gather(partial(give, 1), cancel_itself), race(cancel_itself)):
        with pytest.raises(RuntimeError, match="cancelled on its own"):
            await running


# -- the first ------------------------------------------------------------------


async def test_a_race_gives_the_first_result_and_cancels_the_others() -> None:
    forever = Forever()
    with assert_checkpoints():
        assert await race(forever, partial(give, "fast"), forever) == "fast"
    assert forever.cancelled


async def test_a_result_of_none_can_win_a_race() -> None:
    assert await race(Forever(), partial(give, None)) is None


async def test_of_two_functions_that_finish_at_once_the_first_wins_the_race() -> None:
    assert await race(partial(give, 1), partial(give, 2)) == 1


async def test_a_race_ignores_the_result_of_a_loser_that_ignores_its_cancellation() -> None:
    async def stubborn() -> str:
        try:
            await nurseryio.sleep_forever()
        except nurseryio.Cancelled:
            return "stubborn"

    assert await race(stubborn, partial(give, "fast")) == "fast"


async def test_an_error_ends_the_race_and_no_error_is_dropped() -> None:
    forever = Forever()
    with pytest.raises(ExceptionGroup) as caught:
        await race(forever, fail)
    assert only_errors(caught.value) == [ZeroDivisionError]
    assert forever.cancelled

    async def fail_in_cleanup() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            raise KeyError

    with pytest.raises(ExceptionGroup) as caught:
        await race(partial(give, "fast"), fail_in_cleanup)
    assert only_errors(caught.value) == [KeyError]


async def test_a_race_needs_at_least_one_function() -> None:
    with pytest.raises(ValueError, match="at least one"):
        await race()


async def test_a_race_in_a_cancelled_scope_does_not_start() -> None:
    started = []

    async def start() -> None:
        started.append(1)

    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await race(start)
    assert scope.cancelled_caught
    assert started == []


async def test_gather_and_race_refuse_coroutine_objects_and_close_them() -> None:
    for running in (gather(give(1), give(2)), race(give(1), give(2))):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="got a coroutine object"):
            await running
    with pytest.raises(TypeError, match="got a coroutine object"):
        amap(give(1), [], limit=1)  # type: ignore[arg-type]
    gc.collect()


async def test_gather_and_race_refuse_sync_functions_with_an_explanation() -> None:
    for running in (gather(lambda: 1), race(lambda: 1)):  # type: ignore[arg-type,return-value]
        with pytest.raises(ExceptionGroup) as caught:
            await running
        (error,) = caught.value.exceptions
        assert "appears to be synchronous" in str(error)


# -- one for each item ----------------------------------------------------------


async def double(number: int) -> int:
    return 2 * number


async def numbers(to: int) -> AsyncIterator[int]:
    for number in range(to):
        yield number


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_amap_gives_one_result_per_item(ordered: bool, limit: int) -> None:
    for items in (range(10), iter(range(10)), numbers(10)):
        async with amap(double, items, limit=limit, ordered=ordered) as results:
            got = [result async for result in results]
        assert sorted(got) == [2 * number for number in range(10)]
        if ordered:
            assert got == sorted(got)


async def test_amap_of_no_items_gives_no_results() -> None:
    async with amap(double, [], limit=1) as results:
        assert [result async for result in results] == []


async def test_ordered_results_of_amap_wait_for_their_turn_and_unordered_do_not(
    autojump_clock: MockClock,
) -> None:
    async def nap(seconds: float) -> float:
        await nurseryio.sleep(seconds)
        return seconds

    async with amap(nap, [3, 1, 2], limit=3) as results:
        assert [result async for result in results] == [3, 1, 2]
    assert nurseryio.current_time() == 3
    async with amap(nap, [3, 1, 2], limit=3, ordered=False) as results:
        assert [result async for result in results] == [1, 2, 3]
    assert nurseryio.current_time() == 6


@pytest.mark.parametrize("ordered", [True, False])
async def test_back_pressure_amap_takes_works_on_and_keeps_no_more_than_its_limit(
    ordered: bool,
) -> None:
    taken = 0
    at_work = most = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async def work(number: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        for _ in range(10):
            await nurseryio.lowlevel.checkpoint()
        at_work -= 1
        return number

    async with amap(work, endless(), limit=3, ordered=ordered) as results:
        await wait_all_tasks_blocked()
        assert taken == 3
        for _ in range(5):
            await results.receive()
        await wait_all_tasks_blocked()
        assert taken == 8
    assert most == 3
    assert at_work == 0


async def test_leaving_the_block_of_amap_cancels_the_work() -> None:
    forever = Forever()
    async with amap(forever, range(10), limit=2):
        await wait_all_tasks_blocked()
    assert forever.cancelled


async def test_closing_the_result_channel_of_amap_stops_the_work() -> None:
    started = 0

    async def work(number: int) -> int:
        nonlocal started
        started += 1
        return number

    def endless() -> Iterator[int]:
        while True:
            yield 1

    async with amap(work, endless(), limit=3) as results:
        await results.receive()
        await results.aclose()
        await wait_all_tasks_blocked()
        assert started <= 4


async def test_errors_of_amaps_function_items_and_block_are_raised_in_groups() -> None:
    def broken_items() -> Iterator[int]:
        yield 1
        raise KeyError

    async def fail_on(_item: int) -> None:
        raise ZeroDivisionError

    for async_fn, items, error in (
        (fail_on, [1], ZeroDivisionError),
        (double, broken_items(), KeyError),
    ):
        with pytest.raises(ExceptionGroup) as caught:
            async with amap(async_fn, items, limit=1) as results:
                async for _ in results:
                    pass
        assert only_errors(caught.value) == [error]
    with pytest.raises(ExceptionGroup) as caught:
        async with amap(double, [1], limit=1):
            raise ZeroDivisionError
    assert only_errors(caught.value) == [ZeroDivisionError]


async def test_a_native_cancel_of_an_items_task_is_an_error_of_amap() -> None:
    async def cancel_itself(number: int) -> int:
        if number == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        return number

    with pytest.raises(ExceptionGroup) as caught:
        async with amap(cancel_itself, range(3), limit=3) as results:
            async for _ in results:
                pass
    (error,) = (e for e in caught.value.exceptions if isinstance(e, RuntimeError))
    assert "cancelled on its own" in str(error)


async def test_a_native_cancel_in_the_iterable_is_an_error_of_amap() -> None:
    async def cancel_the_taker() -> AsyncIterator[int]:
        yield 1
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        yield 2

    with pytest.raises(ExceptionGroup) as caught:
        async with amap(double, cancel_the_taker(), limit=1) as results:
            async for _ in results:
                pass
    assert only_errors(caught.value) == [RuntimeError]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("victim", range(3))
async def test_a_native_cancel_of_an_items_task_before_its_first_step_is_an_error_of_amap(
    victim: int, ordered: bool
) -> None:
    """Cancelled natively; no task waits for the result, which will never come."""
    known: set[asyncio.Task[Any]] = asyncio.all_tasks()

    def cancel_the_newcomer() -> None:
        (newcomer,) = asyncio.all_tasks() - known
        newcomer.cancel()

    async def items() -> AsyncIterator[int]:
        for number in range(3):
            known.update(asyncio.all_tasks())
            if number == victim:
                # Runs after the task for this item was made, and before its first step.
                asyncio.get_running_loop().call_soon(cancel_the_newcomer)
            yield number

    with pytest.raises(ExceptionGroup) as caught:
        async with amap(double, items(), limit=3, ordered=ordered) as results:
            async for _ in results:
                pass
    assert only_errors(caught.value) == [RuntimeError]
    assert "cancelled on its own" in str(caught.value.exceptions[0])


async def test_a_native_cancel_of_the_task_that_takes_the_items_is_an_error_of_amap() -> None:
    known = asyncio.all_tasks()
    with pytest.raises(ExceptionGroup) as caught:
        async with amap(double, [1, 2], limit=1) as results:
            (taker,) = asyncio.all_tasks() - known
            taker.cancel()
            async for _ in results:
                pass
    assert only_errors(caught.value) == [RuntimeError]


async def test_a_native_cancel_of_amaps_task_when_the_block_is_left_is_not_an_error() -> None:
    known = asyncio.all_tasks()
    async with amap(double, [1, 2], limit=1):
        (taker,) = asyncio.all_tasks() - known
        taker.cancel()


async def test_amap_takes_a_channel_that_is_still_being_filled() -> None:
    sending, receiving = open_memory_channel[int](0)

    async def fill() -> None:
        async with sending:
            for number in range(4):
                await sending.send(number)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(fill)
        async with receiving, amap(double, receiving, limit=2) as results:
            assert [result async for result in results] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"limit": 0}, ValueError, "limit must be 1 or more, not 0"),
        ({"limit": 1.5}, TypeError, "limit must be an int, not 1.5"),
        ({"limit": 1, "items": 3}, TypeError, "not iterable"),
        ({"limit": 1, "async_fn": 3}, TypeError, "expecting an async function"),
    ],
)
def test_misuse_of_amap_is_an_error_at_the_call(
    arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        amap(**{"async_fn": double, "items": [], **arguments})


# -- races of another kind ------------------------------------------------------


async def test_under_any_schedule_gather_race_and_amap_give_complete_results_or_none(
    loop_case: Case,
) -> None:
    async def scenario(schedule: Schedule) -> None:
        async def slow(number: int) -> int:
            await schedule.pause()
            return number

        gathered: list[tuple[int, ...]] = []
        won: list[int] = []
        mapped: list[int] = []

        async def gather_some() -> None:
            gathered.append(await gather(*[partial(slow, number) for number in range(3)]))

        async def race_some() -> None:
            won.append(await race(*[partial(slow, number) for number in range(3)]))

        async def map_some() -> None:
            async with amap(slow, range(5), limit=2) as results:
                async for number in results:
                    mapped.append(number)

        await schedule.run(gather_some, race_some, map_some)
        assert gathered in ([], [(0, 1, 2)])
        assert won in ([], [0], [1], [2])
        assert mapped == list(range(len(mapped)))

    await stress(scenario, loop_case)


@pypy.needs_own_exception_fields
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_an_error_that_overrides_its_fields_is_itself_in_the_exception_group(
    kind: Any,
) -> None:
    error = make(kind)

    async def fail(*_args: object) -> None:
        await checkpoint()
        raise error

    async def map_them() -> None:
        async with amap(fail, [1], limit=1) as results:
            async for _ in results:
                pass

    async def fail_beside() -> None:
        async with amap(checkpoint_for, [1], limit=1):
            raise error

    for call in (lambda: gather(fail), lambda: race(fail), map_them, fail_beside):
        with pytest.raises(BaseExceptionGroup) as caught:
            await call()
        assert [leaf for leaf in caught.value.exceptions if leaf is error]


async def checkpoint_for(_item: object) -> None:
    await checkpoint()


@pytest.mark.filterwarnings("ignore::nurseryio.TrioDeprecationWarning")
def test_an_error_that_overrides_its_fields_passes_a_non_strict_amap_unchanged() -> None:
    error = make(Frozen)

    async def main() -> None:
        async with amap(checkpoint_for, [1], limit=1):
            raise error

    with pytest.raises(Frozen) as caught:
        nurseryio.run(main, strict_exception_groups=False)
    assert caught.value is error


# -- what tools see -------------------------------------------------------------


async def test_debugging_tools_see_the_users_functions_in_get_coro() -> None:
    seen = []

    async def work(_item: int = 0) -> None:
        task = asyncio.current_task()
        assert task is not None
        seen.append(task.get_coro().__qualname__)  # type: ignore[union-attr]

    @as_safe_channel
    async def numbers() -> AsyncIterator[int]:
        await work()
        yield 1

    await gather(work)
    await race(work)
    async with amap(work, [1], limit=1) as results:
        async for _ in results:
            pass
    async with numbers() as channel:
        async for _ in channel:
            pass
    here = "test_debugging_tools_see_the_users_functions_in_get_coro.<locals>"
    expected = f"{here}.work"
    assert seen == [expected, expected, expected, f"{here}.numbers"]


async def test_async_for_over_amap_says_to_enter_it_first() -> None:
    with pytest.raises(RuntimeError, match="use 'async with amap"):
        async for _ in amap(checkpoint, [], limit=1):  # type: ignore[attr-defined,arg-type,misc]
            pass
