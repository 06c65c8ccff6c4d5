"""Accepting connections."""

# Covered below 95 %: the file of a Unix socket is in test_unix.py; one branch is for macOS.

from __future__ import annotations

import asyncio
import errno
import os
import socket as stdlib
from collections.abc import Iterable
from typing import Any

import pytest
from harness import net
from harness.core import cut_short

import nurseryio
from nurseryio import (
    BusyResourceError,
    CancelScope,
    ClosedResourceError,
    SocketListener,
    SocketStream,
    lowlevel,
    socket,
)
from nurseryio.testing import (
    assert_checkpoints,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)


async def listening() -> SocketListener:
    sock = socket.socket()
    await sock.bind(("127.0.0.1", net.free_port()))
    sock.listen()
    return SocketListener(sock)


async def test_accepted_connections_are_streams() -> None:
    async with await listening() as listener:
        for _ in range(3):
            async with await open_stream_to_socket_listener(listener) as client:
                with assert_checkpoints():
                    server = await listener.accept()
                async with server:
                    assert type(server) is SocketStream
                    await client.send_all(b"x")
                    assert await server.receive_some() == b"x"
                    assert server.socket.getpeername() == client.socket.getsockname()


async def test_accept_waits_for_a_connection() -> None:
    async with await listening() as listener:
        accepted = []

        async def accept() -> None:
            for _ in range(2):
                accepted.append(await listener.accept())

        clients = []
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(accept)
            for count in range(2):
                await wait_all_tasks_blocked()
                assert len(accepted) == count
                clients.append(await open_stream_to_socket_listener(listener))
        for stream in [*accepted, *clients]:
            await stream.aclose()


async def test_a_cancelled_accept_loses_no_connection() -> None:
    async with await listening() as listener:
        with CancelScope() as scope:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(listener.accept)
                await wait_all_tasks_blocked()
                scope.cancel()
        async with await open_stream_to_socket_listener(listener):
            with CancelScope() as scope:
                scope.cancel()
                await listener.accept()
            assert scope.cancelled_caught
            await (await listener.accept()).aclose()


async def test_two_tasks_that_accept_at_once_get_busy_resource_error() -> None:
    async with await listening() as listener, nurseryio.open_nursery() as nursery:
        nursery.start_soon(listener.accept)
        await wait_all_tasks_blocked()
        with pytest.raises(BusyResourceError):
            await listener.accept()
        nursery.cancel_scope.cancel()


async def test_the_port_is_free_when_closing_returns() -> None:
    listener = await listening()
    address = listener.socket.getsockname()
    with cut_short():
        await listener.accept()
    with assert_checkpoints():
        await listener.aclose()
    with assert_checkpoints():
        await listener.aclose()
    with stdlib.socket() as probe:
        probe.bind(address)
        probe.listen()


async def test_closing_a_listener_is_done_also_when_it_is_cancelled() -> None:
    listener = await listening()
    with CancelScope() as scope:
        scope.cancel()
        await listener.aclose()
    assert listener.socket.fileno() == -1


async def test_closing_wakes_a_task_that_accepts() -> None:
    async with await listening() as listener, nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(ClosedResourceError):
                await listener.accept()

        await wait_all_tasks_blocked()
        await listener.aclose()


async def test_use_after_closing_is_refused() -> None:
    listener = await listening()
    await listener.aclose()
    with assert_checkpoints(), pytest.raises(ClosedResourceError):
        await listener.accept()
    listener = await listening()
    listener.socket.close()
    with assert_checkpoints(), pytest.raises(ClosedResourceError):
        await listener.accept()


async def test_accepted_connections_outlive_the_listener() -> None:
    listener = await listening()
    async with await open_stream_to_socket_listener(listener) as client:
        async with await listener.accept() as server:
            await listener.aclose()
            await client.send_all(b"x")
            assert await server.receive_some() == b"x"


@pytest.mark.watching_only("it makes a socket for datagrams")
async def test_socket_listener_needs_a_listening_nurseryio_socket() -> None:
    with stdlib.socket() as plain, pytest.raises(TypeError, match="from_stdlib_socket"):
        SocketListener(plain)  # type: ignore[arg-type]
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(ValueError, match="requires a SOCK_STREAM socket"):
            SocketListener(datagrams)
    with socket.socket() as silent:
        await silent.bind(("127.0.0.1", 0))
        with pytest.raises(ValueError, match="requires a listening socket"):
            SocketListener(silent)


async def test_socket_listener_takes_a_wrapped_stdlib_socket() -> None:
    plain = stdlib.socket()
    plain.bind(("127.0.0.1", 0))
    plain.listen()
    async with SocketListener(socket.from_stdlib_socket(plain)) as listener:
        async with await open_stream_to_socket_listener(listener):
            await (await listener.accept()).aclose()
        with cut_short():
            await listener.accept()


class Fake(socket.SocketType):
    """Accepts or fails, as its list of results says."""

    type = socket.SOCK_STREAM  # type: ignore[assignment]

    def __init__(self, *events: object) -> None:
        self.events = iter(events)

    def getsockopt(self, *_args: Any) -> Any:
        return 1

    def setsockopt(self, *_args: Any) -> None:
        pass

    async def accept(self) -> Any:
        await lowlevel.checkpoint()
        event = next(self.events)
        if isinstance(event, int):
            raise OSError(event, os.strerror(event))
        return event, None


def of_one_connection() -> Iterable[int]:
    for name in "EPERM ECONNABORTED EPROTO ENETDOWN EHOSTUNREACH ETIMEDOUT ECONNRESET".split():
        yield getattr(errno, name)


async def test_accept_passes_over_an_error_of_one_connection() -> None:
    connection = Fake()
    listener = SocketListener(Fake(*of_one_connection(), connection))
    with assert_checkpoints():
        stream = await listener.accept()
    assert stream.socket is connection


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOBUFS, errno.EFAULT, errno.EINVAL])
async def test_accept_raises_an_error_of_the_machine_or_of_the_listener(code: int) -> None:
    connection = Fake()
    listener = SocketListener(Fake(code, connection))
    with pytest.raises(OSError) as caught:
        await listener.accept()
    assert caught.value.errno == code
    assert (await listener.accept()).socket is connection


async def test_an_error_of_watching_the_listener_is_not_taken_for_one_of_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    async with await listening() as listener:
        with pytest.raises(PermissionError):
            await listener.accept()


@pytest.mark.parametrize("name", ["ECONNABORTED", "EPERM", "EAGAIN"])
async def test_accept_of_a_real_listener_passes_over_an_error_of_one_connection(
    monkeypatch: pytest.MonkeyPatch, loop_kind: str, name: str
) -> None:
    if loop_kind == "blind":
        pytest.skip("there asyncio accepts")
    code = getattr(errno, name)
    accept = stdlib.socket._accept  # type: ignore[attr-defined]
    failures = iter(range(3))

    def sometimes(sock: stdlib.socket) -> Any:
        for _ in failures:
            raise OSError(code, os.strerror(code))
        return accept(sock)

    async with await listening() as listener:
        async with await open_stream_to_socket_listener(listener):
            monkeypatch.setattr(stdlib.socket, "_accept", sometimes)
            await (await listener.accept()).aclose()
    assert next(failures, None) is None


async def test_repr_of_a_socket_listener_shows_its_socket() -> None:
    async with await listening() as listener:
        assert repr(listener).startswith("<SocketListener on <nurseryio.socket.socket fd=")
