"""Looking up host names and addresses, by the system in a thread or by a custom resolver.

This module has ``getaddrinfo``, ``getnameinfo``, ``getprotobyname`` and the custom resolver. It
also resolves the addresses that are passed to sockets. The sockets are in ``_net``.

Rule: ``getaddrinfo`` finds numeric addresses without a thread and without the custom resolver.
"""

from __future__ import annotations

import os
import socket as stdlib
from typing import TYPE_CHECKING, Any

from .._asyncio.compat import family_of
from .._base.unsupported import needs
from .._core import cancel_shielded_checkpoint, checkpoint_if_cancelled
from .._run.runvar import RunVar
from .hostname import encode_hostname
from .offload import call_in_thread

if TYPE_CHECKING:
    from socket import AddressFamily, SocketKind
    from typing import TypeAlias

    from .._base import HostnameResolver

__all__ = [
    "AddressFormat",
    "check_path",
    "find_addresses",
    "getaddrinfo",
    "getnameinfo",
    "getprotobyname",
    "is_numeric",
    "resolve_address",
    "set_custom_hostname_resolver",
]

# The type of an address depends on the family of the socket: a path for AF_UNIX, mostly a tuple.
AddressFormat: TypeAlias = Any

if TYPE_CHECKING:
    AddressInfo: TypeAlias = tuple[
        AddressFamily,
        SocketKind,
        int,
        str,
        tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
    ]

# Some old systems do not have the second flag.
NUMERIC_ONLY = int(stdlib.AI_NUMERICHOST | getattr(stdlib, "AI_NUMERICSERV", 0))

_resolver: RunVar[HostnameResolver | None] = RunVar("hostname_resolver", None)


def set_custom_hostname_resolver(
    hostname_resolver: HostnameResolver | None,
) -> HostnameResolver | None:
    """Set an object that resolves host names instead of the system, on the running loop.

    Everything in this library that looks up host names calls :func:`getaddrinfo` or
    :func:`getnameinfo`, and both call this object. This is useful mainly in tests.

    Args:
        hostname_resolver: An implementation of :class:`nurseryio.abc.HostnameResolver`; None
            restores the system's resolver.

    Returns:
        The resolver that was set before, or None.

    Raises:
        RuntimeError: No loop is running.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.socket.set_custom_hostname_resolver``.
    """
    before = _resolver.get()
    _resolver.set(hostname_resolver)
    return before


@needs("sockets")
async def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[AddressInfo]:
    """Find the addresses for a host name and a service.

    Arguments and result are those of :func:`socket.getaddrinfo`. International names are encoded by
    the standard of 2008; the standard library uses that of 2003. The system is asked in a worker
    thread, unless :func:`set_custom_hostname_resolver` has set an object. Numeric addresses need
    neither.

    Args:
        host: A name or a numeric address; None for this machine.
        port: A number or the name of a service.
        family: Only addresses of this family are returned; 0 for all.
        type: Only addresses for this type of socket are returned; 0 for all.
        proto: Only addresses for this protocol are returned; 0 for all.
        flags: ``AI_...`` constants.

    Returns:
        Tuples of family, type, protocol, canonical name and address.

    Raises:
        TypeError: ``host`` is neither str, bytes nor None.
        gaierror: The name cannot be resolved (an ``OSError``). If the name is not possible, because
            it has a NUL or a label that is empty or too long, then no resolver is asked. The error
            is a ``UnicodeError`` as well in that case.
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: ``trio.socket.getaddrinfo``.
    """
    return await find_addresses(host, port, family, type, proto, flags)


async def find_addresses(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
    *,
    always_yield: bool = True,
) -> list[AddressInfo]:
    """:func:`getaddrinfo`, without a checkpoint for callers that have one themselves.

    Checkpoint: If ``always_yield`` is False, only if a name is looked up, or if this raises.
    """
    await checkpoint_if_cancelled()
    found: list[Any] | None = None
    try:
        name = host if host is None else encode_hostname(host)
        _check_service(port)
        found = stdlib.getaddrinfo(name, port, family, type, proto, flags | NUMERIC_ONLY)
    except BaseException as exc:
        if not _is_not_numeric(exc):
            await cancel_shielded_checkpoint()
            raise
    if found is not None:
        if always_yield:
            await cancel_shielded_checkpoint()
        return found
    custom = _resolver.get()
    if custom is not None:
        return await custom.getaddrinfo(name, port, family, type, proto, flags)
    ask: Any = stdlib.getaddrinfo
    answer: list[AddressInfo] = await call_in_thread(ask, name, port, family, type, proto, flags)
    return answer


def _is_not_numeric(error: BaseException) -> bool:
    """Whether the error means that the host is a name, which has to be looked up."""
    return type(error) is stdlib.gaierror and error.errno == stdlib.EAI_NONAME


