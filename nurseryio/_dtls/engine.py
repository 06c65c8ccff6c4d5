"""One end of a DTLS connection without any I/O and without a clock.

What lives here: :class:`DTLSEngine`, around a pyOpenSSL ``Connection`` with memory buffers. What
does not: sockets, waiting, and the decision when to send something again; all that is in
:mod:`dtls_channel`.

pyOpenSSL does the cryptography, as the standard library's ``ssl`` knows no DTLS. It is loaded when
the first engine is made, so that only those need it who use DTLS.

Rule 1: during the handshake the engine says what to send as a *flight*, which stays the same until
the peer's answer brings the next one. OpenSSL would repeat a flight by itself, by the clock on the
wall; such repetitions are dropped.

Rule 2: a datagram that means nothing is as if it had not come. Anybody can send one.

Rule 3: nothing stays in OpenSSL's output. After the handshake the peer can draw some as often as it
likes, with messages of a handshake; it is dropped, or answered by :meth:`DTLSEngine.answer`.
"""

from __future__ import annotations

import hashlib
import types
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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

# Encrypted records of the handshake that are remembered. The peer sends one; others are forged.
SEALED_KEPT = 8

# Contexts that have their options, with the sides (server or not) that they were tried for. Some
# versions of pyOpenSSL refuse to set options once a context is in use, and a context may be used
# for many connections.
_prepared: weakref.WeakKeyDictionary[SSL.Context, set[bool]] = weakref.WeakKeyDictionary()


class HandshakeFailed(Exception):
    """The handshake has failed for good; the cause is OpenSSL's error."""


class PeerClosed(Exception):
    """The peer has said, authentically, that it will send nothing more."""


