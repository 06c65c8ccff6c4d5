"""Objects handed from task to task."""

from __future__ import annotations

import asyncio
import inspect
import sys
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf, nan
from typing import Any

import pytest
from harness.core import gone, turns, without_gc
from harness.matrix import Case
from harness.stress import stress
from hypothesis import given, strategies

import nurseryio
from nurseryio import MemoryReceiveChannel, MemorySendChannel, open_memory_channel
from nurseryio._checks.schedules import Schedule
from nurseryio._core.task import FREE_CHANNEL_OPERATIONS
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked

# -- opening --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(1.0, TypeError), ("1", TypeError), (None, TypeError), (nan, TypeError), (-1, ValueError)],
)
def test_a_channel_holds_a_whole_number_of_items_or_any_number(
    wrong: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="max_buffer_size must be"):
        open_memory_channel[int](wrong)


def test_channel_ends_are_made_by_open_memory_channel_only() -> None:
    for end in (MemorySendChannel, MemoryReceiveChannel):
        with pytest.raises(TypeError, match="no public constructor"):
            end(None)
        with pytest.raises(TypeError, match="does not support subclassing"):
            type("Mine", (end,), {})


def test_open_memory_channel_may_be_subscripted_with_the_item_type() -> None:
    for opened in (open_memory_channel[int](3), open_memory_channel(3)):
        sending, receiving = opened
        sending.send_nowait(1)
        assert receiving.receive_nowait() == 1
    assert open_memory_channel.__name__ == "open_memory_channel"


def test_a_channel_with_an_infinite_buffer_never_blocks_a_send() -> None:
    sending, receiving = open_memory_channel[int](inf)
    for item in range(1000):
        sending.send_nowait(item)
    assert [receiving.receive_nowait() for _ in range(1000)] == list(range(1000))


# -- sending and receiving ------------------------------------------------------


async def test_items_are_received_in_the_order_in_which_they_were_sent() -> None:
    sending, receiving = open_memory_channel[int](2)
    sending.send_nowait(1)
    with assert_checkpoints():
        await sending.send(2)
    with pytest.raises(nurseryio.WouldBlock):
        sending.send_nowait(3)
    with assert_checkpoints():
        assert await receiving.receive() == 1
    assert receiving.receive_nowait() == 2
    with pytest.raises(nurseryio.WouldBlock):
        receiving.receive_nowait()


async def test_back_pressure_without_a_buffer_send_waits_for_a_receiver() -> None:
    sending, receiving = open_memory_channel[int](0)
    record = []

    async def send() -> None:
        for item in range(3):
            with assert_checkpoints():
                await sending.send(item)
            record.append(f"sent {item}")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert record == []
        for item in range(3):
            with assert_checkpoints():
                assert await receiving.receive() == item
            await wait_all_tasks_blocked()
            assert record == [f"sent {earlier}" for earlier in range(item + 1)]


async def test_none_and_other_false_things_are_items_too() -> None:
    sending, receiving = open_memory_channel[object](0)
    items = [None, 0, "", False, nurseryio.EndOfChannel(), NotImplemented]
    got: list[object] = []

    async def receive() -> None:
        got.extend([item async for item in receiving])

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receive)
        async with sending:
            for item in items:
                await sending.send(item)
    assert all(a is b for a, b in zip(got, items, strict=True))


async def test_fairness_a_waiting_receiver_gets_the_next_item_before_receive_nowait() -> None:
    sending, receiving = open_memory_channel[int](1)
    got = []

    async def receive() -> None:
        got.append(await receiving.receive())

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        sending.send_nowait(1)
        with pytest.raises(nurseryio.WouldBlock):
            receiving.receive_nowait()
    assert got == [1]


async def test_fairness_a_waiting_sender_gets_the_free_place_before_send_nowait() -> None:
    sending, receiving = open_memory_channel[int](1)
    sending.send_nowait(1)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(sending.send, 2)
        await wait_all_tasks_blocked()
        assert receiving.receive_nowait() == 1
        with pytest.raises(nurseryio.WouldBlock):
            sending.send_nowait(3)
    assert receiving.receive_nowait() == 2


