"""The abstract class of sockets, for ``isinstance`` checks and as the base class of fakes.

This module has :class:`SocketType`, which is only an interface. The system's sockets are in
:mod:`sockets`; tests may pass others to ``set_custom_socket_factory``.

Rule: names, arguments and results are those of :class:`socket.socket`. A method that may block
there is an async method here. Methods for blocking modes and timeouts are left out, and so are
methods that wrap a socket in a file.
"""

from __future__ import annotations

import socket as stdlib
import sys
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from socket import AddressFamily, SocketKind
    from types import TracebackType

    from typing_extensions import Buffer, Self

    from .._resolver.resolver import AddressFormat

__all__ = ["SocketType"]

DEFAULT_BACKLOG = min(stdlib.SOMAXCONN, 128)


class SocketType:
    """The type of the sockets that the functions of ``nurseryio.socket`` return.

    ``SocketType`` itself cannot be instantiated. Every async method is a checkpoint, also when it
    does not have to wait. It raises the errors that the method of the same name of
    :class:`socket.socket` raises, and also:

    Raises:
        BusyResourceError: Another task is waiting for the same direction of this socket.
        ClosedResourceError: Another task closed the socket during the call.
        Cancelled: if the task is cancelled while it waits.

    Trio: ``trio.socket.SocketType``.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        if type(self) is SocketType:
            raise TypeError(
                "SocketType is an abstract class; use nurseryio.socket.socket if you want to "
                "construct a socket object"
            )

    def detach(self) -> int:
        """Close the socket without closing its file descriptor, and return the descriptor."""
        raise NotImplementedError

    def fileno(self) -> int:
        """The file descriptor; -1 once the socket is closed."""
        raise NotImplementedError

    def getpeername(self) -> AddressFormat:
        """The address of the other end."""
        raise NotImplementedError

    def getsockname(self) -> AddressFormat:
        """The address of this end."""
        raise NotImplementedError

    @overload
    def getsockopt(self, level: int, optname: int) -> int: ...

    @overload
    def getsockopt(self, level: int, optname: int, buflen: int) -> bytes: ...

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int | bytes:
        """Return the value of an option: a number, or up to ``buflen`` bytes if that is given."""
        raise NotImplementedError

    @overload
    def setsockopt(self, level: int, optname: int, value: int | Buffer) -> None: ...

    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int) -> None: ...

    def setsockopt(
        self,
        level: int,
        optname: int,
        value: int | Buffer | None,
        optlen: int | None = None,
    ) -> None:
        """Set an option. If ``value`` is None, a null pointer of length ``optlen`` is passed."""
        raise NotImplementedError

    def listen(self, backlog: int = DEFAULT_BACKLOG) -> None:
        """Make the system accept connections and queue up to ``backlog`` of them."""
        raise NotImplementedError

    def get_inheritable(self) -> bool:
        """Whether child processes inherit the file descriptor."""
        raise NotImplementedError

    def set_inheritable(self, inheritable: bool) -> None:
        """Set whether child processes inherit the file descriptor."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        raise NotImplementedError

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        raise NotImplementedError

    @property
    def family(self) -> AddressFamily:
        """The address family, ``AF_INET`` for example."""
        raise NotImplementedError

    @property
    def type(self) -> SocketKind:
        """The kind of socket, ``SOCK_STREAM`` for example."""
        raise NotImplementedError

    @property
    def proto(self) -> int:
        """The number of the protocol."""
        raise NotImplementedError

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        """Whether ``shutdown`` was called for the sending direction."""
        raise NotImplementedError

    def dup(self) -> SocketType:
        """Make a second socket object for the same connection. Each must be closed."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the socket. Tasks that wait for the socket get ``ClosedResourceError``."""
        raise NotImplementedError

    def shutdown(self, flag: int) -> None:
        """End one direction (``SHUT_RD``, ``SHUT_WR``) or both (``SHUT_RDWR``)."""
        raise NotImplementedError

    def is_readable(self) -> bool:
        """Whether receiving or accepting would return at once."""
        raise NotImplementedError

    async def wait_writable(self) -> None:
        """Wait until the system takes more data, like ``lowlevel.wait_writable``."""
        raise NotImplementedError

    async def bind(self, address: AddressFormat) -> None:
        """Bind to an address of this machine. Names in the address are resolved first."""
        raise NotImplementedError

    async def accept(self) -> tuple[SocketType, AddressFormat]:
        """Wait for a connection, and return its socket and the address of the other end."""
        raise NotImplementedError

    async def connect(self, address: AddressFormat) -> None:
        """Connect to an address. Names in the address are resolved first.

        An attempt to connect cannot be undone: if ``connect`` is cancelled, it closes the socket.
        """
        raise NotImplementedError

    def recv(self, buflen: int, flags: int = 0, /) -> Awaitable[bytes]:
        """Receive and return up to ``buflen`` bytes; ``b""`` at the end."""
        raise NotImplementedError

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> Awaitable[int]:
        """Receive into a buffer, and return the number of bytes."""
        raise NotImplementedError

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> Awaitable[tuple[bytes, AddressFormat]]:
        """Receive up to ``bufsize`` bytes, and return them with the sender's address."""
        raise NotImplementedError

    def recvfrom_into(
        self, buffer: Buffer, nbytes: int = 0, flags: int = 0
    ) -> Awaitable[tuple[int, AddressFormat]]:
        """Receive into a buffer, and return the number of bytes and the sender's address."""
        raise NotImplementedError

    def send(self, bytes: Buffer, flags: int = 0, /) -> Awaitable[int]:
        """Send as many bytes as the system takes at once, and return their number."""
        raise NotImplementedError

    @overload
    async def sendto(self, data: Buffer, address: AddressFormat, /) -> int: ...

    @overload
    async def sendto(self, data: Buffer, flags: int, address: AddressFormat, /) -> int: ...

    async def sendto(self, *args: Any) -> int:
        """Send to an address, and return the number of bytes. Names are resolved first."""
        raise NotImplementedError

    if sys.platform == "win32":

        def share(self, process_id: int) -> bytes:
            """Prepare the socket for ``fromshare`` in another process."""
            raise NotImplementedError

    else:

        def recvmsg(
            self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
        ) -> Awaitable[tuple[bytes, list[tuple[int, int, bytes]], int, AddressFormat]]:
            """Receive with ancillary data; see :meth:`socket.socket.recvmsg`."""
            raise NotImplementedError

        def recvmsg_into(
            self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
        ) -> Awaitable[tuple[int, list[tuple[int, int, bytes]], int, AddressFormat]]:
            """Receive into buffers with ancillary data; see :meth:`socket.socket.recvmsg_into`."""
            raise NotImplementedError

        async def sendmsg(
            self,
            buffers: Iterable[Buffer],
            ancdata: Iterable[tuple[int, int, Buffer]] = (),
            flags: int = 0,
            address: AddressFormat | None = None,
            /,
        ) -> int:
            """Send several buffers with ancillary data, and return the number of bytes."""
            raise NotImplementedError
