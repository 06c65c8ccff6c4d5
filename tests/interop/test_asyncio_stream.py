"""Connections that asyncio code has opened, as nurseryio streams, over real sockets and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
from harness.core import cut_short, settle

import nurseryio
from nurseryio._net import link
from nurseryio.aio import AsyncioStream, stream_from_asyncio
from nurseryio.testing import (
    check_half_closeable_stream,
    check_two_way_stream,
    wait_all_tasks_blocked,
)

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


async def clogged_streams() -> tuple[AsyncioStream, AsyncioStream]:
    """Two connected streams on which a send waits until the other one receives."""
    pair = await streams()
    for stream in pair:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(10_000_000))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    return pair


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
        for_us, for_them = stream_from_asyncio(await accepted), stream_from_asyncio(client)
        try:
            yield for_us, for_them
        finally:
            await nurseryio.aclose_forcefully(for_us)
            await nurseryio.aclose_forcefully(for_them)
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.limit(120)
async def test_stream_from_asyncio_passes_check_half_closeable_stream() -> None:
    await check_half_closeable_stream(streams, clogged_streams)


async def test_stream_from_asyncio_carries_bytes_both_ways() -> None:
    left, right = await streams()
    async with left, right:
        await left.send_all(b"ping")
        assert await right.receive_some() == b"ping"
        await right.send_all(bytearray(b"pong"))
        assert await left.receive_some(2) == b"po"
        assert await left.receive_some(10) == b"ng"


async def test_data_that_the_stream_reader_holds_already_is_received_first() -> None:
    (reader, writer), right = await socket_pairs()
    right[1].write(b"early")
    await reader.readexactly(2)
    async with stream_from_asyncio((reader, writer)) as left, stream_from_asyncio(right):
        assert await left.receive_some() == b"rly"


async def test_back_pressure_send_all_waits_until_the_kernel_has_taken_everything() -> None:
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
async def test_an_asyncio_stream_over_tls_sends_more_than_fits_and_closes() -> None:
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


async def test_an_asyncio_transport_becomes_a_stream_with_data_already_received() -> None:
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


async def test_a_peer_that_has_closed_is_a_broken_resource_error_with_its_cause() -> None:
    left, right = await streams()
    async with left:
        right.writer.transport.abort()
        with pytest.raises(nurseryio.BrokenResourceError) as caught:
            for _ in range(100):
                await left.send_all(b"x" * 100_000)
        assert isinstance(caught.value.__cause__, OSError)


async def test_aclose_in_a_cancelled_task_closes_at_once() -> None:
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
        with cut_short():
            await left.receive_some()
        await right.send_all(b"kept")
        with nurseryio.CancelScope() as scope:
            scope.cancel()
            await left.receive_some()
        assert await left.receive_some() == b"kept"


async def test_stream_from_asyncio_refuses_what_is_not_a_connection() -> None:
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


# -- closing --------------------------------------------------------------------


async def test_aclose_is_prompt_while_a_task_is_sending_and_after_a_cancelled_send() -> None:
    for sending in (True, False):
        left, right = await clogged_streams()
        async with nurseryio.open_nursery() as nursery:
            if sending:

                @nursery.start_soon
                async def _(stream: AsyncioStream = left) -> None:
                    with pytest.raises(nurseryio.ClosedResourceError):
                        await stream.send_all(b"x")

                await wait_all_tasks_blocked()
            descriptor = left.writer.get_extra_info("socket").fileno()
            with nurseryio.fail_after(20):
                await left.aclose()
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
        await nurseryio.aclose_forcefully(right)


@pytest.mark.parametrize("sending", [True, False])
async def test_aclose_is_prompt_over_tls(sending: bool) -> None:
    async with tls_streams() as (_, client), nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(nurseryio.ClosedResourceError if sending else nurseryio.Cancelled):
                await client.send_all(bytes(20_000_000))

        while not client._link.has_unsent():
            await nurseryio.sleep(0.001)
        if not sending:
            nursery.cancel_scope.cancel()
        with nurseryio.CancelScope(shield=True), nurseryio.fail_after(20):
            if not sending:
                await settle()
            await client.aclose()


async def test_a_silent_peer_does_not_delay_the_tls_close_notify(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "GOODBYE", 0.01)
    for_server, for_client = contexts()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def accept() -> ssl.SSLSocket:
            return for_server.wrap_socket(listener.accept()[0], server_side=True)

        server: list[ssl.SSLSocket] = []
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                server.append(await nurseryio.to_thread.run_sync(accept))

            port = listener.getsockname()[1]
            client = stream_from_asyncio(
                await asyncio.open_connection(
                    "127.0.0.1", port, ssl=for_client, server_hostname="localhost"
                )
            )
        with nurseryio.fail_after(20):
            await client.send_all(b"goodbye")
            await client.aclose()
        with server[0] as silent:
            assert silent.recv(100) == b"goodbye"
            assert silent.recv(100) == b""  # the end is an orderly one


async def test_a_garbage_collected_stream_from_asyncio_warns_and_is_closed() -> None:
    left, right = await streams()
    async with right:
        with pytest.warns(ResourceWarning, match="unclosed <HalfCloseableAsyncioStream"):
            del left
            gc.collect()
        assert await right.receive_some() == b""


async def test_wait_closed_of_the_converted_stream_writer_still_works() -> None:
    (reader, writer), right = await socket_pairs()
    async with stream_from_asyncio(right):
        async with stream_from_asyncio((reader, writer)):
            pass
        await writer.wait_closed()
        assert await reader.read() == b""


# -- the last words of a peer ---------------------------------------------------


@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_data_of_the_peer_is_received_before_the_error_of_sending(how: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        pair = await asyncio.open_connection(*listener.getsockname())
        peer, _ = listener.accept()
    peer.send(b"farewell: your request is too large")
    async with stream_from_asyncio(pair) as stream:
        assert await stream.receive_some(9) == b"farewell:"
        # It waits in the kernel while sending fails.
        peer.sendall(bytes(50_000))
        if how == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        with pytest.raises(nurseryio.BrokenResourceError):
            for _ in range(1000):
                await stream.send_all(b"x" * 1000)
        received = b""
        with pytest.raises(nurseryio.BrokenResourceError):
            while data := await stream.receive_some():
                received += data
            raise nurseryio.BrokenResourceError  # the end was read before the error
        assert received == b" your request is too large" + bytes(50_000)


# -- the end of TLS -------------------------------------------------------------


@asynccontextmanager
async def tls_peer() -> AsyncIterator[tuple[ssl.SSLSocket, Pair]]:
    """A blocking TLS peer, and asyncio's pair for the connection to it."""
    for_server, for_client = contexts()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def accept() -> ssl.SSLSocket:
            return for_server.wrap_socket(
                listener.accept()[0], server_side=True, suppress_ragged_eofs=False
            )

        peers: list[ssl.SSLSocket] = []
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                peers.append(await nurseryio.to_thread.run_sync(accept))

            port = listener.getsockname()[1]
            pair = await asyncio.open_connection(
                "127.0.0.1", port, ssl=for_client, server_hostname="localhost"
            )
    with peers[0]:
        yield peers[0], pair