async def test_fairness_receivers_are_served_in_fifo_order() -> None:
    sending, receiving = open_memory_channel[int](0)
    got = []

    async def receive(name: int) -> None:
        got.append((name, await receiving.receive()))

    async with nurseryio.open_nursery() as nursery:
        for name in range(4):
            nursery.start_soon(receive, name)
        await wait_all_tasks_blocked()
        for item in range(4):
            sending.send_nowait(item)
    assert got == [(0, 0), (1, 1), (2, 2), (3, 3)]


async def test_fairness_senders_are_served_in_fifo_order() -> None:
    sending, receiving = open_memory_channel[int](0)
    async with nurseryio.open_nursery() as nursery:
        for item in range(4):
            nursery.start_soon(sending.send, item)
        await wait_all_tasks_blocked()
        assert [receiving.receive_nowait() for _ in range(4)] == [0, 1, 2, 3]


# -- closing --------------------------------------------------------------------


async def aclose(end: nurseryio.abc.AsyncResource) -> None:
    await end.aclose()


async def close(end: Any) -> None:
    end.close()


async def leave_block(end: Any) -> None:
    with end:
        pass


async def leave_async_block(end: Any) -> None:
    async with end:
        pass


def awaitable(fn: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    async def call() -> None:
        fn(*args)

    return call


every_way_to_close = pytest.mark.parametrize(
    "shut", [aclose, close, leave_block, leave_async_block], ids=lambda fn: fn.__name__
)
Shut = Callable[[Any], Any]


@every_way_to_close
async def test_after_the_last_sender_closes_receivers_get_the_buffer_and_then_end_of_channel(
    shut: Shut,
) -> None:
    sending, receiving = open_memory_channel[int](2)
    await sending.send(1)
    await shut(sending)
    await shut(sending)
    for use in (lambda: sending.send(2), awaitable(sending.send_nowait, 2)):
        with pytest.raises(nurseryio.ClosedResourceError, match="this sending end was closed"):
            await use()
    with pytest.raises(nurseryio.ClosedResourceError):
        sending.clone()
    assert await receiving.receive() == 1
    for _ in range(2):
        with pytest.raises(nurseryio.EndOfChannel):
            await receiving.receive()
        with pytest.raises(nurseryio.EndOfChannel):
            receiving.receive_nowait()


@every_way_to_close
async def test_after_the_last_receiver_closes_senders_get_broken_resource_error(
    shut: Shut,
) -> None:
    sending, receiving = open_memory_channel[int](2)
    await sending.send(1)
    await shut(receiving)
    await shut(receiving)
    with pytest.raises(nurseryio.BrokenResourceError, match="all receiving ends were closed"):
        await sending.send(2)
    with pytest.raises(nurseryio.BrokenResourceError):
        sending.send_nowait(2)
    for use in (receiving.receive, awaitable(receiving.receive_nowait)):
        with pytest.raises(nurseryio.ClosedResourceError, match="this receiving end was closed"):
            await use()
    with pytest.raises(nurseryio.ClosedResourceError):
        receiving.clone()
    assert sending.statistics().current_buffer_used == 0


async def expect(error: type[Exception], fn: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(error):
        await fn(*args)


@every_way_to_close
async def test_closing_one_sender_wakes_only_the_tasks_that_wait_on_it(shut: Shut) -> None:
    sending, receiving = open_memory_channel[str](0)
    other = sending.clone()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(expect, nurseryio.ClosedResourceError, sending.send, "never")
        nursery.start_soon(other.send, "other")
        nursery.start_soon(expect, nurseryio.ClosedResourceError, sending.send, "never")
        await wait_all_tasks_blocked()
        await shut(sending)
        assert sending.statistics().tasks_waiting_send == 1
        assert await receiving.receive() == "other"


@every_way_to_close
async def test_closing_one_receiver_wakes_only_the_tasks_that_wait_on_it(shut: Shut) -> None:
    sending, receiving = open_memory_channel[str](0)
    other = receiving.clone()
    got = []

    async def receive() -> None:
        got.append(await other.receive())

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(expect, nurseryio.ClosedResourceError, receiving.receive)
        nursery.start_soon(receive)
        nursery.start_soon(expect, nurseryio.ClosedResourceError, receiving.receive)
        await wait_all_tasks_blocked()
        await shut(receiving)
        assert sending.statistics().tasks_waiting_receive == 1
        await sending.send("other")
    assert got == ["other"]


@every_way_to_close
async def test_closing_wakes_the_other_side_too(shut: Shut) -> None:
    sending, receiving = open_memory_channel[int](0)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(expect, nurseryio.EndOfChannel, receiving.receive)
        await wait_all_tasks_blocked()
        await shut(sending)
    sending, receiving = open_memory_channel[int](0)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(expect, nurseryio.BrokenResourceError, sending.send, 1)
        await wait_all_tasks_blocked()
        await shut(receiving)


async def test_a_channel_end_that_has_waited_can_be_closed_like_a_new_one() -> None:
    sending, receiving = open_memory_channel[int](0)
    other_sending, other_receiving = sending.clone(), receiving.clone()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receiving.receive)
        await wait_all_tasks_blocked()
        await other_sending.send(1)
        nursery.start_soon(sending.send, 2)
        await wait_all_tasks_blocked()
        assert await other_receiving.receive() == 2
        with nurseryio.move_on_after(0):
            await receiving.receive()
        with nurseryio.move_on_after(0):
            await sending.send(3)
        nursery.start_soon(other_sending.send, 4)
        await wait_all_tasks_blocked()
        sending.close()
        receiving.close()
        assert await other_receiving.receive() == 4


async def test_aclose_is_a_checkpoint_and_closes_even_if_cancelled() -> None:
    for end in open_memory_channel[int](0):
        with assert_checkpoints():
            await end.aclose()
    for end in open_memory_channel[int](0):
        with nurseryio.CancelScope() as scope:
            scope.cancel()
            await end.aclose()
        assert scope.cancelled_caught
        with pytest.raises(nurseryio.ClosedResourceError):
            end.clone()


async def test_many_producers_with_a_clone_each_end_the_channel_together() -> None:
    sending, receiving = open_memory_channel[int](0)

    async def produce(end: MemorySendChannel[int], first: int) -> None:
        async with end:
            for item in range(first, first + 3):
                await end.send(item)

    async with nurseryio.open_nursery() as nursery:
        async with sending:
            for first in range(0, 30, 3):
                nursery.start_soon(produce, sending.clone(), first)
        assert sorted([item async for item in receiving]) == list(range(30))


async def test_many_consumers_share_the_items() -> None:
    sending, receiving = open_memory_channel[int](1)
    got: list[tuple[int, int]] = []

    async def consume(name: int) -> None:
        async with receiving.clone() as end:
            async for item in end:
                got.append((name, item))

    async with nurseryio.open_nursery() as nursery:
        async with sending:
            for name in range(5):
                nursery.start_soon(consume, name)
            await wait_all_tasks_blocked()
            for item in range(10):
                await sending.send(item)
    assert sorted(item for _name, item in got) == list(range(10))
    for name in range(5):
        items = [item for consumer, item in got if consumer == name]
        assert items
        assert items == sorted(items)


# -- cancellation ---------------------------------------------------------------


async def test_in_a_cancelled_scope_nothing_is_sent_and_nothing_received() -> None:
    sending, receiving = open_memory_channel[int](5)
    sending.send_nowait(1)
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await sending.send(2)
    assert scope.cancelled_caught
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await receiving.receive()
    assert scope.cancelled_caught
    assert receiving.receive_nowait() == 1
    with pytest.raises(nurseryio.WouldBlock):
        receiving.receive_nowait()


async def test_a_cancelled_send_withdraws_its_item() -> None:
    sending, receiving = open_memory_channel[int](0)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(sending.send, 1)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        with pytest.raises(nurseryio.WouldBlock):
            receiving.receive_nowait()


async def test_an_item_handed_to_a_receiver_before_a_native_cancel_is_received() -> None:
    for sent_first in (True, False):
        sending, receiving = open_memory_channel[int](0)
        got = []

        async def receive(
            receiving: MemoryReceiveChannel[int] = receiving, got: list[int] = got
        ) -> None:
            got.append(await receiving.receive())
            await asyncio.sleep(0)
            raise AssertionError("not reached")

        task = asyncio.create_task(receive())
        await wait_all_tasks_blocked()
        if sent_first:
            sending.send_nowait(1)
        task.cancel()
        if not sent_first:
            sending.send_nowait(1)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert got == [1]


async def test_fairness_of_eight_operations_in_a_row_one_lets_ready_tasks_run() -> None:
    sending, receiving = open_memory_channel[int](inf)
    seen = 0

    async def always_ready() -> None:
        nonlocal seen
        while True:
            seen += 1
            await nurseryio.lowlevel.checkpoint()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(always_ready)
        await nurseryio.lowlevel.checkpoint()
        for operation in (partial(sending.send, 1), receiving.receive):
            for _ in range(20):
                before = seen
                for _ in range(FREE_CHANNEL_OPERATIONS + 1):
                    await operation()
                assert seen > before
        nursery.cancel_scope.cancel()


async def test_fairness_a_third_task_and_a_timer_run_at_least_every_eighth_operation() -> None:
    sending, receiving = open_memory_channel[int](100)
    loop = asyncio.get_running_loop()
    operations = most_between_turns = most_between_timers = 0
    last_turn = last_timer = 0
    over = False

    async def third() -> None:
        nonlocal last_turn, most_between_turns
        while not over:
            most_between_turns = max(most_between_turns, operations - last_turn)
            last_turn = operations
            await nurseryio.lowlevel.checkpoint()

    def timer() -> None:
        nonlocal last_timer, most_between_timers
        most_between_timers = max(most_between_timers, operations - last_timer)
        last_timer = operations
        if not over:
            loop.call_at(loop.time() - 1, timer)

    async def send() -> None:
        nonlocal operations
        with sending:
            for item in range(500):
                await sending.send(item)
                operations += 1

    async def receive() -> None:
        nonlocal operations, over
        async for _ in receiving:
            operations += 1
        over = True

    timer()
    async with nurseryio.open_nursery() as nursery:
        for function in (send, receive, third):
            nursery.start_soon(function)
    assert operations == 1000
    # Between two turns of the third task, sender and receiver both had one.
    assert 0 < most_between_turns <= 2 * (FREE_CHANNEL_OPERATIONS + 1)
    assert 0 < most_between_timers <= 2 * (FREE_CHANNEL_OPERATIONS + 1)


async def test_fairness_the_first_operation_of_a_new_task_yields() -> None:
    sending, _receiving = open_memory_channel[int](inf)
    order = []

    async def child(name: str) -> None:
        order.append(f"{name} begins")
        await sending.send(1)
        order.append(f"{name} has sent")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, "one")
        nursery.start_soon(child, "two")
    assert order == ["one begins", "two begins", "one has sent", "two has sent"]


