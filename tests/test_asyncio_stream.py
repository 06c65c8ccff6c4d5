"""Connections that asyncio code has opened, as streams of ours, over real sockets and TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
from harness.core import settle

import nurseryio
from nurseryio.aio import AsyncioStream, stream_from_asyncio
from nurseryio.testing import check_half_closeable_stream

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("localhost")


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For the server, and for a client that trusts it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(server)
    client = ssl.create_default_context()
    AUTHORITY.configure_trust(client)
    return server, client


async def socket_pairs() -> tuple[Pair, Pair]:
    """Two connected pairs of reader and writer."""
    left, right = socket.socketpair()
    return await asyncio.open_connection(sock=left), await asyncio.open_connection(sock=right)


async def streams() -> tuple[AsyncioStream, AsyncioStream]:
    """Two connected streams."""
    left, right = await socket_pairs()
    return stream_from_asyncio(left), stream_from_asyncio(right)


@asynccontextmanager
async def tls_streams() -> AsyncIterator[tuple[AsyncioStream, AsyncioStream]]:
    """Two streams with TLS between them, the server's first."""
    for_server, for_client = contexts()
    accepted: asyncio.Future[Pair] = asyncio.get_running_loop().create_future()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=for_server)
    try:
        port = server.sockets[0].getsockname()[1]
        client = await asyncio.open_connection(
            "127.0.0.1", port, ssl=for_client, server_hostname="localhost"
        )
        yield stream_from_asyncio(await accepted), stream_from_asyncio(client)
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.limit(120)
async def test_it_keeps_every_promise_of_a_half_closeable_stream() -> None:
    await check_half_closeable_stream(streams, None)


async def test_bytes_go_both_ways() -> None:
    left, right = await streams()
    async with left, right:
        await left.send_all(b"ping")
        assert await right.receive_some() == b"ping"
        await right.send_all(bytearray(b"pong"))
        assert await left.receive_some(2) == b"po"
        assert await left.receive_some(10) == b"ng"


async def test_what_the_reader_holds_already_is_received_first() -> None:
    (reader, writer), right = await socket_pairs()
    right[1].write(b"early")
    await reader.readexactly(2)
    async with stream_from_asyncio((reader, writer)) as left, stream_from_asyncio(right):
        assert await left.receive_some() == b"rly"


async def test_sending_waits_until_the_kernel_has_taken_it_all() -> None:
    left, right = await streams()
    sent = []

    async def send() -> None:
        await left.send_all(b"x" * 10_000_000)
        assert left.writer.transport.get_write_buffer_size() == 0
        sent.append(True)

    async with left, right, nurseryio.open_nursery() as nursery:
        nursery.start_soon(send)
        await settle()
        assert not sent
        received = 0
        while received < 10_000_000:
            received += len(await right.receive_some())
    assert sent


@pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="asyncio's TLS of 3.10 fails to read what is buffered once the peer has closed",
)
async def test_a_stream_over_tls_sends_more_than_fits_and_closes() -> None:
    async with tls_streams() as (server, client):
        assert not isinstance(client, nurseryio.abc.HalfCloseableStream)

        async def send() -> None:
            async with client:
                for _ in range(3):
                    await client.send_all(b"x" * 1_000_000)

        received = 0
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(send)
            async with server:
                while data := await server.receive_some():
                    received += len(data)
        assert received == 3_000_000


async def test_a_transport_becomes_a_stream_with_what_its_protocol_had_received() -> None:
    left, right = socket.socketpair()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=left)
    peer = stream_from_asyncio(await asyncio.open_connection(sock=right))
    async with peer, stream_from_asyncio(transport, received=b"before ") as stream:
        await peer.send_all(b"after")
        received = b""
        while len(received) < 12:
            received += await stream.receive_some()
        assert received == b"before after"
        await stream.send_all(b"answer")
        assert await peer.receive_some() == b"answer"


async def test_a_peer_that_is_gone_is_a_broken_resource_with_its_cause() -> None:
    left, right = await streams()
    async with left:
        right.writer.transport.abort()
        with pytest.raises(nurseryio.BrokenResourceError) as caught:
            for _ in range(100):
                await left.send_all(b"x" * 100_000)
        assert isinstance(caught.value.__cause__, OSError)


async def test_closing_in_a_cancelled_task_closes_at_once() -> None:
    left, right = await streams()
    descriptor = left.writer.get_extra_info("socket").fileno()
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await left.aclose()
    assert scope.cancelled_caught
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    await right.aclose()


async def test_a_cancelled_receive_loses_nothing() -> None:
    left, right = await streams()
    async with left, right:
        with nurseryio.move_on_after(0.001):
            await left.receive_some()
        await right.send_all(b"kept")
        with nurseryio.CancelScope() as scope:
            scope.cancel()
            await left.receive_some()
        assert await left.receive_some() == b"kept"


async def test_what_is_no_connection_is_refused() -> None:
    wrong: Any = stream_from_asyncio
    with pytest.raises(TypeError, match="takes"):
        wrong(7)
    with pytest.raises(TypeError, match="takes"):
        wrong((1, 2))
    left, right = await socket_pairs()
    with pytest.raises(ValueError, match="'received' is for transports"):
        stream_from_asyncio(left, received=b"x")
    for _, writer in (left, right):
        writer.close()
        await writer.wait_closed()
    with pytest.raises(nurseryio.ClosedResourceError):
        stream_from_asyncio(left)
    with pytest.raises(nurseryio.ClosedResourceError):
        stream_from_asyncio(left[1].transport)  # type: ignore[arg-type,unused-ignore]