def _check_service(service: object) -> None:
    """Refuse the name of a service that the C library would not get unchanged.

    Raises:
        gaierror: The name has a NUL, or cannot be encoded.
    """
    try:
        name = service.encode() if isinstance(service, str) else service
    except UnicodeError:
        name = b"\0"
    if isinstance(name, bytes) and b"\0" in name:
        raise stdlib.gaierror(stdlib.EAI_SERVICE, f"not the name of a service: {service!r}")


@needs("sockets")
async def getnameinfo(
    sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
) -> tuple[str, str]:
    """Find the host name and the service for a numeric address.

    Arguments and result are those of :func:`socket.getnameinfo`. The system is asked in a worker
    thread, unless :func:`set_custom_hostname_resolver` has set an object.

    Args:
        sockaddr: A numeric address.
        flags: ``NI_...`` constants.

    Returns:
        The name of the host and the name of the service.

    Raises:
        gaierror: ``sockaddr`` is not a numeric address, or the look-up failed (an ``OSError``).
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: ``trio.socket.getnameinfo``.
    """
    if isinstance(sockaddr, tuple) and sockaddr and isinstance(sockaddr[0], str):
        encode_hostname(sockaddr[0])
    custom = _resolver.get()
    if custom is not None:
        return await custom.getnameinfo(sockaddr, flags)
    return await call_in_thread(stdlib.getnameinfo, sockaddr, flags)


@needs("sockets")
async def getprotobyname(name: str) -> int:
    """Find the number of an Internet protocol; :func:`socket.getprotobyname` in a worker thread.

    Args:
        name: For example ``"tcp"``.

    Raises:
        OSError: The system does not know such a protocol.
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: ``trio.socket.getprotobyname``.
    """
    return await call_in_thread(stdlib.getprotobyname, name)


# -- addresses of sockets -------------------------------------------------------


async def resolve_address(
    sock: stdlib.socket, address: AddressFormat, local: bool
) -> AddressFormat:
    """Replace the names in an address by numbers, because the socket would block to do that.

    Args:
        sock: The socket that the address is for; its family decides on the form of the address.
        address: An address in the form of the standard library; paths may be path objects.
        local: Whether it is an address of this machine (for ``bind``), not one to connect to.

    Raises:
        ValueError: The form of ``address`` is wrong for the family. Or the path of a file has a
            NUL, where the system would cut the path off.
        gaierror: A name cannot be resolved.

    Checkpoint: only if a name has to be resolved.
    """
    family = family_of(sock)
    if family == stdlib.AF_INET:
        if not isinstance(address, tuple) or len(address) != 2:
            raise ValueError("address should be a (host, port) tuple")
    elif family == stdlib.AF_INET6:
        if not isinstance(address, tuple) or not 2 <= len(address) <= 4:
            raise ValueError("address should be a (host, port, [flowinfo, [scopeid]]) tuple")
    elif family == getattr(stdlib, "AF_UNIX", None):
        return check_path(os.fspath(address))
    else:
        return address
    host, port = address[:2]
    if isinstance(port, int) and is_numeric(family, host):
        return address
    found = await getaddrinfo(
        # The standard library gives these two hosts the same meaning.
        {"": None, "<broadcast>": "255.255.255.255"}.get(host, host),
        port,
        family,
        sock.type,
        sock.proto,
        _flags(sock, local),
    )
    resolved = found[0][4]
    if len(address) == 4 and not address[3]:
        address = address[:3]  # a scope id of 0 means none; the name may have a zone instead
    # The last two fields of an IPv6 address are not names: given ones are kept, others filled in.
    return (*resolved[:2], *address[2:], *resolved[len(address) :])


def check_path(path: str | bytes) -> str | bytes:
    """Check the address of a Unix socket: a path, or a name that begins with a NUL (Linux).

    Raises:
        ValueError: There is a NUL in the path. The system would end the path there.
    """
    nul: Any = "\0" if isinstance(path, str) else b"\0"
    if nul in path and not path.startswith(nul):
        raise ValueError(f"embedded NUL character in the path of a Unix socket: {path!r}")
    return path


def is_numeric(family: int, host: Any) -> bool:
    """Whether a host is a numeric address of the family, in its usual form."""
    try:
        stdlib.inet_pton(family, host)
    except (OSError, TypeError, ValueError):
        return False
    return True


def _flags(sock: stdlib.socket, local: bool) -> int:
    flags = int(stdlib.AI_PASSIVE) if local else 0
    if sock.family == stdlib.AF_INET6 and not sock.getsockopt(
        stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY
    ):
        flags |= stdlib.AI_V4MAPPED
    return flags
