"""Connecting to a listener that is here in the test.

What lives here: :func:`open_stream_to_socket_listener`. What does not: how connecting is done;
see the network room.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._net import SocketListener, SocketStream

# A listener on every address of the machine is reached at the one that leads nowhere else.
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}


async def open_stream_to_socket_listener(socket_listener: SocketListener) -> SocketStream:
    """Connect to a listener, wherever it listens.

    Lets a test's server pick its own port::

        listeners = await nurseryio.open_tcp_listeners(0)
        client = await open_stream_to_socket_listener(listeners[0])

    Args:
        socket_listener: a listener on a TCP port or a Unix socket.

    Returns:
        A stream connected to it. Nothing is accepted by this.

    Raises:
        OSError: if the connection fails.

    Checkpoint: yes.

    Trio: ``trio.testing.open_stream_to_socket_listener``.
    """
    # Asked for here, as it brings the network room with it.
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
