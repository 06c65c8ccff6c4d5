"""Sockets: their async methods, and how they wait and close."""

# Covered below 95 %: the waits are shared with streams, see test_stream.py and test_serve.py; file
# objects are in test_process.py; two branches are for Windows.

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import gc
import os
import socket as stdlib
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from socket import SCM_RIGHTS, SOL_SOCKET
from typing import Any

import pytest
from harness import net
from harness.core import cut_short, settle
from harness.net import is_open

import nurseryio
from nurseryio import (
    BusyResourceError,
    Cancelled,
    CancelScope,
    ClosedResourceError,
    SocketStream,
    lowlevel,
    socket,
)
from nurseryio.socket import SocketType
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.SocketType, socket.SocketType]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@contextlib.asynccontextmanager
async def datagram_pair(family: int, address: str) -> Any:
    """Two UDP sockets, each bound to its own port."""
    with (
        socket.socket(family, socket.SOCK_DGRAM) as a,
        socket.socket(family, socket.SOCK_DGRAM) as b,
    ):
        await a.bind((address, 0))
        await b.bind((address, 0))
        yield a, b


LOOPBACKS = [(socket.AF_INET, "127.0.0.1")]
if net.has_ipv6():
    LOOPBACKS.append((socket.AF_INET6, "::1"))


async def test_a_refused_datagram_does_not_end_recvfrom() -> None:
    async with datagram_pair(socket.AF_INET, "127.0.0.1") as (a, b):
        nobody = ("127.0.0.1", net.free_port(socket.SOCK_DGRAM))
        await a.connect(b.getsockname())
        for _ in range(3):
            async with nurseryio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    assert await a.recv(10) == b"x"

                await wait_all_tasks_blocked()
                await b.sendto(b"x", a.getsockname())
            await a.connect(nobody)
            async with nurseryio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    with pytest.raises(ConnectionRefusedError):
                        await a.recv(10)

                await wait_all_tasks_blocked()
                await a.send(b"is anybody there?")
            await a.connect(b.getsockname())


# -- connections ----------------------------------------------------------------


@pytest.mark.parametrize(("family", "address"), LOOPBACKS)
async def test_a_connection_is_made_and_both_ends_know_the_addresses(
    family: int, address: str
) -> None:
    with socket.socket(family) as listener, socket.socket(family) as client:
        with assert_checkpoints():
            await listener.bind((address, 0))
        listener.listen()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(client.connect, listener.getsockname()[:2])
            server, client_address = await listener.accept()
        with server:
            assert client_address == server.getpeername() == client.getsockname()
            assert client.getpeername() == listener.getsockname()
            await server.send(b"x")
            assert await client.recv(1) == b"x"


@net.needs_localhost
async def test_connect_and_bind_resolve_host_names() -> None:
    with socket.socket() as listener, socket.socket() as client:
        await listener.bind(("localhost", 0))
        assert listener.getsockname()[0] == "127.0.0.1"
        listener.listen()
        with assert_checkpoints():
            await client.connect(("localhost", listener.getsockname()[1]))
        server, _address = await listener.accept()
        server.close()
        with pytest.raises(socket.gaierror):
            await client.bind(("1.2:3", -1))


async def test_accept_waits_for_a_connection_and_takes_one_at_a_time() -> None:
    with socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        accepted = []

        async def accept() -> None:
            while True:
                with assert_checkpoints():
                    sock, _address = await listener.accept()
                accepted.append(sock)

        clients = []
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(accept)
            for count in range(1, 4):
                await wait_all_tasks_blocked()
                assert len(accepted) == count - 1
                clients.append(socket.socket())
                await clients[-1].connect(listener.getsockname())
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert len(accepted) == 3
        for sock in [*clients, *accepted]:
            sock.close()


async def test_accept_on_a_socket_that_does_not_listen_is_an_error_at_once() -> None:
    with socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        with assert_checkpoints(), pytest.raises(OSError, match="Invalid argument"):
            await sock.accept()


