"""TLS over TCP in one call: connecting, listening, serving.

This module combines functions of other modules. TLS is in ``stream`` and ``listener``, TCP in
``_net.tcp_connect`` and ``_net.tcp_listen``, the serving of connections in ``_net.serve``.

Rule: the SSL context is checked before anything is connected or bound.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from .._base.unsupported import needs
from .._base.util import reject_non_functions
from .._net.generic import aclose_forcefully
from .._net.serve import serve_listeners
from .._net.tcp_connect import DEFAULT_DELAY, open_tcp_stream
from .._net.tcp_listen import open_tcp_listeners
from .._nursery import TASK_STATUS_IGNORED
from .engine import check_context
from .listener import SSLListener
from .stream import SSLStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._net.stream import SocketStream
    from .._nursery import Nursery, TaskStatus

__all__ = ["open_ssl_over_tcp_listeners", "open_ssl_over_tcp_stream", "serve_ssl_over_tcp"]


@needs("sockets")
async def open_ssl_over_tcp_stream(
    host: str | bytes,
    port: int,
    *,
    https_compatible: bool = False,
    ssl_context: ssl.SSLContext | None = None,
    happy_eyeballs_delay: float | None = DEFAULT_DELAY,
) -> SSLStream[SocketStream]:
    """Connect to a host by TCP, and wrap the connection in TLS.

    This function does not do the handshake, which checks that the server has a certificate for
    ``host``. The handshake is done when data is first sent or received, or by ``do_handshake()``.
    So an error because of a server that cannot be trusted is raised there, not here.

    Args:
        host: A name, or a numeric address for which there is a certificate.
        port: The port number.
        https_compatible: True for web servers; see :class:`SSLStream`.
        ssl_context: The settings: protocol versions, certificates, trusted authorities. None
            stands for the result of ``ssl.create_default_context()``.
        happy_eyeballs_delay: Seconds, as for :func:`open_tcp_stream`.

    Returns:
        The connection.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``host`` is neither str nor bytes, or a number is out of range.
        ssl.SSLError: ``ssl_context`` was made for the server's side.
        OSError: The name cannot be resolved, or no address could be connected to.
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: ``trio.open_ssl_over_tcp_stream``.
    """
    if ssl_context is None:
        ssl_context = ssl.create_default_context()
    else:
        check_context(ssl_context, server_side=False)
    stream = await open_tcp_stream(host, port, happy_eyeballs_delay=happy_eyeballs_delay)
    try:
        return SSLStream(
            stream, ssl_context, server_hostname=host, https_compatible=https_compatible
        )
    except BaseException:
        await aclose_forcefully(stream)
        raise


@needs("sockets")
async def open_ssl_over_tcp_listeners(
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | bytes | None = None,
    https_compatible: bool = False,
    backlog: int | None = None,
) -> list[SSLListener[SocketStream]]:
    """Listen for TCP connections that use TLS.

    Args:
        port: The port number; with 0 the system chooses one.
        ssl_context: The server's certificate and settings.
        host: As for :func:`open_tcp_listeners`.
        https_compatible: True for web servers; see :class:`SSLStream`.
        backlog: As for :func:`open_tcp_listeners`.

    Returns:
        One listener for each address. Its ``transport_listener`` is the TCP listener.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``port`` is out of range.
        ssl.SSLError: ``ssl_context`` was made for the client's side.
        OSError: The port cannot be listened on.
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: ``trio.open_ssl_over_tcp_listeners``.
    """
    check_context(ssl_context, server_side=True)
    listeners = await open_tcp_listeners(port, host=host, backlog=backlog)
    return [
        SSLListener(listener, ssl_context, https_compatible=https_compatible)
        for listener in listeners
    ]


@needs("sockets")
async def serve_ssl_over_tcp(
    handler: Callable[[SSLStream[SocketStream]], Awaitable[object]],
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | bytes | None = None,
    https_compatible: bool = False,
    backlog: int | None = None,
    handler_nursery: Nursery | None = None,
    task_status: TaskStatus[list[SSLListener[SocketStream]]] = TASK_STATUS_IGNORED,
) -> None:
    """Serve TLS: for each connection that comes in, run ``handler(stream)`` in a new task.

    This is :func:`open_ssl_over_tcp_listeners` and :func:`serve_listeners` in one call; more is
    said there. ``nursery.start`` returns the listeners, once connections can come in.

    The handshake is done by the handler's first use of the stream. Any client can make it fail, so
    catch :exc:`BrokenResourceError` in the handler: if the handler raises it, the server ends. End
    the handler with ``aclose()``, as ``async with`` does. Otherwise no ``close_notify`` is sent,
    and the client takes the connection for cut off::

        async def handler(stream):
            try:
                async with stream:
                    ...
            except nurseryio.BrokenResourceError as error:
                log.info("a client was lost: %s", error)

    Args:
        handler: An async function of one argument, the connection as an :class:`SSLStream`. The
            connection is closed when the function ends. An error that the function raises ends
            the server.
        port: The port number; with 0 the system chooses one.
        ssl_context: The server's certificate and settings.
        host: As for :func:`open_tcp_listeners`.
        https_compatible: True for web servers; see :class:`SSLStream`.
        backlog: As for :func:`open_tcp_listeners`.
        handler_nursery: The nursery of the handlers' tasks; None for one inside the server.
        task_status: Set by ``nursery.start``.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ``port`` is out of range.
        ssl.SSLError: ``ssl_context`` was made for the client's side.
        OSError: The port cannot be listened on.
        ExceptionGroup: The server failed, or a handler failed in the nursery inside the server.
        Cancelled: if the task is cancelled. A stop request ends the server gently.

    Checkpoint: yes.

    Trio: ``trio.serve_ssl_over_tcp``.
    """
    reject_non_functions((handler,))
    listeners = await open_ssl_over_tcp_listeners(
        port, ssl_context, host=host, https_compatible=https_compatible, backlog=backlog
    )
    await serve_listeners(
        handler, listeners, handler_nursery=handler_nursery, task_status=task_status
    )
