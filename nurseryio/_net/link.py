"""One connection over a transport of asyncio: what streams over transports stand on.

What lives here: :class:`Link`, the protocol of such a transport, and what tasks wait for there.
What does not: the streams (:mod:`linked_socket`, and ``stream_from_asyncio``).

Rule 1: reading ahead has a limit. The transport is paused while ``RECEIVE_SIZE`` bytes or more are
held here, and until the first task receives. (TLS is not: uvloop sends the end of the handshake
when it reads.)

Rule 2: what the peer has said comes before any error. When a transport breaks, it discards what
the kernel still holds; :meth:`Link.connection_lost` reads that first.

Rule 3: the transport asks for a pause as soon as it holds anything unsent. So sending returns when
the transport is empty. A send passes on one piece at a time, so that a cancelled one leaves no more
than a piece behind.

Rule 4: an end of TLS counts as orderly only if the peer's ``close_notify`` has come. asyncio
reports a connection that was cut in the same way, but the ``SSLObject`` knows.
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

# The most bytes that are handed to the transport at once.
PIECE = 65536

# Seconds that a TLS transport has to flush its goodbye. It has no way to say when that is done.
GOODBYE = 1.0


class Link(asyncio.Protocol):
    """The protocol of a transport, with methods for tasks: one that receives, one that sends.

    Args:
        loop: The loop of the transport.
        when_made: Called with the link once it has its transport.
        previous: A protocol that had the transport before. Its ``connection_lost`` is called too.
        keep: An object that must not be collected before the connection is lost.
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
        # Why nothing more can be received or sent; raised as a copy, which has its own traceback.
        self._error: OSError | None = None
        self._tls: ssl.SSLObject | None = None
        # The transport holds something unsent; it receives nothing.
        self._full = False
        self._paused = False
        # What the receiving and the sending task wait for.
        self._receiver: Event | None = None
        self._sender: Event | None = None
        self._making: asyncio.Task[Any] | None = None
        self._limit: asyncio.TimerHandle | None = None

    def make(self, creation: Coroutine[Any, Any, Any], sock: stdlib.socket) -> None:
        """Get a transport: run a ``create_connection(...)`` for a socket, in a task of its own.

        The tasks that need the transport may be cancelled meanwhile, and the connection must not.
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

    # -- what the transport calls -----------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Take the transport, which is to receive nothing yet."""
        self.transport = transport
        if self.closed:
            transport.abort()
            return
        self._tls = transport.get_extra_info("ssl_object")
        # TLS counts what waits inclusively, and would never resume below a limit of 0.
        transport.set_write_buffer_limits(high=int(self._tls is not None), low=0)
        self._full = transport.get_write_buffer_size() > 0
        if len(self._received) >= RECEIVE_SIZE:
            self._pause()
        elif self._tls is None:
            # Before 3.12 a new transport starts to read after this, even if it was paused.
            self.loop.call_soon(self._pause_unless_wanted)
        else:
            transport.resume_reading()
        if self._when_made is not None:
            self._when_made(self)
        self._wake()

    def take_over(self, transport: Any, received: bytes, ended: bool, error: Any) -> None:
        """Take a transport that had another protocol, and what that protocol knew."""
        self._received += received
        over = ended or error is not None or transport.is_closing()
        tls = transport.get_extra_info("ssl_object")
        if over and (tls is not None or not ended or transport.is_closing()):
            # Nothing more comes, and connection_lost() may have been called already.
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
        """Keep what has arrived."""
        self._received += data
        if len(self._received) >= RECEIVE_SIZE:
            self._pause()
        self._wake()

    def eof_received(self) -> bool:
        """Note the end of what the peer sends. True: the other direction stays open."""
        self._end(None)
        self._wake()
        return self._tls is None

    def pause_writing(self) -> None:
        """Something is left unsent."""
        self._full = True

    def resume_writing(self) -> None:
        """Everything is sent."""
        self._full = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Keep what the peer said last, and why the connection is gone."""
        try:
            if not self.closed:
                if exc is not None:
                    self._read_the_rest()
                if exc is not None or self._tls is not None:
                    self._end(exc)
                elif not self._ended:
                    # Without a reason: the transport was closed by other code on this side.
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
        """Nothing more will arrive: find out whether that is the orderly end."""
        if self._tls is not None and not self._ended:
            self._end_tls()
        elif exc is None:
            self._ended = True
        if self._error is None and exc is not None:
            if not isinstance(exc, OSError):
                exc = ConnectionResetError(errno.ECONNRESET, repr(exc))
            # Without its frames, which lead back here in a circle.
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
        """Read what the kernel holds, before the transport closes the descriptor."""
        info = self.transport and self.transport.get_extra_info("socket")
        if info is None or self._tls is not None:
            return
        with suppress(OSError):
            sock = stdlib.socket(info.family, info.type, info.proto, fileno=info.fileno())
            try:
                # The kernel's queue has a limit, and a broken connection gets nothing new. Behind
                # an error the end means nothing.
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
            with suppress(RuntimeError):  # uvloop: it is closing
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
            ClosedResourceError: The link is closed, or was closed meanwhile.
            OSError: The connection is broken, and everything that has arrived is received.
            Cancelled: If the task is cancelled; nothing is lost.

        Checkpoint: yes.
        """
        if self._receiver is not None:
            raise BusyResourceError("another task is already receiving on this connection")
        self._receiver = Event()
        try:
            # One that has to wait lets others run by that.
            await (checkpoint() if self._received or self._is_over() else checkpoint_if_cancelled())
            while not self._received and not self._is_over():
                if self._paused and self.transport is not None:
                    self._paused = False
                    with suppress(RuntimeError):
                        self.transport.resume_reading()
                self._receiver = Event()
                await self._receiver.wait()
                # A task that is cancelled after it was woken takes nothing with it.
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
            ClosedResourceError: The link is closed, or was closed meanwhile.
            OSError: The connection is broken.
            Cancelled: If the task is cancelled. Of what was not sent yet a piece may still be.

        Checkpoint: yes.
        """
        await self.flush()  # what a cancelled send has left
        for start in range(0, len(view), PIECE):
            self.transport.write(bytes(view[start : start + PIECE]))
            await self._flush()

    async def flush(self) -> None:
        """Wait until the transport holds nothing unsent. Raises the same errors as sending.

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
                # A write that failed closes the transport first, and gives its error later.
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
        """Whether the transport holds anything unsent."""
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
        """Close: with TLS's goodbye, unless anything is unsent. Tasks inside get an error.

        Nothing that the kernel has taken is lost. ``lost`` is set when the descriptor is closed.
        """
        if self.closed:
            return
        if self._tls is None or self._full or self._sender is not None:
            self.abort()
            return
        self.closed = True
        self.transport.close()
        if not self.lost.is_set():
            self._limit = self.loop.call_later(GOODBYE, self.transport.abort)
        self._wake()

    def abort(self) -> None:
        """Close at once, and discard what is unsent. A second time does nothing more."""
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
