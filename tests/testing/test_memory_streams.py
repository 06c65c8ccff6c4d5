"""Streams in memory, with buffers that never fill."""

from __future__ import annotations

import array
import asyncio

import pytest

import nurseryio
from nurseryio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    assert_checkpoints,
    check_half_closeable_stream,
    check_one_way_stream,
    memory_stream_one_way_pair,
    memory_stream_pair,
    memory_stream_pump,
    wait_all_tasks_blocked,
)


async def nothing() -> None:
    """A hook that does nothing."""


async def test_memory_streams_pass_check_one_way_and_check_half_closeable_stream() -> None:
    async def one_way() -> tuple[MemorySendStream, MemoryReceiveStream]:
        return memory_stream_one_way_pair()

    async def two_way() -> tuple[nurseryio.StapledStream, nurseryio.StapledStream]:
        return memory_stream_pair()

    await check_one_way_stream(one_way, None)
    await check_half_closeable_stream(two_way, None)


# -- the sending half -----------------------------------------------------------


async def test_memory_send_stream_get_data_returns_what_was_sent() -> None:
    stream = MemorySendStream()
    with assert_checkpoints():
        await stream.send_all(b"123")
    with assert_checkpoints():
        await stream.wait_send_all_might_not_block()
    assert "3 bytes" in repr(stream)
    assert stream.get_data_nowait(1) == b"1"
    assert stream.get_data_nowait() == b"23"
    with pytest.raises(nurseryio.WouldBlock):
        stream.get_data_nowait()
    await stream.send_all(b"456")
    with assert_checkpoints():
        assert await stream.get_data() == b"456"


async def test_memory_streams_carry_buffers_of_every_shape_as_bytes() -> None:
    numbers = array.array("I", [1, 2, 3])
    square = memoryview(b"abcd").cast("B", (2, 2))
    expected = numbers.tobytes() + b"abcd"
    sender, receiver = memory_stream_one_way_pair()
    for data in (numbers, square, array.array("I")):
        await sender.send_all(data)
    assert await receiver.receive_some() == expected
    receiver.put_data(numbers)
    assert await receiver.receive_some() == numbers.tobytes()
    for data in (memoryview(b"abcd")[::2], memoryview(b"abcd")[::-1]):
        with pytest.raises(TypeError, match="contiguous"):
            await sender.send_all(data)
        with pytest.raises(TypeError, match="contiguous"):
            receiver.put_data(data)


