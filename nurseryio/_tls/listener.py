"""TLS for the connections that a listener accepts: :class:`SSLListener`.

What lives here: the wrapping of each accepted connection. What does not: listening itself, and TLS
(:mod:`tls`).
"""

from __future__ import annotations

import ssl
from typing import TypeVar

from .._base import Final, Listener, Stream
from .._net.generic import aclose_forcefully
from .engine import check_context
from .stream import SSLStream

__all__ = ["SSLListener"]

StreamT = TypeVar("StreamT", bound=Stream)


class SSLListener(Listener[SSLStream[StreamT]], metaclass=Final):
    """Wraps each connection of another listener in an :class:`SSLStream`, as its server.

    The handshake is not done by ``accept``, so a slow client does not hold up the others; it
    happens when the new stream is first used.

    Args:
        transport_listener: Where the connections come from. From now on it belongs to this
            listener, and is closed with it. Kept as the attribute ``transport_listener``.
        ssl_context: The server's certificate and settings, as a rule
            ``ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)`` with a certificate loaded.
        https_compatible: As for :class:`SSLStream`.

    Raises:
        TypeError: ``ssl_context`` is not an ``ssl.SSLContext``.
        ssl.SSLError: ``ssl_context`` was made for the client's side.

    Trio: ``trio.SSLListener``.
    """

    transport_listener: Listener[StreamT]

    def __init__(
        self,
        transport_listener: Listener[StreamT],
        ssl_context: ssl.SSLContext,
        *,
        https_compatible: bool = False,
    ) -> None:
        check_context(ssl_context, server_side=True)
        self.transport_listener = transport_listener
        self._ssl_context = ssl_context
        self._https_compatible = https_compatible

    def __repr__(self) -> str:
        return f"<SSLListener over {self.transport_listener!r}>"

    async def accept(self) -> SSLStream[StreamT]:
        """Wait for a connection and return it wrapped; its handshake is still to be done.

        Raises:
            BusyResourceError: Another task is in ``accept`` of this listener.
            ClosedResourceError: The listener is closed, or was closed meanwhile.
            OSError: The system refuses, for example because it is out of file descriptors.

        Checkpoint: yes.
        """
        transport = await self.transport_listener.accept()
        try:
            return SSLStream(
                transport,
                self._ssl_context,
                server_side=True,
                https_compatible=self._https_compatible,
            )
        except BaseException:
            await aclose_forcefully(transport)
            raise

    async def aclose(self) -> None:
        """Close the listener underneath. Connections that were accepted stay open.

        Checkpoint: yes.
        """
        await self.transport_listener.aclose()
