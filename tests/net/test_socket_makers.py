"""Where sockets come from, and what else ``nurseryio.socket`` has."""

# Covered below 95 %: the files of Unix sockets are in test_unix.py; shared sockets are for Windows,
# one line is for systems other than Linux.

from __future__ import annotations

import os
import socket as stdlib
import ssl
import sys
from typing import Any

import pytest
from harness import net

import nurseryio
from nurseryio import socket


async def test_a_new_socket_is_non_blocking_and_is_closed_by_with() -> None:
    with socket.socket() as sock:
        assert isinstance(sock, socket.SocketType)
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_STREAM
        assert not os.get_blocking(sock.fileno())
    assert sock.fileno() == -1


def test_a_socket_can_be_made_outside_any_loop() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert sock.type == socket.SOCK_DGRAM


async def test_socketpair_is_connected() -> None:
    left, right = socket.socketpair()
    with left, right:
        await left.send(b"x")
        assert await right.recv(10) == b"x"


async def test_from_stdlib_socket_wraps_a_socket() -> None:
    left, right = stdlib.socketpair()
    with right, socket.from_stdlib_socket(left) as sock:
        assert sock.fileno() == left.fileno()
        await sock.send(b"x")
        assert right.recv(10) == b"x"


async def test_from_stdlib_socket_takes_only_plain_sockets() -> None:
    with pytest.raises(TypeError, match=r"expected object of type 'socket.socket', not 'int'"):
        socket.from_stdlib_socket(1)  # type: ignore[arg-type]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    with context.wrap_socket(stdlib.socket()) as tls, pytest.raises(TypeError, match="SSLSocket"):
        socket.from_stdlib_socket(tls)


async def test_fromfd_duplicates_a_descriptor_into_a_socket() -> None:
    left, right = stdlib.socketpair()
    with left, right, socket.fromfd(left.fileno(), left.family, left.type) as sock:
        assert sock.fileno() != left.fileno()
        await sock.send(b"x")
        assert right.recv(10) == b"x"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what a descriptor is")
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_the_family_and_type_of_a_descriptor_are_detected(kind: int) -> None:
    family = socket.AF_INET6 if net.has_ipv6() else socket.AF_INET
    with stdlib.socket(family, kind) as plain:
        with socket.fromfd(plain.fileno()) as copy:
            assert (copy.family, copy.type) == (family, kind)
        taken = socket.socket(fileno=plain.fileno())
        assert (taken.family, taken.type) == (family, kind)
        assert taken.detach() == plain.fileno()


async def test_fromfd_refuses_a_descriptor_that_is_not_a_socket() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError, match="Socket operation on non-socket"):
            socket.fromfd(reader)
        with pytest.raises(OSError, match="Socket operation on non-socket"):
            socket.socket(fileno=reader)
    finally:
        os.close(reader)
        os.close(writer)


async def test_set_custom_socket_factory_makes_new_sockets_and_no_others() -> None:
    class Factory(nurseryio.abc.SocketFactory):
        def socket(self, *kind: Any) -> Any:
            return kind

    factory = Factory()
    assert socket.set_custom_socket_factory(factory) is None
    made: Any = socket.socket()
    assert made == (socket.AF_INET, socket.SOCK_STREAM, 0)
    made = socket.socket(1, 2, 3)
    assert made == (1, 2, 3)
    with stdlib.socket() as plain:
        wrapped = socket.socket(fileno=plain.fileno())
        assert isinstance(wrapped, socket.SocketType)
        wrapped.detach()
    left, right = socket.socketpair()
    with left, right:
        assert isinstance(left, socket.SocketType)
    assert socket.set_custom_socket_factory(None) is factory


def test_set_custom_socket_factory_belongs_to_one_loop() -> None:
    class Factory(nurseryio.abc.SocketFactory):
        def socket(self, *_kind: Any) -> Any:
            return "fake"

    async def use_one() -> None:
        assert socket.set_custom_socket_factory(Factory()) is None
        assert socket.socket() == "fake"  # type: ignore[comparison-overlap]

    nurseryio.run(use_one)
    nurseryio.run(use_one)


def test_nurseryio_socket_has_the_small_functions_and_not_those_that_block() -> None:
    assert socket.inet_aton("127.0.0.1") == b"\x7f\0\0\1"
    assert socket.ntohs(socket.htons(5)) == 5
    assert socket.gaierror is stdlib.gaierror
    for name in "create_connection gethostbyname getfqdn create_server has_dualstack_ipv6".split():
        assert not hasattr(socket, name)