async def test_a_refused_connection_is_an_error_that_names_the_address() -> None:
    with socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError) as caught:
        await sock.connect(address)
    assert str(caught.value) == (
        f"[Errno {errno.ECONNREFUSED}] Error connecting to {address!r}: Connection refused"
    )


@pytest.mark.parametrize("address", ["localhost", ("127.0.0.1",), ("127.0.0.1", 80, 0)])
async def test_an_address_of_the_wrong_form_is_refused(address: Any) -> None:
    with socket.socket() as sock:
        for method in (sock.connect, sock.bind):
            with pytest.raises(ValueError, match="address should be"):
                await method(address)


async def test_a_cancelled_connect_closes_the_socket() -> None:
    with socket.socket() as sock, CancelScope() as scope:
        scope.cancel()
        await sock.connect(("127.0.0.1", 1))
    assert scope.cancelled_caught
    assert sock.fileno() == -1


@contextlib.contextmanager
def full_listener() -> Iterator[stdlib.socket]:
    """A listener whose queue is full: the system does not answer further attempts to connect."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(stdlib.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(stdlib.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener


async def test_a_connect_cancelled_while_it_waits_closes_the_socket() -> None:
    with full_listener() as listener, socket.socket() as client:
        with CancelScope() as scope:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(client.connect, listener.getsockname())
                # It has called the system, and the system has said "in progress".
                await lowlevel.checkpoint()
                scope.cancel()
        assert scope.cancelled_caught
        assert client.fileno() == -1


async def test_connect_waits_for_the_answer_to_an_attempt_that_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    connect_ex = stdlib.socket.connect_ex

    def not_yet(sock: stdlib.socket, address: object) -> int:
        # As if the peer were on another machine, which cannot have answered the second call.
        asked.append(errno.EALREADY if asked else connect_ex(sock, address))
        return asked[-1]

    with stdlib.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        monkeypatch.setattr(stdlib.socket, "connect_ex", not_yet)
        await client.connect(listener.getsockname())
        assert client.getpeername() == listener.getsockname()
    address = ("127.0.0.1", net.free_port())
    asked.clear()
    with socket.socket() as client, pytest.raises(ConnectionRefusedError, match="connecting to"):
        await client.connect(address)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell the state")
async def test_connect_to_this_machine_does_not_register_the_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def registered(_readiness: object) -> None:
        raise AssertionError("the socket was registered")

    monkeypatch.setattr("nurseryio._loop.readiness.Readiness._arm", registered)
    with stdlib.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        with assert_checkpoints():
            await client.connect(listener.getsockname())
        assert client.getpeername() == listener.getsockname()
        with socket.socket() as another, assert_checkpoints():
            with pytest.raises(ConnectionRefusedError, match="connecting to"):
                await another.connect(("127.0.0.1", net.free_port()))


@pytest.mark.parametrize(("state", "is_over"), [("EISCONN", True), ("EINPROGRESS", False)])
async def test_other_answers_to_the_second_call_of_connect(
    monkeypatch: pytest.MonkeyPatch, state: str, is_over: bool
) -> None:
    answers = [errno.EINPROGRESS, getattr(errno, state)]
    waited: list[bool] = []

    async def until_connected(_sock: object) -> None:
        await lowlevel.checkpoint()
        waited.append(True)

    with socket.socket() as client:
        monkeypatch.setattr(stdlib.socket, "connect_ex", lambda _sock, _address: answers.pop(0))
        monkeypatch.setattr(type(client), "_until_connected", until_connected)
        with assert_checkpoints():
            await client.connect(("127.0.0.1", 1))
    assert bool(waited) is not is_over


async def test_connect_to_a_unix_listener_with_a_full_backlog_is_an_error() -> None:
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        path = f"{directory}/socket"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        await listener.bind(path)
        listener.listen(1)
        with pytest.raises(BlockingIOError) as caught:
            for _ in range(10):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                with assert_checkpoints():
                    await client.connect(path)
        assert caught.value.errno == errno.EAGAIN


@pytest.mark.parametrize("make", [str, os.fsencode, Path])
async def test_unix_sockets_take_every_kind_of_path(make: Callable[[str], Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = make(f"{directory}/socket")
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            await listener.bind(path)
            listener.listen()
            await client.connect(path)
            server, _address = await listener.accept()
            with server:
                await client.send(b"x")
                assert await server.recv(1) == b"x"


# -- receiving and sending ------------------------------------------------------


async def test_every_way_to_receive_and_to_send_on_a_stream() -> None:
    with pair() as (a, b):
        assert await a.send(b"1") == 1
        assert await b.recv(10, socket.MSG_PEEK) == b"1"
        assert await b.recv(10) == b"1"
        await a.send(b"22", 0)
        buffer = bytearray(4)
        assert await b.recv_into(buffer) == 2
        assert buffer == b"22\0\0"
        await a.send(b"333")
        assert await b.recv_into(buffer, nbytes=1) == 1
        assert await b.recv_into(buffer, 2, flags=0) == 2
        assert await a.sendmsg([b"4", b"44"]) == 3
        data, ancillary, _flags, _address = await b.recvmsg(10)
        assert (data, ancillary) == (b"444", [])


@pytest.mark.parametrize(("family", "address"), LOOPBACKS)
async def test_every_way_to_receive_and_to_send_datagrams(family: int, address: str) -> None:
    async with datagram_pair(family, address) as (a, b):
        buffer = bytearray(10)
        assert await a.sendto(b"1", b.getsockname()) == 1
        assert await b.recvfrom(10) == (b"1", a.getsockname())
        assert await a.sendto(b"2", 0, b.getsockname()) == 1
        assert await b.recvfrom_into(buffer) == (1, a.getsockname())
        assert await a.sendmsg([b"3", b"33"], [], 0, b.getsockname()) == 3
        assert (await b.recvmsg(10))[::3] == (b"333", a.getsockname())
        assert await a.sendto(b"4", b.getsockname()) == 1
        count, _ancillary, _flags, sender = await b.recvmsg_into([bytearray(1), buffer])
        assert (count, sender) == (1, a.getsockname())
        await a.connect(b.getsockname())
        await a.send(b"5")
        assert await b.recv(10) == b"5"
        await b.sendto(b"back", a.getsockname())
        assert await a.recv(10) == b"back"


@net.needs_localhost
async def test_datagrams_can_be_sent_to_a_name() -> None:
    async with datagram_pair(socket.AF_INET, "127.0.0.1") as (a, b):
        target = ("localhost", b.getsockname()[1])
        with assert_checkpoints():
            assert await a.sendto(b"1", target) == 1
        assert await a.sendmsg([b"2"], [], 0, target) == 1
        assert [await b.recv(10), await b.recv(10)] == [b"1", b"2"]


async def test_descriptors_are_sent_as_ancillary_data() -> None:
    with pair() as (a, b), open(os.devnull) as file:
        fds = array.array("i", [file.fileno()])
        await a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        room = socket.CMSG_SPACE(4) if hasattr(socket, "CMSG_SPACE") else 64
        _data, ancillary, _flags, _address = await b.recvmsg(1, room)
        (received,) = array.array("i", ancillary[0][2])
        assert os.path.samestat(os.fstat(received), os.fstat(file.fileno()))
        os.close(received)


async def test_sendmsg_keeps_one_shot_iterables_of_buffers_for_its_retry() -> None:
    with pair() as (a, b), open(os.devnull) as file:
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(a.fileno(), bytes(65536))
        fds = array.array("i", [file.fileno()])
        sent = []
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                data = (part for part in (b"hello ", memoryview(b"world")))
                sent.append(await a.sendmsg(data, iter([(SOL_SOCKET, SCM_RIGHTS, fds)])))

            await wait_all_tasks_blocked()
            assert not sent
            while not sent:
                await b.recv(65536)
                await wait_all_tasks_blocked()
        assert sent == [11]
        with contextlib.suppress(BlockingIOError):
            while True:
                data, ancillary, _flags, _address = b._sock.recvmsg(65536, 64)  # type: ignore[attr-defined]
        assert data.endswith(b"hello world")
        (received,) = array.array("i", ancillary[0][2])
        os.close(received)

        parts = [bytearray(3), array.array("H", [0, 0])]
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                assert (await b.recvmsg_into(iter(parts)))[0] == 5

            await wait_all_tasks_blocked()
            await a.send(b"again")
        assert bytes(parts[0]) + bytes(parts[1])[:2] == b"again"


async def test_each_method_is_a_checkpoint_with_and_without_waiting() -> None:
    with pair() as (a, b):
        with assert_checkpoints():
            await a.send(b"x")
        with assert_checkpoints():
            assert await b.recv(1) == b"x"
        with assert_checkpoints(), pytest.raises(TypeError):
            await b.recv("x")  # type: ignore[arg-type]
        with assert_checkpoints():
            await a.wait_writable()
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with assert_checkpoints():
                    assert await b.recv(1) == b"y"

            await wait_all_tasks_blocked()
            await a.send(b"y")


async def test_nothing_is_received_in_a_cancelled_scope() -> None:
    with pair() as (a, b):
        await a.send(b"x")
        with CancelScope() as scope:
            scope.cancel()
            await b.recv(1)
        assert scope.cancelled_caught
        assert await b.recv(1) == b"x"


async def test_a_cancellation_while_recv_lets_other_tasks_run_takes_no_data() -> None:
    with pair() as (a, b):
        await a.send(b"x")
        with CancelScope() as scope:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(b.recv, 1)
                await lowlevel.checkpoint()
                scope.cancel()
        assert scope.cancelled_caught
        assert await b.recv(1) == b"x"


async def test_a_native_cancel_of_a_task_that_only_receives_loses_no_data() -> None:
    # Its request may not be raised before the task returns; then asyncio drops the result.
    with pair() as (a, b):
        await a.send(b"x")
        for turns in range(3):
            task = asyncio.ensure_future(b.recv(1))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                assert task.result() == b"x"
                await a.send(b"x")
        assert await b.recv(1) == b"x"


async def test_connect_does_not_take_eagain_for_einprogress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def out_of_ports(_sock: object, _address: object) -> int:
        return errno.EAGAIN

    with socket.socket() as client:
        monkeypatch.setattr(stdlib.socket, "connect_ex", out_of_ports)
        with pytest.raises(BlockingIOError):
            await client.connect(("127.0.0.1", 1))


async def test_a_socket_that_cannot_be_set_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[stdlib.socket] = []

    def refuse(sock: stdlib.socket, _flag: object) -> None:
        made.append(sock)
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    with monkeypatch.context() as patch:
        patch.setattr(stdlib.socket, "setblocking", refuse)
        with stdlib.socket() as other, pytest.raises(OSError):
            socket.fromfd(other.fileno())
        with pytest.raises(OSError):
            socket.socketpair()
    assert len(made) == 2 and all(sock.fileno() == -1 for sock in made)


async def test_back_pressure_send_waits_for_buffer_space() -> None:
    with pair() as (a, b):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(a.fileno(), bytes(65536))
        sent = []
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                sent.append(await a.send(b"x"))

            await wait_all_tasks_blocked()
            assert not sent
            while not sent:
                await b.recv(65536)
                await wait_all_tasks_blocked()
        assert sent == [1]


async def test_two_tasks_cannot_wait_for_the_same_direction() -> None:
    with pair() as (a, b):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(b.recv, 1)
            await wait_all_tasks_blocked()
            with pytest.raises(BusyResourceError):
                await b.recv(1)
            await b.send(b"the other direction")
            await a.send(b"x")


async def test_a_spurious_wake_up_makes_recv_wait_again() -> None:
    left, right = stdlib.socketpair()
    with right, socket.from_stdlib_socket(left) as sock:
        right.setblocking(False)
        got = []
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                got.append(await sock.recv(10))

            await wait_all_tasks_blocked()
            right.send(b"taken")
            assert left.recv(10) == b"taken"
            await wait_all_tasks_blocked()
            assert not got
            right.send(b"left")
        assert got == [b"left"]


# -- closing --------------------------------------------------------------------


async def test_closing_wakes_the_tasks_that_wait() -> None:
    with pair() as (a, _b):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(a.fileno(), bytes(65536))
        methods: list[Callable[[], Awaitable[object]]] = [
            lambda: a.recv(1),
            lambda: a.send(b"x"),
        ]
        async with nurseryio.open_nursery() as nursery:
            for method in methods:

                @nursery.start_soon
                async def _(method: Callable[[], Awaitable[object]] = method) -> None:
                    with pytest.raises(ClosedResourceError):
                        await method()

            await wait_all_tasks_blocked()
            a.close()
        a.close()
        assert a.fileno() == -1
        with assert_checkpoints(), pytest.raises(OSError, match="Bad file descriptor"):
            await a.recv(1)


async def test_closing_wakes_a_task_that_waits_for_the_bare_descriptor() -> None:
    with pair() as (a, _b):
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(ClosedResourceError):
                    await lowlevel.wait_readable(a.fileno())

            await wait_all_tasks_blocked()
            a.close()


def test_a_socket_can_be_closed_after_its_loop() -> None:
    async def main() -> socket.SocketType:
        left, right = socket.socketpair()
        with right:
            with cut_short():
                await left.recv(1)
        return left

    sock = nurseryio.run(main)
    sock.close()
    assert sock.fileno() == -1


def test_a_socket_can_be_used_on_one_loop_after_another() -> None:
    left, right = socket.socketpair()

    async def main() -> None:
        with cut_short():
            await right.recv(1)
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                assert await right.recv(1) == b"x"

            await wait_all_tasks_blocked()
            await left.send(b"x")

    with left, right:
        nurseryio.run(main)
        nurseryio.run(main)


async def test_detach_leaves_the_descriptor_open_and_unregistered() -> None:
    left, right = socket.socketpair()
    with right:
        with cut_short():
            await left.recv(1)
        fd = left.detach()
        assert left.fileno() == -1
        with stdlib.socket(fileno=fd) as plain:
            await right.send(b"x")
            await lowlevel.wait_readable(plain)
            assert plain.recv(1) == b"x"


async def test_a_garbage_collected_socket_is_closed_and_unregistered() -> None:
    left, right = socket.socketpair()
    with right:
        with cut_short():
            await left.recv(1)
        await lowlevel.checkpoint()
        fd = left.fileno()
        with pytest.warns(ResourceWarning, match="unclosed"):
            del left
            gc.collect()
        assert is_open(fd)  # its number stays taken while the loop watches it
        await settle()
        reader, writer = os.pipe()
        assert fd in (reader, writer)
        os.write(writer, b"x")
        await lowlevel.wait_readable(reader)
        os.close(reader)
        os.close(writer)


# -- the rest -------------------------------------------------------------------


async def test_half_close_shutdown_of_one_direction() -> None:
    with pair() as (a, b):
        assert not a.did_shutdown_SHUT_WR
        a.shutdown(socket.SHUT_RD)
        assert not a.did_shutdown_SHUT_WR
        a.shutdown(socket.SHUT_WR)
        assert a.did_shutdown_SHUT_WR
        assert await b.recv(1) == b""
    with pair() as (a, _b):
        a.shutdown(socket.SHUT_RDWR)
        assert a.did_shutdown_SHUT_WR


async def test_is_readable_says_whether_there_is_something_to_read() -> None:
    with pair() as (a, b):
        assert not b.is_readable()
        await a.send(b"x")
        assert b.is_readable()
        await b.recv(1)
        assert not b.is_readable()


async def test_dup_of_a_socket_is_closed_separately() -> None:
    with pair() as (a, b), a.dup() as copy:
        a.close()
        await copy.send(b"x")
        assert await b.recv(1) == b"x"


async def test_setsockopt_getsockopt_and_set_inheritable() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert len(sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 4)) == 4
        with pytest.raises(TypeError, match="must not be None when specifying optlen"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, None)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="must be None when specifying optlen"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1, 4)  # type: ignore[call-overload]
        with pytest.raises(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, None, 4)
        assert not sock.get_inheritable()
        sock.set_inheritable(True)
        assert sock.get_inheritable()
        assert sock.proto == 0
        assert repr(sock).startswith("<nurseryio.socket.socket fd=")


async def test_many_sockets_can_be_waited_for_at_once() -> None:
    pairs = [socket.socketpair() for _ in range(200)]
    received = []

    async def receive(sock: socket.SocketType) -> None:
        received.append(await sock.recv(10))

    async with nurseryio.open_nursery() as nursery:
        for _sender, receiver in pairs:
            nursery.start_soon(receive, receiver)
        await wait_all_tasks_blocked()
        for sender, _receiver in pairs:
            await sender.send(b"x")
    assert received == [b"x"] * 200
    for both in pairs:
        for sock in both:
            sock.close()


async def test_a_cancelled_wait_ends_with_the_cancellation_alone() -> None:
    with pair() as (a, _b):
        with cut_short():
            try:
                await a.recv(1)
            except Cancelled as exc:
                assert exc.__context__ is None
                raise


# -- what others do to a socket ---------------------------------------------------------


def fill(sock: SocketType) -> None:
    """Send until the kernel takes no more."""
    plain = stdlib.socket(fileno=os.dup(sock.fileno()))
    with plain, contextlib.suppress(BlockingIOError):
        while True:
            plain.send(bytes(65536))


def empty(sock: SocketType) -> None:
    """Receive all that is there."""
    plain = stdlib.socket(fileno=os.dup(sock.fileno()))
    with plain, contextlib.suppress(BlockingIOError):
        while True:
            plain.recv(2**20)


WAITS: dict[str, Callable[[SocketType], Awaitable[object]]] = {
    "recv": lambda sock: sock.recv(1),
    "recv_into": lambda sock: sock.recv_into(bytearray(1)),
    "recvfrom": lambda sock: sock.recvfrom(1),
    "recvmsg": lambda sock: sock.recvmsg(1),
    "receive_some": lambda sock: SocketStream(sock).receive_some(),
    "send": lambda sock: sock.send(b"x"),
    "sendmsg": lambda sock: sock.sendmsg([b"x"]),
    "send_all": lambda sock: SocketStream(sock).send_all(b"x"),
    "wait_writable": lambda sock: sock.wait_writable(),
    "wait_send_all_might_not_block": lambda sock: SocketStream(
        sock
    ).wait_send_all_might_not_block(),
    "wait_readable": lowlevel.wait_readable,
    "lowlevel.wait_writable": lambda sock: lowlevel.wait_writable(sock.fileno()),
}


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("operation", WAITS)
async def test_detach_ends_every_wait(operation: str, owned: bool) -> None:
    if owned:
        left, right = socket.socketpair()
    else:
        left, right = map(socket.from_stdlib_socket, stdlib.socketpair())
    fill(left)

    async def wait() -> None:
        with pytest.raises(ClosedResourceError):
            await WAITS[operation](left)

    with right:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            fd = left.detach()
        os.close(fd)


async def test_detach_ends_a_wait_for_accept() -> None:
    async def wait() -> None:
        with pytest.raises(ClosedResourceError):
            await listener.accept()

    listener = socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        os.close(listener.detach())


@pytest.mark.parametrize("owned", [True, False])
def test_a_socket_is_closed_after_its_loop_was_closed_under_a_waiting_task(owned: bool) -> None:
    async def main() -> asyncio.Task[bytes]:
        task = asyncio.ensure_future(left.recv(1))
        await settle()
        return task

    if owned:
        left, right = socket.socketpair()
    else:
        left, right = map(socket.from_stdlib_socket, stdlib.socketpair())
    with right:
        loop = asyncio.new_event_loop()
        task = loop.run_until_complete(main())
        loop.close()
        fd = left.fileno()
        left.close()
        assert not is_open(fd)
        task._log_destroy_pending = False  # type: ignore[attr-defined]


class AnotherLoop:
    """A loop in its own thread, in which a task uses a socket."""

    def __init__(self, async_fn: Callable[[], Awaitable[object]]) -> None:
        self._async_fn = async_fn
        self.outcome: object = None
        self.waits = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            nurseryio.run(self._main)
        except BaseException as exc:
            self.outcome = exc

    async def _main(self) -> None:
        async def work() -> None:
            self.outcome = await self._async_fn()

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(work)
            await settle()
            self.waits.set()

    def __enter__(self) -> AnotherLoop:
        self._thread.start()
        assert self.waits.wait(30)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


async def test_one_socket_is_used_by_two_loops_at_the_same_time() -> None:
    left, right = socket.socketpair()
    with left, right:
        fill(left)
        with AnotherLoop(lambda: left.recv(1)) as other:
            async with nurseryio.open_nursery() as nursery:
                # This loop sends, that one receives.
                nursery.start_soon(left.send, b"y")
                await wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == 1
                empty(right)
            await right.send(b"x")
        assert other.outcome == b"x"


async def test_two_loops_wait_for_the_same_socket_and_each_is_woken() -> None:
    left, right = socket.socketpair()
    with left, right:
        with AnotherLoop(lambda: left.recv(1)) as other:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(left.recv, 1)
                await wait_all_tasks_blocked()
                await right.send(b"xx")
        assert other.outcome == b"x"


@pytest.mark.parametrize("operation", ["recv", "wait_writable", "detach"])
async def test_closing_ends_a_wait_on_another_loop(operation: str) -> None:
    left, right = socket.socketpair()
    fill(left)
    fd = left.fileno()
    with right:
        name = "recv" if operation == "detach" else operation
        with AnotherLoop(lambda: WAITS[name](left)) as other:
            if operation == "detach":
                assert left.detach() == fd
            else:
                left.close()
            assert left.fileno() == -1
        assert isinstance(other.outcome, ExceptionGroup)
        assert isinstance(other.outcome.exceptions[0], ClosedResourceError)
        # Closed when the other loop has ended its registration, and not before.
        assert is_open(fd) == (operation == "detach")
    if operation == "detach":
        os.close(fd)


async def test_streams_garbage_collected_in_a_thread_do_not_affect_new_ones() -> None:
    class Circle:
        pass

    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            circle: Any = Circle()
            circle.itself = circle
            left, circle.peer = socket.socketpair()
            circle.stream = SocketStream(left)
            with nurseryio.move_on_after(0):
                await circle.stream.receive_some()
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(circle.stream.receive_some)
                await settle()
                nursery.cancel_scope.cancel()
            del circle, left
            await settle()
            with pytest.warns(ResourceWarning, match="unclosed"):
                await asyncio.to_thread(gc.collect)
            async with net.unix_pair() as (a, b), nurseryio.open_nursery() as nursery:
                nursery.start_soon(a.receive_some)
                await settle()
                await b.send_all(b"x")
    finally:
        gc.enable()
