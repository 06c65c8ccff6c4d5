"""Sockets on loops that cannot watch file descriptors (Windows' Proactor loop), over transports.

This module has :class:`LinkedSocket`, and the server that accepts its connections. The connections
themselves are in :mod:`link`; :mod:`socket_makers` picks the class of a socket.

Rule 1: for streams and listeners a ``LinkedSocket`` behaves like :class:`~.sockets.Socket`. A call
that a transport cannot do raises NotImplementedError before it does anything.

Rule 2: the transport has a duplicate of the descriptor. So closing the socket closes the socket's
descriptor at once, and socket and transport can be closed in any order. The duplicate is closed in
the next iteration of the loop.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket as stdlib
from collections import deque
from contextlib import suppress
from functools import partial
from threading import Event as ThreadEvent
from typing import TYPE_CHECKING, Any

from .._asyncio.compat import running_loop, running_loop_or_none
from .._base import BusyResourceError, ClosedResourceError
from .._core import checkpoint, checkpoint_if_cancelled, current_task
from .._loop.watching import can_watch, cannot_watch
from .._resolver.offload import call_in_thread
from .._sync import Event
from .link import PIECE, Link
from .sockets import Socket
from .sockettype import DEFAULT_BACKLOG, SocketType

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from typing_extensions import Buffer

    from .._resolver.resolver import AddressFormat

__all__ = ["LinkedSocket"]

# Connections that may wait here to be accepted; further ones are reset. They cannot wait in the
# kernel, because an asyncio server that is closed drops the connections that it is just accepting.
MOST_WAITING = 1000

# Connections in the kernel's queue, and those that asyncio accepts in one iteration of the loop.
SERVER_BACKLOG = 100

# In error messages.
NOT_STREAMS = "sockets of other types than SOCK_STREAM"

# Seconds after which a thread that waits for a connection attempt sees that its task gave up.
GIVEN_UP = 0.1


class LinkedSocket(Socket):
    """A stream socket that sends, receives and accepts over transports."""

    __slots__ = ("_acceptor", "_backlog", "_link")

    def __init__(self, sock: stdlib.socket, owned: bool = False, link: Link | None = None) -> None:
        self._link = link
        self._acceptor: _Acceptor | None = None
        self._backlog: int | None = None
        super().__init__(sock, owned)

    def __del__(self) -> None:
        if self._link is not None:
            self._link.forget()
        if self._acceptor is not None:
            self._acceptor.forget()
        super().__del__()

    async def _connection(self) -> Link:
        """Return the link, whose transport may still be in the making.

        Checkpoint: only if this raises because the socket is closed.
        """
        await self._check_open()
        loop = running_loop()
        link = self._link
        if link is None or link.loop.is_closed():
            dup = self._sock.dup()
            self._link = link = Link(loop)
            link.make(loop.create_connection(partial(_the, link), sock=dup), dup)
        elif link.loop is not loop:
            raise RuntimeError("this connection belongs to the event loop that used it first")
        return link

    async def _check_open(self) -> None:
        if self._sock.fileno() == -1:
            await checkpoint()
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    # -- calls that transports cannot do ----------------------------------------

    async def _reading(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self._refuse(fn)
        return await super()._reading(fn, *args, **kwargs)

    async def _writing(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self._refuse(fn)
        return await super()._writing(fn, *args, **kwargs)

    def _refuse(self, fn: Callable[..., Any]) -> None:
        state = current_task()._state
        if not can_watch(state):
            is_stream = self.type == stdlib.SOCK_STREAM
            what = f"calls of {fn.__name__}() with these arguments" if is_stream else NOT_STREAMS
            raise cannot_watch(state.loop, what)

    def _is_linked(self, flags: int = 0) -> bool:
        """Whether a call uses the transport: not with flags, nor on loops that can watch."""
        return (
            not flags and self.type == stdlib.SOCK_STREAM and not can_watch(current_task()._state)
        )

    # -- connections ------------------------------------------------------------

    async def _until_connected(self) -> None:
        if can_watch(current_task()._state):
            await super()._until_connected()
            return
        given_up = ThreadEvent()
        try:
            await call_in_thread(_wait_for_connection, self._sock.dup(), given_up)
        finally:
            given_up.set()

    def listen(self, backlog: int = DEFAULT_BACKLOG) -> None:
        super().listen(backlog)
        self._backlog = backlog

    async def accept(self) -> tuple[SocketType, AddressFormat]:
        if not self._is_linked():
            return await super().accept()
        await self._check_open()
        if self._acceptor is None:
            listening = 1
            with suppress(OSError):  # macOS does not have this option
                listening = self._sock.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN)
            if not listening:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self._acceptor = _Acceptor(running_loop(), self._sock, self._backlog)
        sock, link = await self._acceptor.accept()
        address: AddressFormat = ""
        with suppress(OSError):  # the connection is gone already
            address = sock.getpeername()
        return LinkedSocket(sock, owned=True, link=link), address

    # -- receiving and sending --------------------------------------------------

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        if not self._is_linked(flags):
            return await super().recv(buflen, flags)
        if buflen < 0:
            raise ValueError("negative buffersize in recv")
        if not buflen:
            await checkpoint()
            return b""
        return await (await self._connection()).receive(buflen)

    async def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        if not self._is_linked(flags):
            return await super().recv_into(buffer, nbytes, flags)
        with memoryview(buffer).cast("B") as view:
            data = await self.recv(nbytes or len(view))
            view[: len(data)] = data
            return len(data)

    async def send(self, bytes: Buffer, flags: int = 0, /) -> int:
        if not self._is_linked(flags):
            return await super().send(bytes, flags)
        with memoryview(bytes).cast("B") as view, view[:PIECE] as piece:
            await (await self._connection()).send(piece)
            return len(piece)

    async def wait_writable(self) -> None:
        if not self._is_linked():
            await super().wait_writable()
        else:
            link = await self._connection()
            with suppress(OSError):  # a broken connection is writable
                await link.flush()

    def is_readable(self) -> bool:
        return (self._link is not None and self._link.holds_data()) or super().is_readable()

    # -- closing ----------------------------------------------------------------

    def shutdown(self, flag: int) -> None:
        if flag == stdlib.SHUT_WR and self._link is not None and self._link.has_unsent():
            self._link.transport.write_eof()  # after the piece that a cancelled send has left
            self._did_shutdown = True
        else:
            super().shutdown(flag)

    def detach(self) -> int:
        self._drop()
        return super().detach()

    def close(self) -> None:
        self._drop()
        super().close()

    def dup(self) -> Socket:
        return LinkedSocket(self._sock.dup(), owned=True)

    def _drop(self) -> None:
        acceptor, self._acceptor = self._acceptor, None
        link, self._link = self._link, None
        if acceptor is not None:
            acceptor.close()
        if link is not None:
            link.abort()


def _the(link: Link) -> Link:
    """A protocol factory that returns the existing protocol."""
    return link


def _wait_for_connection(sock: stdlib.socket, given_up: ThreadEvent) -> None:
    """In a thread: return when a connection attempt has succeeded or failed, or was given up."""
    # The only selector that does not need a descriptor and accepts a descriptor of any number.
    kind = getattr(selectors, "PollSelector", selectors.SelectSelector)
    with sock, kind() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        while not given_up.is_set() and not selector.select(GIVEN_UP):
            pass


class _Acceptor:
    """Accepts connections for a listening socket, with a server of the event loop.

    The server has a duplicate of the socket, and is started by the first ``accept``.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: stdlib.socket, backlog: int | None
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._backlog = backlog
        self._closed = False
        self._waiting: deque[Link] = deque()
        self._server: asyncio.AbstractServer | None = None
        # The event that the task in accept() waits for.
        self._arrival: Event | None = None

    async def accept(self) -> tuple[stdlib.socket, Link]:
        """Wait for a connection."""
        if self._arrival is not None:
            raise BusyResourceError("another task is already accepting on this socket")
        self._arrival = Event()
        try:
            await (checkpoint() if self._waiting else checkpoint_if_cancelled())
            while not self._waiting and not self._closed:
                self._arrival = Event()
                if self._server is None:
                    await self._serve()
                await self._arrival.wait()
                # A task that is cancelled after it was woken must not take a connection.
                await checkpoint_if_cancelled()
        finally:
            self._arrival = None
        if self._closed:
            raise ClosedResourceError("another task closed this socket")
        link = self._waiting[0]
        info = link.transport.get_extra_info("socket")
        if link.lost.is_set():
            self._waiting.popleft()
            raise OSError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
        # If the process has no descriptor left, the connection stays in the queue.
        sock = stdlib.fromfd(info.fileno(), info.family, info.type, info.proto)
        self._waiting.popleft()
        return sock, link

    async def _serve(self) -> None:
        dup = self._sock.dup()
        try:
            self._server = server = await self._loop.create_server(
                lambda: Link(self._loop, when_made=self._arrived),
                sock=dup,
                backlog=SERVER_BACKLOG,
                start_serving=False,
            )
        except BaseException:
            dup.close()
            raise
        await server.start_serving()
        if self._backlog is not None and not self._closed:
            self._sock.listen(self._backlog)  # the server has set its default

    def _arrived(self, link: Link) -> None:
        if self._closed or len(self._waiting) >= MOST_WAITING:
            link.abort()
            return
        self._waiting.append(link)
        if self._arrival is not None:
            self._arrival.set()

    def close(self) -> None:
        """Stop accepting, and close the connections that no task has accepted."""
        if running_loop_or_none() is not self._loop and self._loop.is_running():
            self.forget()  # the loop of another thread
            return
        self._closed = True
        if self._server is not None and not self._loop.is_closed():
            self._server.close()
        while self._waiting:
            self._waiting.popleft().abort()
        if self._arrival is not None:
            self._arrival.set()

    def forget(self) -> None:
        """Close soon, from any thread."""
        if not self._closed:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.close)
