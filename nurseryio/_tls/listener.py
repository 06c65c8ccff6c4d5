"""TLS for the connections that a listener accepts: :class:`SSLListener`.

This module wraps each accepted connection in a stream. TLS itself is in ``stream``; listening is
in ``_net.listener``.
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
    """Wraps each connection of another listener in an :class:`SSLStream`, on the server's side.

    ``accept`` does not do the handshake, so a slow client does not delay the others. The handshake
    is done when the new stream is first used.

    Args:
        transport_listener: The listener that accepts the connections. From now on it belongs to
            this listener, and is closed with it. Kept as the attribute ``transport_listener``.
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
        """Wait for a connection and return it as an :class:`SSLStream`, before its handshake.

        Raises:
            BusyResourceError: Another task is in ``accept`` of this listener.
            ClosedResourceError: The listener is closed, or was closed meanwhile.
            OSError: The system reports an error, for example because file descriptors ran out.

        Checkpoint: yes.
        """
        transport = await self.transport_listener.accept()
        try:
            return self._wrap(transport)
        except BaseException:
            await aclose_forcefully(transport)
            raise

    def _wrap(self, transport: StreamT) -> SSLStream[StreamT]:
        return SSLStream(
            transport,
            self._ssl_context,
            server_side=True,
            https_compatible=self._https_compatible,
        )

    def _accept_queued(self) -> SSLStream[StreamT] | None:
        """Accept a connection that waits at the transport listener; None if there is none."""
        accept_queued = getattr(self.transport_listener, "_accept_queued", None)
        transport = None if accept_queued is None else accept_queued()
        return None if transport is None else self._wrap(transport)

    async def aclose(self) -> None:
        """Close the transport listener. Connections that were accepted stay open.

        Checkpoint: yes.
        """
        await self.transport_listener.aclose()