def pyopenssl() -> types.ModuleType:
    """The module ``OpenSSL.SSL``.

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
    """Set the options without which a context cannot be used here, and try whether it can be.

    A second time does nothing.

    Raises:
        TypeError: It is no ``OpenSSL.SSL.Context``.
        ValueError: It is for TLS, or for the other side. Or it was used for something else before,
            and this pyOpenSSL then refuses options.
    """
    lib = pyopenssl()
    if not isinstance(context, lib.Context):
        raise TypeError(
            f"DTLS needs an OpenSSL.SSL.Context, not {context!r}; "
            "make one with OpenSSL.SSL.Context(OpenSSL.SSL.DTLS_METHOD)"
        )
    sides = _prepared.get(context)
    if sides is None:
        _set_options(context, lib)
        sides = _prepared[context] = set()
    if server_side not in sides:
        _try_out(context, lib, server_side=server_side)
        sides.add(server_side)


def _set_options(context: SSL.Context, lib: Any) -> None:
    # A memory buffer has no MTU to be asked for. A renegotiation is as good as a new connection in
    # DTLS, and hard to do right over a network that loses things.
    context.set_options(lib.OP_NO_QUERY_MTU | lib.OP_NO_RENEGOTIATION)
    # Cookies are checked before there is an engine; OpenSSL is to take our word for it.
    context.set_cookie_verify_callback(lambda *_: True)


def _try_out(context: SSL.Context, lib: Any, *, server_side: bool) -> None:
    """Begin a handshake that goes nowhere: a context does not tell what it was made for."""
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
        context: What to offer and whom to trust, after :func:`prepare_context`.
        mtu: The most bytes of a datagram.
    """

    __slots__ = ("_connection", "_lib", "_sealed", "alerts", "done", "flight")

    def __init__(self, context: SSL.Context, mtu: int) -> None:
        self._lib = pyopenssl()
        self._connection: SSL.Connection = self._lib.Connection(context)
        self.set_mtu(mtu)
        # The handshake is complete, as far as this end can know.
        self.done = False
        # What to send, and to send again until there is an answer.
        self.flight: Flight = []
        # What to send once.
        self.alerts: Flight = []
        # Hashes of the encrypted records that came in the handshake: the end of the peer's last
        # flight is among them.
        self._sealed: deque[bytes] = deque(maxlen=SEALED_KEPT)

    # -- size of datagrams --------------------------------------------------------

    def set_mtu(self, mtu: int) -> None:
        """Set the most bytes of a datagram, encrypted."""
        self._connection.set_ciphertext_mtu(mtu)

    def data_mtu(self) -> int:
        """How many bytes of data fit into a datagram. Known after the handshake."""
        size: int = self._connection.get_cleartext_mtu()
        return size

    # -- handshake ----------------------------------------------------------------

    def be_client(self) -> None:
        """Take the client's side."""
        self._connection.set_connect_state()

    def be_server(self, datagram: bytes) -> bool:
        """Take the server's side, in answer to a ClientHello with a good cookie.

        Returns:
            Whether OpenSSL likes it, too.
        """
        self._connection.bio_write(datagram)
        try:
            self._connection.DTLSv1_listen()
        except self._lib.Error:
            return False
        return True

    def begin(self) -> None:
        """Make the first flight, if that has not been done.

        Raises:
            HandshakeFailed: OpenSSL refuses.
        """
        if self.flight or self.done:
            return
        problem = self._step()
        try:
            self.flight = self._take_output()
            if problem is not None or not self.flight:
                raise HandshakeFailed("the handshake cannot begin") from problem
        finally:
            del problem  # no circle

    def advance(self, datagram: bytes) -> bool:
        """Take in a datagram from the peer.

        Returns:
            True if there is a new flight to send, or the handshake is done (then the flight, which
            may be empty, is the last one). False if the peer has more to say; there may be alerts
            to send.

        Raises:
            HandshakeFailed: It has failed, for example as the peer's certificate is not trusted;
                there may be alerts to send. Or the peer has said so.
        """
        if not datagram:
            # OpenSSL would complain.
            return False
        sealed = _sealed_handshake(datagram)
        if sealed is not None:
            self._sealed.append(_hash(sealed))
        self._connection.bio_write(datagram)
        problem = self._step()
        # A message that made no sense is forgotten, but after an error that matters every step
        # fails.
        failed = problem is not None and self._step() is not None
        output = self._take_output()
        self.alerts = [m for m in output if isinstance(m, Short) and m.kind == ALERT]
        if failed:
            try:
                raise HandshakeFailed(describe(problem)) from problem
            finally:
                del problem  # no circle
        if self.done or (output and not self.alerts and not self._repeats(output)):
            self.flight = output
            return True
        return False

    def answer(self, datagram: bytes) -> Flight:
        """What to send for a datagram with handshake messages that came after the handshake.

        If our last flight was lost, the peer repeats its own, and ours has to be sent again. Only
        the end of the peer's flight proves that it comes from there: it is encrypted. It is the
        same record as before, or a new one, which OpenSSL can check. Anything else could be forged,
        and our answer would be larger than it, sent to somebody else, and taken for part of another
        handshake there.

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
        # OpenSSL repeats its flight if the record is good. A lone alert refuses a renegotiation.
        output = read_records(self._read_all(self._connection.bio_read))
        repeats = any(record.kind == CHANGE_CIPHER_SPEC for record in output)
        return self.flight if repeats else []

    def _step(self) -> Exception | None:
        """Have OpenSSL go on with the handshake; the error, if there is one."""
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
        """Whether this is what has been said before: OpenSSL's own idea of when to repeat it."""
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
            Its data; ``b""`` if it is not for us: repeated, late, forged.

        Raises:
            PeerClosed: It is the peer's ``close_notify``.
            OpenSSL.SSL.Error: It is the peer's word that the connection has failed.
        """
        if not datagram:
            return b""
        self._connection.bio_write(datagram)
        try:
            data = self._read_all(self._connection.recv)
        except self._lib.ZeroReturnError as error:
            raise PeerClosed from error
        if not is_one_record_of_data(datagram):
            # Rule 3. Plain data draws nothing, and the look would take a third of the time.
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
    """The encrypted handshake message in a datagram: the end of a last flight."""
    try:
        records = read_records(datagram)
    except Malformed:
        return None
    return next((r for r in records if r.kind == HANDSHAKE and r.epoch), None)


def _hash(record: Record) -> bytes:
    return hashlib.sha256(record.body).digest()


def describe(error: BaseException | None) -> str:
    """OpenSSL's list of errors, as text."""
    found = error.args[0] if error is not None and error.args else ()
    if not isinstance(found, (list, tuple)):
        return repr(error)
    return "; ".join(str(entry[-1]) for entry in found) or repr(error)
