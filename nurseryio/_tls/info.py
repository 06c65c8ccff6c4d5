"""The attributes that report on a TLS connection, as :class:`ssl.SSLObject` has them.

This module has :class:`TLSInfo`, a base class of :class:`nurseryio.SSLStream`. Its attributes and
methods pass on to the ``ssl`` module and do nothing else. Code that moves bytes is in ``wire`` and
``stream``.

Rule 1: an attribute that is known from the start can be read at any time. An attribute that the
handshake determines raises :exc:`NeedHandshakeError` before the handshake, where ``ssl`` would
return a misleading None.

Rule 2: a method exists exactly where :class:`ssl.SSLObject` has it: in the same Python versions.
"""

from __future__ import annotations

import ssl
import sys
from typing import Any, Literal, overload

from .._base import NeedHandshakeError

__all__ = ["TLSInfo"]


class TLSInfo:
    """Mixin. A subclass has to define ``_ssl_object``, ``_is_handshake_done`` and ``_check``."""

    __slots__ = ()

    @property
    def _ssl_object(self) -> ssl.SSLObject:
        # Libraries written for Trio use this name: httpcore, and so httpx, gets the negotiated
        # protocol from it.
        raise NotImplementedError

    def _is_handshake_done(self) -> bool:
        raise NotImplementedError

    def _check(self) -> None:
        raise NotImplementedError

    def _after_handshake(self, name: str) -> ssl.SSLObject:
        if not self._is_handshake_done():
            raise NeedHandshakeError(f"call do_handshake() before calling {name!r}")
        return self._ssl_object

    # -- at any time ------------------------------------------------------------

    @property
    def context(self) -> ssl.SSLContext:
        """The :class:`ssl.SSLContext`. It may be replaced, for example in an ``sni_callback``."""
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
        """The host name that was given to a client, in its ASCII form; None on a server."""
        return self._ssl_object.server_hostname

    @property
    def session(self) -> ssl.SSLSession | None:
        """The TLS session.

        Before the handshake, a client may set the session of an earlier connection.
        """
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
            The certificate; None if the peer sent none; an empty dict if the certificate was not
            checked.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("getpeercert").getpeercert(binary_form)

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that both ends agreed on by ALPN; None if they agreed on none.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("selected_alpn_protocol").selected_alpn_protocol()

    def selected_npn_protocol(self) -> str | None:
        """Return None: today's TLS does not have NPN, the predecessor of ALPN.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        self._after_handshake("selected_npn_protocol")
        return None

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher in use: its name, TLS version and number of secret bits.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("cipher").cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """Return the ciphers that both ends know, on a server.

        On a client the answer has no meaning: None, or with some releases of Python 3.10 and 3.11
        a list of the ciphers that the client offered.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("shared_ciphers").shared_ciphers()

    def compression(self) -> str | None:
        """Return the name of the compression in use, which is None with today's TLS.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("compression").compression()

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """Return channel binding data for this connection.

        Args:
            cb_type: The kind of data, one of :data:`ssl.CHANNEL_BINDING_TYPES`.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
            ValueError: ``cb_type`` is not known.
        """
        return self._after_handshake("get_channel_binding").get_channel_binding(cb_type)

    def version(self) -> str | None:
        """Return the TLS version in use, such as ``"TLSv1.3"``.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
        """
        return self._after_handshake("version").version()

    def verify_client_post_handshake(self) -> None:
        """On a server with TLS 1.3, request the client's certificate after the handshake.

        The next :meth:`send_all` sends the request. The answer arrives while one of the next calls
        of :meth:`receive_some` waits for data. See :attr:`ssl.SSLContext.post_handshake_auth`.

        Raises:
            NeedHandshakeError: The handshake is not done yet.
            ClosedResourceError: The stream is closed.
            BrokenResourceError: The stream is broken.
            ssl.SSLError: This is a client, or the TLS version is older, or the client's context
                does not permit it, or this context's ``verify_mode`` is ``CERT_NONE``. Or the
                previous request was not answered yet.
        """
        ssl_object = self._after_handshake("verify_client_post_handshake")
        self._check()  # on a closed stream the request would never be sent
        ssl_object.verify_client_post_handshake()

    if sys.version_info >= (3, 13):

        def get_verified_chain(self) -> list[bytes]:
            """Return the peer's certificate and those above it, as they were verified (DER form).

            Returns:
                The certificates; the same as :meth:`get_unverified_chain` if they were not checked.

            Raises:
                NeedHandshakeError: The handshake is not done yet.
            """
            return self._after_handshake("get_verified_chain").get_verified_chain()

        def get_unverified_chain(self) -> list[bytes]:
            """Return the certificates that the peer sent (DER form); an empty list if it sent none.

            Raises:
                NeedHandshakeError: The handshake is not done yet.
            """
            return self._after_handshake("get_unverified_chain").get_unverified_chain()

    if sys.version_info >= (3, 15):

        def group(self) -> str | None:
            """Return the name of the group in which the keys were agreed on, such as ``"x25519"``.

            Raises:
                NeedHandshakeError: The handshake is not done yet.
                NotImplementedError: The TLS library is too old to report it.
            """
            return self._after_handshake("group").group()

        def client_sigalg(self) -> str | None:
            """Return the algorithm of the client's signature; None if it sent no certificate.

            Raises:
                NeedHandshakeError: The handshake is not done yet.
                NotImplementedError: The TLS library is too old to report it.
            """
            return self._after_handshake("client_sigalg").client_sigalg()

        def server_sigalg(self) -> str | None:
            """Return the algorithm of the server's signature in the handshake.

            Raises:
                NeedHandshakeError: The handshake is not done yet.
                NotImplementedError: The TLS library is too old to report it.
            """
            return self._after_handshake("server_sigalg").server_sigalg()
