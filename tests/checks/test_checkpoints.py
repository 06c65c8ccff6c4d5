"""Whether a block of code executes a checkpoint."""

from __future__ import annotations

import asyncio

import pytest

import nurseryio
from nurseryio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
)
from nurseryio.testing import assert_checkpoints, assert_no_checkpoints


async def whole() -> None:
    await checkpoint_if_cancelled()
    await cancel_shielded_checkpoint()


async def other_way_round() -> None:
    await cancel_shielded_checkpoint()
    await checkpoint_if_cancelled()


async def shielded_first() -> None:
    await cancel_shielded_checkpoint()
    await cancel_shielded_checkpoint()
    await checkpoint()


async def on_a_timer() -> None:
    await nurseryio.sleep(0.001)


async def foreign_yield() -> None:
    await asyncio.sleep(0)


async def foreign_future() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, None)
    await future


async def in_a_shield() -> None:
    with nurseryio.CancelScope(shield=True):
        await checkpoint()


CHECKPOINTS = [
    checkpoint,
    whole,
    other_way_round,
    shielded_first,
    on_a_timer,
    foreign_yield,
    foreign_future,
    in_a_shield,
]


async def nothing() -> None:
    """Not a checkpoint."""


async def done_already() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    await future


async def twice_half() -> None:
    await cancel_shielded_checkpoint()
    await cancel_shielded_checkpoint()


HALVES = [checkpoint_if_cancelled, cancel_shielded_checkpoint, twice_half]


@pytest.mark.parametrize("function", CHECKPOINTS)
async def test_assert_checkpoints_passes_a_checkpoint(function: object) -> None:
    with assert_checkpoints():
        await function()
    with pytest.raises(AssertionError):
        with assert_no_checkpoints():
            await function()


@pytest.mark.parametrize("function", HALVES)
async def test_half_a_checkpoint_fails_both_assert_checkpoints_and_assert_no_checkpoints(
    function: object,
) -> None:
    with pytest.raises(AssertionError):
        with assert_checkpoints():
            await function()
    with pytest.raises(AssertionError):
        with assert_no_checkpoints():
            await function()


@pytest.mark.parametrize("function", [nothing, done_already])
async def test_assert_checkpoints_fails_for_code_that_does_not_yield(function: object) -> None:
    with pytest.raises(AssertionError):
        with assert_checkpoints():
            await function()
    with assert_no_checkpoints():
        await function()


async def test_the_message_of_assert_checkpoints_says_which_half_is_missing() -> None:
    with pytest.raises(AssertionError, match="did not yield"):
        with assert_checkpoints():
            await checkpoint_if_cancelled()
    with pytest.raises(AssertionError, match="no await in it could have raised a cancellation"):
        with assert_checkpoints():
            await cancel_shielded_checkpoint()
    with pytest.raises(AssertionError, match="checked for cancellation"):
        with assert_no_checkpoints():
            await checkpoint_if_cancelled()
    with pytest.raises(AssertionError, match=r"^assert_no_checkpoints block yielded!$"):
        with assert_no_checkpoints():
            await cancel_shielded_checkpoint()


async def test_assert_checkpoints_passes_a_block_that_raises_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        with assert_checkpoints():
            raise ZeroDivisionError


async def test_assert_no_checkpoints_fails_for_a_checkpoint_in_a_block_that_raises() -> None:
    with pytest.raises(ZeroDivisionError):
        with assert_no_checkpoints():
            raise ZeroDivisionError
    with pytest.raises(AssertionError) as caught:
        with assert_no_checkpoints():
            await checkpoint()
            raise ZeroDivisionError
    assert isinstance(caught.value.__context__, ZeroDivisionError)


async def test_nested_assert_checkpoints_do_not_hide_anything() -> None:
    with assert_checkpoints():
        await checkpoint_if_cancelled()
        with assert_no_checkpoints():
            pass
        await cancel_shielded_checkpoint()
    with assert_checkpoints(), assert_checkpoints():
        await whole()
    with pytest.raises(AssertionError, match="no await in it"):
        with assert_checkpoints():
            with assert_no_checkpoints():
                pass
            await cancel_shielded_checkpoint()


async def test_assert_checkpoints_ignores_checkpoints_of_other_tasks() -> None:
    async def busy() -> None:
        for _ in range(5):
            await checkpoint()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(busy)
        await checkpoint()
        with assert_no_checkpoints():
            pass
        with pytest.raises(AssertionError):
            with assert_checkpoints():
                pass


async def test_a_deferred_native_cancel_is_not_lost_by_assert_checkpoints() -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        with assert_no_checkpoints():
            pass
        with pytest.raises(AssertionError):
            with assert_checkpoints():
                asyncio.get_running_loop().call_soon(task.cancel)
                await cancel_shielded_checkpoint()
        # By this checkpoint_if_cancelled() knows that it has to look.
        assert nurseryio.lowlevel.current_task()._deferred_cancel
        await checkpoint()
        raise AssertionError("not reached")

    task = asyncio.ensure_future(work())
    with pytest.raises(asyncio.CancelledError):
        await task


def test_assert_checkpoints_outside_any_task_is_an_error() -> None:
    for assertion in (assert_checkpoints, assert_no_checkpoints):
        with pytest.raises(RuntimeError):
            with assertion():
                pass
