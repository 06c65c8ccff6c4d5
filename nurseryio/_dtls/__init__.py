"""DTLS over UDP: endpoints, which own a socket, and channels, which are the connections.

``codec``: the wire format. ``cookie``: the proof that a peer receives at its address.
``flight``: handshake messages in datagrams. ``engine``: one end of a connection, without I/O.
``channel``: one connection: handshake, timer, sending and receiving packets.
``endpoint``: the socket, the task that reads it, connecting and serving.
TLS over streams is in ``_tls``; cryptography is in pyOpenSSL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .channel import (
        DTLSChannel as DTLSChannel,
        DTLSChannelStatistics as DTLSChannelStatistics,
    )
    from .endpoint import DTLSEndpoint as DTLSEndpoint
