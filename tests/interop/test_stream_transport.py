"""asyncio_from_stream: nurseryio streams for code that wants asyncio's reader and writer."""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

import pytest
from harness.core import cut_short, leaves, settle

import nurseryio
from nurseryio.aio import asyncio_from_stream
from nurseryio.testing import lockstep_stream_pair, memory_stream_pair

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


async def serve_lines(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A handler written for asyncio."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def test_asyncio_from_stream_asyncio_code_reads_and_writes_a_nurseryio_stream() -> None:
    ours, theirs = memory_stream_pair()

    async def serve() -> None:
        async with asyncio_from_stream(theirs) as (reader, writer):
            await serve_lines(reader, writer)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await ours.send_all(b"one\ntw")
        assert await ours.receive_some() == b"ONE\n"
        await ours.send_all(b"o\n")
        assert await ours.receive_some() == b"TWO\n"
        await ours.send_eof()
        assert await ours.receive_some() == b""


async def test_get_extra_info_of_the_writer_has_sockname_and_peername() -> None:
    (listener,) = await nurseryio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        client = await nurseryio.open_tcp_stream("127.0.0.1", port)
        async with await listener.accept() as server:
            async with asyncio_from_stream(client) as (reader, writer):
                assert writer.get_extra_info("peername") == ("127.0.0.1", port)
                assert writer.get_extra_info("sockname") == client.socket.getsockname()
                assert writer.get_extra_info("nurseryio_stream") is client
                assert writer.get_extra_info("unknown", 7) == 7
                writer.write(b"x" * 3_000_000)
                received = 0
                while received < 3_000_000:
                    received += len(await server.receive_some())
                await writer.drain()
                await server.send_all(b"answer")
                assert await reader.readexactly(6) == b"answer"
            assert await server.receive_some() == b""


async def test_data_written_is_sent_before_the_stream_is_closed() -> None:
    ours, theirs = memory_stream_pair()
    async with asyncio_from_stream(theirs) as (_, writer):
        writer.write(b"last words")
    assert await ours.receive_some() == b"last words"
    assert await ours.receive_some() == b""


async def test_back_pressure_a_writer_that_is_ahead_of_its_peer_waits_in_drain() -> None:
    ours, theirs = lockstep_stream_pair()
    async with asyncio_from_stream(theirs) as (_, writer):
        transport = writer.transport
        writer.write(b"x" * 200_000)
        await settle()  # all of it is being sent
        writer.write(b"y" * 200_000)
        assert transport.get_write_buffer_size() == 400_000
        with cut_short() as scope:
            await writer.drain()
        assert scope.cancelled_caught
        received = 0
        while received < 400_000:
            received += len(await ours.receive_some())
        await writer.drain()
        assert transport.get_write_buffer_size() == 0


async def test_get_write_buffer_size_counts_data_that_is_being_sent() -> None:
    ours, theirs = lockstep_stream_pair()
    async with asyncio_from_stream(theirs) as (_, writer):
        transport = writer.transport
        writer.write(b"x" * 10)
        await settle()
        assert transport.get_write_buffer_size() == 10
        assert await ours.receive_some(4) == b"xxxx"
        assert await ours.receive_some() == b"xxxxxx"
        await settle()
        assert transport.get_write_buffer_size() == 0
        writer.write(b"never received")
        await settle()
        transport.abort()
        assert transport.get_write_buffer_size() == 0


async def test_start_tls_is_an_error_that_says_what_to_do_instead() -> None:
    _, theirs = memory_stream_pair()
    async with asyncio_from_stream(theirs) as (_, writer):
        start_tls: Any = writer.start_tls  # type: ignore[attr-defined,unused-ignore]
        with pytest.raises(NotImplementedError, match=r"nurseryio\.SSLStream\(stream"):
            await start_tls(ssl.create_default_context())
        loop = asyncio.get_running_loop()
        with pytest.raises(TypeError, match=r"transport over .* is not supported by start_tls"):
            await loop.start_tls(
                writer.transport,
                writer.transport.get_protocol(),
                ssl.create_default_context(),
                server_hostname="localhost",
            )


async def test_half_close_write_eof_ends_the_sending_direction_alone() -> None:
    ours, theirs = memory_stream_pair()
    async with asyncio_from_stream(theirs) as (reader, writer):
        writer.write(b"request")
        assert writer.can_write_eof()
        writer.write_eof()
        assert await ours.receive_some() == b"request"
        assert await ours.receive_some() == b""
        await ours.send_all(b"response")
        await ours.send_eof()
        assert await reader.read() == b"response"


async def test_a_block_that_fails_closes_the_stream_at_once() -> None:
    ours, theirs = lockstep_stream_pair()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio_from_stream(theirs) as (_, writer):
            writer.write(b"never received")
            await settle()
            raise ValueError("in the block")
    assert [str(e) for e in leaves(caught.value) if isinstance(e, ValueError)] == ["in the block"]
    with pytest.raises(nurseryio.ClosedResourceError):
        await theirs.receive_some()
    await ours.aclose()


async def test_cancelling_the_block_closes_the_stream() -> None:
    ours, theirs = memory_stream_pair()
    with nurseryio.move_on_after(0.001) as scope:
        async with asyncio_from_stream(theirs) as (reader, _):
            await reader.read()
    assert scope.cancelled_caught
    assert await ours.receive_some() == b""


async def test_abort_of_the_transport_discards_unsent_data() -> None:
    ours, theirs = lockstep_stream_pair()
    async with asyncio_from_stream(theirs) as (reader, writer):
        writer.write(b"never received")
        await settle()
        writer.transport.abort()
        assert writer.is_closing()
        assert await reader.read() == b""
        await writer.wait_closed()
    await ours.aclose()


async def test_a_broken_connection_is_a_connection_error_for_the_reader() -> None:
    (listener,) = await nurseryio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await nurseryio.open_tcp_stream(*listener.socket.getsockname())
        server = await listener.accept()
        server.setsockopt(
            nurseryio.socket.SOL_SOCKET, nurseryio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        async with asyncio_from_stream(client) as (reader, writer):
            await server.aclose()
            with pytest.raises(ConnectionError):
                await reader.read()
            assert writer.is_closing()


async def test_asyncio_from_stream_refuses_something_that_is_not_a_stream() -> None:
    wrong: Any = asyncio_from_stream
    with pytest.raises(TypeError, match="takes a stream of nurseryio's, not 7"):
        async with wrong(7):
            raise AssertionError("not reached")


async def test_set_write_buffer_limits_refuses_wrong_limits() -> None:
    _, theirs = memory_stream_pair()
    async with asyncio_from_stream(theirs) as (_, writer):
        transport: Any = writer.transport
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.set_write_buffer_limits(low=10)
        assert transport.get_write_buffer_limits() == (10, 40)
        assert transport.is_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        transport.resume_reading()
        assert transport.is_reading()
