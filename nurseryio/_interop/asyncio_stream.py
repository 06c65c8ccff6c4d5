"""``stream_from_asyncio``: connections that asyncio code has opened, as nurseryio streams.

This module has streams over a ``(StreamReader, StreamWriter)`` pair or a transport. The other
direction is in ``stream_transport``. The protocol of the transport is in ``_net.link``.

Rule: the transport gets a new protocol, so that no other layer is between the transport and the
stream. The old protocol's ``connection_lost`` is called when the connection is lost.
"""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import TYPE_CHECKING, NoReturn

from .._asyncio.compat import running_loop
from .._base import (
    BrokenResourceError,
    Cancelled,
    ClosedResourceError,
    ConflictDetector,
    HalfCloseableStream,
    Stream,
)
from .._base.util import bytes_view
from .._net.link import Link
from .._net.stream import RECEIVE_SIZE, check_max_bytes
from .._nursery import CancelScope

if TYPE_CHECKING:
    from typing import Any

__all__ = ["AsyncioStream", "HalfCloseableAsyncioStream", "stream_from_asyncio"]


class AsyncioStream(Stream):
    """A stream over an asyncio transport; made by :func:`stream_from_asyncio`.

    Attributes:
        reader: the ``asyncio.StreamReader``. It gets no more data.
        writer: the ``asyncio.StreamWriter``, for its ``get_extra_info()`` and ``wait_closed()``.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._link = link
        self._eof_sent = False
        self._sending = ConflictDetector("another task is already sending on this stream")
        self._receiving = ConflictDetector("another task is already receiving on this stream")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.writer.transport!r}>"

    def __del__(self) -> None:
        link = getattr(self, "_link", None)
        if link is not None and not link.closed and not link.lost.is_set():
            link.forget()
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait until data has arrived, and return it.

        Args:
            max_bytes: the most bytes to return, at least 1. None lets the stream choose.

        Returns:
            At least one byte, or ``b""`` if the peer has ended its sending direction.

        Raises:
            BusyResourceError: another task is receiving on this stream.
            BrokenResourceError: the connection is broken, and all data that arrived has been
                received; the cause is the ``OSError``. Over TLS also if the peer has not ended TLS
                in an orderly way: then data may be missing.
            ClosedResourceError: the stream is closed, or was closed meanwhile.
            Cancelled: if the task is cancelled; data that has arrived is not lost.

        Checkpoint: yes.
        """
        size = RECEIVE_SIZE if max_bytes is None else check_max_bytes(max_bytes)
        with self._receiving:
            try:
                return await self._link.receive(size)
            except OSError as exc:
                _raise_for(exc)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``, and wait until the transport does not hold any of it.

        Then the kernel has taken the data. With TLS up to 128 KiB may still be on the way there.

        Args:
            data: the bytes to send; empty data is allowed and sends nothing.

        Raises:
            TypeError: ``data`` is not bytes or a buffer of bytes.
            BusyResourceError: another task is sending on this stream.
            BrokenResourceError: the connection is broken; the cause is the ``OSError``.
            ClosedResourceError: the stream is closed, or was closed meanwhile, or its sending
                direction was ended before.
            Cancelled: if the task is cancelled. Up to 64 KiB of the data that was not sent may be
                sent later, if the stream is not closed.

        Checkpoint: yes.
        """
        with self._sending, bytes_view(data) as view:
            if self._eof_sent:
                self._link.check_open()
                raise ClosedResourceError("can't send data after sending EOF")
            try:
                await self._link.send(view)
            except OSError as exc:
                _raise_for(exc)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport does not hold unsent data. The kernel may still be full.

        Raises:
            BusyResourceError: another task is sending on this stream.
            BrokenResourceError: the connection is broken; the cause is the ``OSError``.
            ClosedResourceError: the stream is closed, or was closed meanwhile.
            Cancelled: if the task is cancelled.

        Checkpoint: yes.
        """
        with self._sending:
            try:
                await self._link.flush()
            except OSError as exc:
                _raise_for(exc)

    async def aclose(self) -> None:
        """Close the connection: when this returns or raises, its descriptor is closed.

        Tasks that are using the stream get :class:`ClosedResourceError`. If a task is sending, or a
        cancelled send left unsent data, that data is discarded. Otherwise TLS is closed in an
        orderly way first. That takes at most one second if the peer does not answer.

        Raises:
            Cancelled: if the task is cancelled; the connection is closed all the same, at once.

        Checkpoint: yes.
        """
        self._link.close()
        try:
            await self._link.lost.wait()
        except Cancelled:
            self._link.abort()
            with CancelScope(shield=True):
                await self._link.lost.wait()
            raise


