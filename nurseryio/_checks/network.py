"""Connect to a listener that the test itself has opened.

This module has :func:`open_stream_to_socket_listener`. Connecting itself is in ``_net``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._net import SocketListener, SocketStream

# A listener on all addresses of the machine is reached at the loopback address.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


async def open_stream_to_socket_listener(socket_listener: SocketListener) -> SocketStream:
    """Connect to a listener, wherever it listens.

    With this function, a test's server can choose any free port::

        listeners = await nurseryio.open_tcp_listeners(0)
        client = await open_stream_to_socket_listener(listeners[0])

    Args:
        socket_listener: a listener on a TCP port or a Unix socket.

    Returns:
        A stream connected to the listener. The connection has not been accepted yet.

    Raises:
        OSError: if the connection fails.

    Checkpoint: yes.

    Trio: ``trio.testing.open_stream_to_socket_listener``.
    """
    # Imported here, because these modules load much of ``_net``.
    from .._net.socket_makers import socket as new_socket
    from .._net.stream import SocketStream

    family = socket_listener.socket.family
    address = socket_listener.socket.getsockname()
    if family in (socket.AF_INET, socket.AF_INET6):
        address = (LOOPBACK.get(address[0], address[0]), *address[1:])
    sock = new_socket(family=family)
    try:
        await sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return SocketStream(sock)
