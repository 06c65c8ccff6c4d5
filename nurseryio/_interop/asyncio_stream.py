"""Connections that asyncio code has opened, as streams of ours.

What lives here: streams over a ``(StreamReader, StreamWriter)`` pair or a transport. What does
not: the other direction (:mod:`stream_transport`).

Rule 1: nothing is buffered beyond what asyncio reads ahead. The transport is told to ask for a
pause as soon as anything is left unsent, so that sending returns when the kernel has taken it all.

Rule 2: whoever hands over a connection does not use it any more.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from .._core import (
    BrokenResourceError,
    Cancelled,
    CancelScope,
    ClosedResourceError,
    ConflictDetector,
    HalfCloseableStream,
    Stream,
    checkpoint,
)
from .._core.host import running_loop
from .._net.stream import RECEIVE_SIZE, bytes_view, check_max_bytes

if TYPE_CHECKING:
    from typing import Any

__all__ = ["AsyncioStream", "HalfCloseableAsyncioStream", "stream_from_asyncio"]


class AsyncioStream(Stream):
    """A stream over a reader and a writer of asyncio; made by :func:`stream_from_asyncio`.

    Attributes:
        reader: the ``asyncio.StreamReader``.
        writer: the ``asyncio.StreamWriter``.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._closed = False
        self._ended = False
        self._sending = ConflictDetector("another task is already sending on this stream")
        self._receiving = ConflictDetector("another task is already receiving on this stream")
        transport = writer.transport
        # TLS counts what waits inclusively, and would never resume below a limit of 0.
        encrypted = transport.get_extra_info("ssl_object") is not None
        transport.set_write_buffer_limits(high=int(encrypted), low=0)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.writer.transport!r}>"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait until something has arrived, and return it.

        Args:
            max_bytes: the most bytes to return, at least 1. None stands for a good size.

        Returns:
            At least one byte, or ``b""`` if the peer has ended its sending direction.

        Raises:
            BusyResourceError: another task is receiving on this stream.
            BrokenResourceError: the connection is broken; the cause is the ``OSError``.
            ClosedResourceError: the stream is closed, or was closed meanwhile.
            Cancelled: if the task is cancelled; nothing that has arrived is lost.

        Checkpoint: yes.
        """
        size = RECEIVE_SIZE if max_bytes is None else check_max_bytes(max_bytes)
        with self._receiving:
            self._check_open()
            await checkpoint()
            try:
                data = await self.reader.read(size)
            except OSError as exc:
                self._raise_for(exc)
            if not data:
                self._check_open()
            return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``, and wait until the kernel has taken all of it.

        Args:
            data: the bytes to send; empty data is allowed and sends nothing.

        Raises:
            TypeError: it is not bytes or a buffer of them.
            BusyResourceError: another task is sending on this stream.
            BrokenResourceError: the connection is broken; the cause is the ``OSError``.
            ClosedResourceError: the stream is closed, or was closed meanwhile, or its sending
                direction was ended before.
            Cancelled: if the task is cancelled. What was not sent yet may still be.

        Checkpoint: yes.
        """
        with self._sending, bytes_view(data) as view:
            self._check_sendable()
            await checkpoint()
            try:
                await self.writer.drain()  # what a cancelled send has left
                self._check_sendable()
                if view:
                    self.writer.write(bytes(view))
                    await self.writer.drain()
            except OSError as exc:
                self._raise_for(exc)
            self._check_open()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until everything sent so far has been taken by the kernel.

        Raises:
            BusyResourceError: another task is sending on this stream.
            BrokenResourceError: the connection is broken; the cause is the ``OSError``.
            ClosedResourceError: the stream is closed, or was closed meanwhile.
            Cancelled: if the task is cancelled.

        Checkpoint: yes.
        """
        with self._sending:
            self._check_open()
            await checkpoint()
            try:
                await self.writer.drain()
            except OSError as exc:
                self._raise_for(exc)
            self._check_open()

    async def aclose(self) -> None:
        """Close the connection; tasks that are using it get :class:`ClosedResourceError`.

        Raises:
            Cancelled: if the task is cancelled; the connection is closed all the same, at once.

        Checkpoint: yes.
        """
        if not self._closed:
            self._closed = True
            try:
                await checkpoint()
                self.writer.close()
                with suppress(OSError):
                    await self.writer.wait_closed()
            except Cancelled:
                self.writer.transport.abort()
                with CancelScope(shield=True), suppress(OSError):
                    await self.writer.wait_closed()
                raise
        else:
            await checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedResourceError("this stream is closed")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._ended:
            raise ClosedResourceError("can't send data after sending EOF")

    def _raise_for(self, error: OSError) -> NoReturn:
        self._check_open()
        raise BrokenResourceError(f"connection broken: {error}") from error


class HalfCloseableAsyncioStream(AsyncioStream, HalfCloseableStream):
    """An :class:`AsyncioStream` over a transport that can end one direction alone."""

    async def send_eof(self) -> None:
        """End the sending direction; receiving goes on. A second time does nothing.

        Raises:
            BusyResourceError: another task is sending on this stream.
            BrokenResourceError: the connection is broken; the cause is the ``OSError``.
            ClosedResourceError: the stream is closed.
            Cancelled: if the task is cancelled; then nothing has happened.

        Checkpoint: yes.
        """
        with self._sending:
            self._check_open()
            await checkpoint()
            if not self._ended:
                try:
                    await self.writer.drain()
                    self.writer.write_eof()
                except OSError as exc:
                    self._raise_for(exc)
                self._ended = True


def stream_from_asyncio(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | asyncio.Transport,
    *,
    received: bytes = b"",
) -> AsyncioStream:
    """Use a connection that asyncio code has opened as a stream of ours.

    Args:
        connection: a ``(StreamReader, StreamWriter)`` pair, or a transport; it is handed over,
            and closed with the stream. A transport gets a new protocol.
        received: for a transport: bytes that its old protocol has received and nobody has used.

    Returns:
        A stream; a ``HalfCloseableStream`` if the transport can end one direction alone (TLS
        cannot).

    Raises:
        TypeError: it is neither; the message says what it is.
        ValueError: ``received`` beside a reader, which holds those bytes itself.
        ClosedResourceError: the connection is closed, or being closed.
        RuntimeError: for a transport, where no loop is running.

    Checkpoint: no, this is not an async function.
    """
    # uvloop's transports do not derive from asyncio's.
    if not isinstance(connection, tuple) and hasattr(connection, "set_protocol"):
        reader, writer = _open_pair(connection, received)
    else:
        reader, writer = _check_pair(connection)
        if received:
            raise ValueError("'received' is for transports; a StreamReader holds its bytes itself")
    if writer.is_closing():
        raise ClosedResourceError("this connection is closed already")
    kind = HalfCloseableAsyncioStream if writer.can_write_eof() else AsyncioStream
    return kind(reader, writer)


def _check_pair(pair: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(pair, tuple) and len(pair) == 2:
        reader, writer = pair
        if isinstance(reader, asyncio.StreamReader) and isinstance(writer, asyncio.StreamWriter):
            return reader, writer
    raise TypeError(
        f"stream_from_asyncio() takes (StreamReader, StreamWriter) or a transport, not {pair!r}"
    )


def _open_pair(
    transport: asyncio.Transport, received: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = running_loop()
    if transport.is_closing():
        raise ClosedResourceError("this connection is closed already")
    reader = asyncio.StreamReader(limit=RECEIVE_SIZE, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    reader.feed_data(received)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