async def test_each_operation_checks_for_cancellation_although_it_does_not_yield() -> None:
    sending, receiving = open_memory_channel[int](10)
    await nurseryio.lowlevel.checkpoint()
    for operation in (partial(sending.send, 1), receiving.receive):
        for before in range(1, 5):
            done = 0
            with nurseryio.CancelScope() as scope:
                for _ in range(before):
                    await sending.send(0)
                    await receiving.receive()
                sending.send_nowait(2)
                scope.cancel()
                await operation()
                done += 1
            assert done == 0
            assert scope.cancelled_caught
            assert receiving.receive_nowait() == 2


@pytest.mark.parametrize("size", [0, 1, 3])
async def test_under_any_schedule_no_item_that_was_sent_is_lost(loop_case: Case, size: int) -> None:
    async def scenario(schedule: Schedule) -> None:
        sending, receiving = open_memory_channel[tuple[int, int]](size)
        sent: list[tuple[int, int]] = []
        # The items of each consumer: the consumer that takes an item first may not be the first
        # to go on.
        received: list[list[tuple[int, int]]] = []
        names = iter(range(100))

        async def produce() -> None:
            name = next(names)
            with sending.clone() as end:
                for number in range(3):
                    await schedule.pause()
                    await end.send((name, number))
                    sent.append((name, number))

        async def consume() -> None:
            mine: list[tuple[int, int]] = []
            received.append(mine)
            with receiving.clone() as end:
                await schedule.pause()
                async for item in end:
                    mine.append(item)
                    await schedule.pause()

        # Left open until the end, so that no task's items are dropped.
        producers = [produce, produce]
        ended = 0

        async def close_after_the_producers() -> None:
            nonlocal ended
            try:
                while ended < len(producers):
                    await nurseryio.lowlevel.checkpoint()
            finally:
                sending.close()

        def counted(producer: Callable[[], Any]) -> Callable[[], Any]:
            async def run() -> None:
                nonlocal ended
                try:
                    await producer()
                finally:
                    ended += 1

            return run

        drain: list[tuple[int, int]] = []

        async def consume_the_rest() -> None:
            async for item in receiving:
                drain.append(item)

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(close_after_the_producers)
            # Not cancelled: it wakes senders whose receivers were cancelled.
            nursery.start_soon(consume_the_rest)
            await schedule.run(*map(counted, producers), consume, consume)
            ended = len(producers)
        statistics = sending.statistics()
        assert statistics.tasks_waiting_send == statistics.tasks_waiting_receive == 0
        assert statistics.current_buffer_used == 0
        received.append(drain)
        assert sorted(item for items in received for item in items) == sorted(sent)
        for name in (0, 1):
            for receiver in received:
                numbers = [number for who, number in receiver if who == name]
                assert numbers == sorted(numbers)

    await stress(scenario, loop_case)