def end(peer: ssl.SSLSocket, orderly: bool) -> None:
    """Close a blocking TLS socket, with or without close_notify."""
    if orderly:
        peer.setblocking(False)
        with contextlib.suppress(OSError):
            peer.unwrap()
    socket.socket(fileno=peer.detach()).close()


async def receive_all(stream: AsyncioStream, orderly: bool) -> bytes:
    received = b""
    try:
        while data := await stream.receive_some():
            received += data
    except nurseryio.BrokenResourceError as error:
        assert not orderly
        assert isinstance(error.__cause__, ssl.SSLEOFError)
        assert "data may be missing" in str(error)
        with pytest.raises(nurseryio.BrokenResourceError):
            await stream.receive_some()
    else:
        assert orderly
        assert await stream.receive_some() == b""
    return received


@pytest.mark.parametrize("orderly", [True, False])
@pytest.mark.parametrize("size", [8, 1_000_000])
async def test_tls_without_close_notify_is_not_an_orderly_end(orderly: bool, size: int) -> None:
    async with tls_peer() as (peer, pair), nurseryio.open_nursery() as nursery:
        stream = stream_from_asyncio(pair)

        def send_and_end() -> None:
            peer.sendall(bytes(size))
            end(peer, orderly)

        nursery.start_soon(nurseryio.to_thread.run_sync, send_and_end)
        assert len(await receive_all(stream, orderly)) == size
        with pytest.raises(nurseryio.BrokenResourceError):
            for _ in range(100):
                await stream.send_all(b"x" * 1000)
        await stream.aclose()


@pytest.mark.parametrize("orderly", [True, False])
async def test_a_tls_end_that_came_before_stream_from_asyncio_is_kept(orderly: bool) -> None:
    async with tls_peer() as (peer, pair):
        peer.send(b"PAY 1000")
        end(peer, orderly)
        while not getattr(pair[0], "_eof"):  # noqa: B009
            await nurseryio.sleep(0.001)
        async with stream_from_asyncio(pair) as stream:
            assert await receive_all(stream, orderly) == b"PAY 1000"


@pytest.mark.limit(120)
@pytest.mark.costly("many operations")
async def test_stream_from_asyncio_over_tls_passes_the_stream_checks() -> None:
    async def make() -> tuple[AsyncioStream, AsyncioStream]:
        loop = asyncio.get_running_loop()
        for_server, for_client = contexts()
        left, right = socket.socketpair()
        server = loop.create_task(
            loop.connect_accepted_socket(asyncio.Protocol, left, ssl=for_server)
        )
        client, _ = await loop.create_connection(
            asyncio.Protocol, sock=right, ssl=for_client, server_hostname="localhost"
        )
        return stream_from_asyncio((await server)[0]), stream_from_asyncio(client)

    await check_two_way_stream(make, None)


async def test_a_native_cancel_of_a_woken_asyncio_stream_receiver_takes_no_data() -> None:
    # Its request may not be raised before the task returns; then asyncio drops the result.
    left, right = await streams()
    async with left, right:
        for turns in range(6):
            receiver = asyncio.ensure_future(right.receive_some())
            await wait_all_tasks_blocked()
            await left.send_all(b"x")
            for _ in range(turns):
                await asyncio.sleep(0)
            receiver.cancel()
            await asyncio.wait([receiver])
            data = await right.receive_some() if receiver.cancelled() else receiver.result()
            assert data == b"x"
