"""The functions that make sockets: new sockets, pairs, from standard sockets and descriptors.

This module has the functions of ``nurseryio.socket`` that return sockets, and the custom factory.
The methods of sockets are in :mod:`sockets`.
"""

from __future__ import annotations

import socket as stdlib
import sys
from operator import index
from socket import AF_INET, SOCK_STREAM
from typing import TYPE_CHECKING

from .._asyncio.compat import running_loop_or_none
from .._base.unsupported import needs
from .._core.task import current_state
from .._loop.watching import can_watch, cannot_watch
from .._run.runvar import RunVar
from .sockets import Socket

if TYPE_CHECKING:
    from builtins import type as type_
    from socket import AddressFamily, SocketKind
    from typing import SupportsIndex

    from .._base import SocketFactory
    from .sockettype import SocketType

__all__ = [
    "from_stdlib_socket",
    "fromfd",
    "set_custom_socket_factory",
    "socket",
    "socketpair",
]

# The bits of a socket's type. On Linux the other bits are flags.
TYPE_BITS = 0xF

# Where the system has it, a new socket does not have to be made non-blocking by a second call.
NONBLOCKING: int = getattr(stdlib, "SOCK_NONBLOCK", 0)

_factory: RunVar[SocketFactory | None] = RunVar("socket_factory", None)


def set_custom_socket_factory(socket_factory: SocketFactory | None) -> SocketFactory | None:
    """Make :func:`socket` return sockets of your factory, on the running loop. For tests.

    Args:
        socket_factory: An implementation of :class:`nurseryio.abc.SocketFactory`; None restores
            the system's sockets.

    Returns:
        The factory that was set before, or None.

    Raises:
        RuntimeError: No loop is running.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.socket.set_custom_socket_factory``.
    """
    before = _factory.get()
    _factory.set(socket_factory)
    return before


@needs("sockets")
def from_stdlib_socket(sock: stdlib.socket) -> SocketType:
    """Wrap a socket of the standard library.

    Args:
        sock: The socket. It is put into non-blocking mode. From now on it should be used and closed
            only through the returned object.

    Returns:
        A socket with async methods, on the same file descriptor.

    Raises:
        TypeError: ``sock`` is not a ``socket.socket``, or of a subclass such as ``ssl.SSLSocket``.
        NotImplementedError: ``sock`` is not of type ``SOCK_STREAM``, and the running loop cannot
            watch file descriptors (Windows' Proactor loop). The other functions that make sockets
            raise this too.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.socket.from_stdlib_socket``.
    """
    return _class_for(getattr(sock, "type", SOCK_STREAM))(sock)


@needs("sockets")
def fromfd(
    fd: SupportsIndex,
    family: AddressFamily | int = AF_INET,
    type: SocketKind | int = SOCK_STREAM,
    proto: int = 0,
) -> SocketType:
    """Make a socket from a duplicate of a file descriptor.

    The descriptor stays open, and you still have to close it.

    Args:
        fd: The descriptor.
        family: The address family. Linux knows the family, type and protocol of a descriptor, and
            these arguments are ignored; other systems do not.
        type: The type of the socket, likewise.
        proto: The number of the protocol, likewise.

    Raises:
        OSError: ``fd`` is not the descriptor of a socket.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.socket.fromfd``.
    """
    family, type, proto = _kind_of(index(fd), family, type, proto)
    return _class_for(type)(stdlib.fromfd(index(fd), family, type, proto), owned=True)


if sys.platform == "win32":

    def fromshare(info: bytes) -> SocketType:
        """Make a socket that another process has shared by its method ``share``.

        Args:
            info: The bytes that ``share`` returned.

        Checkpoint: no, this is not an async function.

        Trio: ``trio.socket.fromshare``.
        """
        sock = stdlib.fromshare(info)
        return _class_for(sock.type)(sock, owned=True)


@needs("sockets")
def socketpair(
    family: AddressFamily | int | None = None,
    type: SocketKind | int = SOCK_STREAM,
    proto: int = 0,
) -> tuple[SocketType, SocketType]:
    """Make two sockets that are connected with each other.

    Args:
        family: The address family. If None, ``AF_UNIX`` where the system has it, else ``AF_INET``.
        type: ``SOCK_STREAM`` or ``SOCK_DGRAM``.
        proto: The number of the protocol, usually 0.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.socket.socketpair``.
    """
    if family is None:
        family = getattr(stdlib, "AF_UNIX", AF_INET)
    kind = _class_for(type)
    left, right = stdlib.socketpair(family, type, proto)
    try:
        return kind(left, owned=True), kind(right, owned=True)
    except BaseException:
        left.close()
        right.close()
        raise


@needs("sockets")
def socket(
    family: AddressFamily | int = AF_INET,
    type: SocketKind | int = SOCK_STREAM,
    proto: int = 0,
    fileno: int | None = None,
) -> SocketType:
    """Make a socket, or wrap the file descriptor of one.

    Args:
        family: ``AF_INET``, ``AF_INET6``, ``AF_UNIX``...
        type: ``SOCK_STREAM``, ``SOCK_DGRAM``...
        proto: The number of the protocol, usually 0.
        fileno: The descriptor of a socket, which then belongs to the returned object. On Linux the
            other three arguments are then ignored, because the system knows them.

    Returns:
        A socket. If no ``fileno`` is given and a factory was set by
        :func:`set_custom_socket_factory`, the socket that the factory makes.

    Raises:
        OSError: The system refuses, or ``fileno`` is not the descriptor of a socket.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.socket.socket``.
    """
    if fileno is None:
        # Outside any loop a factory cannot be set, and this returns None.
        factory = _current_factory()
        if factory is not None:
            made: SocketType = factory.socket(family, type, proto)
            return made
        return _class_for(type)(stdlib.socket(family, type | NONBLOCKING, proto), owned=True)
    family, type, proto = _kind_of(fileno, family, type, proto)
    return _class_for(type)(stdlib.socket(family, type, proto, fileno))


def _class_for(kind: int) -> type_[Socket]:
    """The class for sockets of a type that works on the running loop.

    Outside any loop it is the class that works on the system's default loop.

    Raises:
        NotImplementedError: There is no such class.
    """
    loop = running_loop_or_none()
    if loop is None:
        if sys.platform != "win32":
            return Socket
    elif can_watch(current_state()):
        return Socket
    elif kind & TYPE_BITS != SOCK_STREAM:
        raise cannot_watch(loop, "sockets of other types than SOCK_STREAM")
    from .linked_socket import LinkedSocket

    return LinkedSocket


def _current_factory() -> SocketFactory | None:
    try:
        return _factory.get()
    except RuntimeError:
        return None


def _kind_of(
    fileno: int, family: AddressFamily | int, type: SocketKind | int, proto: int
) -> tuple[AddressFamily | int, SocketKind | int, int]:
    """Family, type and protocol of a descriptor: from the system on Linux, else as given."""
    if sys.platform != "linux":
        return family, type, proto
    # The arguments may be wrong for this descriptor. getsockopt() asks the descriptor itself.
    probe = stdlib.socket(family, type, proto, fileno=fileno)
    try:
        return (
            probe.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_DOMAIN),
            probe.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_TYPE),
            probe.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_PROTOCOL),
        )
    finally:
        probe.detach()