# -- a model --------------------------------------------------------------------


@given(
    size=strategies.integers(0, 3),
    calls=strategies.lists(strategies.sampled_from(["send", "receive", "clone", "close"])),
)
def test_send_nowait_and_receive_nowait_behave_like_a_bounded_queue(
    size: int, calls: list[str]
) -> None:
    sending, receiving = open_memory_channel[int](size)
    ends = [sending]
    model: deque[int] = deque()
    peak = 0
    for number, call in enumerate(calls):
        if call == "send":
            try:
                ends[-1].send_nowait(number) if ends else sending.send_nowait(number)
            except nurseryio.WouldBlock:
                assert ends
                assert len(model) == size
            except nurseryio.ClosedResourceError:
                assert not ends
            else:
                model.append(number)
                peak = max(peak, len(model))
        elif call == "receive":
            try:
                assert receiving.receive_nowait() == model.popleft()
            except nurseryio.WouldBlock:
                assert ends
                assert not model
            except nurseryio.EndOfChannel:
                assert not ends
                assert not model
        elif call == "clone" and ends:
            ends.append(ends[-1].clone())
        elif call == "close" and ends:
            ends.pop().close()
        statistics = receiving.statistics()
        assert statistics.current_buffer_used == len(model)
        assert statistics.open_send_channels == len(ends)
        assert statistics.peak_buffer_used == peak


