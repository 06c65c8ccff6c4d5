"""Connections over a transport: how the protocol handles the transport's callbacks."""

# Covered below 95 %: links under load are in test_stream_stress.py; a connection that is given up
# before it is made has no test.

from __future__ import annotations

import asyncio
import errno
import gc
import socket as stdlib
import threading
import weakref
from typing import Any

import pytest
from harness.core import cut_short, settle, without_gc

import nurseryio
from nurseryio._net.link import PIECE, Link
from nurseryio._net.stream import RECEIVE_SIZE
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked


class Transport:
    """A transport that does what the test says, and notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.unsent = 0
        self.closing = False

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self.calls.append(name)

    def get_extra_info(self, name: str) -> None:
        return None

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.calls.append(len(data))

    def abort(self) -> None:
        self.calls.append("abort")
        self.closing = True


async def made() -> tuple[Link, Transport]:
    link, transport = Link(asyncio.get_running_loop()), Transport()
    link.connection_made(transport)
    await settle()
    assert transport.calls == ["set_write_buffer_limits", "pause_reading"]
    transport.calls.clear()
    return link, transport


async def test_back_pressure_reading_is_paused_until_a_task_receives_and_at_the_limit() -> None:
    link, transport = await made()
    with assert_checkpoints(), cut_short():
        await link.receive(1)
    assert transport.calls == ["resume_reading"]
    link.data_received(bytes(RECEIVE_SIZE - 1))
    assert transport.calls == ["resume_reading"]
    link.data_received(b"x")
    link.data_received(b"y")
    assert transport.calls == ["resume_reading", "pause_reading"]
    with assert_checkpoints():
        assert len(await link.receive(2 * RECEIVE_SIZE)) == RECEIVE_SIZE + 1
    assert transport.calls == ["resume_reading", "pause_reading"]


async def test_back_pressure_reading_is_not_paused_if_a_task_receives_already() -> None:
    link, transport = Link(asyncio.get_running_loop()), Transport()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(link.receive, 1)
        await settle()
        link.connection_made(transport)
        await settle()
        assert transport.calls == ["set_write_buffer_limits"]
        link.data_received(b"x")


async def test_back_pressure_a_send_gives_the_transport_one_piece_at_a_time() -> None:
    link, transport = await made()
    async with nurseryio.open_nursery() as nursery:
        link.pause_writing()
        nursery.start_soon(link.send, memoryview(bytes(2 * PIECE + 1)))
        await wait_all_tasks_blocked()
        assert transport.calls == []
        link.resume_writing()
        link.pause_writing()
        await wait_all_tasks_blocked()
        # It was paused again before the task had its turn.
        assert transport.calls == []
        link.resume_writing()
    assert transport.calls == [PIECE, PIECE, 1]


async def test_a_send_raises_the_error_with_which_the_transport_lost_its_connection() -> None:
    link, transport = await made()
    async with nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            for _ in range(2):
                with pytest.raises(ConnectionResetError) as caught:
                    await link.send(memoryview(b"x"))
                errors.append(caught.value)

        errors: list[OSError] = []
        transport.closing = True
        await wait_all_tasks_blocked()
        link.connection_lost(ConnectionResetError(errno.ECONNRESET, "reset"))
    assert [error.errno for error in errors] == [errno.ECONNRESET] * 2
    # Each error has its own traceback.
    assert errors[0] is not errors[1]
    with pytest.raises(ConnectionResetError):
        await link.receive(1)


async def test_connection_lost_with_another_kind_of_error_is_a_reset() -> None:
    link, _ = await made()
    link.connection_lost(KeyError("odd"))
    with pytest.raises(ConnectionResetError, match=r"KeyError\('odd'\)"):
        await link.receive(1)


async def test_a_transport_closed_by_other_code_is_closed() -> None:
    link, _ = await made()
    link.data_received(b"x")
    link.connection_lost(None)
    with pytest.raises(nurseryio.ClosedResourceError):
        await link.receive(1)
    with pytest.raises(nurseryio.ClosedResourceError):
        await link.send(memoryview(b"x"))


async def test_half_close_after_eof_received_sending_goes_on() -> None:
    link, transport = await made()
    link.data_received(b"last")
    assert link.eof_received()
    assert await link.receive(3) == b"las"
    assert await link.receive(3) == b"t"
    assert await link.receive(3) == b""
    await link.send(memoryview(b"x"))
    assert 1 in transport.calls


async def test_closing_a_link_wakes_the_receiving_and_the_sending_task() -> None:
    link, transport = await made()
    link.pause_writing()
    async with nurseryio.open_nursery() as nursery:
        for call in (lambda: link.receive(1), lambda: link.send(memoryview(b"x"))):

            async def expect_closed(call: Any = call) -> None:
                with pytest.raises(nurseryio.ClosedResourceError):
                    await call()

            nursery.start_soon(expect_closed)
        await wait_all_tasks_blocked()
        for call in (lambda: link.receive(1), link.flush):
            with pytest.raises(nurseryio.BusyResourceError):
                await call()
        link.close()
    assert transport.calls[-1] == "abort"
    link.close()


async def test_a_link_can_be_closed_from_another_thread() -> None:
    link, transport = await made()
    thread = threading.Thread(target=link.abort)
    thread.start()
    thread.join()
    assert not transport.closing
    await settle()
    assert transport.closing
    assert link.closed


async def test_connection_made_that_fails_is_raised_to_the_waiting_task() -> None:
    left, right = stdlib.socketpair()

    async def fail() -> None:
        raise PermissionError(errno.EPERM, "not today")

    with right:
        link = Link(asyncio.get_running_loop())
        link.make(fail(), left)
        for call in (lambda: link.receive(1), lambda: link.send(memoryview(b"x"))):
            with pytest.raises(PermissionError, match="not today"):
                await call()
        assert left.fileno() == -1


async def test_an_error_of_a_link_leaves_no_reference_cycle() -> None:
    link, _ = await made()
    watched = weakref.ref(link)
    try:
        raise ConnectionResetError(errno.ECONNRESET, "reset")
    except ConnectionResetError as error:
        link.connection_lost(error)
    gc.collect()
    with without_gc():
        with pytest.raises(ConnectionResetError):
            await link.receive(1)
        del link, _
        await settle()
        assert watched() is None
