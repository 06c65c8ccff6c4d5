"""Byte streams of anyio as streams of ours, and ours as anyio's.

What lives here: both directions. What does not: shields and cancellation, which need no adapter
(:mod:`anyio_bridge`). Loaded on first use, as it imports anyio.

Rule 1: each side sees its own errors: anyio's ``EndOfStream`` is our ``b""``, and the four errors
that both libraries have by name become the other's, with the first one as their cause.

Rule 2: nothing is buffered here. Whoever hands over a stream does not use it any more.
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
    """Errors of anyio inside leave as ours."""
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
    """Errors of ours inside leave as anyio's."""
    try:
        yield
    except ClosedResourceError as exc:
        raise anyio.ClosedResourceError from exc
    except BrokenResourceError as exc:
        raise anyio.BrokenResourceError from exc
    except BusyResourceError as exc:
        raise anyio.BusyResourceError("using") from exc


# -- theirs as ours -------------------------------------------------------------


class AnyioStream(Stream):
    """A stream over one of anyio's; made by :func:`stream_from_anyio`.

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
        """Wait until something has arrived, and return it.

        Args:
            max_bytes: the most bytes to return, at least 1. None stands for a good size.

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
            TypeError: it is not bytes or a buffer of them.
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
        """Check for cancellation and let others run; anyio does not tell when sending would wait.

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
        """Close the stream; tasks that are using it get :class:`ClosedResourceError`.

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
    """An :class:`AnyioStream` over one that can end its sending direction alone."""

    async def send_eof(self) -> None:
        """End the sending direction; receiving goes on. A second time does nothing.

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
    """Use a byte stream of anyio as a stream of ours.

    Args:
        anyio_stream: what ``anyio.connect_tcp`` returns, for instance; it is handed over, and
            closed with the stream.

    Returns:
        A stream; a ``HalfCloseableStream`` if it can end one direction alone (TLS cannot).

    Raises:
        TypeError: it is no ``anyio.abc.ByteStream``; the message says what it is.

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


# -- ours as theirs -------------------------------------------------------------


class _StreamForAnyio(ByteStream):
    """A stream of ours with anyio's methods."""

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
    """Hand a stream of ours to code that was written for anyio.

    Args:
        stream: any ``Stream``, TLS and streams in memory included; it is handed over.

    Returns:
        An ``anyio.abc.ByteStream``. ``send_eof()`` works if the stream is a
        ``HalfCloseableStream``. Over a socket it has the extra attributes of
        ``anyio.abc.SocketAttribute``, the raw socket excepted.

    Raises:
        TypeError: it is no ``Stream``; the message says what it is.

    Checkpoint: no, this is not an async function.
    """
    if not isinstance(stream, Stream):
        raise TypeError(f"anyio_from_stream() takes a nurseryio.abc.Stream, not {stream!r}")
    return _StreamForAnyio(stream)
