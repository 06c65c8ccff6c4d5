"""Blocks of code in the order of their numbers."""

from __future__ import annotations

import asyncio

import pytest

import nurseryio
from nurseryio.testing import Sequencer, wait_all_tasks_blocked


async def test_sequencer_blocks_run_in_the_order_of_their_numbers() -> None:
    turn = Sequencer()
    record = []

    async def work(*positions: int) -> None:
        for position in positions:
            async with turn(position):
                record.append(position)
                await nurseryio.lowlevel.checkpoint()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(work, 1, 3, 4)
        nursery.start_soon(work, 0, 2)
        async with turn(5):
            assert record == [0, 1, 2, 3, 4]
    assert "6 of 6 blocks ended" in repr(turn)


async def test_a_sequencer_block_that_raises_lets_the_next_one_begin() -> None:
    turn = Sequencer()
    with pytest.raises(ZeroDivisionError):
        async with turn(0):
            raise ZeroDivisionError
    async with turn(1):
        assert "1 of 2" in repr(turn)


async def test_a_sequencer_position_can_be_used_once() -> None:
    turn = Sequencer()
    async with turn(0):
        pass
    with pytest.raises(RuntimeError, match="reuse sequence point"):
        async with turn(0):
            raise AssertionError("not reached")


@pytest.mark.parametrize(("wrong", "error"), [(-1, ValueError), ("0", TypeError), (1.0, TypeError)])
def test_a_sequencer_position_is_an_integer_from_zero_up(
    wrong: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Sequencer()(wrong)


async def test_cancelling_a_task_that_waits_breaks_the_sequencer_for_all() -> None:
    turn = Sequencer()
    record = []

    async def work(position: int, cancelled: bool) -> None:
        with nurseryio.CancelScope() as scope:
            if cancelled:
                scope.cancel()
            try:
                async with turn(position):
                    raise AssertionError("not reached")
            except RuntimeError as exc:
                record.append((position, str(exc).startswith("Sequencer wait cancelled")))

    async with nurseryio.open_nursery() as nursery:
        async with turn(0):
            nursery.start_soon(work, 2, False)
            await wait_all_tasks_blocked()
            nursery.start_soon(work, 1, True)
            await wait_all_tasks_blocked()
    assert sorted(record) == [(1, True), (2, False)]
    assert "broken" in repr(turn)
    with pytest.raises(RuntimeError, match="broken"):
        async with turn(3):
            raise AssertionError("not reached")


async def test_a_native_cancel_breaks_the_sequencer_and_is_re_raised() -> None:
    turn = Sequencer()

    async def work() -> None:
        async with turn(1):
            raise AssertionError("not reached")

    task = asyncio.ensure_future(work())
    await wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(RuntimeError, match="broken"):
        async with turn(2):
            raise AssertionError("not reached")
