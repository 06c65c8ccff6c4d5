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
        """The address of the other end.

        Raises:
            OSError: The socket is not connected.
        """
        raise NotImplementedError

    def getsockname(self) -> AddressFormat:
        """The address of this end."""
        raise NotImplementedError

    @overload
    def getsockopt(self, level: int, optname: int) -> int: ...

    @overload
    def getsockopt(self, level: int, optname: int, buflen: int) -> bytes: ...

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int | bytes:
        """Return the value of an option.

        Args:
            level: The level of the option, ``SOL_SOCKET`` for example.
            optname: The option, ``SO_REUSEADDR`` for example.
            buflen: The most bytes to return, for an option whose value is not a number.

        Returns:
            A number, or bytes if ``buflen`` is given.
        """
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
        """Set an option.

        Args:
            level: The level of the option, ``SOL_SOCKET`` for example.
            optname: The option, ``SO_REUSEADDR`` for example.
            value: The value, a number or bytes; None for a null pointer.
            optlen: If ``value`` is None: the length in bytes to pass with the null pointer.
        """
        raise NotImplementedError

    def listen(self, backlog: int = DEFAULT_BACKLOG) -> None:
        """Make the system accept connections and queue them for :meth:`accept`.

        Args:
            backlog: The most connections to queue.
        """
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
        """End one direction of the connection, or both.

        Args:
            flag: ``SHUT_RD`` for receiving, ``SHUT_WR`` for sending, ``SHUT_RDWR`` for both.

        Raises:
            OSError: The socket is not connected.
        """
        raise NotImplementedError

    def is_readable(self) -> bool:
        """Whether receiving or accepting would return at once."""
        raise NotImplementedError

    async def wait_writable(self) -> None:
        """Wait until the system takes more data, like ``lowlevel.wait_writable``.

        Raises:
            OSError: The socket is closed.

        Checkpoint: yes.
        """
        raise NotImplementedError

    async def bind(self, address: AddressFormat) -> None:
        """Bind to an address of this machine. Names in the address are resolved first.

        Args:
            address: The address; of TCP and UDP it is ``(host, port)``. Port 0 stands for any free
                port.

        Raises:
            OSError: The name cannot be resolved, or the address is in use or not of this machine.

        Checkpoint: yes.
        """
        raise NotImplementedError

    async def accept(self) -> tuple[SocketType, AddressFormat]:
        """Wait for a connection.

        Returns:
            The socket of the connection, and the address of the other end.

        Raises:
            OSError: The system reports an error, for example too many open files.

        Checkpoint: yes.
        """
        raise NotImplementedError

    async def connect(self, address: AddressFormat) -> None:
        """Connect to an address. Names in the address are resolved first.

        An attempt to connect cannot be undone: if ``connect`` is cancelled, it closes the socket.

        Args:
            address: The address; of TCP and UDP it is ``(host, port)``.

        Raises:
            OSError: The name cannot be resolved, or the connection was refused or timed out.

        Checkpoint: yes.
        """
        raise NotImplementedError

    def recv(self, buflen: int, flags: int = 0, /) -> Awaitable[bytes]:
        """Wait for data, and receive it.

        Args:
            buflen: The most bytes to receive.
            flags: The flags of the system's ``recv``.

        Returns:
            The bytes; ``b""`` at the end of the stream.

        Checkpoint: yes.
        """
        raise NotImplementedError

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> Awaitable[int]:
        """Wait for data, and receive it into a buffer.

        Args:
            buffer: The writable buffer.
            nbytes: The most bytes to receive; 0 for the length of the buffer.
            flags: The flags of the system's ``recv``.

        Returns:
            The number of bytes; 0 at the end of the stream.

        Checkpoint: yes.
        """
        raise NotImplementedError

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> Awaitable[tuple[bytes, AddressFormat]]:
        """Wait for data, and receive it with the sender's address.

        Args:
            bufsize: The most bytes to receive. The rest of a longer packet is lost.
            flags: The flags of the system's ``recvfrom``.

        Returns:
            The bytes and the address.

        Checkpoint: yes.
        """
        raise NotImplementedError

    def recvfrom_into(
        self, buffer: Buffer, nbytes: int = 0, flags: int = 0
    ) -> Awaitable[tuple[int, AddressFormat]]:
        """Wait for data, and receive it into a buffer, with the sender's address.

        Args:
            buffer: The writable buffer.
            nbytes: The most bytes to receive; 0 for the length of the buffer.
            flags: The flags of the system's ``recvfrom``.

        Returns:
            The number of bytes and the address.

        Checkpoint: yes.
        """
        raise NotImplementedError

    def send(self, bytes: Buffer, flags: int = 0, /) -> Awaitable[int]:
        """Wait until the system takes data, and send what it takes at once.

        Args:
            bytes: The data.
            flags: The flags of the system's ``send``.

        Returns:
            The number of bytes that were sent. Send the rest by another call.

        Checkpoint: yes.
        """
        raise NotImplementedError

    @overload
    async def sendto(self, data: Buffer, address: AddressFormat, /) -> int: ...

    @overload
    async def sendto(self, data: Buffer, flags: int, address: AddressFormat, /) -> int: ...

    async def sendto(self, *args: Any) -> int:
        """Send to an address: ``sendto(data, address)`` or ``sendto(data, flags, address)``.

        Names in the address are resolved first.

        Args:
            args: The data, the flags of the system's ``sendto`` (may be left out), and the address.

        Returns:
            The number of bytes that were sent.

        Raises:
            OSError: The name cannot be resolved, or the system reports an error.

        Checkpoint: yes.
        """
        raise NotImplementedError

    if sys.platform == "win32":

        def share(self, process_id: int) -> bytes:
            """Prepare the socket for ``fromshare`` in another process."""
            raise NotImplementedError

    else:

        def recvmsg(
            self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
        ) -> Awaitable[tuple[bytes, list[tuple[int, int, bytes]], int, AddressFormat]]:
            """Receive with ancillary data, as :meth:`socket.socket.recvmsg` does.

            Checkpoint: yes.
            """
            raise NotImplementedError

        def recvmsg_into(
            self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
        ) -> Awaitable[tuple[int, list[tuple[int, int, bytes]], int, AddressFormat]]:
            """Receive into buffers, as :meth:`socket.socket.recvmsg_into` does.

            Checkpoint: yes.
            """
            raise NotImplementedError

        async def sendmsg(
            self,
            buffers: Iterable[Buffer],
            ancdata: Iterable[tuple[int, int, Buffer]] = (),
            flags: int = 0,
            address: AddressFormat | None = None,
            /,
        ) -> int:
            """Send with ancillary data, as :meth:`socket.socket.sendmsg` does.

            Names in the address are resolved first.

            Checkpoint: yes.
            """
            raise NotImplementedError
