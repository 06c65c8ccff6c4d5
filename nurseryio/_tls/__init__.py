"""TLS over any stream.

The modules, in reading order:

* ``engine``: the TLS protocol without I/O, around ``ssl.SSLObject``; a missing ``close_notify``.
* ``state``: whether a stream is usable, broken, closing or closed; how far its handshake is.
* ``info``: the attributes that report on a connection, such as certificate, cipher and ALPN.
* ``wire``: moving encrypted bytes between engine and transport, for a sender and a receiver.
* ``stream``: ``SSLStream`` itself: handshake, sending, receiving, ``unwrap``, closing.
* ``listener``: ``SSLListener``, which wraps each connection that another listener accepts.
* ``over_tcp``: connecting, listening and serving with TLS over TCP, in one call each.

TLS over datagrams is in ``_dtls``. TCP and sockets are in ``_net``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .listener import SSLListener as SSLListener
    from .over_tcp import (
        open_ssl_over_tcp_listeners as open_ssl_over_tcp_listeners,
        open_ssl_over_tcp_stream as open_ssl_over_tcp_stream,
        serve_ssl_over_tcp as serve_ssl_over_tcp,
    )
    from .stream import SSLStream as SSLStream