class HalfCloseableAsyncioStream(AsyncioStream, HalfCloseableStream):
    """An :class:`AsyncioStream` over a transport that can end one direction alone."""

    async def send_eof(self) -> None:
        """End the sending direction; receiving is still possible. A second call does nothing.

        Raises:
            BusyResourceError: another task is sending on this stream.
            BrokenResourceError: the connection is broken; the cause is the ``OSError``.
            ClosedResourceError: the stream is closed.
            Cancelled: if the task is cancelled; then the direction has not been ended.

        Checkpoint: yes.
        """
        with self._sending:
            try:
                await self._link.flush()
                if not self._eof_sent:
                    self.writer.write_eof()
                    self._eof_sent = True
            except OSError as exc:
                _raise_for(exc)


def _raise_for(error: OSError) -> NoReturn:
    raise BrokenResourceError(f"connection broken: {error}") from error


def stream_from_asyncio(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | asyncio.Transport,
    *,
    received: bytes = b"",
) -> AsyncioStream:
    """Use a connection that asyncio code has opened as a nurseryio stream.

    Args:
        connection: a ``(StreamReader, StreamWriter)`` pair, or a transport. It belongs to the
            stream from then on, and is closed with the stream. The transport gets a new protocol,
            so the reader and the writer do not work any more, except ``writer.wait_closed()``.
        received: for a transport: bytes that its old protocol has received and not used yet.

    Returns:
        A stream; a ``HalfCloseableStream`` if the transport can end one direction alone (TLS
        cannot).

    Raises:
        TypeError: ``connection`` is neither; the message shows the object.
        ValueError: ``received`` was given with a reader, which has those bytes itself.
        ClosedResourceError: the connection is closed, or being closed.
        RuntimeError: no loop is running, or another task waits for the reader.

    Checkpoint: no, this is not an async function.
    """
    # uvloop's transports do not derive from asyncio's.
    if not isinstance(connection, tuple) and hasattr(connection, "set_protocol"):
        reader, writer = _pair_over(connection)
    else:
        reader, writer = _check_pair(connection)
        if received:
            raise ValueError("'received' is for transports; a StreamReader holds its bytes itself")
    transport: Any = writer.transport
    error = reader.exception()
    received = received or _take_received(reader)
    if transport.is_closing() and not received:
        raise ClosedResourceError("this connection is closed already")
    # keep=writer: a writer that is garbage collected closes its transport.
    link = Link(running_loop(), previous=transport.get_protocol(), keep=writer)
    link.take_over(transport, received, reader.at_eof(), error)
    kind = HalfCloseableAsyncioStream if transport.can_write_eof() else AsyncioStream
    return kind(reader, writer, link)


def _pair_over(
    transport: asyncio.Transport,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Make a reader and a writer for a transport that does not have them."""
    loop = running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    if not transport.is_closing():
        transport.set_protocol(protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def _check_pair(pair: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(pair, tuple) and len(pair) == 2:
        reader, writer = pair
        if isinstance(reader, asyncio.StreamReader) and isinstance(writer, asyncio.StreamWriter):
            return reader, writer
    raise TypeError(
        f"stream_from_asyncio() takes (StreamReader, StreamWriter) or a transport, not {pair!r}"
    )


def _take_received(reader: asyncio.StreamReader) -> bytes:
    """Take the data that a reader holds, without waiting for more.

    Raises:
        RuntimeError: Another task waits for the reader.
    """
    if reader.exception() is not None:
        reader.set_exception(None)  # type: ignore[arg-type]  # read() would raise it
    reading = reader.read(sys.maxsize)
    try:
        reading.send(None)
    except StopIteration as done:
        data: bytes = done.value
        return data
    finally:
        reading.close()
    return b""  # read() would wait
