"""Sockets over transports, on a loop that cannot watch file descriptors."""

# Covered below 95 %: on a loop that can watch descriptors it is an ordinary socket, see
# test_sockets.py; failures of accepting are in test_listener.py.

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import random
import socket as stdlib
import threading
import warnings
from typing import Any

import pytest
from harness import matrix, net
from harness.net import tcp_pair, unix_pair

import nurseryio
from nurseryio import BusyResourceError, CancelScope, ClosedResourceError, SocketStream, socket
from nurseryio._net import linked_socket
from nurseryio._net.linked_socket import LinkedSocket
from nurseryio._net.stream import RECEIVE_SIZE
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked

pytestmark = pytest.mark.blind_only


async def test_without_add_reader_all_stream_sockets_use_transports() -> None:
    left, right = socket.socketpair()
    plain, other = stdlib.socketpair()
    made = [
        left,
        right,
        left.dup(),
        socket.socket(),
        socket.from_stdlib_socket(plain),
        socket.fromfd(left.fileno()),
    ]
    assert {type(sock) for sock in made} == {LinkedSocket}
    for sock in made:
        sock.close()
    other.close()


# -- receiving ------------------------------------------------------------------


async def test_back_pressure_nothing_is_read_before_receive_and_then_up_to_a_limit() -> None:
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
        await a.send_all(b"x" * 1000)
        await wait_all_tasks_blocked()
        assert net.unread(b) == 1000
        assert await b.receive_some(1) == b"x"
        nursery.start_soon(a.send_all, bytes(4_000_000))
        await wait_all_tasks_blocked()
        link: Any = b.socket._link  # type: ignore[attr-defined]
        # One more read of the transport may come on top.
        assert RECEIVE_SIZE <= len(link._received) <= RECEIVE_SIZE + 256 * 1024
        nursery.cancel_scope.cancel()


async def test_data_that_the_peer_sent_before_its_reset_is_received_before_the_error() -> None:
    async with tcp_pair() as (a, b):
        await a.send_all(b"farewell: your request is too large")
        assert await b.receive_some(9) == b"farewell:"
        await a.send_all(bytes(100_000))
        net.reset(a)
        with pytest.raises(nurseryio.BrokenResourceError):
            for _ in range(100):
                await b.send_all(b"x" * 1000)
        received = b""
        with pytest.raises(nurseryio.BrokenResourceError):
            while True:
                received += await b.receive_some()
        assert received == b" your request is too large" + bytes(100_000)


async def test_a_native_cancel_while_the_transport_is_made_loses_nothing() -> None:
    async with unix_pair() as (a, b):
        await a.send_all(b"kept")
        for turns in range(4):
            task = asyncio.ensure_future(b.receive_some(1))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            try:
                assert await task == b"kept"[turns : turns + 1]
            except asyncio.CancelledError:
                break
        assert await b.receive_some() in (b"kept", b"ept", b"pt", b"t")


async def test_recv_into_and_the_limits_of_recv() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert await left.send(b"abcdef") == 6
        buffer = bytearray(4)
        assert await right.recv_into(buffer, 2) == 2
        assert buffer == b"ab\0\0"
        assert await right.recv_into(memoryview(buffer).cast("H")) == 4
        assert buffer == b"cdef"
        with assert_checkpoints():
            assert await right.recv(0) == b""
        with pytest.raises(ValueError, match="negative"):
            await right.recv(-1)
        assert not right.is_readable()
        await left.send(b"xy")
        assert right.is_readable()
        assert await right.recv(1) == b"x"
        await wait_all_tasks_blocked()
        assert right.is_readable()


async def test_socket_flags_that_a_transport_cannot_do_are_refused_first() -> None:
    left, right = socket.socketpair()
    with left, right:
        await left.send(b"kept")
        for call in (
            lambda: right.recv(1, socket.MSG_PEEK),
            lambda: right.recv_into(bytearray(1), 1, socket.MSG_PEEK),
            lambda: right.recvfrom(1),
            lambda: right.recvmsg(1),
            lambda: right.send(b"x", socket.MSG_OOB),
            lambda: right.sendmsg([b"x"]),
        ):
            with pytest.raises(NotImplementedError, match="with these arguments need an event"):
                await call()
        assert await right.recv(10) == b"kept"


