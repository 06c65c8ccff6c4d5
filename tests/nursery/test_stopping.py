"""Code that can be asked to stop."""

from __future__ import annotations

import asyncio

import pytest

import nurseryio
from nurseryio import (
    CancelScope,
    Event,
    current_time,
    move_on_at_stop,
    open_memory_channel,
    open_nursery,
    sleep_forever,
    stop_requested,
    wait_stop_requested,
)
from nurseryio._nursery import stopping
from nurseryio.testing import (
    MockClock,
    Schedule,
    assert_checkpoints,
    cancel_at_every_await,
    wait_all_tasks_blocked,
)


async def test_a_cancelled_task_is_also_asked_to_stop() -> None:
    with CancelScope() as scope:
        scope.cancel()
        assert stop_requested()


async def test_stop_requested_outside_a_task_is_an_error() -> None:
    done = Event()
    errors: list[BaseException] = []

    def outside() -> None:
        try:
            stop_requested()
        except RuntimeError as error:
            errors.append(error)
        done.set()

    asyncio.get_running_loop().call_soon(outside)
    await done.wait()
    assert len(errors) == 1


async def test_wait_stop_requested_returns_at_once_after_a_request_and_is_a_checkpoint() -> None:
    with CancelScope() as scope:
        scope.request_stop()
        with assert_checkpoints():
            await wait_stop_requested()


async def test_wait_stop_requested_is_cancelled_like_any_wait() -> None:
    with CancelScope() as scope:
        scope.cancel()
        await wait_stop_requested()
        raise AssertionError("not cancelled")
    assert scope.cancelled_caught


async def test_a_native_cancel_passes_through_wait_stop_requested() -> None:
    task = asyncio.ensure_future(wait_stop_requested())
    await wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_move_on_at_stop_ends_its_block_and_nothing_else() -> None:
    with CancelScope() as scope:
        async with open_nursery() as nursery:

            async def child() -> None:
                with move_on_at_stop() as waiting:
                    await sleep_forever()
                assert waiting.cancelled_caught
                await nurseryio.lowlevel.checkpoint()

            nursery.start_soon(child)
            await wait_all_tasks_blocked()
            scope.request_stop()
    assert not scope.cancel_called


async def test_move_on_at_stop_after_a_request_is_cancelled_at_its_first_checkpoint() -> None:
    with CancelScope() as scope:
        scope.request_stop()
        with move_on_at_stop() as waiting:
            assert waiting.cancel_called
            await nurseryio.lowlevel.checkpoint()
            raise AssertionError("not cancelled")
        assert waiting.cancelled_caught


async def test_the_cancellation_of_move_on_at_stop_says_that_a_stop_was_requested() -> None:
    with CancelScope() as scope, move_on_at_stop():
        scope.request_stop()
        with pytest.raises(nurseryio.Cancelled, match="a stop was requested"):
            await sleep_forever()


async def test_move_on_at_stop_cannot_be_entered_twice_or_by_async_with() -> None:
    block = move_on_at_stop()
    with block:
        pass
    with pytest.raises(RuntimeError, match="single 'with' block"), block:
        pass
    with pytest.raises(RuntimeError, match="use 'with'"):
        async with move_on_at_stop():  # type: ignore[attr-defined]
            pass


async def test_move_on_at_stop_with_a_delay_gives_the_block_time_after_the_request(
    autojump_clock: MockClock,
) -> None:
    with CancelScope() as scope:
        start = current_time()
        with move_on_at_stop(delay=3) as waiting:
            scope.request_stop()
            assert not waiting.cancel_called
            scope.request_stop()  # does not begin the delay again
            await sleep_forever()
        assert waiting.cancelled_caught
        assert current_time() == start + 3
        with move_on_at_stop(delay=3) as waiting:
            await sleep_forever()
        assert current_time() == start + 6


async def test_a_delay_of_move_on_at_stop_is_a_number_of_seconds_that_is_not_negative() -> None:
    with pytest.raises(ValueError, match="delay"):
        move_on_at_stop(delay=-1)
    with pytest.raises(TypeError, match="delay"):
        move_on_at_stop(delay=None)  # type: ignore[arg-type]


async def test_a_block_whose_entry_fails_is_left_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_state: object) -> None:
        raise MemoryError

    monkeypatch.setattr(stopping, "look_again", fails)
    outside = nurseryio.lowlevel.current_task().scope
    with pytest.raises(MemoryError), move_on_at_stop():
        raise AssertionError("entered")
    task = nurseryio.lowlevel.current_task()
    assert task.scope is outside
    assert not task._state.stop_scopes


async def test_an_open_block_is_forgotten_when_it_is_left() -> None:
    with move_on_at_stop() as scope:
        state = nurseryio.lowlevel.current_task()._state
        assert scope in state.stop_scopes
    assert scope not in state.stop_scopes


async def test_an_open_block_is_forgotten_when_its_task_ends() -> None:
    blocks = []

    async def leaves_it_open() -> None:
        blocks.append(move_on_at_stop())
        blocks[0].__enter__()

    state = nurseryio.lowlevel.current_task()._state
    async with open_nursery() as nursery:
        nursery.start_soon(leaves_it_open)
    assert not state.stop_scopes


async def test_an_item_that_was_received_is_not_lost_when_the_stop_request_arrives() -> None:
    send, receive = open_memory_channel[int](0)
    got: list[int] = []

    async def worker() -> None:
        while True:
            with move_on_at_stop() as waiting:
                item = await receive.receive()
            if waiting.cancelled_caught:
                break
            await nurseryio.lowlevel.checkpoint()
            got.append(item)

    async with open_nursery() as nursery:
        nursery.start_soon(worker)
        await wait_all_tasks_blocked()
        send.send_nowait(1)
        nursery.cancel_scope.request_stop()
    assert got == [1]
    send.close()
    receive.close()


async def test_waiting_for_a_stop_can_be_cancelled_at_every_await() -> None:
    async def scenario(schedule: Schedule) -> None:
        async def waits() -> None:
            async with open_nursery() as nursery:
                nursery.start_soon(wait_stop_requested)
                with move_on_at_stop():
                    await sleep_forever()

        async def asks() -> None:
            try:
                await nurseryio.lowlevel.checkpoint()
            finally:
                outer.cancel_scope.request_stop()

        async with open_nursery() as outer:
            outer.start_soon(schedule.run, waits, asks)
        assert not nurseryio.lowlevel.current_task()._state.stop_scopes

    await cancel_at_every_await(scenario)
