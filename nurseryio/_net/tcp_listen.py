"""Listening for TCP connections: :func:`open_tcp_listeners` and :func:`serve_tcp`."""

from __future__ import annotations

import errno
import socket as stdlib
import sys
from typing import TYPE_CHECKING

from .._base.unsupported import needs
from .._base.util import reject_non_functions
from .._nursery import TASK_STATUS_IGNORED
from .._resolver.resolver import getaddrinfo
from .listener import SocketListener
from .serve import serve_listeners
from .socket_makers import socket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._nursery import Nursery, TaskStatus
    from .._resolver.resolver import AddressFormat
    from .stream import SocketStream

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

__all__ = ["check_backlog", "check_port", "open_tcp_listeners", "serve_tcp"]

# The largest backlog to ask for. Systems reduce it to their maximum, so this is "as much as
# possible". Some systems keep it in 16 bits, without a check that it fits.
MOST_BACKLOG = 0xFFFF


def check_port(port: object, kind: str = "an int") -> None:
    """Check that an argument is a port number.

    Raises:
        TypeError: ``port`` is not an integer.
        ValueError: ``port`` is out of range.
    """
    if not isinstance(port, int):
        raise TypeError(f"port must be {kind} not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be between 0 and 65535, not {port}")


def check_backlog(backlog: int | None) -> int:
    """Return the backlog to ask the system for.

    Raises:
        TypeError: ``backlog`` is neither an integer nor None.
    """
    if backlog is None:
        return MOST_BACKLOG
    if not isinstance(backlog, int):
        raise TypeError(f"backlog must be an int or None, not {backlog!r}")
    return min(backlog, MOST_BACKLOG)


@needs("sockets")
async def open_tcp_listeners(
    port: int, *, host: str | bytes | None = None, backlog: int | None = None
) -> list[SocketListener]:
    """Listen on a TCP port, at one address of this machine or at all of them.

    IPv4 and IPv6 get separate listeners, each for connections of its family only. A family that the
    system does not have is left out, as long as one remains.

    Args:
        port: The port number. With 0 the system chooses a free port, a different one for each
            listener.
        host: A numeric address or a name. A name with several addresses gives a listener for each.
            ``"0.0.0.0"`` stands for all IPv4 addresses of the machine, ``"::"`` for all IPv6
            addresses, None for both.
        backlog: How many connections the system may queue before they are accepted; None for as
            many as it allows.

    Returns:
        The listeners, at least one.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``port`` is out of range.
        OSError: The name cannot be resolved, or the system refuses an address, for example because
            the address is in use. The text names the address. No listener is left open.
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: ``trio.open_tcp_listeners``.
    """
    check_port(port)
    if not isinstance(host, (str, bytes, type(None))):
        raise TypeError(f"host must be str, bytes or None, not {host!r}")
    backlog = check_backlog(backlog)
    found = await getaddrinfo(host, port, type=stdlib.SOCK_STREAM, flags=stdlib.AI_PASSIVE)
    listeners: list[SocketListener] = []
    unsupported: list[OSError] = []
    try:
        for family, kind, proto, _name, address in found:
            try:
                listeners.append(await _listen((family, kind, proto), address, backlog))
            except _Unsupported as exc:
                unsupported.append(exc.error)
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    if unsupported and not listeners:
        text = "This system doesn't support any of the kinds of socket that that address could use"
        raise OSError(errno.EAFNOSUPPORT, text) from ExceptionGroup(text, unsupported)
    return listeners


class _Unsupported(Exception):
    """The system does not have sockets of this family."""

    def __init__(self, error: OSError) -> None:
        self.error = error


async def _listen(
    kind: tuple[int, int, int], address: AddressFormat, backlog: int
) -> SocketListener:
    try:
        sock = socket(*kind)
    except OSError as exc:
        if exc.errno == errno.EAFNOSUPPORT:
            raise _Unsupported(exc) from None
        raise
    try:
        # Without this option, old connections in the state TIME_WAIT block a port on Unix. Windows
        # does not need the option; there it would let two programs take the same port.
        if sys.platform != "win32":
            sock.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
        if kind[0] == stdlib.AF_INET6:
            sock.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, 1)
        try:
            await sock.bind(address)
            sock.listen(backlog)
        except OSError as exc:
            if exc.errno is None or type(exc) is stdlib.gaierror:
                raise
            where = f"cannot listen on {address[0]}, port {address[1]}"
            raise OSError(exc.errno, f"{exc.strerror}: {where}") from exc
        return SocketListener(sock)
    except BaseException:
        sock.close()
        raise


@needs("sockets")
async def serve_tcp(
    handler: Callable[[SocketStream], Awaitable[object]],
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: int | None = None,
    handler_nursery: Nursery | None = None,
    task_status: TaskStatus[list[SocketListener]] = TASK_STATUS_IGNORED,
) -> None:
    """Serve TCP: for each connection that comes in, run ``handler(stream)`` in a new task.

    This calls :func:`open_tcp_listeners` and :func:`serve_listeners`; see there for details.
    ``nursery.start`` returns the listeners as soon as clients can connect::

        listeners = await nursery.start(serve_tcp, handler, 0)
        port = listeners[0].socket.getsockname()[1]

    Args:
        handler: An async function of one argument, the connection as a :class:`SocketStream`. The
            stream is closed when the function ends. An error that the function raises ends the
            server.
        port: The port number. With 0 the system chooses a free port.
        host: As for :func:`open_tcp_listeners`.
        backlog: As for :func:`open_tcp_listeners`.
        handler_nursery: The nursery in which the handlers run. If None, the server opens one.
        task_status: For ``nursery.start``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``port`` is out of range.
        OSError: The name cannot be resolved, or the system refuses the address.
        ExceptionGroup: The server failed, or a handler in the server's nursery did.
        Cancelled: if the task is cancelled. A stop request ends the server gently.

    Checkpoint: yes.

    Trio: ``trio.serve_tcp``.
    """
    reject_non_functions((handler,))
    listeners = await open_tcp_listeners(port, host=host, backlog=backlog)
    await serve_listeners(
        handler, listeners, handler_nursery=handler_nursery, task_status=task_status
    )