async def test_memory_streams_refuse_text_at_the_call() -> None:
    stream = MemorySendStream()
    with pytest.raises(TypeError, match="encode"):
        await stream.send_all("x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="encode"):
        MemoryReceiveStream().put_data("x")  # type: ignore[arg-type]


async def test_get_data_after_a_close_still_returns_what_was_sent() -> None:
    stream = MemorySendStream()
    await stream.send_all(b"x")
    with assert_checkpoints():
        await stream.aclose()
    assert await stream.get_data() == b"x"
    assert await stream.get_data() == b""
    with pytest.raises(nurseryio.ClosedResourceError):
        await stream.send_all(b"")
    with pytest.raises(nurseryio.ClosedResourceError):
        await stream.wait_send_all_might_not_block()


async def test_two_tasks_that_send_to_a_memory_stream_at_once_get_busy_resource_error() -> None:
    stream = MemorySendStream()
    busy = []

    async def send() -> None:
        try:
            await stream.send_all(b"x")
        except nurseryio.BusyResourceError:
            busy.append(True)

    async with nurseryio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(send)
    assert len(busy) == 2
    assert stream.get_data_nowait() == b"x"


async def test_memory_stream_hooks_run_inside_the_calls_after_the_data_is_stored() -> None:
    record: list[object] = []

    async def on_send() -> None:
        record.append(stream.get_data_nowait())

    async def on_wait() -> None:
        record.append("wait")

    stream = MemorySendStream(on_send, on_wait, lambda: record.append("close"))
    assert stream.send_all_hook is on_send
    assert stream.wait_send_all_might_not_block_hook is on_wait
    await stream.send_all(b"abc")
    await stream.wait_send_all_might_not_block()
    stream.close()
    await stream.aclose()
    assert record == [b"abc", "wait", "close", "close"]


async def test_memory_stream_hooks_may_be_changed_at_any_time() -> None:
    stream = MemorySendStream(send_all_hook=nothing)
    stream.send_all_hook = None
    await stream.send_all(b"x")
    assert stream.get_data_nowait() == b"x"


# -- the receiving half ---------------------------------------------------------


async def test_memory_receive_stream_receives_what_put_data_stored() -> None:
    stream = MemoryReceiveStream()
    stream.put_data(b"abc")
    with assert_checkpoints():
        assert await stream.receive_some(1) == b"a"
    with assert_checkpoints():
        assert await stream.receive_some() == b"bc"
    stream.put_data(b"d")
    stream.put_eof()
    stream.put_eof()
    assert "1 bytes, then the end" in repr(stream)
    assert await stream.receive_some() == b"d"
    assert await stream.receive_some() == b""
    assert await stream.receive_some() == b""
    with pytest.raises(nurseryio.ClosedResourceError):
        stream.put_data(b"late")


async def test_receive_some_hook_may_put_the_data() -> None:
    async def bring() -> None:
        stream.put_data(b"xxx")

    stream = MemoryReceiveStream(bring)
    stream.put_data(b"yyy")
    assert await stream.receive_some() == b"yyyxxx"
    assert await stream.receive_some() == b"xxx"
    stream.receive_some_hook = None
    stream.put_data(b"z")
    assert await stream.receive_some() == b"z"


async def test_closing_a_memory_receive_stream_discards_data_not_received() -> None:
    closed = []
    stream = MemoryReceiveStream(close_hook=lambda: closed.append(True))
    stream.put_data(b"lost")
    with assert_checkpoints():
        await stream.aclose()
    stream.close()
    assert closed == [True, True]
    assert "closed" in repr(stream)
    with pytest.raises(nurseryio.ClosedResourceError):
        await stream.receive_some()
    with pytest.raises(nurseryio.ClosedResourceError):
        stream.put_data(b"x")


async def test_a_close_during_a_memory_stream_hook_is_noticed() -> None:
    async def close() -> None:
        stream.close()

    stream = MemoryReceiveStream(close)
    with pytest.raises(nurseryio.ClosedResourceError):
        await stream.receive_some()


@pytest.mark.parametrize("wrong", [0, -1])
async def test_receive_some_refuses_max_bytes_below_one_at_the_call(wrong: int) -> None:
    stream = MemoryReceiveStream()
    with pytest.raises(ValueError, match="max_bytes"):
        await stream.receive_some(wrong)
    with pytest.raises(ValueError, match="max_bytes"):
        await MemorySendStream().get_data(wrong)


# -- the pump and the pairs -----------------------------------------------------


async def test_memory_stream_pump_moves_up_to_max_bytes() -> None:
    sender, receiver = MemorySendStream(), MemoryReceiveStream()
    assert memory_stream_pump(sender, receiver) is False
    await sender.send_all(b"123")
    assert memory_stream_pump(sender, receiver) is True
    assert await receiver.receive_some() == b"123"

    await sender.send_all(b"45")
    assert memory_stream_pump(sender, receiver, max_bytes=1) is True
    assert await receiver.receive_some() == b"4"
    assert memory_stream_pump(sender, receiver, max_bytes=1) is True
    assert memory_stream_pump(sender, receiver, max_bytes=1) is False
    assert await receiver.receive_some() == b"5"

    sender.close()
    assert memory_stream_pump(sender, receiver) is True
    assert await receiver.receive_some() == b""


async def test_memory_stream_pump_into_a_closed_receiver_breaks_the_sender() -> None:
    sender, receiver = memory_stream_one_way_pair()
    receiver.close()
    with pytest.raises(nurseryio.BrokenResourceError):
        await sender.send_all(b"x")


async def test_a_memory_stream_pair_delivers_to_a_receiver_that_waits_already() -> None:
    sender, receiver = memory_stream_one_way_pair()

    async def receive(expected: bytes) -> None:
        assert await receiver.receive_some() == expected

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receive, b"abc")
        await wait_all_tasks_blocked()
        await sender.send_all(b"abc")
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receive, b"")
        await wait_all_tasks_blocked()
        sender.close()


async def test_a_memory_stream_pair_without_its_hook_stalls_until_the_hook_is_set_again() -> None:
    sender, receiver = memory_stream_one_way_pair()
    hook, sender.send_all_hook = sender.send_all_hook, None
    await sender.send_all(b"4")
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receiver.receive_some)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        nursery.cancel_scope.cancel()
    sender.send_all_hook = hook
    await sender.send_all(b"5")
    assert await receiver.receive_some() == b"45"


async def test_a_two_way_memory_stream_pair_carries_both_ways_and_half_closes() -> None:
    left, right = memory_stream_pair()
    await left.send_all(b"123")
    await right.send_all(b"abc")
    assert await right.receive_some() == b"123"
    assert await left.receive_some() == b"abc"
    await left.send_eof()
    assert await right.receive_some() == b""
    await right.send_all(b"xyz")
    assert await left.receive_some() == b"xyz"


async def test_a_memory_stream_hook_can_deliver_data_byte_by_byte(
    autojump_clock: nurseryio.testing.MockClock,
) -> None:
    left, right = memory_stream_pair()

    async def trickle() -> None:
        while memory_stream_pump(left.send_stream, right.receive_stream, max_bytes=1):
            await nurseryio.sleep(1)

    left.send_stream.send_all_hook = trickle
    arrivals = []

    async def receive() -> None:
        async for data in right:
            arrivals.append((nurseryio.current_time(), bytes(data)))

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await left.send_all(b"abc")
        await left.send_eof()
    assert arrivals == [(0, b"a"), (1, b"b"), (2, b"c")]


def test_memory_streams_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError):

        class Mine(MemorySendStream):
            pass


async def test_a_native_cancel_of_a_woken_memory_receiver_takes_no_data() -> None:
    # Its request may not be raised before the task returns; then asyncio drops the result.
    left, right = memory_stream_pair()
    receiver = asyncio.ensure_future(right.receive_some())
    await wait_all_tasks_blocked()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(left.send_all, b"x")
        while not right.receive_stream._incoming._buffer:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        receiver.cancel()
        await asyncio.wait([receiver])
        assert receiver.cancelled()
        assert await right.receive_some() == b"x"
