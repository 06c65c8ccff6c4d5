"""The interface of sockets."""

from __future__ import annotations

import inspect
import socket as stdlib

import pytest

from nurseryio import socket
from nurseryio._net.sockets import Socket

# Of the standard library's methods, those that make no sense here.
LEFT_OUT = {
    "gettimeout",
    "settimeout",
    "getblocking",
    "setblocking",
    "timeout",
    "makefile",
    "sendall",
    "sendfile",
    "connect_ex",
    "sendmsg_afalg",
}


def test_socket_type_cannot_be_instantiated_but_subclassed() -> None:
    with pytest.raises(TypeError, match=r"use nurseryio\.socket\.socket if"):
        socket.SocketType()

    class Fake(socket.SocketType):
        pass

    assert isinstance(Fake(), socket.SocketType)
    with pytest.raises(NotImplementedError):
        Fake().fileno()


def test_socket_type_has_the_methods_of_stdlib_sockets() -> None:
    there = {name for name in dir(stdlib.socket) if not name.startswith("_")}
    assert there - LEFT_OUT <= set(dir(socket.SocketType))


def test_socket_methods_that_may_block_are_async() -> None:
    for name in "accept connect recv recvfrom_into send sendto sendmsg bind wait_writable".split():
        assert inspect.iscoroutinefunction(getattr(Socket, name)), name


def test_real_sockets_implement_every_socket_type_method() -> None:
    for name, method in vars(socket.SocketType).items():
        if not name.startswith("_") or name in ("__enter__", "__exit__"):
            assert getattr(Socket, name) is not method, name
