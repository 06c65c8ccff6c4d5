"""anyio byte streams as nurseryio streams and the reverse: over sockets, TLS and memory."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSStream
from harness import certs
from harness.core import settle

import nurseryio
from nurseryio.abc import HalfCloseableStream
from nurseryio.aio import (
    AnyioStream,
    HalfCloseableAnyioStream,
    anyio_from_stream,
    stream_from_anyio,
)
from nurseryio.testing import (
    check_half_closeable_stream,
    lockstep_stream_pair,
    memory_stream_pair,
)


async def anyio_pair() -> tuple[Any, Any]:
    """Two streams of anyio that are connected."""
    multi = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with multi:
        listener: Any = multi.listeners[0]
        port = listener.extra(SocketAttribute.local_port)
        client = await anyio.connect_tcp("127.0.0.1", port)
        return client, await listener.accept()


async def streams() -> tuple[AnyioStream, AnyioStream]:
    """The same as nurseryio streams."""
    left, right = await anyio_pair()
    return stream_from_anyio(left), stream_from_anyio(right)


async def there_and_back() -> tuple[AnyioStream, AnyioStream]:
    """nurseryio streams as anyio streams as nurseryio streams."""
    left, right = memory_stream_pair()
    return stream_from_anyio(anyio_from_stream(left)), stream_from_anyio(anyio_from_stream(right))


# -- stream_from_anyio ------------------------------------------------------------


@pytest.mark.limit(120)
@pytest.mark.parametrize("make", [streams, there_and_back])
async def test_stream_from_anyio_passes_check_half_closeable_stream(make: Any) -> None:
    await check_half_closeable_stream(make, None)


async def test_stream_from_anyio_carries_bytes_both_ways() -> None:
    left, right = await streams()
    async with left, right:
        await left.send_all(b"ping")
        assert await right.receive_some() == b"ping"
        await right.send_all(memoryview(b"pong"))
        assert await left.receive_some(2) == b"po"
        assert await left.receive_some(10) == b"ng"


async def test_the_end_of_an_anyio_stream_is_end_of_file_every_time() -> None:
    left, right = await streams()
    assert isinstance(left, HalfCloseableAnyioStream)
    async with left, right:
        await left.send_eof()
        await left.send_eof()
        assert await right.receive_some() == b""
        assert await right.receive_some() == b""
        await right.send_all(b"still open")
        assert await left.receive_some() == b"still open"


async def test_a_nurseryio_scope_cancels_an_anyio_stream_receive_without_loss() -> None:
    left, right = await streams()
    async with left, right:
        with nurseryio.CancelScope() as scope:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(left.receive_some)
                await settle()
                scope.cancel()
        assert scope.cancelled_caught
        await right.send_all(b"later")
        assert await left.receive_some() == b"later"


async def test_an_anyio_stream_with_tls_is_not_half_closeable() -> None:
    client, server = await anyio_pair()
    wrapped: list[TLSStream] = []

    async def wrap() -> None:
        wrapped.append(
            await TLSStream.wrap(server, server_side=True, ssl_context=certs.server_context())
        )

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wrap)
        left = stream_from_anyio(
            await TLSStream.wrap(client, hostname=certs.HOST, ssl_context=certs.client_context())
        )
    right = stream_from_anyio(wrapped[0])
    assert not isinstance(left, HalfCloseableStream)
    await left.send_all(b"secret")
    assert await right.receive_some() == b"secret"
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(left.aclose)
        assert await right.receive_some() == b""
        await right.aclose()


async def test_aclose_of_an_anyio_stream_in_a_cancelled_scope_closes_forcefully() -> None:
    left, right = await anyio_pair()
    ours = stream_from_anyio(left)
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await ours.aclose()
    assert scope.cancelled_caught
    with pytest.raises(nurseryio.ClosedResourceError):
        await ours.receive_some()
    with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await right.receive()
    await right.aclose()


class Failing(ByteStream):
    """Raises the error that it was given."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def receive(self, max_bytes: int = 65536) -> bytes:
        raise self.error

    async def send(self, item: bytes) -> None:
        raise self.error

    async def send_eof(self) -> None:
        raise self.error

    async def aclose(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (anyio.ClosedResourceError(), nurseryio.ClosedResourceError),
        (anyio.BrokenResourceError(), nurseryio.BrokenResourceError),
        (anyio.BusyResourceError("reading from"), nurseryio.BusyResourceError),
        (OSError("of the system"), OSError),
    ],
)
async def test_errors_of_an_anyio_stream_become_nurseryio_errors_with_the_first_as_cause(
    theirs: Any, ours: Any
) -> None:
    stream: Any = stream_from_anyio(Failing(theirs))
    for call in (
        lambda: stream.receive_some(),
        lambda: stream.send_all(b"x"),
        lambda: stream.send_eof(),
        lambda: stream.aclose(),
    ):
        with pytest.raises(ours) as caught:
            await call()
        assert caught.value is theirs or caught.value.__cause__ is theirs