async def test_a_second_task_in_one_direction_gets_busy_resource_error() -> None:
    left, right = socket.socketpair()
    with left, right:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(left.recv, 1)
            nursery.start_soon(net.send_forever, left)
            await wait_all_tasks_blocked()
            for call in (lambda: left.recv(1), lambda: left.send(b"x"), left.wait_writable):
                with pytest.raises(BusyResourceError):
                    await call()
            nursery.cancel_scope.cancel()


async def test_any_exchange_arrives_byte_for_byte_although_receives_are_cancelled() -> None:
    choice = random.Random(1)
    data = choice.randbytes(2_000_000)
    async with tcp_pair() as (a, b), nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            sent = 0
            while sent < len(data):
                size = choice.choice([1, 100, 70_000, 300_000])
                await a.send_all(data[sent : sent + size])
                sent += size
            await a.send_eof()

        received = bytearray()
        while True:
            with CancelScope() as scope:
                if choice.random() < 0.3:
                    nursery.start_soon(cancel_soon, scope, choice.randrange(3))
                piece = await b.receive_some(choice.choice([1, 1000, 200_000]))
                if not piece:
                    break
                received += piece
        assert received == data


async def cancel_soon(scope: CancelScope, turns: int) -> None:
    for _ in range(turns):
        await nurseryio.lowlevel.checkpoint()
    scope.cancel()


# -- connecting -----------------------------------------------------------------


async def test_a_cancelled_connect_leaves_no_thread() -> None:
    with stdlib.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler = [stdlib.socket() for _ in range(4)]
        for sock in filler:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        with socket.socket() as sock, nurseryio.move_on_after(0.01) as scope:
            await sock.connect(full.getsockname())
        assert scope.cancelled_caught
        assert sock.fileno() == -1
        while any("connection" in thread.name for thread in threading.enumerate()):
            await nurseryio.sleep(0.01)
        for other in filler:
            other.close()


async def test_a_refused_connection_raises_the_systems_oserror() -> None:
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        await sock.connect(("127.0.0.1", net.free_port()))


async def test_using_a_socket_that_is_not_connected_raises_the_systems_oserror() -> None:
    with socket.socket() as sock, pytest.raises(OSError) as caught:
        await sock.recv(1)
    assert caught.value.errno == errno.ENOTCONN


# -- accepting ------------------------------------------------------------------


async def open_listener() -> nurseryio.SocketListener:
    (listener,) = await nurseryio.open_tcp_listeners(net.free_port(), host="127.0.0.1")
    return listener


async def test_connections_that_are_not_accepted_wait_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linked_socket, "MOST_WAITING", 10)
    async with await open_listener() as listener:
        address = listener.socket.getsockname()
        with CancelScope() as scope:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(listener.accept)
                await wait_all_tasks_blocked()
                scope.cancel()
        clients = [stdlib.create_connection(address) for _ in range(12)]
        for number, client in enumerate(clients[:10]):
            client.send(b"%d" % number)
        for _ in range(10):
            await wait_all_tasks_blocked()
        for client in clients[10:]:
            client.settimeout(10)
            assert client.recv(1) == b""
        for number in range(10):
            async with await listener.accept() as stream:
                assert await stream.receive_some() == b"%d" % number
        for client in clients:
            client.close()


async def test_closing_a_listener_closes_connections_not_accepted_and_frees_the_port() -> None:
    listener = await open_listener()
    address = listener.socket.getsockname()
    clients = [stdlib.create_connection(address) for _ in range(3)]
    (await listener.accept()).socket.close()
    await wait_all_tasks_blocked()
    await listener.aclose()
    with pytest.raises(ClosedResourceError):
        await listener.accept()
    for client in clients:
        with client:
            client.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""
    with stdlib.socket() as probe:
        probe.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        probe.bind(address)


