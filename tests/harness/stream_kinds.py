"""Connected pairs of every kind of stream and adapter, for programs that run on all of them.

This module has the kinds, with the facts in which they differ. The programs that run on a pair are
in ``stream_stress``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as stdlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import nurseryio
import nurseryio.aio
from harness import certs, net, tlspairs
from nurseryio import SocketStream, StapledStream
from nurseryio.lowlevel import FdStream
from nurseryio.testing import lockstep_stream_pair, memory_stream_pair

Pair = tuple[Any, Any]

# Bytes that the kernel keeps for a connection, where that can be chosen: sends have to wait early.
SMALL = 4096


@dataclass(frozen=True)
class Kind:
    """A kind of pair.

    Attributes:
        name: for people and test ids.
        open: an async context manager that gives the two ends, which it closes at the end.
        breaks: whether a cancelled send, or handshake, may break the stream.
        signed: whether the end of the data is signed: a stream that was cut off does not end.
        resets: whether the ends are TCP sockets of the system, which can be reset.
        endless: whether no send waits, so that a sender must not go on for ever.
        lockstep: whether each send waits for the receiver, that of a close_notify too.
    """

    name: str
    open: Callable[[], AbstractAsyncContextManager[Pair]]
    breaks: bool = False
    signed: bool = False
    resets: bool = False
    endless: bool = False
    lockstep: bool = False


def _shrink(stream: SocketStream) -> SocketStream:
    """Have the kernel keep little of what is sent."""
    stream.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, SMALL)
    return stream


@contextlib.asynccontextmanager
async def _tcp() -> AsyncIterator[Pair]:
    async with net.tcp_pair() as (left, right):
        yield _shrink(left), _shrink(right)


@contextlib.asynccontextmanager
async def _unix() -> AsyncIterator[Pair]:
    async with net.unix_pair() as (left, right):
        yield _shrink(left), _shrink(right)


@contextlib.asynccontextmanager
async def _wrapped() -> AsyncIterator[Pair]:
    """Sockets that other code has opened: registered with the loop for each wait."""
    left, right = map(nurseryio.socket.from_stdlib_socket, stdlib.socketpair())
    async with SocketStream(left) as one, SocketStream(right) as other:
        yield _shrink(one), _shrink(other)


@contextlib.asynccontextmanager
async def _descriptors() -> AsyncIterator[Pair]:
    left, right = stdlib.socketpair()
    async with FdStream(left.detach()) as one, FdStream(right.detach()) as other:
        yield one, other


@contextlib.asynccontextmanager
async def _pipes() -> AsyncIterator[Pair]:
    """Two pipes that go opposite ways, stapled."""
    there_out, there_in = map(FdStream, os.pipe())
    back_out, back_in = map(FdStream, os.pipe())
    async with StapledStream(there_in, back_out) as one, StapledStream(back_in, there_out) as other:
        yield one, other


def _plain(make: Callable[[], Pair]) -> Callable[[], AbstractAsyncContextManager[Pair]]:
    """A context manager around what makes a pair without waiting."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Pair]:
        one, other = make()
        try:
            yield one, other
        finally:
            await nurseryio.aclose_forcefully(one)
            await nurseryio.aclose_forcefully(other)

    return opened


_memory = _plain(memory_stream_pair)
_lockstep = _plain(lockstep_stream_pair)
TLS = {"breaks": True, "signed": True}


def _tls(
    below: Callable[[], AbstractAsyncContextManager[Pair]], **options: Any
) -> Callable[[], AbstractAsyncContextManager[Pair]]:
    """TLS over another kind. The handshake is left to the program."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Pair]:
        async with below() as pair:
            one, other = tlspairs.wrap(*pair, **options)
            try:
                yield one, other
            finally:
                await nurseryio.aclose_forcefully(one)
                await nurseryio.aclose_forcefully(other)

    return opened


# -- adapters -------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _aio_pair() -> AsyncIterator[Pair]:
    """asyncio's reader and writer against a socket."""
    left, right = stdlib.socketpair()
    right.setblocking(False)
    reader_writer = await asyncio.open_connection(sock=left)
    one = nurseryio.aio.stream_from_asyncio(reader_writer)
    other = SocketStream(nurseryio.socket.from_stdlib_socket(right))
    async with one, other:
        yield one, other


@contextlib.asynccontextmanager
async def _aio_transports() -> AsyncIterator[Pair]:
    """Two asyncio transports, of one TCP connection."""
    loop = asyncio.get_running_loop()
    with stdlib.create_server(("127.0.0.1", 0)) as listener:
        left = stdlib.create_connection(listener.getsockname())
        right, _address = listener.accept()
    ends = []
    for sock in (left, right):
        sock.setblocking(False)
        transport, _protocol = await loop.create_connection(asyncio.Protocol, sock=sock)
        ends.append(nurseryio.aio.stream_from_asyncio(transport))
    async with ends[0], ends[1]:
        yield ends[0], ends[1]


@contextlib.asynccontextmanager
async def _aio_tls() -> AsyncIterator[Pair]:
    """asyncio's TLS against nurseryio's."""
    left, right = stdlib.socketpair()
    right.setblocking(False)
    _, other = tlspairs.wrap(
        memory_stream_pair()[0],
        SocketStream(nurseryio.socket.from_stdlib_socket(right)),
    )
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(other.do_handshake)
        reader_writer = await asyncio.open_connection(
            sock=left, ssl=certs.client_context(), server_hostname=certs.HOST
        )
    one = nurseryio.aio.stream_from_asyncio(reader_writer)
    try:
        yield one, other
    finally:
        await nurseryio.aclose_forcefully(one)
        await nurseryio.aclose_forcefully(other)


def _lent(
    below: Callable[[], AbstractAsyncContextManager[Pair]],
) -> Callable[[], AbstractAsyncContextManager[Pair]]:
    """A nurseryio stream converted for asyncio, and converted back."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Pair]:
        async with below() as (left, right):
            async with nurseryio.aio.asyncio_from_stream(left) as reader_writer:
                async with nurseryio.aio.stream_from_asyncio(reader_writer) as one:
                    yield one, right

    return opened


KINDS = {
    kind.name: kind
    for kind in (
        Kind("tcp", _tcp, resets=True),
        Kind("unix", _unix),
        Kind("wrapped socket", _wrapped),
        Kind("descriptors", _descriptors),
        Kind("pipes", _pipes),
        Kind("memory", _memory, endless=True),
        Kind("lockstep", _lockstep, lockstep=True),
        Kind("tls over tcp", _tls(_tcp), **TLS),
        Kind("tls 1.2 over tcp", _tls(_tcp, version="1.2"), **TLS),
        Kind("https over tcp", _tls(_tcp, https_compatible=True), breaks=True),
        Kind("tls over memory", _tls(_memory), **TLS, endless=True),
        Kind("tls over lockstep", _tls(_lockstep), **TLS, lockstep=True),
        Kind("tls over pipes", _tls(_pipes), **TLS),
        Kind("tls in tls", _tls(_tls(_tcp)), **TLS),
        Kind("asyncio pair", _aio_pair),
        Kind("asyncio transports", _aio_transports),
        Kind("asyncio tls", _aio_tls, **TLS),
        Kind("lent", _lent(_tcp)),
        Kind("lent over memory", _lent(_memory), endless=True),
        Kind("lent tls", _lent(_tls(_tcp)), **TLS),
    )
}
