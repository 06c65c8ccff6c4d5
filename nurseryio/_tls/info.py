"""What a TLS stream can tell about its connection: the attributes of :class:`ssl.SSLObject`.

What lives here: :class:`TLSInfo`, the part of :class:`nurseryio.SSLStream` that asks the ``ssl``
module and does nothing by itself. What does not: anything that moves bytes.

Rule 1: what is known from the start is an attribute that can be read at any time. What the
handshake finds out raises :exc:`NeedHandshakeError` before it, where ``ssl`` would return a
misleading None.
"""

from __future__ import annotations

import ssl
from typing import Any, Literal, overload

from .._base import NeedHandshakeError

__all__ = ["TLSInfo"]


class TLSInfo:
    """Mixin: a subclass provides the SSL object and says whether the handshake is done."""

    __slots__ = ()

    @property
    def _ssl_object(self) -> ssl.SSLObject:
        # Libraries written for Trio know it by this name: httpcore, and with it httpx, asks it
        # which protocol was agreed on.
        raise NotImplementedError

    def _is_handshake_done(self) -> bool:
        raise NotImplementedError

    def _after_handshake(self, name: str) -> ssl.SSLObject:
        if not self._is_handshake_done():
            raise NeedHandshakeError(f"await do_handshake() before asking for {name}")
        return self._ssl_object

    # -- at any time ------------------------------------------------------------

    @property
    def context(self) -> ssl.SSLContext:
        """The :class:`ssl.SSLContext`; may be replaced, in an ``sni_callback`` for example."""
        return self._ssl_object.context

    @context.setter
    def context(self, context: ssl.SSLContext) -> None:
        self._ssl_object.context = context

    @property
    def server_side(self) -> bool:
        """Whether this is the server's end."""
        return self._ssl_object.server_side

    @property
    def server_hostname(self) -> str | None:
        """The host name that a client asked for, in its ASCII form."""
        return self._ssl_object.server_hostname

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session; a client may set one of an earlier connection before the handshake."""
        return self._ssl_object.session

    @session.setter
    def session(self, session: ssl.SSLSession) -> None:
        self._ssl_object.session = session

    def pending(self) -> int:
        """Return how many decrypted bytes can be received without waiting."""
        return self._ssl_object.pending()

    # -- after the handshake ----------------------------------------------------

    @property
    def session_reused(self) -> bool | None:
        """Whether the session of an earlier connection was resumed.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("session_reused").session_reused

    @overload
    def getpeercert(self, binary_form: Literal[False] = False) -> dict[str, Any] | None: ...
    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...
    @overload
    def getpeercert(self, binary_form: bool) -> dict[str, Any] | bytes | None: ...
    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """Return the peer's certificate; see :meth:`ssl.SSLSocket.getpeercert`.

        Args:
            binary_form: True for the DER form, in bytes.

        Returns:
            The certificate; None if the peer sent none; an empty dict if it was not checked.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("getpeercert()").getpeercert(binary_form)

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that both ends agreed on, None without ALPN.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("selected_alpn_protocol()").selected_alpn_protocol()

    def selected_npn_protocol(self) -> str | None:
        """Return None: NPN, the forerunner of ALPN, is gone from today's TLS.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        self._after_handshake("selected_npn_protocol()")
        return None

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher in use: its name, TLS version and number of secret bits.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("cipher()").cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """Return the ciphers that both ends know, on a server; None on a client.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("shared_ciphers()").shared_ciphers()

    def compression(self) -> str | None:
        """Return the name of the compression in use, which is None with today's TLS.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("compression()").compression()

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """Return channel binding data for this connection.

        Args:
            cb_type: Which kind, one of :data:`ssl.CHANNEL_BINDING_TYPES`.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
            ValueError: The kind is not known.
        """
        return self._after_handshake("get_channel_binding()").get_channel_binding(cb_type)

    def version(self) -> str | None:
        """Return the TLS version in use, such as ``"TLSv1.3"``.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("version()").version()