async def test_with_emfile_a_connection_stays_in_the_accept_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with await open_listener() as listener:
        with stdlib.create_connection(listener.socket.getsockname()) as client:
            client.send(b"still here")

            def refuse(*_args: Any) -> Any:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

            with monkeypatch.context() as patch:
                patch.setattr(linked_socket.stdlib, "fromfd", refuse)
                for _ in range(2):
                    with pytest.raises(OSError) as caught:
                        await listener.accept()
                    assert caught.value.errno == errno.EMFILE
            async with await listener.accept() as stream:
                assert await stream.receive_some() == b"still here"


async def test_accept_needs_a_listening_socket_and_one_task() -> None:
    with socket.socket() as sock, pytest.raises(OSError) as caught:
        await sock.accept()
    assert caught.value.errno == errno.EINVAL
    async with await open_listener() as listener, nurseryio.open_nursery() as nursery:
        nursery.start_soon(listener.accept)
        await wait_all_tasks_blocked()
        with pytest.raises(BusyResourceError):
            await listener.accept()
        nursery.cancel_scope.cancel()


# -- closing --------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(4))
async def test_closing_while_the_transport_is_made(turns: int) -> None:
    async with unix_pair() as (a, b), nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(ClosedResourceError):
                await b.receive_some()

        await nurseryio.lowlevel.checkpoint()
        for _ in range(turns):
            await asyncio.sleep(0)
        await b.aclose()
        assert await a.receive_some() == b""


async def test_half_close_eof_is_sent_after_the_rest_of_a_cancelled_send() -> None:
    async with unix_pair() as (a, b):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(a.send_all, b"x" * 1_000_000)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await a.send_eof()
        while data := await b.receive_some():
            assert not data.strip(b"x")


async def test_a_detached_socket_stays_open() -> None:
    async with unix_pair() as (a, b):
        await a.send_all(b"1")
        assert await b.receive_some() == b"1"
        fd = b.socket.detach()
        await wait_all_tasks_blocked()
        with stdlib.socket(fileno=fd) as again:
            again.send(b"2")
            assert await a.receive_some() == b"2"


async def test_a_garbage_collected_linked_socket_is_closed_with_a_warning() -> None:
    left, right = socket.socketpair()
    async with SocketStream(left) as stream:
        await right.send(b"x")
        assert await stream.receive_some() == b"x"
        with pytest.warns(ResourceWarning, match="unclosed"):
            del right
            gc.collect()
        assert await stream.receive_some() == b""


async def test_a_linked_socket_outlives_the_loop_that_used_it() -> None:
    def in_another_loop() -> None:
        pair: list[socket.SocketType] = []

        async def use(data: bytes) -> None:
            pair.extend(() if pair else socket.socketpair())
            await pair[0].send(data)
            assert await pair[1].recv(10) == data

        async def use_and_close() -> None:
            await use(b"second")
            for sock in pair:
                sock.close()
            await wait_all_tasks_blocked()

        with warnings.catch_warnings():
            # Of the transports, whose loop is closed under them.
            warnings.simplefilter("ignore", ResourceWarning)
            nurseryio.run(use, b"first", loop_factory=matrix.BlindLoop)
            nurseryio.run(use_and_close, loop_factory=matrix.BlindLoop)
            gc.collect()

    await nurseryio.to_thread.run_sync(in_another_loop)


async def test_a_linked_socket_on_another_loop_is_refused_while_the_first_loop_is_open() -> None:
    left, right = socket.socketpair()
    with left, right:
        await left.send(b"x")

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="belongs to the event loop that used it first"):
                nurseryio.run(left.send, b"y", loop_factory=matrix.BlindLoop)

        await nurseryio.to_thread.run_sync(elsewhere)
        assert await right.recv(10) == b"x"
        assert os.fstat(left.fileno())
