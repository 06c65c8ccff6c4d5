"""``asyncio_from_stream``: a nurseryio stream as asyncio's ``(StreamReader, StreamWriter)`` pair.

This module has a transport with two tasks, one for each direction, and the context manager around
them. The other direction is in ``asyncio_stream``.

Rule: the tasks are children of a nursery, which the context manager opens. When the block is left
the stream is closed and both tasks have ended.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NoReturn

from .._asyncio.compat import running_loop
from .._base import BrokenResourceError, ClosedResourceError, HalfCloseableStream, Stream
from .._nursery import CancelScope, open_nursery
from .._sync import Event

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["asyncio_from_stream"]

# Bytes that may wait unsent before ``pause_writing`` is called: asyncio's own default.
HIGH_WATER = 65536

# The most bytes that are passed to the stream at once.
PIECE = 4 * HIGH_WATER


class StreamTransport(asyncio.Transport):
    """A transport over a stream. As in asyncio, ``write`` only stores the data to send."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._protocol: Any = None
        self._unsent = bytearray()
        self._high, self._low = HIGH_WATER, HIGH_WATER // 4
        self._paused_writing = False
        self._ended = self._closing = self._lost = False
        # Set while the sending task has work to do; set while reading is not paused.
        self._work = Event()
        self._may_read = Event()
        self._may_read.set()
        # A cancel scope around each of the two tasks.
        self._sending, self._receiving = CancelScope(), CancelScope()

    def __repr__(self) -> str:
        return f"<transport over {self._stream!r}>"

    # -- called by the protocol's side ------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Set another protocol."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Information about the socket below the stream, if there is one."""
        if name == "nurseryio_stream":
            return self._stream
        socket = getattr(self._stream, "socket", None)
        try:
            if name == "peername" and socket is not None:
                return socket.getpeername()
            if name == "sockname" and socket is not None:
                return socket.getsockname()
        except OSError:
            return default
        return default

    def write(self, data: Any) -> None:
        """Store data to send."""
        if self._ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._lost or self._closing or not data:
            return
        self._unsent += data
        self._work.set()
        if len(self._unsent) > self._high and not self._paused_writing:
            self._paused_writing = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Whether the stream can end one direction alone."""
        return isinstance(self._stream, HalfCloseableStream)

    def write_eof(self) -> None:
        """End the sending direction once everything is sent."""
        if not self.can_write_eof():
            raise NotImplementedError(f"{self._stream!r} cannot end one direction alone")
        self._ended = True
        self._work.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the numbers of unsent bytes at which the protocol is to pause, and to resume."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    def get_write_buffer_size(self) -> int:
        """The number of bytes that are not sent yet, with those that are being sent."""
        return len(self._unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The limits, low and high."""
        return self._low, self._high

    def is_reading(self) -> bool:
        """Whether data is being received."""
        return self._may_read.is_set() and not self._closing

    def pause_reading(self) -> None:
        """Receive nothing until :meth:`resume_reading`."""
        if self._may_read.is_set():
            self._may_read = Event()

    def resume_reading(self) -> None:
        """Receive again."""
        self._may_read.set()

    def is_closing(self) -> bool:
        """Whether the connection is closed, or about to be."""
        return self._closing

    def close(self) -> None:
        """Close once everything is sent."""
        self._closing = True
        self._work.set()

    def abort(self) -> None:
        """Close now."""
        self._unsent.clear()
        self.close()
        self._sending.cancel()

    # -- the two tasks ----------------------------------------------------------

    async def receive(self) -> None:
        """Pass arriving data to the protocol, until the peer ends or the connection is lost."""
        try:
            with self._receiving:
                while True:
                    await self._may_read.wait()
                    data = await self._stream.receive_some()
                    if not data:
                        self._protocol.eof_received()
                        return
                    self._protocol.data_received(data)
        except (BrokenResourceError, ClosedResourceError) as exc:
            self._lose(exc)
            self.close()

    async def send(self) -> None:
        """Send the written data until the transport is closed; then close the stream."""
        try:
            with self._sending:
                while self._unsent or not self._closing:
                    await self._work.wait()
                    if self._unsent:
                        await self._send_some()
                        continue
                    self._work = Event()
                    if self._ended and not self._closing:
                        assert isinstance(self._stream, HalfCloseableStream)
                        await self._stream.send_eof()
        except (BrokenResourceError, ClosedResourceError) as exc:
            self._lose(exc)
        finally:
            self._closing = True
            try:
                await self._stream.aclose()
            finally:
                self._lose(None)
                self._receiving.cancel()

    async def _send_some(self) -> None:
        data = bytes(self._unsent[:PIECE])
        await self._stream.send_all(data)
        del self._unsent[: len(data)]
        if self._paused_writing and len(self._unsent) <= self._low:
            self._paused_writing = False
            self._protocol.resume_writing()

    def _lose(self, error: Exception | None) -> None:
        """Call the protocol's ``connection_lost``, once."""
        if self._lost:
            return
        self._lost = True
        reason: Exception | None = None
        if error is not None and not self._closing:
            cause = error.__cause__
            reason = cause if isinstance(cause, OSError) else ConnectionResetError(str(error))
        self._protocol.connection_lost(reason)


