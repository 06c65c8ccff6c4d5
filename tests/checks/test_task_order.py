"""Shuffled tasks: every order is found, repeats itself, and disturbs nothing but the order."""

from __future__ import annotations

import asyncio
import contextvars
from itertools import permutations

import pytest

import nurseryio
from nurseryio._asyncio.compat import running_loop
from nurseryio._checks.task_order import AS_ASYNCIO, TaskOrder
from nurseryio.lowlevel import checkpoint


async def finishing_order(tasks: int = 3) -> str:
    """The order in which tasks take their second steps; that is never inside ``start_soon``."""
    seen = []

    async def child(name: str) -> None:
        await asyncio.sleep(0)
        seen.append(name)

    async with nurseryio.open_nursery() as nursery:
        for number in range(tasks):
            nursery.start_soon(child, "abcdef"[number])
    return "".join(seen)


async def test_without_a_task_order_asyncio_runs_ready_tasks_in_their_order() -> None:
    assert {await finishing_order() for _ in range(5)} == {"abc"}


async def test_shuffled_tasks_run_in_every_order_and_the_same_seed_gives_the_same_one() -> None:
    found = {}
    for seed in range(200):
        with TaskOrder(seed):
            found[seed] = await finishing_order()
    assert set(found.values()) == {"".join(order) for order in permutations("abc")}
    for seed in range(20):
        with TaskOrder(seed) as order:
            assert await finishing_order() == found[seed]
        assert order.choices > 0


async def test_the_record_of_a_task_order_repeats_it_exactly() -> None:
    for seed in range(30):
        with TaskOrder(seed) as order:
            wanted = await finishing_order(6)
        with TaskOrder(order.record) as again:
            assert await finishing_order(6) == wanted
        assert again.record == order.record
        assert repr(again) == f"TaskOrder({order.record!r})"


async def test_the_empty_record_is_asyncios_own_order() -> None:
    with TaskOrder(AS_ASYNCIO) as order:
        assert await finishing_order(6) == "abcdef"
    assert order.record == AS_ASYNCIO


async def test_a_choice_beyond_the_number_of_ready_tasks_takes_the_last_one() -> None:
    with TaskOrder(",".join(f"{number}:99" for number in range(50))) as order:
        assert sorted(await finishing_order()) == list("abc")
    assert "99" not in order.record


@pytest.mark.parametrize("text", ["", "3", "3:", ":1", "a:1", "1:-1", "1:1,", "17/0.3.scope.1/-"])
def test_a_text_that_is_not_the_record_of_a_task_order_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the record of a TaskOrder, such as"):
        TaskOrder(text)


def test_a_task_order_is_made_from_a_seed_or_a_record_only() -> None:
    with pytest.raises(TypeError, match="from a seed or a record"):
        TaskOrder(1.5)  # type: ignore[arg-type]


async def test_callbacks_that_are_not_steps_of_tasks_keep_their_order() -> None:
    loop = running_loop()
    for seed in range(20):
        seen: list[int] = []
        with TaskOrder(seed):
            for number in range(10):
                loop.call_soon(seen.append, number)
            await finishing_order()
        assert seen == sorted(seen)


async def test_a_shuffled_task_does_not_overtake_a_callback_that_it_has_scheduled_before() -> None:
    loop = running_loop()

    async def child() -> None:
        for _ in range(3):
            called: list[int] = []
            loop.call_soon(called.append, 1)
            await asyncio.sleep(0)
            assert called

    differing = 0
    for seed in range(30):
        with TaskOrder(seed) as order:
            async with nurseryio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(child)
        differing += order.record != AS_ASYNCIO
    assert differing


async def test_a_step_of_a_shuffled_task_runs_in_the_context_of_that_task() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")
    seen = []

    async def child(number: int) -> None:
        variable.set(number)
        for _ in range(3):
            await checkpoint()
            seen.append(variable.get() == number)

    for seed in range(10):
        with TaskOrder(seed):
            async with nurseryio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(child, number)
    assert all(seen) and len(seen) == 150


@pytest.mark.costly("many tasks")
async def test_a_shuffled_task_is_not_starved_by_tasks_that_are_always_ready() -> None:
    """Every task makes a step before any other makes its third: a batch is finished first."""
    for seed in range(30):
        steps = [0, 0, 0]

        async def child(number: int, steps: list[int] = steps) -> None:
            for _ in range(20):
                await asyncio.sleep(0)
                steps[number] += 1
                assert max(steps) - min(steps) <= 2 or 20 in steps

        with TaskOrder(seed):
            async with nurseryio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(child, number)
        assert steps == [20, 20, 20]


async def test_after_the_block_the_loop_has_its_own_call_soon_again() -> None:
    loop = running_loop()
    before = vars(loop).get("call_soon")
    with TaskOrder(1):
        assert vars(loop)["call_soon"] is not before
    assert vars(loop).get("call_soon") is before


async def test_a_call_soon_that_other_code_has_replaced_inside_the_block_stays() -> None:
    loop = running_loop()
    before = vars(loop).get("call_soon")
    with TaskOrder(1):
        inner = loop.call_soon

        def replaced(*args: object, **options: object) -> object:
            return inner(*args, **options)  # type: ignore[arg-type]

        loop.call_soon = replaced  # type: ignore[method-assign, assignment]
    try:
        assert vars(loop)["call_soon"] is replaced
        assert await finishing_order() == "abc"
    finally:
        if before is None:
            del loop.call_soon
        else:
            loop.call_soon = before  # type: ignore[method-assign]


async def test_a_task_order_may_be_used_again_but_not_inside_itself() -> None:
    order = TaskOrder(3)
    with order:
        with pytest.raises(RuntimeError, match="is in use"), order:
            pass
        await finishing_order()
    first = order.choices
    with order:
        await finishing_order()
    assert order.choices > first


async def test_a_task_order_inside_another_one_decides() -> None:
    with TaskOrder(1), TaskOrder(AS_ASYNCIO):
        assert await finishing_order(6) == "abcdef"


async def test_shuffled_tasks_are_cancelled_and_time_out_as_always() -> None:
    for seed in range(10):
        with TaskOrder(seed):
            with nurseryio.move_on_after(0.001) as scope:
                async with nurseryio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(nurseryio.sleep_forever)
            assert scope.cancelled_caught


async def test_an_error_of_a_shuffled_task_ends_its_siblings() -> None:
    async def fail() -> None:
        await checkpoint()
        raise KeyError

    for seed in range(10):
        with TaskOrder(seed), pytest.raises(BaseException) as caught:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep_forever)
                nursery.start_soon(fail)
                nursery.start_soon(nurseryio.sleep_forever)
        (error,) = caught.value.exceptions  # type: ignore[attr-defined]
        assert type(error) is KeyError


def test_a_task_order_outside_a_loop_is_refused() -> None:
    with pytest.raises(RuntimeError), TaskOrder(1):
        raise AssertionError("never runs")
