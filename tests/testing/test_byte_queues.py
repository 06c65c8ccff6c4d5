"""The buffers of the memory streams."""

from __future__ import annotations

import pytest

import nurseryio
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked
from nurseryio.testing.byte_queues import (
    LockstepQueue,
    UnboundedQueue,
    check_max_bytes,
    cut,
)


def test_max_bytes_is_none_or_an_integer_from_one_up() -> None:
    assert check_max_bytes(None) is None
    assert check_max_bytes(True) == 1
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="must be >= 1"):
            check_max_bytes(wrong)
    with pytest.raises(TypeError):
        check_max_bytes(1.5)


def test_cut_removes_from_the_buffer_what_it_returns() -> None:
    buffer = bytearray(b"abcdef")
    assert cut(buffer, 2) == b"ab"
    assert cut(buffer, None) == b"cdef"
    assert cut(buffer, 1) == b""


# -- unbounded ------------------------------------------------------------------


def test_byte_queue_get_nowait_takes_up_to_max_bytes_or_everything() -> None:
    queue = UnboundedQueue()
    queue.put(b"123")
    queue.put(b"456")
    assert queue.get_nowait(1) == b"1"
    assert queue.get_nowait(10) == b"23456"
    queue.put(b"789")
    assert queue.get_nowait(None) == b"789"
    with pytest.raises(nurseryio.WouldBlock, match="no data has arrived"):
        queue.get_nowait(None)


def test_repr_of_a_byte_queue_shows_how_much_it_holds() -> None:
    queue = UnboundedQueue()
    queue.put(b"123")
    assert repr(queue) == "<3 bytes>"
    queue.end()
    assert repr(queue) == "<3 bytes, then the end>"


def test_byte_queue_put_after_its_end_raises_closed_resource_error() -> None:
    queue = UnboundedQueue()
    queue.put(b"1")
    queue.end()
    queue.end()
    with pytest.raises(nurseryio.ClosedResourceError):
        queue.put(b"")
    assert queue.get_nowait(None) == b"1"
    assert queue.get_nowait(None) == b""
    assert queue.get_nowait(None) == b""


def test_byte_queue_end_with_drop_discards_the_data() -> None:
    queue = UnboundedQueue()
    queue.put(b"1")
    queue.end(drop=True)
    assert queue.get_nowait(None) == b""


async def test_byte_queue_get_is_a_checkpoint_whether_it_waits_or_not() -> None:
    queue = UnboundedQueue()
    queue.put(b"abc")
    with assert_checkpoints():
        assert await queue.get(1) == b"a"
    with assert_checkpoints():
        assert await queue.get(None) == b"bc"

    async def wait_for(expected: bytes) -> None:
        with assert_checkpoints():
            assert await queue.get(None) == expected

    for put, expected in ((lambda: queue.put(b"x"), b"x"), (queue.end, b"")):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait_for, expected)
            await wait_all_tasks_blocked()
            put()


async def test_byte_queue_get_of_two_tasks_at_once_raises_busy_resource_error() -> None:
    queue = UnboundedQueue()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(queue.get, None)
        await wait_all_tasks_blocked()
        with pytest.raises(nurseryio.BusyResourceError):
            queue.get_nowait(None)
        with pytest.raises(nurseryio.BusyResourceError):
            await queue.get(None)
        queue.end()


async def test_a_cancelled_byte_queue_get_takes_nothing() -> None:
    queue = UnboundedQueue()
    queue.put(b"x")
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await queue.get(None)
    assert scope.cancelled_caught
    assert queue.get_nowait(None) == b"x"


# -- lockstep -------------------------------------------------------------------


async def test_back_pressure_lockstep_send_lasts_until_the_last_byte_is_taken() -> None:
    queue = LockstepQueue()
    record = []

    async def send() -> None:
        await queue.send(b"abc")
        record.append("sent")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert await queue.receive(2) == b"ab"
        await wait_all_tasks_blocked()
        assert not record
        assert await queue.receive(2) == b"c"
        await wait_all_tasks_blocked()
        assert record == ["sent"]


async def test_a_cancelled_lockstep_send_withdraws_the_rest_of_its_data() -> None:
    queue = LockstepQueue()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(queue.send, b"abc")
        await wait_all_tasks_blocked()
        assert await queue.receive(1) == b"a"
        nursery.cancel_scope.cancel()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(queue.send, b"x")
        assert await queue.receive(None) == b"x"


async def test_a_lockstep_send_cancelled_before_it_begins_offers_nothing() -> None:
    queue = LockstepQueue()
    got = []

    async def receive() -> None:
        got.append(await queue.receive(None))

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        with nurseryio.CancelScope() as scope:
            scope.cancel()
            await queue.send(b"never offered")
        await wait_all_tasks_blocked()
        assert not got
        await queue.send(b"x")
    assert got == [b"x"]


async def test_closing_either_side_of_a_lockstep_queue_ends_the_waits_of_both() -> None:
    for close, of_sender, of_receiver in (
        ("close_sender", nurseryio.ClosedResourceError, None),
        ("close_receiver", nurseryio.BrokenResourceError, nurseryio.ClosedResourceError),
    ):
        queue = LockstepQueue()

        async def send(queue: LockstepQueue, error: type[Exception]) -> None:
            with pytest.raises(error):
                await queue.send(b"x")

        async def receive(queue: LockstepQueue, error: type[Exception] | None) -> None:
            if error is None:
                assert await queue.receive(None) == b""
            else:
                with pytest.raises(error):
                    await queue.receive(None)

        for function, error in ((send, of_sender), (receive, of_receiver)):
            queue = LockstepQueue()
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(function, queue, error)
                await wait_all_tasks_blocked()
                getattr(queue, close)()


async def test_wait_send_might_not_block_of_a_lockstep_queue_waits_for_a_receiver() -> None:
    queue = LockstepQueue()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(queue.receive, None)
        with assert_checkpoints():
            await queue.wait_send_might_not_block()
        nursery.cancel_scope.cancel()
    queue.close_receiver()
    with assert_checkpoints():
        await queue.wait_send_might_not_block()