class Writer(asyncio.StreamWriter):
    """asyncio's writer, without ``start_tls``, which this kind of transport cannot do."""

    async def start_tls(self, *_args: object, **_options: object) -> NoReturn:  # type: ignore[override,unused-ignore]
        """Not possible, because asyncio's TLS only accepts transports that asyncio made."""
        raise NotImplementedError(
            "start_tls() does not work on a writer from asyncio_from_stream(): call "
            "asyncio_from_stream(nurseryio.SSLStream(stream, context, server_hostname=name)) "
            "once the other side is ready for TLS"
        )


def asyncio_from_stream(
    stream: Stream,
) -> AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Lend a nurseryio stream to code that needs asyncio's reader and writer.

    ::

        async with nurseryio.aio.asyncio_from_stream(stream) as (reader, writer):
            await asyncio_code(reader, writer)

    The stream belongs to the pair from then on. When the block is left, the written data is sent
    and the stream is closed. If the block is left with an error, the stream is closed at once.

    ``writer.start_tls()`` raises ``NotImplementedError``. For TLS, wrap the stream in an
    :class:`SSLStream` first. asyncio's ``loop.start_tls()`` refuses the transport.

    Args:
        stream: any stream: TCP, TLS, in memory.

    Returns:
        An async context manager that gives ``(StreamReader, StreamWriter)``.

    Raises:
        TypeError: ``stream`` is not a stream.
        ExceptionGroup: on leaving the block, with the errors raised in it, as from a nursery.

    Checkpoint: entering is not; leaving is.
    """
    if not isinstance(stream, Stream):
        raise TypeError(f"asyncio_from_stream() takes a stream of nurseryio's, not {stream!r}")
    return _Lent(stream)


class _Lent(AbstractAsyncContextManager["tuple[asyncio.StreamReader, asyncio.StreamWriter]"]):
    """The context manager: a nursery with the tasks that move the data.

    Not an ``@asynccontextmanager``, whose frames keep the exceptions that pass it.
    """

    def __init__(self, stream: Stream) -> None:
        self._transport = StreamTransport(stream)
        self._nursery = open_nursery()

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = running_loop()
        transport = self._transport
        reader = asyncio.StreamReader(limit=HIGH_WATER, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        writer = Writer(transport, protocol, reader, loop)
        nursery = await self._nursery.__aenter__()
        nursery.start_soon(transport.receive)
        nursery.start_soon(transport.send)
        return reader, writer

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if exc_value is None:
            self._transport.close()
        try:
            return await self._nursery.__aexit__(exc_type, exc_value, traceback)
        finally:
            del exc_value, traceback
