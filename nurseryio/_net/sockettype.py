"""What every socket of this library can do: the class to check against, and to derive fakes from.

What lives here: :class:`SocketType`, interface alone. The sockets of the system are in
:mod:`sockets`; tests may bring others by ``set_custom_socket_factory``.

Rule: names, arguments and results are those of :class:`socket.socket`; what may block there is an
async method here. Methods about blocking modes and timeouts, and those that wrap a socket in a
file, have no place here and are left out.
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
    """A socket: everything that :func:`nurseryio.socket.socket` and its relatives return.

    It cannot be instantiated itself. Every async method is a checkpoint, also when it has nothing
    to wait for, and raises what the method of the same name of :class:`socket.socket` does. Also:

    Raises:
        BusyResourceError: Another task is waiting for the same direction of this socket.
        ClosedResourceError: Another task has closed the socket meanwhile.
        Cancelled: if the task is cancelled while it waits.

    Trio: ``trio.socket.SocketType``.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        if type(self) is SocketType:
            raise TypeError(
                "SocketType is an abstract class; use nurseryio.socket.socket() to make a socket"
            )

    def detach(self) -> int:
        """Give the file descriptor away: the socket is closed, the descriptor stays open."""
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
        """The value of an option: a number, or up to ``buflen`` bytes if that is given."""
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
        """Set an option; ``value`` None with ``optlen`` passes a null pointer of that length."""
        raise NotImplementedError

    def listen(self, backlog: int = DEFAULT_BACKLOG) -> None:
        """Have the system accept connections and queue up to ``backlog`` of them."""
        raise NotImplementedError

    def get_inheritable(self) -> bool:
        """Whether child processes inherit the file descriptor."""
        raise NotImplementedError

    def set_inheritable(self, inheritable: bool) -> None:
        """Say whether child processes inherit the file descriptor."""
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
        """Whether ``shutdown`` has ended the sending direction."""
        raise NotImplementedError

    def dup(self) -> SocketType:
        """A second socket object for the same connection, to be closed separately."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the socket. Tasks that wait for it get ``ClosedResourceError``."""
        raise NotImplementedError

    def shutdown(self, flag: int) -> None:
        """End one direction (``SHUT_RD``, ``SHUT_WR``) or both (``SHUT_RDWR``)."""
        raise NotImplementedError

    def is_readable(self) -> bool:
        """Whether receiving, or accepting, would find something at once."""
        raise NotImplementedError

    async def wait_writable(self) -> None:
        """Wait until the system takes more data; ``lowlevel.wait_writable`` for this socket."""
        raise NotImplementedError

    async def bind(self, address: AddressFormat) -> None:
        """Take an address of this machine. Names in it are resolved first."""
        raise NotImplementedError

    async def accept(self) -> tuple[SocketType, AddressFormat]:
        """Wait for a connection: its socket, and the address of the other end."""
        raise NotImplementedError

    async def connect(self, address: AddressFormat) -> None:
        """Connect to an address. Names in it are resolved first.

        An attempt cannot be taken back: if this is cancelled, the socket is closed.
        """
        raise NotImplementedError

    def recv(self, buflen: int, flags: int = 0, /) -> Awaitable[bytes]:
        """Receive up to ``buflen`` bytes; ``b""`` at the end."""
        raise NotImplementedError

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> Awaitable[int]:
        """Receive into a buffer: how many bytes."""
        raise NotImplementedError

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> Awaitable[tuple[bytes, AddressFormat]]:
        """Receive up to ``bufsize`` bytes, with the sender's address."""
        raise NotImplementedError

    def recvfrom_into(
        self, buffer: Buffer, nbytes: int = 0, flags: int = 0
    ) -> Awaitable[tuple[int, AddressFormat]]:
        """Receive into a buffer: how many bytes, and the sender's address."""
        raise NotImplementedError

    def send(self, bytes: Buffer, flags: int = 0, /) -> Awaitable[int]:
        """Send as much as the system takes at once: how many bytes."""
        raise NotImplementedError

    @overload
    async def sendto(self, data: Buffer, address: AddressFormat, /) -> int: ...

    @overload
    async def sendto(self, data: Buffer, flags: int, address: AddressFormat, /) -> int: ...

    async def sendto(self, *args: Any) -> int:
        """Send to an address: how many bytes. Names in the address are resolved first."""
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
            """Receive into buffers with ancillary data."""
            raise NotImplementedError

        async def sendmsg(
            self,
            buffers: Iterable[Buffer],
            ancdata: Iterable[tuple[int, int, Buffer]] = (),
            flags: int = 0,
            address: AddressFormat | None = None,
            /,
        ) -> int:
            """Send several buffers with ancillary data: how many bytes."""
            raise NotImplementedError
