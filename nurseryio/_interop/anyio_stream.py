"""anyio's byte streams as nurseryio streams, and nurseryio streams as anyio's.

This module has both directions. Shields and cancellation do not need an adapter, see
``anyio_bridge``. The module imports anyio, so it is loaded at first use.

Rule 1: each library's code sees its own library's errors. anyio's ``EndOfStream`` becomes ``b""``
in nurseryio. ``BrokenResourceError``, ``BusyResourceError`` and ``ClosedResourceError`` exist in
both libraries. Each becomes the other library's error, with the original one as its cause.

Rule 2: nothing is buffered here. Code that hands over a stream must not use it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from .._base import (
    BrokenResourceError,
    BusyResourceError,
    Cancelled,
    ClosedResourceError,
    ConflictDetector,
    HalfCloseableStream,
    Stream,
)
from .._core import checkpoint
from .._net.stream import RECEIVE_SIZE, SocketStream, bytes_view, check_max_bytes
from .._nursery import CancelScope

__all__ = [
    "AnyioStream",
    "HalfCloseableAnyioStream",
    "anyio_from_stream",
    "stream_from_anyio",
]


@contextmanager
def _our_errors() -> Iterator[None]:
    """Turn anyio's errors in the block into nurseryio's."""
    try:
        yield
    except anyio.ClosedResourceError as exc:
        raise ClosedResourceError("this stream is closed") from exc
    except anyio.BrokenResourceError as exc:
        raise BrokenResourceError(f"connection broken: {exc.__cause__ or exc!r}") from exc
    except anyio.BusyResourceError as exc:
        raise BusyResourceError(str(exc)) from exc


@contextmanager
def _their_errors() -> Iterator[None]:
    """Turn nurseryio's errors in the block into anyio's."""
    try:
        yield
    except ClosedResourceError as exc:
        raise anyio.ClosedResourceError from exc
    except BrokenResourceError as exc:
        raise anyio.BrokenResourceError from exc
    except BusyResourceError as exc:
        raise anyio.BusyResourceError("using") from exc


# -- anyio's streams as nurseryio's ---------------------------------------------


class AnyioStream(Stream):
    """A stream over an anyio stream; made by :func:`stream_from_anyio`.

    Attributes:
        anyio_stream: the ``anyio.abc.ByteStream``.
    """

    def __init__(self, anyio_stream: ByteStream) -> None:
        self.anyio_stream = anyio_stream
        self._closed = False
        self._ended = False
        self._sending = ConflictDetector("another task is already sending on this stream")
        self._receiving = ConflictDetector("another task is already receiving on this stream")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.anyio_stream!r}>"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait until data has arrived, and return it.

        Args:
            max_bytes: the most bytes to return, at least 1. None lets the stream choose.

        Returns:
            At least one byte, or ``b""`` if the peer has ended its sending direction.

        Raises:
            BusyResourceError: another task is receiving on this stream.
            BrokenResourceError: the connection is broken; the cause is anyio's error.
            ClosedResourceError: the stream is closed, or was closed meanwhile.
            Cancelled: if the task is cancelled.

        Checkpoint: yes.
        """
        size = RECEIVE_SIZE if max_bytes is None else check_max_bytes(max_bytes)
        with self._receiving:
            self._check_open()
            await checkpoint()
            try:
                with _our_errors():
                    return await self.anyio_stream.receive(size)
            except anyio.EndOfStream:
                self._check_open()
                return b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``, and wait as long as anyio's ``send`` does.

        Args:
            data: the bytes to send; empty data is allowed and sends nothing.

        Raises:
            TypeError: ``data`` is not bytes or a buffer of bytes.
            BusyResourceError: another task is sending on this stream.
            BrokenResourceError: the connection is broken; the cause is anyio's error.
            ClosedResourceError: the stream is closed, or was closed meanwhile, or its sending
                direction was ended before.
            Cancelled: if the task is cancelled. Any part of the data may have been sent.

        Checkpoint: yes.
        """
        with self._sending, bytes_view(data) as view:
            self._check_open()
            if self._ended:
                raise ClosedResourceError("can't send data after sending EOF")
            await checkpoint()
            if view:
                with _our_errors():
                    await self.anyio_stream.send(bytes(view))
            self._check_open()

    async def wait_send_all_might_not_block(self) -> None:
        """Only do a checkpoint, because anyio does not show when sending would wait.

        Raises:
            BusyResourceError: another task is sending on this stream.
            ClosedResourceError: the stream is closed.
            Cancelled: if the task is cancelled.

        Checkpoint: yes.
        """
        with self._sending:
            self._check_open()
            await checkpoint()
            self._check_open()

    async def aclose(self) -> None:
        """Close the stream. Tasks that are using it get :class:`ClosedResourceError`.

        Raises:
            Cancelled: if the task is cancelled; the stream is closed all the same, by force.

        Checkpoint: yes.
        """
        if self._closed:
            await checkpoint()
            return
        self._closed = True
        try:
            await checkpoint()
            with _our_errors():
                await self.anyio_stream.aclose()
        except Cancelled:
            with CancelScope(shield=True):
                await anyio.aclose_forcefully(self.anyio_stream)
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedResourceError("this stream is closed")


class HalfCloseableAnyioStream(AnyioStream, HalfCloseableStream):
    """An :class:`AnyioStream` over a stream that can end its sending direction alone."""

    async def send_eof(self) -> None:
        """End the sending direction; receiving is still possible. A second call does nothing.

        Raises:
            BusyResourceError: another task is sending on this stream.
            BrokenResourceError: the connection is broken; the cause is anyio's error.
            ClosedResourceError: the stream is closed.
            Cancelled: if the task is cancelled.

        Checkpoint: yes.
        """
        with self._sending:
            self._check_open()
            await checkpoint()
            if not self._ended:
                with _our_errors():
                    await self.anyio_stream.send_eof()
                self._ended = True


def stream_from_anyio(anyio_stream: ByteStream) -> AnyioStream:
    """Use an anyio byte stream as a nurseryio stream.

    Args:
        anyio_stream: the anyio stream, for example from ``anyio.connect_tcp``. It belongs to the
            new stream from then on, and is closed with that.

    Returns:
        A stream; a ``HalfCloseableStream`` if it can end one direction alone (TLS cannot).

    Raises:
        TypeError: the argument is not an ``anyio.abc.ByteStream``; the message shows it.

    Checkpoint: no, this is not an async function.
    """
    if not isinstance(anyio_stream, ByteStream):
        raise TypeError(
            f"stream_from_anyio() takes an anyio.abc.ByteStream, not {anyio_stream!r}; make one of "
            "two one-way streams with anyio.streams.stapled.StapledByteStream"
        )
    if isinstance(anyio_stream, TLSStream):
        return AnyioStream(anyio_stream)
    return HalfCloseableAnyioStream(anyio_stream)


# -- nurseryio's streams as anyio's ---------------------------------------------


class _StreamForAnyio(ByteStream):
    """A nurseryio stream with anyio's methods."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<anyio.abc.ByteStream over {self._stream!r}>"

    async def receive(self, max_bytes: int = 65536) -> bytes:
        with _their_errors():
            data = await self._stream.receive_some(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, item: bytes) -> None:
        with _their_errors():
            await self._stream.send_all(item)

    async def send_eof(self) -> None:
        if not isinstance(self._stream, HalfCloseableStream):
            raise NotImplementedError(f"{self._stream!r} cannot end one direction alone")
        with _their_errors():
            await self._stream.send_eof()

    async def aclose(self) -> None:
        with _their_errors():
            await self._stream.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        if not isinstance(self._stream, SocketStream):
            return {}
        sock = self._stream.socket
        found: dict[Any, Callable[[], Any]] = {
            SocketAttribute.family: lambda: sock.family,
            SocketAttribute.local_address: sock.getsockname,
            SocketAttribute.remote_address: sock.getpeername,
        }
        if isinstance(sock.getsockname(), tuple):
            found[SocketAttribute.local_port] = lambda: sock.getsockname()[1]
            found[SocketAttribute.remote_port] = lambda: sock.getpeername()[1]
        return found


def anyio_from_stream(stream: Stream) -> ByteStream:
    """Use a nurseryio stream in code that was written for anyio.

    Args:
        stream: any ``Stream``, for example over TLS or in memory. It belongs to the new stream
            from then on.

    Returns:
        An ``anyio.abc.ByteStream``. ``send_eof()`` works if the stream is a
        ``HalfCloseableStream``. Over a socket the result has the extra attributes of
        ``anyio.abc.SocketAttribute``, except the raw socket.

    Raises:
        TypeError: the argument is not a ``Stream``; the message shows it.

    Checkpoint: no, this is not an async function.
    """
    if not isinstance(stream, Stream):
        raise TypeError(f"anyio_from_stream() takes a nurseryio.abc.Stream, not {stream!r}")
    return _StreamForAnyio(stream)