async def test_stream_from_anyio_refuses_something_else_than_a_byte_stream() -> None:
    send, receive = anyio.create_memory_object_stream[bytes](1)
    with send, receive:
        with pytest.raises(TypeError, match=r"takes an anyio\.abc\.ByteStream, not .*Stapled"):
            stream_from_anyio(receive)  # type: ignore[arg-type]


async def test_repr_of_stream_from_anyio_shows_the_anyio_stream() -> None:
    stream = await there_and_back()
    assert repr(stream[0]).startswith("<HalfCloseableAnyioStream over <anyio.abc.ByteStream over ")


async def test_an_anyio_listener_serves_in_a_nursery() -> None:
    async def echo(client: Any) -> None:
        async with stream_from_anyio(client) as stream:
            async for data in stream:
                await stream.send_all(data)

    multi = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = multi.extra(SocketAttribute.local_port)
    async with multi, nurseryio.open_nursery() as nursery:
        nursery.start_soon(multi.serve, echo)
        async with await nurseryio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


# -- anyio_from_stream ------------------------------------------------------------


async def test_anyio_from_stream_anyio_code_reads_lines() -> None:
    ours, given = memory_stream_pair()
    theirs = BufferedByteReceiveStream(anyio_from_stream(given))
    await ours.send_all(b"one\ntwo\n")
    assert await theirs.receive_until(b"\n", 100) == b"one"
    assert await theirs.receive_until(b"\n", 100) == b"two"
    await ours.send_eof()
    with pytest.raises(anyio.IncompleteRead):
        await theirs.receive_until(b"\n", 100)
    await theirs.aclose()
    with pytest.raises(nurseryio.ClosedResourceError):
        await given.send_all(b"x")


async def test_an_anyio_scope_cancels_a_receive_from_a_nurseryio_stream() -> None:
    ours, given = lockstep_stream_pair()
    theirs = anyio_from_stream(given)
    with anyio.move_on_after(0.005) as scope:
        await theirs.receive()
    assert scope.cancelled_caught
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, b"later")
        assert await theirs.receive(3) == b"lat"
        assert await theirs.receive(3) == b"er"
    async with ours, theirs:
        pass


async def test_end_of_file_and_errors_of_a_nurseryio_stream_become_anyio_errors() -> None:
    ours, given = memory_stream_pair()
    theirs = anyio_from_stream(given)
    await theirs.send_eof()
    assert await ours.receive_some() == b""
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(theirs.receive)
        await settle()
        with pytest.raises(anyio.BusyResourceError) as busy:
            await theirs.receive()
        await ours.send_all(b"x")
    assert isinstance(busy.value.__cause__, nurseryio.BusyResourceError)
    await ours.aclose()
    with pytest.raises(anyio.EndOfStream):
        await theirs.receive()
    await theirs.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await theirs.receive()

    ours, given = memory_stream_pair()
    await ours.aclose()
    with pytest.raises(anyio.BrokenResourceError):
        await anyio_from_stream(given).send(b"x")
    await given.aclose()


async def test_anyio_from_stream_send_eof_of_a_stream_that_cannot_half_close_raises() -> None:
    ours, given = memory_stream_pair()
    whole: Any = nurseryio.SSLStream(given, certs.client_context(), server_hostname=certs.HOST)
    with pytest.raises(NotImplementedError, match="cannot end one direction"):
        await anyio_from_stream(whole).send_eof()
    assert dict(anyio_from_stream(whole).extra_attributes) == {}
    await ours.aclose()
    await given.aclose()


async def test_anyio_from_stream_of_a_socket_has_its_addresses_as_extra_attributes() -> None:
    async def nothing(stream: Any) -> None:
        await stream.receive_some()

    async with nurseryio.open_nursery() as nursery:
        listeners = await nursery.start(nurseryio.serve_tcp, nothing, 0)
        port = listeners[0].socket.getsockname()[1]
        stream = await nurseryio.open_tcp_stream("127.0.0.1", port)
        async with anyio_from_stream(stream) as theirs:
            assert theirs.extra(SocketAttribute.family) == socket.AF_INET
            assert theirs.extra(SocketAttribute.remote_address) == ("127.0.0.1", port)
            assert theirs.extra(SocketAttribute.remote_port) == port
            assert theirs.extra(SocketAttribute.local_address) == stream.socket.getsockname()
            assert theirs.extra(SocketAttribute.local_port) == stream.socket.getsockname()[1]
            assert theirs.extra(SocketAttribute.raw_socket, None) is None
        nursery.cancel_scope.cancel()


def test_anyio_from_stream_refuses_something_else_than_a_nurseryio_stream() -> None:
    with pytest.raises(TypeError, match=r"takes a nurseryio\.abc\.Stream, not 1"):
        anyio_from_stream(1)  # type: ignore[arg-type]


def test_nurseryio_aio_does_not_import_anyio_before_an_adapter_is_used() -> None:
    program = (
        "import sys, nurseryio.aio\n"
        "print('anyio' in sys.modules)\n"
        "nurseryio.aio.stream_from_anyio\n"
        "print('anyio' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["False", "True"]
