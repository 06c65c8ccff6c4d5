"""Accepting connections on a listening socket, as streams: :class:`SocketListener`.

Listening sockets are opened in :mod:`tcp_listen` and :mod:`unix`; :mod:`serve` runs a handler for
each connection.
"""

from __future__ import annotations

import socket as stdlib
from typing import TYPE_CHECKING

from .._base import ClosedResourceError, Final, Listener
from .._base.exc_fields import explained
from .._base.lazy_exports import load_for_server
from .._base.util import safe_repr
from .._core import checkpoint
from .sockets import NEXT_MAY_BE_FINE, Socket
from .sockettype import SocketType
from .stream import SocketStream, is_closed_error

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SocketListener"]


class SocketListener(Listener[SocketStream], metaclass=Final):
    """Accepts connections on a listening socket, as streams.

    Args:
        socket: A listening socket of type ``SOCK_STREAM``, from ``nurseryio.socket``. It is closed
            with the listener. Kept as the attribute ``socket``.

    Raises:
        TypeError: ``socket`` is not a socket of ``nurseryio.socket``.
        ValueError: ``socket`` is of another type than ``SOCK_STREAM``, or not listening.

    Trio: ``trio.SocketListener``.
    """

    __slots__ = ("__dict__", "__weakref__", "_when_closed", "socket")

    socket: SocketType

    def __init__(self, socket: SocketType) -> None:
        if not isinstance(socket, SocketType):
            raise explained(
                TypeError("SocketListener requires a nurseryio socket object"),
                f"not {safe_repr(socket)}; see nurseryio.socket.from_stdlib_socket()",
            )
        if socket.type != stdlib.SOCK_STREAM:
            raise ValueError("SocketListener requires a SOCK_STREAM socket")
        try:
            listening = socket.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN)
        except OSError:
            listening = True  # macOS does not have this option
        if not listening:
            raise ValueError("SocketListener requires a listening socket")
        load_for_server()
        self.socket = socket
        # Called once, right before the socket is closed.
        self._when_closed: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<SocketListener on {self.socket!r}>"

    async def accept(self) -> SocketStream:
        """Wait for a connection.

        A connection that fails before it is accepted is skipped without an error.

        Returns:
            A stream over the connection.

        Raises:
            BusyResourceError: Another task is waiting in ``accept`` of this listener.
            ClosedResourceError: The listener is closed, or was closed during the call.
            OSError: The system refuses, for example because the process has too many open files
                (``EMFILE``). The connection stays in the queue.
            Cancelled: if the task is cancelled; no connection is lost.

        Checkpoint: yes.
        """
        native = self.socket
        while True:
            try:
                if type(native) is Socket:
                    return SocketStream._of_accepted(await native._accept_after_wait())
                # A fake, or a LinkedSocket.
                sock, _address = await native.accept()
                return SocketStream._of_accepted(sock)
            except OSError as exc:
                if is_closed_error(exc):
                    raise ClosedResourceError("this listener was already closed") from None
                if type(native) is Socket or exc.errno not in NEXT_MAY_BE_FINE:
                    raise

    def _accept_queued(self) -> SocketStream | None:
        """Accept a connection that the system has queued, without waiting; None if it has none."""
        native = self.socket
        while type(native) is Socket and native.fileno() >= 0:
            try:
                return SocketStream._of_accepted(Socket(native._sock.accept()[0], owned=True))
            except BlockingIOError:
                break
            except OSError as exc:
                if exc.errno not in NEXT_MAY_BE_FINE:
                    raise
        return None

    async def aclose(self) -> None:
        """Stop listening: when this returns or raises, the port is free.

        Accepted connections stay open. The system resets those that it has queued. A task that
        waits in ``accept`` gets :class:`ClosedResourceError`. A second call is only a checkpoint.

        Raises:
            Cancelled: if the task is cancelled; the listener is closed nevertheless.

        Checkpoint: yes.
        """
        when_closed, self._when_closed = self._when_closed, None
        try:
            if when_closed is not None:
                when_closed()
        finally:
            self.socket.close()
        await checkpoint()