@pytest.mark.skipif(sys.version_info < (3, 12), reason="cannot be told there")
def test_send_and_receive_are_known_as_async_functions() -> None:
    send, receive = nurseryio.open_memory_channel[None](0)
    assert inspect.iscoroutinefunction(send.send)
    assert inspect.iscoroutinefunction(receive.receive)


# -- nothing is kept alive ------------------------------------------------------


@pytest.mark.parametrize("places", [0, 1, 100])
async def test_a_channel_and_what_went_through_it_are_freed_at_once(places: int) -> None:
    class Item:
        pass

    watched: list[weakref.ref[Any]] = []

    async def once() -> None:
        sender, receiver = open_memory_channel[Item](places)
        watched.extend([weakref.ref(sender), weakref.ref(receiver)])

        async def send(sender: MemorySendChannel[Item]) -> None:
            async with sender:
                for _ in range(3):
                    item = Item()
                    watched.append(weakref.ref(item))
                    await sender.send(item)

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(send, sender)
            async with receiver:
                async for _item in receiver:
                    pass
            del _item
        sender, receiver = open_memory_channel[Item](places)
        watched.extend([weakref.ref(sender), weakref.ref(receiver)])
        with nurseryio.move_on_after(0):
            await receiver.receive()

    await once()
    watched.clear()
    with without_gc():
        await once()
        await turns(2)
        assert len(watched) == 7
        assert all(map(gone, watched))


# -- statistics and what all ends share ------------------------------------------


