"""Connecting to a listener that is here in the test."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nurseryio
from nurseryio.testing import open_stream_to_socket_listener


async def exchange(listener: nurseryio.SocketListener) -> None:
    """Connect, send a byte each way."""
    async with listener:
        client = await open_stream_to_socket_listener(listener)
        async with client:
            server = await listener.accept()
            async with server:
                await client.send_all(b"x")
                assert await server.receive_some(1) == b"x"
                await server.send_all(b"y")
                assert await client.receive_some(1) == b"y"


async def listening(family: int, address: object) -> nurseryio.SocketListener:
    sock = nurseryio.socket.socket(family=family)
    await sock.bind(address)
    sock.listen(10)
    return nurseryio.SocketListener(sock)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_open_stream_to_socket_listener_reaches_ipv4(host: str) -> None:
    await exchange(await listening(socket.AF_INET, (host, 0)))


@pytest.mark.parametrize("host", ["::1", "::"])
async def test_open_stream_to_socket_listener_reaches_ipv6(host: str) -> None:
    await exchange(await listening(socket.AF_INET6, (host, 0)))


async def test_open_stream_to_socket_listener_reaches_a_unix_socket() -> None:
    # Not pytest's directory: names of Unix sockets have to be short.
    with tempfile.TemporaryDirectory() as directory:
        await exchange(await listening(socket.AF_UNIX, str(Path(directory) / "sock")))


async def test_open_stream_to_socket_listener_reaches_listeners_opened_by_port() -> None:
    for listener in await nurseryio.open_tcp_listeners(0, host="127.0.0.1"):
        await exchange(listener)


async def test_a_connection_that_is_refused_leaves_no_socket_behind() -> None:
    # A socket that is bound and does not listen refuses.
    with nurseryio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        refusing: Any = SimpleNamespace(socket=sock)
        with pytest.raises(OSError):
            await open_stream_to_socket_listener(refusing)
