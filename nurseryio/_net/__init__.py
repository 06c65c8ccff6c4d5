"""The network: sockets, streams over sockets and file descriptors, listeners, and servers.

``constants``: the standard library's constants. ``sockettype``: the abstract class of sockets.
``sockets``: the system's sockets, and how their methods wait. ``stream``: ``SocketStream``.
``generic``: ``StapledStream`` and ``aclose_forcefully``, for streams of every kind.
``link``, ``linked_socket``: sockets over asyncio's transports, on loops that watch no descriptors.
``socket_makers``: the functions that make sockets. ``fd_stream``: streams over pipes and terminals.
``listener``: accepting. ``serve``: a task for each connection, for every kind of server.
``tcp_listen``: ``open_tcp_listeners`` and ``serve_tcp``.
``tcp_connect``: ``open_tcp_stream``, with Happy Eyeballs. ``unix``: Unix sockets, both sides.
Name look-up is in ``_resolver``, TLS in ``_tls``, DTLS in ``_dtls``, the waits in ``_loop``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

# For type checkers only. Each module is loaded on first use: a program that only connects does not
# load TLS.
if TYPE_CHECKING:
    from .fd_stream import FdStream as FdStream
    from .generic import StapledStream as StapledStream, aclose_forcefully as aclose_forcefully
    from .listener import SocketListener as SocketListener
    from .serve import serve_listeners as serve_listeners
    from .socket_makers import (
        from_stdlib_socket as from_stdlib_socket,
        fromfd as fromfd,
        set_custom_socket_factory as set_custom_socket_factory,
        socket as socket,
        socketpair as socketpair,
    )
    from .sockettype import SocketType as SocketType
    from .stream import SocketStream as SocketStream
    from .tcp_connect import open_tcp_stream as open_tcp_stream
    from .tcp_listen import open_tcp_listeners as open_tcp_listeners, serve_tcp as serve_tcp
    from .unix import (
        has_unix as has_unix,
        open_unix_listeners as open_unix_listeners,
        open_unix_socket as open_unix_socket,
        serve_unix as serve_unix,
    )
