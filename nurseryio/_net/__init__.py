"""The network: sockets, streams over them, listeners and servers, name look-up, TLS and DTLS.

Nothing is loaded before it is asked for: a program that only connects loads no TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
