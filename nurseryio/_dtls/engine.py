"""One end of a DTLS connection around pyOpenSSL, without I/O and without a clock.

This module has :class:`DTLSEngine`, around a pyOpenSSL ``Connection`` with memory buffers. Sockets,
waiting, and the timer that sends messages again are in :mod:`channel`.

pyOpenSSL does the cryptography, because the standard library's ``ssl`` does not support DTLS. It is
imported on first use, so that only users of DTLS need it.

Rule 1: during the handshake ``flight`` holds the messages to send. It stays the same until the
peer's answer leads to the next flight. OpenSSL would repeat a flight by itself, by the system's
clock; such repetitions are dropped.

Rule 2: a datagram that does not make sense is ignored, because any sender can send one.

Rule 3: OpenSSL's output is always read to the end. After the handshake the peer can make OpenSSL
produce output as often as it likes, by sending handshake messages. That output is dropped, and
:meth:`DTLSEngine.answer` returns the flight to send, if there is one.
"""

from __future__ import annotations

import hashlib
import types
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._base.forked import process_lock
from .codec import (
    ALERT,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    Malformed,
    Record,
    is_one_record_of_data,
    read_records,
    write_record,
)
from .flight import Flight, Handshake, Short, read_flight

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = [
    "MAX_DATA",
    "DTLSEngine",
    "HandshakeFailed",
    "PeerClosed",
    "prepare_context",
    "pyopenssl",
]

# Bytes of data in one record.
MAX_DATA = 16384

# Encrypted handshake records to remember. The peer sends one; further ones are forged.
SEALED_KEPT = 8

# Contexts whose options are set, with the sides (server or not) for which they were tried. A
# context may be used for many connections. Options are set only once, because some versions of
# pyOpenSSL refuse to set the options of a context in use.
_prepared: weakref.WeakKeyDictionary[SSL.Context, set[bool]] = weakref.WeakKeyDictionary()

# Endpoints of several loops may share a context. The lock is reentrant, because a finalizer may
# make a connection while it is held.
_preparing = process_lock(globals(), "_preparing")


class HandshakeFailed(Exception):
    """The handshake has failed, and cannot continue. ``__cause__`` is OpenSSL's error."""


class PeerClosed(Exception):
    """The peer has sent an authentic ``close_notify``: it will not send more."""


def pyopenssl() -> types.ModuleType:
    """Import and return the module ``OpenSSL.SSL``.

    Raises:
        ImportError: pyOpenSSL is not installed.
    """
    try:
        from OpenSSL import SSL
    except ImportError as error:
        raise ImportError(
            "DTLS needs the package pyOpenSSL: install it with 'pip install pyOpenSSL'"
        ) from error
    return SSL


def prepare_context(context: SSL.Context, *, server_side: bool) -> None:
    """Set the options that a context needs here, and check that it works for this side.

    A second call does nothing.

    Raises:
        TypeError: ``context`` is not an ``OpenSSL.SSL.Context``.
        ValueError: ``context`` is for TLS, or for the other side. Or it was used elsewhere before,
            and this version of pyOpenSSL refuses to set options then.
    """
    lib = pyopenssl()
    if not isinstance(context, lib.Context):
        raise TypeError(
            f"DTLS needs an OpenSSL.SSL.Context, not {context!r}; "
            "make one with OpenSSL.SSL.Context(OpenSSL.SSL.DTLS_METHOD)"
        )
    with _preparing:
        sides = _prepared.get(context)
        if sides is None:
            _set_options(context, lib)
            sides = _prepared[context] = set()
        if server_side not in sides:
            _try_out(context, lib, server_side=server_side)
            sides.add(server_side)


def _set_options(context: SSL.Context, lib: Any) -> None:
    # OpenSSL cannot ask a memory buffer for its MTU. A renegotiation is not needed in DTLS: a new
    # connection does the same. Also, it is hard to do right over a network that loses packets.
    context.set_options(lib.OP_NO_QUERY_MTU | lib.OP_NO_RENEGOTIATION)
    # The endpoint checks cookies before it makes an engine, so OpenSSL accepts every cookie.
    context.set_cookie_verify_callback(lambda *_: True)


