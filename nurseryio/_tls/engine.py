"""The TLS protocol without any I/O: bytes of the wire in, bytes of the wire out.

What lives here: :class:`TLSEngine`, around an :class:`ssl.SSLObject` and its two memory buffers.
What does not: streams, waiting, locks, Trio's error classes; all that is in :mod:`tls`.

Rule 1: no method waits. One that cannot go on before the peer has said more says so by its return
value (``False``, ``0`` or ``None``, as documented); ``feed`` it and call the same method again.

Rule 2: every method may have put something out, also one that failed (an alert for the peer). What
was put out goes to the wire in the order of :meth:`TLSEngine.output`, completely, or the
connection is lost.

Rule 3: the end of the input is never told to OpenSSL. Whether an end without a ``close_notify`` is
an error depends on options of the context there, and on the version. Here it always is one: the
method that lacks input raises :exc:`ssl.SSLEOFError`, and nothing but a ``close_notify`` of the
peer makes :meth:`TLSEngine.decrypt` return ``b""``.

Rule 4: an error never overtakes data. Bytes that were decrypted before it come first.
"""

from __future__ import annotations

import ssl

__all__ = ["RECORD", "TLSEngine", "check_context", "explain", "is_end_of_input"]

# A TLS record holds at most this many bytes of data, and one read gives one record at most.
RECORD = 16384


def check_context(context: object, *, server_side: bool) -> None:
    """Check that this is a context, and for this side of a connection.

    Raises:
        TypeError: It is not an ``ssl.SSLContext``.
        ssl.SSLError: It was made for the other side.
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
    """What went wrong, for the text of our own error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate was rejected: {error.verify_message}"
    return str(error)


def is_end_of_input(error: BaseException | None) -> bool:
    """Whether this error says that the input ended without a ``close_notify``."""
    return isinstance(error, ssl.SSLEOFError)


class TLSEngine:
    """One end of a TLS connection.

    Args:
        context: What to offer and whom to trust.
        server_side: Which end this is.
        server_hostname: The name to ask for and to check, for a client.

    Raises:
        TypeError: ``server_hostname`` is neither text nor bytes.
        ValueError: ``server_hostname`` does not fit: missing although the context checks names, or
            empty.
        ssl.SSLError: The context is not made for this side.
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
            # The ssl module would go on and check nothing.
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
        # The peer will say nothing more.
        self._ended = False
        # Nothing is left to decrypt until something more is fed.
        self._dry = False
        # An error that was met behind data which had to go out first (rule 4).
        self._deferred: ssl.SSLError | None = None
        # So many bytes at the head of the output can wait until more is put out.
        self._held = 0

    # -- the wire ---------------------------------------------------------------

    def feed(self, data: bytes | bytearray) -> None:
        """Take in what came from the peer; ``b""`` stands for the end of the input."""
        if data:
            self._incoming.write(data)
            self._dry = False
        else:
            self._ended = True

    def output(self) -> bytes:
        """Take out everything that must go to the peer now; ``b""`` if there is nothing."""
        if self._outgoing.pending <= self._held:
            return b""
        self._held = 0
        return self._outgoing.read()

    @property
    def has_output(self) -> bool:
        """Whether :meth:`output` would return anything."""
        return self._outgoing.pending > self._held

    @property
    def unsent(self) -> int:
        """How many bytes :meth:`output` would return."""
        pending = self._outgoing.pending
        return pending if pending > self._held else 0

    @property
    def needs_input(self) -> bool:
        """Whether :meth:`decrypt` is known to need more input. May be False although it does."""
        return self._dry and not self._ended

    def leftover(self) -> bytes:
        """Take out the input that does not belong to TLS, after :meth:`shut_down` is through."""
        return self._incoming.read()

    # -- operations -------------------------------------------------------------

    def handshake(self) -> bool:
        """Go on with the handshake.

        Returns:
            True when it is complete; False if input is needed first.

        Raises:
            ssl.SSLError: It failed; :meth:`output` then has an alert for the peer, as a rule.
        """
        try:
            self.ssl_object.do_handshake()
        except ssl.SSLWantReadError:
            self._starve()
            return False
        if self.ssl_object.server_side and self.ssl_object.version() == "TLSv1.3":
            # What a server puts out at this point are session tickets. The client does not wait
            # for them, so it may never read them: sent at once, they can block us for ever, or
            # reset the connection when the client has closed it. They go with the next output.
            self._held = self._outgoing.pending
        return True

    def encrypt(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt some bytes, at least one.

        Returns:
            How many were encrypted, from the front. 0 if input is needed first (only during a
            renegotiation); the next call must then be given the same data.

        Raises:
            ssl.SSLError: The connection is lost.
        """
        try:
            return self.ssl_object.write(data)
        except ssl.SSLWantReadError:
            self._starve()
            return 0

    def decrypt(self, max_bytes: int | None = None) -> bytes | None:
        """Decrypt what has been fed.

        Args:
            max_bytes: The most bytes to return; None for all there are.

        Returns:
            At least one byte; ``b""`` if the peer has ended its data with a ``close_notify``;
            None if input is needed first.

        Raises:
            ssl.SSLError: The connection is lost, or its end was cut off (``SSLEOFError``).
        """
        if self._deferred is not None:
            raise self._deferred
        left = RECORD if max_bytes is None else max_bytes
        parts: list[bytes] = []
        try:
            while True:
                part = self.ssl_object.read(min(left, RECORD))
                parts.append(part)
                if not part:
                    break
                if not self._incoming.pending and not self.ssl_object.pending():
                    # Saves the expensive read that would only say so.
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
        """End our data with a ``close_notify``, and wait for the peer's.

        Returns:
            True when both have been said; False if the peer's is still to come.

        Raises:
            ssl.SSLError: The peer sent something else. Our own ``close_notify`` may have been put
                out all the same.
        """
        try:
            self.ssl_object.unwrap()
        except ssl.SSLWantReadError:
            self._starve()
            return False
        return True

    def _starve(self) -> None:
        """The call at hand needs input: an error if there will be none."""
        if self._ended:
            raise ssl.SSLEOFError(
                ssl.SSL_ERROR_EOF,
                "the connection ended without a TLS close_notify: the peer went away, "
                "or somebody cut the data off",
            )
