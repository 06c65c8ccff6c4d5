"""The TLS protocol without any I/O: encrypted bytes in, encrypted bytes out.

This module has :class:`TLSEngine`, around an :class:`ssl.SSLObject` and its two memory buffers.
Waiting and locks are in ``wire``; streams and Trio's error classes are in ``stream``.

Rule 1: no method waits. A method that needs more from the peer first returns ``False``, ``0`` or
``None``, as documented. Call ``feed`` with more input, then call the same method again.

Rule 2: every method may produce output, also a method that raises (an alert for the peer). The
output must be sent in the order in which :meth:`TLSEngine.output` returns it. If some of it cannot
be sent, the connection is lost.

Rule 3: OpenSSL is never given the end of the input. Its answer to an end without a
``close_notify`` would depend on the context's options and on the OpenSSL version. Here such an end
is always an error: the method that lacks input raises :exc:`ssl.SSLEOFError`. Only a
``close_notify`` of the peer makes :meth:`TLSEngine.decrypt` return ``b""``.

Rule 4: an error never overtakes data. Bytes that were decrypted before the error are returned
first.
"""

from __future__ import annotations

import ssl

__all__ = ["RECORD", "TLSEngine", "check_context", "explain", "is_end_of_input"]

# A TLS record holds at most this many bytes of data, and one read gives one record at most.
RECORD = 16384


def check_context(context: object, *, server_side: bool) -> None:
    """Check that ``context`` is an ``ssl.SSLContext``, made for this side of a connection.

    Raises:
        TypeError: ``context`` is not an ``ssl.SSLContext``.
        ssl.SSLError: ``context`` was made for the other side.
    """
    if isinstance(context, ssl.SSLContext):
        wrong = ssl.PROTOCOL_TLS_CLIENT if server_side else ssl.PROTOCOL_TLS_SERVER
        if context.protocol is not wrong:
            return
    if server_side:
        this, other = "server", "client"
        make = "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) and load a certificate into it"
    else:
        this, other, make = "client", "server", "ssl.create_default_context()"
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(
            f"ssl_context must be an ssl.SSLContext, not {context!r}; make one with {make}"
        )
    raise ssl.SSLError(
        ssl.SSL_ERROR_SSL,
        f"ssl_context was made for a {other}, and this is the {this}'s side of the connection; "
        f"make one with {make}",
    )


