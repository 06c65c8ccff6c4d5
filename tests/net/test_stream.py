"""Streams over sockets: complete delivery, fairness to other tasks, broken and closed streams."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket as stdlib
import weakref
from array import array
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from harness import matrix, net
from harness.core import cut_short, gone, settle, turns, without_gc
from harness.net import is_open, tcp_pair, unix_pair

import nurseryio
from nurseryio import (
    BrokenResourceError,
    BusyResourceError,
    Cancelled,
    CancelScope,
    ClosedResourceError,
    SocketStream,
    lowlevel,
    socket,
)
from nurseryio._core.task import MAX_YIELD_CREDIT
from nurseryio._net.stream import RECEIVE_MOST, RECEIVE_SIZE
from nurseryio.testing import (
    assert_checkpoints,
    check_half_closeable_stream,
    wait_all_tasks_blocked,
)

MEGABYTE = 2**20


async def receive_exactly(stream: SocketStream, count: int) -> bytes:
    parts = []
    while count:
        parts.append(await stream.receive_some(count))
        assert parts[-1], "the stream ended early"
        count -= len(parts[-1])
    return b"".join(parts)


async def clog(stream: SocketStream, loop_kind: str) -> None:
    """Fill the way out of a stream."""
    net.clog(stream)
    if loop_kind == matrix.BLIND:
        # The transport knows of what it holds itself alone.
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"x")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


# -- the contract of streams ----------------------------------------------------


async def test_socket_stream_passes_check_half_closeable_stream(loop_kind: str) -> None:
    async def make() -> tuple[SocketStream, SocketStream]:
        left, right = socket.socketpair()
        return SocketStream(left), SocketStream(right)

    async def make_clogged() -> tuple[SocketStream, SocketStream]:
        left, right = await make()
        for stream in (left, right):
            await clog(stream, loop_kind)
        return left, right

    await check_half_closeable_stream(make, make_clogged)


async def test_bytes_arrive_complete_and_in_order_in_both_directions_at_once() -> None:
    data = os.urandom(3 * MEGABYTE)
    async with tcp_pair() as (a, b), nurseryio.open_nursery() as nursery:
        nursery.start_soon(a.send_all, data)
        nursery.start_soon(b.send_all, data[::-1])

        @nursery.start_soon
        async def _() -> None:
            assert await receive_exactly(a, len(data)) == data[::-1]

        assert await receive_exactly(b, len(data)) == data


async def test_receive_some_returns_available_data_up_to_max_bytes() -> None:
    async with unix_pair() as (a, b):
        await a.send_all(b"12345")
        assert await b.receive_some(2) == b"12"
        assert await b.receive_some() == b"345"
        await a.send_all(b"6")
        assert await b.receive_some(None) == b"6"


@pytest.mark.watching_only("it replaces the call of the system")
async def test_receive_some_asks_for_more_bytes_while_much_arrives_at_once() -> None:
    async with unix_pair() as (a, b):
        asked: list[int] = []
        coming: list[int] = []

        def receive(size: int) -> bytes:
            asked.append(size)
            return bytes(min(size, coming.pop(0)))

        b._recv = receive
        coming = [10 * MEGABYTE] * 4 + [RECEIVE_SIZE, 10, 10 * MEGABYTE, 10, 10]
        while coming:
            await a.send_all(b"something to wait for")
            await b.receive_some()
        first, most = RECEIVE_SIZE, RECEIVE_MOST
        assert asked == [first, 2 * first, most, most, most, most, first, 2 * first, first]
        asked.clear()
        coming = [10 * MEGABYTE] * 3
        for _ in range(2):
            assert len(await b.receive_some(1000)) == 1000
        await b.receive_some()
        assert asked == [1000, 1000, RECEIVE_SIZE]


@pytest.mark.parametrize(
    ("max_bytes", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)]
)
async def test_receive_some_refuses_a_wrong_max_bytes(
    max_bytes: Any, error: type[Exception]
) -> None:
    async with unix_pair() as (a, _b):
        with pytest.raises(error, match=r"^max_bytes must be (integer )?>= 1$"):
            await a.receive_some(max_bytes)


async def test_receive_some_takes_any_integer_type_as_max_bytes() -> None:
    async with unix_pair() as (a, b):
        await a.send_all(b"12")
        assert await b.receive_some(True) == b"1"


@pytest.mark.parametrize(
    "data", [b"abcd", bytearray(b"abcd"), memoryview(b"abcd"), memoryview(b"abcd").cast("H")]
)
async def test_send_all_takes_every_kind_of_buffer(data: Any) -> None:
    async with unix_pair() as (a, b):
        await a.send_all(data)
        await a.send_all(data)
        assert await b.receive_some() == b"abcdabcd"


async def test_a_large_buffer_is_counted_in_bytes_not_in_items() -> None:
    numbers = array("Q", range(100_000))
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        nursery.start_soon(a.send_all, numbers)
        assert await receive_exactly(b, 800_000) == numbers.tobytes()


async def test_a_buffer_is_released_after_sending() -> None:
    data = bytearray(MEGABYTE)
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        nursery.start_soon(a.send_all, data)
        await receive_exactly(b, MEGABYTE)
    data += b"may grow again"


@pytest.mark.parametrize("data", ["text", "", 5, None, ["a"]])
async def test_send_all_refuses_something_else_than_bytes(data: Any) -> None:
    async with unix_pair() as (a, _b):
        with pytest.raises(TypeError, match="takes bytes"):
            await a.send_all(data)


async def test_the_error_for_sending_text_says_to_encode() -> None:
    async with unix_pair() as (a, _b):
        with pytest.raises(TypeError, match="not str; encode it first"):
            await a.send_all("text")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["receive_some", "send_all"])
async def test_stream_methods_outside_of_a_loop_raise_the_usual_error(method: str) -> None:
    async with net.unix_pair() as (stream, _peer):
        call = partial(getattr(stream, method), *([b"x"] if method == "send_all" else []))
        for operation in (call, nurseryio.Event().wait):
            coro = operation()
            with pytest.raises(RuntimeError, match=r"^must be called from async context"):
                await nurseryio.to_thread.run_sync(coro.send, None)


async def test_sending_nothing_sends_nothing() -> None:
    async with unix_pair() as (a, b):
        with assert_checkpoints():
            await a.send_all(b"")
        await a.send_all(b"x")
        assert await b.receive_some() == b"x"


async def test_async_for_over_a_stream_ends_at_end_of_file() -> None:
    async with unix_pair() as (a, b):
        await a.send_all(b"x")
        await a.send_eof()
        assert [piece async for piece in b] == [b"x"]


# -- no internal buffer -----------------------------------------------------------


@pytest.mark.watching_only("a transport reads ahead")
async def test_back_pressure_nothing_is_read_before_a_task_receives() -> None:
    async with unix_pair() as (a, b):
        await a.send_all(b"x")
        await b.receive_some()
        await a.send_all(bytes(50_000))
        await wait_all_tasks_blocked()
        assert net.unread(b) == 50_000
        assert len(await b.receive_some(1000)) == 1000
        await wait_all_tasks_blocked()
        assert net.unread(b) == 49_000


@pytest.mark.watching_only("a transport reads ahead")
async def test_back_pressure_a_sender_stops_and_goes_on_with_its_receiver() -> None:
    sent = 0

    async def keep_sending(stream: SocketStream) -> None:
        nonlocal sent
        while True:
            await stream.send_all(bytes(1000))
            sent += 1000

    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        nursery.start_soon(keep_sending, a)
        await wait_all_tasks_blocked()
        stopped_at = sent
        received = 0
        for _ in range(20):
            received += len(await b.receive_some(50_000))
            await wait_all_tasks_blocked()
            # The data in flight never grows beyond what the kernel took at first.
            assert sent - received <= stopped_at + 1000
        assert sent > stopped_at
        nursery.cancel_scope.cancel()


async def test_back_pressure_two_peers_that_only_send_block_each_other() -> None:
    async with tcp_pair() as (a, b):
        finished = []

        async def send(stream: SocketStream) -> None:
            await stream.send_all(bytes(10 * MEGABYTE))
            finished.append(stream)

        with nurseryio.move_on_after(30) as scope:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(send, a)
                nursery.start_soon(send, b)
                await wait_all_tasks_blocked()
                assert not finished
                scope.cancel()
        assert not finished
        # Most of it never left.
        assert net.drain(a) + net.drain(b) < 19 * MEGABYTE


async def test_send_all_returns_when_the_kernel_has_taken_the_last_byte() -> None:
    async with unix_pair() as (a, b):
        room = net.clog(a)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(a.send_all, b"last")
            await wait_all_tasks_blocked()
            assert a._sending
            assert net.drain(b, room) == room
            await wait_all_tasks_blocked()
            assert not a._sending
        assert await b.receive_some() == b"last"


# -- others get their turn ------------------------------------------------------


async def test_each_stream_method_is_a_checkpoint_also_when_it_does_not_wait() -> None:
    async with tcp_pair() as (a, b):
        for _ in range(3):
            with assert_checkpoints():
                await a.send_all(b"x")
            with assert_checkpoints():
                assert await b.receive_some() == b"x"
        with assert_checkpoints():
            await a.send_all(bytearray(b"x"))
        with assert_checkpoints():
            await a.wait_send_all_might_not_block()
        with assert_checkpoints():
            await a.send_eof()
        with assert_checkpoints():
            await a.send_eof()
        with assert_checkpoints():
            await a.aclose()
        with assert_checkpoints():
            await a.aclose()


async def count_turns(nursery: nurseryio.Nursery) -> Callable[[], int]:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await lowlevel.checkpoint()
            turns += 1

    nursery.start_soon(turn)
    await lowlevel.checkpoint()
    return lambda: turns


async def test_fairness_a_task_that_only_sends_lets_others_run() -> None:
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        turns = await count_turns(nursery)
        before = turns()
        for _ in range(50):
            await a.send_all(b"x")
        assert turns() - before >= 24
        await b.receive_some()
        nursery.cancel_scope.cancel()


async def test_fairness_a_task_that_only_sends_lets_the_loop_poll_for_io() -> None:
    async with unix_pair() as (a, _b), unix_pair() as (c, d), nurseryio.open_nursery() as nursery:
        woken = []

        @nursery.start_soon
        async def _() -> None:
            woken.append(await d.receive_some())

        await wait_all_tasks_blocked()
        os.write(c.socket.fileno(), b"x")
        sent = 0
        while not woken:
            await a.send_all(b"x")
            sent += 1
        assert sent <= MAX_YIELD_CREDIT + 2


@pytest.mark.watching_only("on other loops each call waits for the transport")
async def test_fairness_after_a_yield_the_next_stream_method_does_not_yield() -> None:
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        turns = await count_turns(nursery)
        await lowlevel.checkpoint()
        lowlevel.current_task()._yield_credit = 0
        yielded = []
        for method in [
            partial(a.send_all, b"x"),
            partial(a.send_all, b"x"),
            partial(b.receive_some, 1),
            partial(b.receive_some, 1),
            a.aclose,
            b.aclose,
        ]:
            before = turns()
            await method()
            yielded.append(turns() > before)
        assert yielded == [True, False] * 3
        nursery.cancel_scope.cancel()


async def test_fairness_of_two_stream_methods_in_a_row_one_lets_others_run() -> None:
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        turns = await count_turns(nursery)

        @nursery.start_soon
        async def echo() -> None:
            async for data in b:
                await b.send_all(data)

        for _ in range(50):
            before = turns()
            await a.send_all(b"x")
            await a.receive_some()
            assert turns() > before
        nursery.cancel_scope.cancel()


async def test_a_method_raises_in_a_cancelled_scope_before_it_does_anything() -> None:
    async with unix_pair() as (a, b):
        await a.send_all(b"kept")
        methods: list[Callable[[], Awaitable[object]]] = [
            b.receive_some,
            lambda: a.send_all(b"never"),
            lambda: a.send_all(bytearray(b"never")),
            a.wait_send_all_might_not_block,
            a.send_eof,
        ]
        for method in methods:
            with CancelScope() as scope:
                scope.cancel()
                await method()
            assert scope.cancelled_caught
        assert await b.receive_some() == b"kept"
        await a.send_all(b"still open")
        assert await b.receive_some() == b"still open"


# -- one task for each direction ------------------------------------------------


async def test_two_tasks_that_receive_at_once_get_busy_resource_error() -> None:
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        nursery.start_soon(b.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(BusyResourceError, match="already reading / writing this fd"):
            await b.receive_some()
        await b.send_all(b"the other direction is free")
        await a.send_all(b"x")


async def test_two_tasks_that_send_at_once_get_busy_resource_error() -> None:
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        net.clog(a)
        nursery.start_soon(a.send_all, b"x")
        await wait_all_tasks_blocked()
        methods: list[Callable[[], Awaitable[object]]] = [
            lambda: a.send_all(b"y"),
            a.wait_send_all_might_not_block,
            a.send_eof,
        ]
        for method in methods:
            with pytest.raises(BusyResourceError, match="currently sending data on"):
                await method()
        net.drain(b)


async def test_busy_resource_error_also_while_the_first_task_only_yields() -> None:
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        await a.send_all(b"xy")
        first: list[bytes] = []

        async def receive() -> None:
            lowlevel.current_task()._yield_credit = 0
            first.append(await b.receive_some(1))

        nursery.start_soon(receive)
        await lowlevel.checkpoint()
        with pytest.raises(BusyResourceError):
            await b.receive_some()
        await wait_all_tasks_blocked()
        assert first == [b"x"]


@pytest.mark.watching_only("it waits for the descriptor")
async def test_the_socket_of_a_stream_may_be_used_in_turn_with_the_stream() -> None:
    async with unix_pair() as (a, b):
        await a.send_all(b"1")
        assert await b.receive_some() == b"1"
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(b.receive_some)
            await wait_all_tasks_blocked()
            with pytest.raises(BusyResourceError):
                await b.socket.recv(1)
            with pytest.raises(BusyResourceError):
                await lowlevel.wait_readable(b.socket)
            await a.send_all(b"2")
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                assert await b.socket.recv(10) == b"3"

            await wait_all_tasks_blocked()
            await a.send_all(b"3")
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(lowlevel.wait_readable, b.socket)
            await wait_all_tasks_blocked()
            await a.send_all(b"4")
        assert await b.receive_some() == b"4"


# -- cancelling -----------------------------------------------------------------


async def test_cancelling_a_receive_loses_nothing() -> None:
    async with unix_pair() as (a, b):
        for n in range(5):
            with cut_short() as scope:
                await b.receive_some()
            assert scope.cancelled_caught
            await a.send_all(b"%d" % n)
            assert await b.receive_some() == b"%d" % n


async def test_a_native_cancel_of_a_receive_carries_its_message_and_loses_nothing() -> None:
    async with unix_pair() as (a, b):
        task = asyncio.ensure_future(b.receive_some())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel("why")
        with pytest.raises(Cancelled) as caught:
            await task
        assert task.cancelled()
        if hasattr(task, "cancelling"):
            assert caught.value.args == ("why",)
        await a.send_all(b"x")
        assert await b.receive_some() == b"x"


async def test_data_and_a_cancellation_in_the_same_iteration_lose_neither() -> None:
    async with unix_pair() as (a, b):
        for _ in range(20):
            got = []
            with CancelScope() as scope:
                async with nurseryio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def _() -> None:
                        got.append(await b.receive_some())  # noqa: B023

                    await wait_all_tasks_blocked()
                    os.write(a.socket.fileno(), b"x")
                    scope.cancel()
            got += [] if got else [await b.receive_some()]
            assert got == [b"x"]


async def test_cancelled_has_no_blocking_io_error_as_its_context() -> None:
    async with unix_pair() as (_a, b):
        with CancelScope() as scope:
            scope.deadline = nurseryio.current_time() + 0.001
            try:
                await b.receive_some()
            except Cancelled as exc:
                assert exc.__context__ is None
                raise


async def test_a_cancelled_send_all_has_sent_a_part_and_leaves_the_stream_open() -> None:
    data = os.urandom(8 * MEGABYTE)
    async with unix_pair() as (a, b):
        with CancelScope() as scope:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(a.send_all, data)
                await wait_all_tasks_blocked()
                scope.cancel()
        there = net.unread(b) or 1
        part = b""
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                await a.send_all(b"END")
                await a.send_eof()

            async for piece in b:
                part += piece
        assert there < len(data)
        assert part.endswith(b"END")
        assert data.startswith(part[:-3])


async def test_an_asyncio_timeout_ends_a_wait_for_data() -> None:
    async with unix_pair() as (a, b):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(b.receive_some(), 0.001)
        await a.send_all(b"x")
        assert await asyncio.wait_for(b.receive_some(), 10) == b"x"


# -- the end of a direction -----------------------------------------------------


async def test_half_close_send_eof_and_go_on_receiving() -> None:
    async with tcp_pair() as (a, b):
        await a.send_all(b"question")
        await a.send_eof()
        await a.send_eof()
        assert await b.receive_some() == b"question"
        for _ in range(3):
            assert await b.receive_some() == b""
        await b.send_all(b"answer")
        assert await a.receive_some() == b"answer"
        with pytest.raises(ClosedResourceError, match="after sending EOF"):
            await a.send_all(b"more")
        with pytest.raises(ClosedResourceError, match="after sending EOF"):
            await a.send_all(b"")


# -- broken connections ---------------------------------------------------------


async def test_a_reset_breaks_a_waiting_receive_with_the_error_of_the_system_as_cause() -> None:
    async with tcp_pair() as (a, b), nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(BrokenResourceError, match="reset by peer") as caught:
                await b.receive_some()
            assert isinstance(caught.value.__cause__, ConnectionResetError)

        await wait_all_tasks_blocked()
        net.reset(a)


async def test_data_and_a_reset_at_the_same_moment_are_received_one_after_the_other() -> None:
    async with tcp_pair() as (a, b), nurseryio.open_nursery() as nursery:
        await a.send_all(b"before")
        assert await b.receive_some() == b"before"

        @nursery.start_soon
        async def _() -> None:
            assert await b.receive_some() == b"last words"
            with pytest.raises(BrokenResourceError, match="reset by peer"):
                await b.receive_some()

        await wait_all_tasks_blocked()
        await a.send_all(b"last words")
        net.reset(a)


async def test_a_reset_breaks_a_waiting_send_with_the_error_of_the_system_as_cause() -> None:
    async with tcp_pair() as (a, b), nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(BrokenResourceError) as caught:
                await b.send_all(bytes(20 * MEGABYTE))
            assert isinstance(caught.value.__cause__, ConnectionError)

        await wait_all_tasks_blocked()
        net.reset(a)


async def test_a_broken_stream_stays_broken(loop_kind: str) -> None:
    async with tcp_pair() as (a, b):
        net.reset(a)
        with pytest.raises(BrokenResourceError):
            await b.receive_some()
        for _ in range(2):
            with pytest.raises(BrokenResourceError):
                await b.send_all(b"x")
            with pytest.raises(BrokenResourceError):
                await b.send_all(bytearray(b"x"))
        if loop_kind == matrix.BLIND:
            with pytest.raises(BrokenResourceError):
                await b.receive_some()
        else:
            assert await b.receive_some() == b""


async def test_data_before_the_end_can_be_received_after_a_send_has_failed() -> None:
    async with tcp_pair() as (a, b):
        await a.send_all(b"goodbye")
        await a.aclose()
        with pytest.raises(BrokenResourceError):
            while True:
                await b.send_all(b"x")
        assert await b.receive_some() == b"goodbye"


async def test_wait_send_all_might_not_block_returns_when_the_peer_closes(loop_kind: str) -> None:
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        await clog(a, loop_kind)
        nursery.start_soon(a.wait_send_all_might_not_block)
        await wait_all_tasks_blocked()
        assert a._sending
        await b.aclose()


# -- closing --------------------------------------------------------------------


async def test_the_descriptor_is_closed_when_aclose_returns() -> None:
    async with tcp_pair() as (a, b):
        await a.send_all(b"x")
        await b.receive_some()
        fd = b.socket.fileno()
        await b.aclose()
        assert not is_open(fd)
        assert await a.receive_some() == b""


async def test_the_descriptor_is_closed_when_aclose_is_cancelled() -> None:
    async with tcp_pair() as (a, _b):
        fd = a.socket.fileno()
        with CancelScope() as scope:
            scope.cancel()
            await a.aclose()
        assert scope.cancelled_caught
        assert not is_open(fd)


async def test_what_was_sent_before_closing_arrives() -> None:
    async with tcp_pair() as (a, b):
        await a.send_all(bytes(100_000))
        await a.aclose()
        assert len(await receive_exactly(b, 100_000)) == 100_000
        assert await b.receive_some() == b""


async def test_closing_wakes_the_tasks_that_wait() -> None:
    async with unix_pair() as (a, _b), nurseryio.open_nursery() as nursery:
        net.clog(a)
        methods: list[Callable[[], Awaitable[object]]] = [
            a.receive_some,
            lambda: a.send_all(b"x"),
        ]
        for method in methods:

            async def expect_closed(method: Callable[[], Awaitable[object]] = method) -> None:
                with pytest.raises(ClosedResourceError):
                    await method()

            nursery.start_soon(expect_closed)
        await wait_all_tasks_blocked()
        await a.aclose()


async def test_closing_wakes_a_task_that_waits_for_buffer_space(loop_kind: str) -> None:
    async with unix_pair() as (a, _b), nurseryio.open_nursery() as nursery:
        await clog(a, loop_kind)

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(ClosedResourceError):
                await a.wait_send_all_might_not_block()

        await wait_all_tasks_blocked()
        await a.aclose()


async def test_use_after_closing_is_refused_and_closing_again_is_not() -> None:
    async with unix_pair() as (a, _b):
        await a.aclose()
        await a.aclose()
        methods: list[Callable[[], Awaitable[object]]] = [
            a.receive_some,
            lambda: a.send_all(b"x"),
            lambda: a.send_all(b""),
            lambda: a.send_all(bytearray(b"x")),
            a.wait_send_all_might_not_block,
            a.send_eof,
        ]
        for method in methods:
            with pytest.raises(ClosedResourceError):
                await method()


async def test_closing_the_socket_below_closes_the_stream() -> None:
    async with unix_pair() as (a, _b), nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(ClosedResourceError):
                await a.receive_some()

        await wait_all_tasks_blocked()
        a.socket.close()


async def test_a_reused_descriptor_number_is_not_mistaken_for_the_old_stream() -> None:
    for _ in range(3):
        async with unix_pair() as (a, b):
            await a.send_all(b"x")
            assert await b.receive_some() == b"x"
            with nurseryio.move_on_after(0) as scope:
                await b.receive_some()
            assert scope.cancelled_caught


@pytest.mark.watching_only("it looks at the registration")
async def test_a_stream_that_no_task_receives_from_costs_nothing() -> None:
    async with unix_pair() as (a, b):
        await a.send_all(b"x")
        await b.receive_some()
        with cut_short():
            await b.receive_some()
        await a.send_all(b"x")
        await wait_all_tasks_blocked()
        # Data has arrived and no task receives: the loop must not look at it again and again.
        reads = b._reads
        assert reads is not None
        assert not reads.armed
        assert await b.receive_some() == b"x"


async def test_a_garbage_collected_stream_leaves_no_registration_with_the_loop() -> None:
    left, right = socket.socketpair()
    stream = SocketStream(left)
    with cut_short():
        await stream.receive_some()
    fd = left.fileno()
    del left
    # The exception that ended the wait goes with the step.
    await lowlevel.checkpoint()
    with pytest.warns(ResourceWarning, match="unclosed"):
        del stream
        gc.collect()
    await settle()
    assert not is_open(fd)
    # The next one gets the same number.
    async with unix_pair() as (a, b):
        assert fd in (a.socket.fileno(), b.socket.fileno())
        await a.send_all(b"x")
        assert await b.receive_some() == b"x"
    right.close()


async def test_a_stream_leaves_no_reference_cycle() -> None:
    gc.collect()
    gc.disable()
    try:
        async with unix_pair() as (a, b):
            await a.send_all(b"x")
            await b.receive_some()
            with nurseryio.move_on_after(0):
                await b.receive_some()
            with pytest.raises(ClosedResourceError):
                await a.aclose()
                await a.receive_some()
        del a, b
        assert not [o for o in gc.get_objects() if isinstance(o, SocketStream)]
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["woken", "cancelled", "native", "closed", "broken", "end"])
async def test_a_stream_and_what_its_wait_raised_are_freed_at_once(how: str) -> None:
    watched: list[weakref.ref[Any]] = []

    async def receive(stream: SocketStream) -> None:
        if how == "closed":
            with pytest.raises(ClosedResourceError):
                await stream.receive_some()
        elif how == "broken":
            with pytest.raises(BrokenResourceError):
                await stream.receive_some()
        else:
            for _ in range(3):
                if not await stream.receive_some():
                    return

    async def once() -> None:
        async with tcp_pair() as (a, b):
            watched.extend(weakref.ref(thing) for thing in (a, b, b.socket))
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(receive, b)
                for _ in range(3):
                    await wait_all_tasks_blocked()
                    if how == "woken":
                        await a.send_all(b"x")
                if how == "cancelled":
                    nursery.cancel_scope.cancel()
                elif how == "native":
                    (task,) = nursery.child_tasks
                    assert task.asyncio_task.cancel()
                    del task
                elif how == "closed":
                    await b.aclose()
                elif how == "broken":
                    net.reset(a)
                elif how == "end":
                    await a.send_eof()

    await once()
    with without_gc():
        watched.clear()
        await once()
        await turns(2)
        assert all(map(gone, watched))


# -- how the task is woken ------------------------------------------------------


async def test_a_task_woken_by_io_runs_in_its_own_contextvars_context() -> None:
    var: ContextVar[str] = ContextVar("var", default="outside")
    seen = []

    async def receive(stream: SocketStream, name: str) -> None:
        var.set(name)
        for _ in range(3):
            await stream.receive_some()
            seen.append(var.get())

    async with unix_pair() as (a, b), unix_pair() as (c, d):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(receive, b, "first")
            nursery.start_soon(receive, d, "second")
            for _ in range(3):
                await a.send_all(b"x")
                await c.send_all(b"x")
                await wait_all_tasks_blocked()
    assert sorted(seen) == ["first"] * 3 + ["second"] * 3
    assert var.get() == "outside"


async def test_a_task_woken_by_io_may_close_the_stream_of_another_woken_task() -> None:
    async with unix_pair() as (a, b), unix_pair() as (c, d), nurseryio.open_nursery() as nursery:

        async def close_the_other(mine: SocketStream, other: SocketStream) -> None:
            try:
                await mine.receive_some()
                await other.aclose()
            except ClosedResourceError:
                closed.append(mine)

        closed: list[SocketStream] = []
        nursery.start_soon(close_the_other, b, d)
        nursery.start_soon(close_the_other, d, b)
        await wait_all_tasks_blocked()
        # Both are ready in the same iteration of the loop.
        os.write(a.socket.fileno(), b"x")
        os.write(c.socket.fileno(), b"x")
        await wait_all_tasks_blocked()
        assert len(closed) == 1


async def test_an_error_in_a_task_woken_by_io_reaches_its_nursery() -> None:
    async with unix_pair() as (a, b):
        with pytest.RaisesGroup(KeyError):
            async with nurseryio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    await b.receive_some()
                    raise KeyError("mine")

                await wait_all_tasks_blocked()
                await a.send_all(b"x")
                await nurseryio.sleep_forever()


async def test_an_instrument_sees_the_steps_of_a_task_woken_by_io() -> None:
    class Steps(nurseryio.abc.Instrument):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def before_task_step(self, task: lowlevel.Task) -> None:
            self.seen.append(task.name)

    async def receiver(stream: SocketStream) -> None:
        await stream.receive_some()
        await stream.receive_some()

    steps = Steps()
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        nursery.start_soon(receiver, b, name="receiver")
        await wait_all_tasks_blocked()
        lowlevel.add_instrument(steps)
        try:
            for _ in range(2):
                await a.send_all(b"x")
                await wait_all_tasks_blocked()
        finally:
            lowlevel.remove_instrument(steps)
    assert steps.seen.count("receiver") == 2


# -- sockets --------------------------------------------------------------------


@pytest.mark.watching_only("it makes a socket for datagrams")
async def test_socket_stream_needs_a_connected_nurseryio_socket() -> None:
    with stdlib.socket() as plain, pytest.raises(TypeError, match="from_stdlib_socket"):
        SocketStream(plain)  # type: ignore[arg-type]
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ValueError, match="requires a SOCK_STREAM socket"):
            SocketStream(datagrams)


async def test_socket_stream_cannot_be_subclassed() -> None:
    with pytest.raises(TypeError, match="does not support subclassing"):
        type("Mine", (SocketStream,), {})


async def test_repr_of_a_socket_stream_shows_its_socket() -> None:
    async with unix_pair() as (a, _b):
        assert repr(a).startswith("<SocketStream over <nurseryio.socket.socket fd=")


async def test_tcp_nodelay_is_set_so_small_messages_are_not_delayed() -> None:
    async with tcp_pair() as (a, b):
        for stream in (a, b):
            assert stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            assert a.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 16384


async def test_socket_stream_getsockopt_and_setsockopt() -> None:
    async with tcp_pair() as (a, _b):
        a.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert a.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert a.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 4) == b"\x01\0\0\0"
        with pytest.raises(TypeError, match="must not be None when specifying length"):
            a.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, None)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="must be None when specifying optlen"):
            a.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1, 4)  # type: ignore[call-overload]
        with pytest.raises(OSError):
            a.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, None, 4)


class Wire(socket.SocketType):
    """A fake socket: sent bytes come back, a few at a time."""

    type = socket.SOCK_STREAM  # type: ignore[assignment]

    def __init__(self) -> None:
        self.held = b""
        self.ended = False

    def setsockopt(self, *_args: object) -> None:  # type: ignore[override]
        pass

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        return self.ended

    def fileno(self) -> int:
        return 99

    async def send(self, data: Any, flags: int = 0, /) -> int:
        await lowlevel.checkpoint()
        if self.held is None:
            raise OSError(errno.EPIPE, "fake")
        self.held += bytes(data[:3])
        return min(3, len(data))

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        await lowlevel.checkpoint()
        if not self.held:
            raise OSError(errno.EBADF, "fake")
        got, self.held = self.held[:buflen], self.held[buflen:]
        return got

    def shutdown(self, flag: int) -> None:
        self.ended = True

    def close(self) -> None:
        self.held = b""


async def test_a_fake_socket_works_through_its_own_methods() -> None:
    wire = Wire()
    async with SocketStream(wire) as stream:
        await stream.send_all(b"0123456789")
        await stream.send_all(b"")
        assert await stream.receive_some(4) == b"0123"
        assert await stream.receive_some() == b"456789"
        with pytest.raises(ClosedResourceError):
            await stream.receive_some()
        wire.held = None  # type: ignore[assignment]
        with pytest.raises(BrokenResourceError):
            await stream.send_all(b"x")
        wire.held = b""
        await stream.send_eof()
        with pytest.raises(ClosedResourceError, match="after sending EOF"):
            await stream.send_all(b"x")


@pytest.mark.watching_only("it looks at the registration")
async def test_a_stream_over_another_librarys_socket_works_and_does_not_stay_registered() -> None:
    left, right = stdlib.socketpair()
    with right:
        async with SocketStream(socket.from_stdlib_socket(left)) as stream:
            async with nurseryio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    assert await stream.receive_some() == b"x"

                await wait_all_tasks_blocked()
                right.send(b"x")
            reads = stream._reads
            assert reads is not None
            assert not reads.armed


@pytest.mark.skipif(not net.has_ipv6(), reason="this machine has no IPv6")
async def test_socket_stream_over_ipv6_loopback() -> None:
    async def echo(stream: SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async with nurseryio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            lambda task_status: nurseryio.serve_tcp(echo, 0, host="::1", task_status=task_status)
        )
        port = listener.socket.getsockname()[1]
        async with await nurseryio.open_tcp_stream("::1", port) as stream:
            assert stream.socket.family == socket.AF_INET6
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
        nursery.cancel_scope.cancel()


async def test_a_socket_stream_calls_the_methods_that_a_test_has_replaced_on_its_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, right = nurseryio.socket.socketpair()
    sent: list[bytes] = []

    async def send(data: Any, flags: int = 0) -> int:
        sent.append(bytes(data))
        return len(data)

    async def recv(size: int, flags: int = 0) -> bytes:
        return b"received"

    monkeypatch.setattr(left, "send", send)
    monkeypatch.setattr(left, "recv", recv)
    async with SocketStream(left) as stream, SocketStream(right):
        await stream.send_all(b"data")
        assert sent == [b"data"]
        assert await stream.receive_some() == b"received"


# -- addresses ------------------------------------------------------------------


async def test_local_address_and_remote_address_of_a_tcp_stream() -> None:
    async with tcp_pair() as (left, right):
        assert left.local_address == right.remote_address
        assert left.remote_address == right.local_address
        assert left.local_address == left.socket.getsockname()
        assert left.remote_address[0] == "127.0.0.1"


async def test_addresses_that_were_read_are_known_after_the_connection_has_ended() -> None:
    async with tcp_pair() as (left, right):
        peer, local = left.remote_address, left.local_address
        await left.aclose()
        assert (left.remote_address, left.local_address) == (peer, local)
        await right.aclose()
        with pytest.raises(ClosedResourceError):
            assert right.remote_address
        with pytest.raises(ClosedResourceError):
            assert right.local_address


async def test_remote_address_of_a_socket_without_a_peer_is_a_broken_resource_error() -> None:
    async with SocketStream(socket.socket()) as stream:
        with pytest.raises(BrokenResourceError) as caught:
            assert stream.remote_address
        assert isinstance(caught.value.__cause__, OSError)
        assert stream.local_address[1] == 0


async def test_a_server_sees_the_address_of_each_client() -> None:
    seen = []

    async def handler(stream: SocketStream) -> None:
        seen.append(stream.remote_address)
        await stream.send_all(b"x")

    async with nurseryio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(nurseryio.serve_tcp, handler, 0, host="127.0.0.1")
        )
        async with await nurseryio.open_tcp_stream(*listener.socket.getsockname()) as stream:
            await stream.receive_some()
            assert seen == [stream.local_address]
        nursery.cancel_scope.cancel()
