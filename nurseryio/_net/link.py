"""One connection over an asyncio transport: the protocol, with async methods to send and receive.

This module has :class:`Link`, the protocol of such a transport, and the waits of its tasks. The
users of links are in :mod:`linked_socket`, and in ``_interop`` (``stream_from_asyncio``).

Rule 1: reading ahead has a limit. The transport is paused while the link holds ``RECEIVE_SIZE``
bytes or more. It is also paused until a task receives for the first time. A TLS transport is not
paused at the beginning, because uvloop sends the end of the handshake when it reads.

Rule 2: a task receives all data of the peer before it gets an error. A transport that breaks
discards the data that the kernel still holds. So :meth:`Link.connection_lost` reads that data
first.

Rule 3: the transport calls ``pause_writing`` as soon as it holds unsent bytes. So sending returns
when the transport is empty. A send writes one piece at a time, so that a cancelled send leaves at
most one piece unsent.

Rule 4: the end of a TLS connection is orderly only if the peer's ``close_notify`` has come. asyncio
reports a connection that was cut off in the same way, but the ``SSLObject`` shows the difference.
"""

from __future__ import annotations

import asyncio
import copy
import errno
import os
import socket as stdlib
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._asyncio.compat import running_loop_or_none
from .._base import BusyResourceError, ClosedResourceError
from .._core import checkpoint, checkpoint_if_cancelled
from .._sync import Event
from .stream import RECEIVE_SIZE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

__all__ = ["Link"]

# The most bytes that one call of transport.write() gets.
PIECE = 65536

# Seconds that a TLS transport has to flush its close_notify. It does not report when that is done.
GOODBYE = 1.0


# What a transport raises if it is told to pause or resume while its connection goes: uvloop's,
# and before Python 3.11 asyncio's for TLS. The link is told of the loss soon.
GONE = (RuntimeError, AttributeError)