async def test_statistics_show_the_state_of_the_whole_channel_from_every_end() -> None:
    sending, receiving = open_memory_channel[int](2)
    other = sending.clone()
    assert sending.statistics() == receiving.statistics() == other.statistics()
    statistics = sending.statistics()
    assert statistics.current_buffer_used == 0
    assert statistics.max_buffer_size == 2
    assert statistics.open_send_channels == 2
    assert statistics.open_receive_channels == 1
    assert statistics.tasks_waiting_send == 0
    assert statistics.tasks_waiting_receive == 0
    assert statistics.peak_buffer_used == 0
    other.close()
    receiving.clone().close()
    assert sending.statistics().open_send_channels == 1
    assert sending.statistics().open_receive_channels == 1
    assert open_memory_channel[int](inf)[0].statistics().max_buffer_size == inf


async def test_statistics_count_the_tasks_that_wait_on_all_ends_together() -> None:
    sending, receiving = open_memory_channel[int](0)
    async with nurseryio.open_nursery() as nursery:
        for end in (sending, sending.clone(), sending.clone()):
            nursery.start_soon(end.send, 1)
        await wait_all_tasks_blocked()
        assert receiving.statistics().tasks_waiting_send == 3
        nursery.cancel_scope.cancel()
    async with nurseryio.open_nursery() as nursery:
        for end in (receiving, receiving.clone()):
            nursery.start_soon(end.receive)
        await wait_all_tasks_blocked()
        assert sending.statistics().tasks_waiting_receive == 2
        nursery.cancel_scope.cancel()
    assert sending.statistics().tasks_waiting_receive == 0


async def test_peak_buffer_used_stays_and_counts_no_direct_hand_over() -> None:
    sending, receiving = open_memory_channel[int](5)
    for item in range(3):
        sending.send_nowait(item)
    for _ in range(3):
        receiving.receive_nowait()
    sending.send_nowait(1)
    assert sending.statistics().peak_buffer_used == 3
    assert sending.statistics().current_buffer_used == 1
    sending, receiving = open_memory_channel[int](5)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receiving.receive)
        await wait_all_tasks_blocked()
        sending.send_nowait(1)
    assert sending.statistics().peak_buffer_used == 0


async def test_repr_of_a_channel_end_shows_its_state_and_its_channels() -> None:
    sending, receiving = open_memory_channel[int](2)
    sending.send_nowait(1)
    assert "MemorySendChannel at" in repr(sending)
    assert "open" in repr(sending)
    assert "holds 1 of 2, 0 tasks sending, 0 receiving" in repr(sending)
    sending.close()
    assert "closed" in repr(sending)
    assert "MemoryReceiveChannel at" in repr(receiving)
    assert "open" in repr(receiving)


async def test_channel_ends_are_async_resources() -> None:
    sending, receiving = open_memory_channel[int](0)
    assert isinstance(sending, nurseryio.abc.SendChannel)
    assert isinstance(receiving, nurseryio.abc.ReceiveChannel)
    async with sending as entered, receiving:
        assert entered is sending
    with sending as entered:
        assert entered is sending
    assert sending.statistics().open_send_channels == 0


# -- the texts of errors --------------------------------------------------------


async def test_would_block_and_end_of_channel_of_a_memory_channel_have_a_text() -> None:
    send, receive = open_memory_channel[int](0)
    with pytest.raises(nurseryio.WouldBlock, match="no receiver waits, and the buffer is full"):
        send.send_nowait(1)
    with pytest.raises(nurseryio.WouldBlock, match="the channel holds no item"):
        receive.receive_nowait()
    async with nurseryio.open_nursery() as nursery:

        async def waits() -> None:
            with pytest.raises(nurseryio.EndOfChannel, match="all sending ends are closed"):
                await receive.receive()

        nursery.start_soon(waits)
        await wait_all_tasks_blocked()
        send.close()
    with pytest.raises(nurseryio.EndOfChannel, match="all sending ends are closed"):
        receive.receive_nowait()
    with pytest.raises(nurseryio.EndOfChannel, match="all sending ends are closed"):
        await receive.receive()
    assert [item async for item in receive] == []
    receive.close()