def _try_out(context: SSL.Context, lib: Any, *, server_side: bool) -> None:
    """Begin a handshake without a peer, because a context does not show its purpose.

    Raises:
        ValueError: ``context`` is for TLS, or for the other side.
    """
    connection = lib.Connection(context)
    if not connection.get_protocol_version_name().startswith("DTLS"):
        raise ValueError(
            f"{context!r} was made for TLS; make one with "
            "OpenSSL.SSL.Context(OpenSSL.SSL.DTLS_METHOD)"
        )
    connection.set_ciphertext_mtu(MAX_DATA)
    if server_side:
        connection.set_accept_state()
    else:
        connection.set_connect_state()
    try:
        connection.do_handshake()
    except lib.WantReadError:
        pass
    except lib.Error as error:
        raise ValueError(
            f"OpenSSL refuses {context!r} for a {'server' if server_side else 'client'} "
            f"({describe(error)}); one made with OpenSSL.SSL.Context(OpenSSL.SSL.DTLS_METHOD) is "
            "for both sides"
        ) from error


class DTLSEngine:
    """One end of a connection.

    Args:
        context: The certificates and settings, after :func:`prepare_context`.
        mtu: The most bytes of a datagram.
    """

    __slots__ = ("_connection", "_lib", "_sealed", "alerts", "done", "flight")

    def __init__(self, context: SSL.Context, mtu: int) -> None:
        self._lib = pyopenssl()
        self._connection: SSL.Connection = self._lib.Connection(context)
        self.set_mtu(mtu)
        # The handshake is complete, as far as this end can know.
        self.done = False
        # Messages to send, and to send again until the peer answers.
        self.flight: Flight = []
        # Messages to send once.
        self.alerts: Flight = []
        # Hashes of the encrypted records that arrived in the handshake. The end of the peer's last
        # flight is one of them.
        self._sealed: deque[bytes] = deque(maxlen=SEALED_KEPT)

    # -- size of datagrams --------------------------------------------------------

    def set_mtu(self, mtu: int) -> None:
        """Set the most bytes of a datagram, encrypted."""
        self._connection.set_ciphertext_mtu(mtu)

    def data_mtu(self) -> int:
        """Return how many bytes of data fit into a datagram. Known after the handshake."""
        size: int = self._connection.get_cleartext_mtu()
        return size

    # -- handshake ----------------------------------------------------------------

    def be_client(self) -> None:
        """Take the client's side."""
        self._connection.set_connect_state()

    def be_server(self, datagram: bytes) -> bool:
        """Take the server's side, in answer to a ClientHello with a good cookie.

        Returns:
            Whether OpenSSL accepts the ClientHello as well.
        """
        self._connection.bio_write(datagram)
        try:
            self._connection.DTLSv1_listen()
        except self._lib.Error:
            return False
        return True

    def begin(self) -> None:
        """Make the first flight, unless it has been made.

        Raises:
            HandshakeFailed: OpenSSL reports an error.
        """
        if self.flight or self.done:
            return
        problem = self._step()
        try:
            self.flight = self._take_output()
            if problem is not None or not self.flight:
                raise HandshakeFailed("the handshake cannot begin") from problem
        finally:
            del problem  # so that the frame and the error do not form a reference cycle

    def advance(self, datagram: bytes) -> bool:
        """Process a datagram from the peer.

        Returns:
            True if there is a new flight to send, or the handshake is done. If it is done, the
            flight, which may be empty, is the last one. False if more datagrams of the peer are
            needed; there may be alerts to send.

        Raises:
            HandshakeFailed: The handshake has failed, for example because the peer's certificate is
                not trusted; there may be alerts to send. Or the peer has reported a failure.
        """
        if not datagram:
            # OpenSSL would raise an error.
            return False
        sealed = _sealed_handshake(datagram)
        if sealed is not None:
            self._sealed.append(_hash(sealed))
        self._connection.bio_write(datagram)
        problem = self._step()
        # OpenSSL forgets a message that does not make sense, and the next step works. After a fatal
        # error every step fails.
        failed = problem is not None and self._step() is not None
        output = self._take_output()
        self.alerts = [m for m in output if isinstance(m, Short) and m.kind == ALERT]
        if failed:
            try:
                raise HandshakeFailed(describe(problem)) from problem
            finally:
                del problem  # as above
        if self.done or (output and not self.alerts and not self._repeats(output)):
            self.flight = output
            return True
        return False

    def answer(self, datagram: bytes) -> Flight:
        """Return the messages to send for a handshake datagram that came after the handshake.

        If this end's last flight was lost, the peer repeats its last flight, and this end has to
        repeat its flight too. Only the end of the peer's flight proves that the peer sent it,
        because that record is encrypted. It is the same record as before, or a new record, which
        OpenSSL can check. Any other message could be forged. The answer to it would be larger than
        the message, and could reach another host, which would take it for part of another
        handshake.

        Raises:
            OpenSSL.SSL.Error: The connection is over.
        """
        sealed = _sealed_handshake(datagram)
        if sealed is None or not self.flight:  # without one, the last flight was the peer's
            return []
        if _hash(sealed) in self._sealed:
            return self.flight
        self._connection.bio_write(write_record(sealed))
        self._read_all(self._connection.recv)
        # OpenSSL repeats its flight if the record is authentic. If its output is only an alert, it
        # refuses a renegotiation.
        output = read_records(self._read_all(self._connection.bio_read))
        repeats = any(record.kind == CHANGE_CIPHER_SPEC for record in output)
        return self.flight if repeats else []

    def _step(self) -> Exception | None:
        """Let OpenSSL continue the handshake, and return its error, if there is one."""
        try:
            self._connection.do_handshake()
        except self._lib.WantReadError:
            return None
        except self._lib.Error as error:
            assert isinstance(error, Exception)
            return error
        self.done = True
        return None

    def _take_output(self) -> Flight:
        return read_flight(self._read_all(self._connection.bio_read))

    def _repeats(self, output: Flight) -> bool:
        """Whether this output is OpenSSL's repetition of the current flight (rule 1)."""
        if not self.flight:
            return False
        now, before = output[0], self.flight[0]
        return (
            isinstance(now, Handshake)
            and isinstance(before, Handshake)
            and now.number == before.number
        )

    # -- data -----------------------------------------------------------------------

    def encrypt(self, data: bytes) -> bytes:
        """Make a datagram from data, 1 to ``MAX_DATA`` bytes.

        Raises:
            OpenSSL.SSL.Error: The connection is over.
        """
        self._connection.send(data)
        return self._read_all(self._connection.bio_read)

    def decrypt(self, datagram: bytes) -> bytes:
        """Decrypt a datagram.

        Returns:
            The data, or ``b""`` if the datagram is to be ignored: repeated, late or forged.

        Raises:
            PeerClosed: The datagram is the peer's ``close_notify``.
            OpenSSL.SSL.Error: The peer reports that the connection has failed.
        """
        if not datagram:
            return b""
        self._connection.bio_write(datagram)
        try:
            data = self._read_all(self._connection.recv)
        except self._lib.ZeroReturnError as error:
            raise PeerClosed from error
        if not is_one_record_of_data(datagram):
            # Rule 3. Application data does not cause output, and reading it would take a third of
            # the time of this method.
            self._read_all(self._connection.bio_read)
        return data

    def _read_all(self, read: Callable[[int], bytes]) -> bytes:
        parts = []
        while True:
            try:
                parts.append(read(MAX_DATA))
            except self._lib.WantReadError:
                return b"".join(parts)


def _sealed_handshake(datagram: bytes) -> Record | None:
    """Return the encrypted handshake record in a datagram: the end of a last flight."""
    try:
        records = read_records(datagram)
    except Malformed:
        return None
    return next((r for r in records if r.kind == HANDSHAKE and r.epoch), None)


def _hash(record: Record) -> bytes:
    return hashlib.sha256(record.body).digest()


def describe(error: BaseException | None) -> str:
    """Return OpenSSL's list of errors as text."""
    found = error.args[0] if error is not None and error.args else ()
    if not isinstance(found, (list, tuple)):
        return repr(error)
    return "; ".join(str(entry[-1]) for entry in found) or repr(error)