class Link(asyncio.Protocol):
    """The protocol of a transport, with methods for one receiving and one sending task.

    Args:
        loop: The loop of the transport.
        when_made: Called with the link when the link has its transport.
        previous: A protocol that had the transport before. Its ``connection_lost`` is called too.
        keep: An object that must not be garbage-collected before the connection is lost.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        when_made: Callable[[Link], object] | None = None,
        previous: Any = None,
        keep: object = None,
    ) -> None:
        self.loop = loop
        # None until the connection is made.
        self.transport: Any = None
        # Set when the transport has closed its descriptor, or could not be made.
        self.lost: Event = Event()
        self.closed: bool = False
        self._when_made = when_made
        self._previous = previous
        self._keep = keep
        self._received = bytearray()
        # The peer has ended its sending direction, in an orderly way.
        self._ended = False
        # The reason that receiving and sending fail. A copy is raised, with a separate traceback.
        self._error: OSError | None = None
        self._tls: ssl.SSLObject | None = None
        # _full: the transport holds unsent bytes. _paused: the transport does not receive.
        self._full = False
        self._paused = False
        # The events of the receiving and the sending task, None without such a task.
        self._receiver: Event | None = None
        self._sender: Event | None = None
        self._making: asyncio.Task[Any] | None = None
        self._limit: asyncio.TimerHandle | None = None

    def make(self, creation: Coroutine[Any, Any, Any], sock: stdlib.socket) -> None:
        """Make the transport for a socket: run ``create_connection(...)`` in a new asyncio task.

        A task that needs the transport may be cancelled meanwhile. That must not cancel the making
        of the transport.
        """

        def made(task: asyncio.Task[Any]) -> None:
            self._making = None
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or error is not None:
                sock.close()
                if not self.lost.is_set():
                    self.connection_lost(error if isinstance(error, Exception) else None)

        self._making = self.loop.create_task(creation)
        self._making.add_done_callback(made)

    # -- called by the transport ------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take the transport, and pause its receiving until a task receives (rule 1)."""
        self.transport = transport
        if self.closed:
            transport.abort()
            return
        self._tls = transport.get_extra_info("ssl_object")
        # A TLS transport pauses when it holds `high` bytes or more. With 0 it would never resume.
        transport.set_write_buffer_limits(high=int(self._tls is not None), low=0)
        self._full = transport.get_write_buffer_size() > 0
        if len(self._received) >= RECEIVE_SIZE:
            self._pause()
        elif self._tls is None:
            # Before Python 3.12 a new transport starts to read after this, even if it was paused.
            self.loop.call_soon(self._pause_unless_wanted)
        else:
            transport.resume_reading()
        if self._when_made is not None:
            self._when_made(self)
        self._wake()

    def take_over(self, transport: Any, received: bytes, ended: bool, error: Any) -> None:
        """Take a transport from another protocol, with the state that the protocol recorded."""
        self._received += received
        over = ended or error is not None or transport.is_closing()
        tls = transport.get_extra_info("ssl_object")
        if over and (tls is not None or not ended or transport.is_closing()):
            # Nothing more will arrive, and connection_lost() may have been called already.
            self.transport = transport
            self._tls = tls
            transport.abort()
            self.lost.set()
        else:
            transport.set_protocol(self)
            self.connection_made(transport)
        if over:
            self._end(error)

    def data_received(self, data: bytes) -> None:
        """Keep the data until a task receives it."""
        self._received += data
        if len(self._received) >= RECEIVE_SIZE:
            self._pause()
        self._wake()

    def eof_received(self) -> bool:
        """Record that the peer has ended sending. True keeps the other direction open."""
        self._end(None)
        self._wake()
        return self._tls is None

    def pause_writing(self) -> None:
        """Record that the transport holds unsent bytes."""
        self._full = True

    def resume_writing(self) -> None:
        """Record that everything is sent."""
        self._full = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep the peer's last data, and the reason that the connection is lost."""
        try:
            if not self.closed:
                if exc is not None:
                    self._read_the_rest()
                if exc is not None or self._tls is not None:
                    self._end(exc)
                elif not self._ended:
                    # Without an error: other code on this side closed the transport.
                    self.closed = True
        finally:
            if self._limit is not None:
                self._limit.cancel()
            self.lost.set()
            self._wake()
            if self._previous is not None:
                self._previous.connection_lost(exc)
                self._previous = None

    def _end(self, exc: Exception | None) -> None:
        """Record that nothing more will arrive, and whether the end is orderly."""
        if self._tls is not None and not self._ended:
            self._end_tls()
        elif exc is None:
            self._ended = True
        if self._error is None and exc is not None:
            if not isinstance(exc, OSError):
                exc = ConnectionResetError(errno.ECONNRESET, repr(exc))
            # Without the frames of the error, which would form a reference cycle with this link.
            self._error = exc.with_traceback(None)

    def _end_tls(self) -> None:
        import ssl

        assert self._tls is not None
        try:
            while data := self._tls.read(PIECE):
                self._received += data
            self._ended = True
        except ssl.SSLZeroReturnError:
            self._ended = True
        except (ssl.SSLError, ValueError):
            text = "the peer closed the connection without ending TLS; data may be missing"
            self._error = ssl.SSLEOFError(ssl.SSL_ERROR_EOF, text)

    def _read_the_rest(self) -> None:
        """Read the data that the kernel holds, before the transport closes the descriptor."""
        info = self.transport and self.transport.get_extra_info("socket")
        if info is None or self._tls is not None:
            return
        with suppress(OSError):
            sock = stdlib.socket(info.family, info.type, info.proto, fileno=info.fileno())
            try:
                # This ends: the kernel's queue has a limit, and a broken connection does not get
                # new data. After an error, b"" does not mean an orderly end.
                while data := sock.recv(RECEIVE_SIZE):
                    self._received += data
            finally:
                sock.detach()

    def _wake(self) -> None:
        for event in (self._receiver, self._sender):
            if event is not None:
                event.set()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            with suppress(*GONE):
                self.transport.pause_reading()

    def _pause_unless_wanted(self) -> None:
        if self._receiver is None and not self.lost.is_set():
            self._pause()

    # -- receiving --------------------------------------------------------------

    async def receive(self, most: int) -> bytes:
        """Wait until something has arrived, and return it; ``b""`` at the end.

        Args:
            most: The most bytes to return.

        Raises:
            BusyResourceError: Another task is receiving.
            ClosedResourceError: The link is closed, or was closed during the call.
            OSError: The connection is broken, and everything that has arrived is received.
            Cancelled: If the task is cancelled; nothing is lost.

        Checkpoint: yes.
        """
        if self._receiver is not None:
            raise BusyResourceError("another task is already receiving on this connection")
        self._receiver = Event()
        try:
            # If this has to wait, other tasks run during the wait.
            await (checkpoint() if self._received or self._is_over() else checkpoint_if_cancelled())
            while not self._received and not self._is_over():
                if self._paused and self.transport is not None:
                    self._paused = False
                    with suppress(*GONE):
                        self.transport.resume_reading()
                self._receiver = Event()
                await self._receiver.wait()
                # A task that is cancelled after it was woken must not take data.
                await checkpoint_if_cancelled()
        finally:
            self._receiver = None
        self.check_open()
        data = bytes(self._received[:most])
        del self._received[:most]
        if not data and not self._ended:
            self._raise_error()
        return data

    def _is_over(self) -> bool:
        """Whether nothing more will arrive."""
        return self.closed or self._ended or self._error is not None or self.lost.is_set()

    def holds_data(self) -> bool:
        """Whether something has arrived that no task has received."""
        return bool(self._received)

    # -- sending ----------------------------------------------------------------

    async def send(self, view: memoryview) -> None:
        """Send bytes, and wait until the transport holds none of them.

        Raises:
            BusyResourceError: Another task is sending.
            ClosedResourceError: The link is closed, or was closed during the call.
            OSError: The connection is broken.
            Cancelled: If the task is cancelled. One more piece of the unsent bytes may be sent
                later.

        Checkpoint: yes.
        """
        await self.flush()  # the piece that a cancelled send has left
        for start in range(0, len(view), PIECE):
            self.transport.write(bytes(view[start : start + PIECE]))
            await self._flush()

    async def flush(self) -> None:
        """Wait until the transport does not hold unsent bytes. Raises the errors of :meth:`send`.

        Checkpoint: yes.
        """
        if self._sender is not None:
            raise BusyResourceError("another task is already sending on this connection")
        self._sender = Event()
        try:
            await checkpoint()
        finally:
            self._sender = None
        await self._flush()

    async def _flush(self) -> None:
        try:
            while not self.closed and not self.lost.is_set():
                transport = self.transport
                # A failed write closes the transport first, and reports its error later.
                failing = transport is not None and transport.is_closing() and self._tls is None
                if transport is not None and not self._full and not failing:
                    break
                self._sender = Event()
                await self._sender.wait()
        finally:
            self._sender = None
        self.check_open()
        if self.lost.is_set() or (self._tls is not None and self._is_over()):
            self._raise_error()

    def has_unsent(self) -> bool:
        """Whether the transport holds unsent bytes."""
        return self._full

    def _raise_error(self) -> None:
        error = self._error or BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        raise copy.copy(error)

    # -- closing ----------------------------------------------------------------

    def check_open(self) -> None:
        """Raise ClosedResourceError if this side has closed the connection."""
        if self.closed:
            raise ClosedResourceError("this connection was already closed")

    def close(self) -> None:
        """Close, with ``close_notify`` if this is TLS, no task is sending, and all is sent.

        Tasks that use the link get :class:`ClosedResourceError`. Data that the kernel has taken is
        still sent. ``lost`` is set when the descriptor is closed.
        """
        if self.closed:
            return
        if self._tls is None or self._full or self._sender is not None:
            self.abort()
            return
        self.closed = True
        if not self.transport.is_closing():
            # A TLS transport that is closed twice cannot be aborted any more.
            self.transport.close()
        if not self.lost.is_set():
            self._limit = self.loop.call_later(GOODBYE, self.transport.abort)
        self._wake()

    def abort(self) -> None:
        """Close at once, and discard unsent bytes. A second call does nothing more."""
        if running_loop_or_none() is not self.loop and self.loop.is_running():
            self.forget()  # the loop of another thread
            return
        self.closed = True
        if self.transport is not None and not self.loop.is_closed():
            self.transport.abort()
        self._wake()

    def forget(self) -> None:
        """Close soon, from any thread."""
        if not self.closed and not self.lost.is_set() and not sys.is_finalizing():
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self.abort)
