"""The network: sockets, streams over them, listeners and servers, name look-up, TLS and DTLS.

Nothing is loaded before it is asked for: a program that only connects loads no TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._base.lazy_exports import lazy_door

if TYPE_CHECKING:
    from .dtls import DTLSEndpoint as DTLSEndpoint
    from .dtls_channel import (
        DTLSChannel as DTLSChannel,
        DTLSChannelStatistics as DTLSChannelStatistics,
    )
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
    from .tls import SSLStream as SSLStream
    from .tls_listener import SSLListener as SSLListener
    from .tls_tcp import (
        open_ssl_over_tcp_listeners as open_ssl_over_tcp_listeners,
        open_ssl_over_tcp_stream as open_ssl_over_tcp_stream,
        serve_ssl_over_tcp as serve_ssl_over_tcp,
    )
    from .unix import (
        has_unix as has_unix,
        open_unix_listeners as open_unix_listeners,
        open_unix_socket as open_unix_socket,
        serve_unix as serve_unix,
    )

__getattr__, __dir__ = lazy_door(
    globals(),
    {
        "_net.dtls": "DTLSEndpoint",
        "_net.dtls_channel": "DTLSChannel DTLSChannelStatistics",
        "_net.fd_stream": "FdStream",
        "_net.generic": "StapledStream aclose_forcefully",
        "_net.listener": "SocketListener",
        "_net.serve": "serve_listeners",
        "_net.socket_makers": (
            "from_stdlib_socket fromfd set_custom_socket_factory socket socketpair"
        ),
        "_net.sockettype": "SocketType",
        "_net.stream": "SocketStream",
        "_net.tcp_connect": "open_tcp_stream",
        "_net.tcp_listen": "open_tcp_listeners serve_tcp",
        "_net.tls": "SSLStream",
        "_net.tls_listener": "SSLListener",
        "_net.tls_tcp": "open_ssl_over_tcp_listeners open_ssl_over_tcp_stream serve_ssl_over_tcp",
        "_net.unix": "has_unix open_unix_listeners open_unix_socket serve_unix",
    },
)