def explain(error: ssl.SSLError) -> str:
    """Return the reason of an error of the ``ssl`` module, for the message of another error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate was rejected: {error.verify_message}"
    return str(error)


def is_end_of_input(error: BaseException | None) -> bool:
    """Whether this error means that the input ended without a ``close_notify``."""
    return isinstance(error, ssl.SSLEOFError)


class TLSEngine:
    """One end of a TLS connection.

    Args:
        context: The settings: protocol versions, certificates, trusted authorities.
        server_side: True for the server's end, False for the client's.
        server_hostname: For a client: the host name to request and to check.

    Raises:
        TypeError: ``server_hostname`` is neither text nor bytes.
        ValueError: ``server_hostname`` is missing although the context checks names, or it is
            empty.
        ssl.SSLError: The context was made for the other side.
    """

    __slots__ = ("_deferred", "_dry", "_ended", "_held", "_incoming", "_outgoing", "ssl_object")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
    ) -> None:
        if not isinstance(server_hostname, (str, bytes, type(None))):
            raise TypeError(f"server_hostname must be a string or None, not {server_hostname!r}")
        if context.check_hostname and server_hostname is None and not server_side:
            # The ssl module would accept this, and would check nothing.
            raise ValueError(
                "server_hostname is needed, as ssl_context.check_hostname is True: "
                "without it nobody could tell whether the server is the right one"
            )
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.ssl_object: ssl.SSLObject = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        # The input has ended: the peer will send nothing more.
        self._ended = False
        # Nothing is left to decrypt until more input is fed.
        self._dry = False
        # An error that came after data, and is raised once the data has been returned (rule 4).
        self._deferred: ssl.SSLError | None = None
        # The number of bytes at the head of the output that can wait until there is more output.
        self._held = 0

    # -- the wire ---------------------------------------------------------------

    def feed(self, data: bytes | bytearray) -> None:
        """Add input that came from the peer; ``b""`` stands for the end of the input."""
        if data:
            self._incoming.write(data)
            self._dry = False
        else:
            self._ended = True

    def output(self) -> bytes:
        """Remove and return all output that must be sent now; ``b""`` if there is none."""
        if self._outgoing.pending <= self._held:
            return b""
        self._held = 0
        return self._outgoing.read()

    @property
    def has_output(self) -> bool:
        """Whether :meth:`output` would return at least one byte."""
        return self._outgoing.pending > self._held

    @property
    def unsent(self) -> int:
        """How many bytes :meth:`output` would return."""
        pending = self._outgoing.pending
        return pending if pending > self._held else 0

    @property
    def needs_input(self) -> bool:
        """True if :meth:`decrypt` certainly needs more input first.

        False means that it may or may not.
        """
        return self._dry and not self._ended

    def leftover(self) -> bytes:
        """Remove and return the input that came after the end of the encrypted data.

        Call this once :meth:`shut_down` has returned True.
        """
        return self._incoming.read()

    # -- operations -------------------------------------------------------------

    def handshake(self) -> bool:
        """Start or continue the handshake.

        Returns:
            True when the handshake is complete; False if input is needed first.

        Raises:
            ssl.SSLError: The handshake failed. As a rule, :meth:`output` then has an alert for the
                peer.
        """
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            self._starve()
            return False
        if self.ssl_object.server_side and self.ssl_object.version() == "TLSv1.3":
            # At this point the output of a server is session tickets. The client does not wait
            # for them, so it may never read them. If they were sent at once, the send could block
            # for ever, or could reset a connection that the client has closed. So they are kept
            # until there is other output, and are sent together with it.
            self._held = self._outgoing.pending
        return True

    def encrypt(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt data of at least one byte.

        Returns:
            The number of bytes, from the front of ``data``, that were encrypted. 0 if input is
            needed first, which happens only during a renegotiation. The next call must then be
            given the same data.

        Raises:
            ssl.SSLError: The connection is lost.
        """
        try:
            return self.ssl_object.write(data)
        except ssl.SSLWantReadError:
            self._starve()
            return 0

    def decrypt(self, max_bytes: int | None = None) -> bytes | None:
        """Decrypt the input that has been fed.

        Args:
            max_bytes: The most bytes to return; None for all that are available.

        Returns:
            At least one byte; ``b""`` if the peer has ended its data with a ``close_notify``;
            None if input is needed first.

        Raises:
            ssl.SSLError: The connection is lost, or it ended without a ``close_notify``
                (``SSLEOFError``).
        """
        if self._deferred is not None:
            raise self._deferred
        left = RECORD if max_bytes is None else max_bytes
        parts: list[bytes] = []
        try:
            while True:
                most = RECORD if left > RECORD else left
                part = self.ssl_object.read(most)
                parts.append(part)
                if not part:
                    break
                if not self._incoming.pending and (
                    len(part) < most or not self.ssl_object.pending()
                ):
                    # Nothing is left: a read that returns less has taken all of its record. Asking
                    # OpenSSL by another read would be expensive.
                    self._dry = True
                    break
                if max_bytes is not None:
                    left -= len(part)
                    if not left:
                        break
        except ssl.SSLWantReadError:
            self._dry = True
            if not parts:
                self._starve()
                return None
        except ssl.SSLError as error:
            if not parts:
                raise
            self._deferred = error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def shut_down(self) -> bool:
        """Put out a ``close_notify``, and check for that of the peer.

        Returns:
            True when both sides have sent theirs; False if the peer's has not arrived yet.

        Raises:
            ssl.SSLError: The peer sent something else. The output may have a ``close_notify`` of
                this side all the same.
        """
        try:
            self.ssl_object.unwrap()
        except ssl.SSLWantReadError:
            self._starve()
            return False
        return True

    def _starve(self) -> None:
        """Raise an error if the input has ended; called by a method that needs more input."""
        if self._ended:
            raise ssl.SSLEOFError(
                ssl.SSL_ERROR_EOF,
                "the connection ended without a TLS close_notify: the peer went away, "
                "or somebody cut the data off",
            )
