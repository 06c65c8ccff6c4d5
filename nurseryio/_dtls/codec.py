"""The wire format of DTLS 1.2 (RFC 6347): records, handshake fragments, ClientHello.

This module reads and writes only the parts that OpenSSL does not handle for this library. One is
the ClientHello, which a server reads before it uses memory for the sender. OpenSSL does the
cryptography.

Rule 1: bytes from the network can be anything. Every function that reads raises :exc:`Malformed` on
bytes that it does not understand, and no other error.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = [
    "ALERT",
    "APPLICATION_DATA",
    "CHANGE_CIPHER_SPEC",
    "CLIENT_HELLO",
    "DTLS_1_0",
    "FRAGMENT_OVERHEAD",
    "HANDSHAKE",
    "HELLO_VERIFY_REQUEST",
    "RECORD_OVERHEAD",
    "ClientHello",
    "Fragment",
    "Malformed",
    "Record",
    "hello_verify_request",
    "is_client_hello",
    "is_of_handshake",
    "is_one_record_of_data",
    "is_unencrypted",
    "read_client_hello",
    "read_fragment",
    "read_records",
    "write_fragment",
    "write_record",
]

# Kinds of records.
CHANGE_CIPHER_SPEC = 20
ALERT = 21
HANDSHAKE = 22
APPLICATION_DATA = 23

# Kinds of handshake messages.
CLIENT_HELLO = 1
HELLO_VERIFY_REQUEST = 3

# A version is encoded in one's complement, so later versions have smaller numbers.
DTLS_1_0 = b"\xfe\xff"

# kind, version, epoch, number in the epoch (48 bits, here 16 and 32), length of the body
_RECORD = struct.Struct("!B2sHHIH")
RECORD_OVERHEAD = _RECORD.size

# kind, length of the whole message, number of the message, offset and length of this fragment. The
# lengths and the offset have 24 bits, here 8 and 16.
_FRAGMENT = struct.Struct("!BBHHBHBH")
FRAGMENT_OVERHEAD = _FRAGMENT.size


class Malformed(Exception):
    """These bytes are not a valid record, message or ClientHello."""


class Record(NamedTuple):
    """A record: the unit of encryption. A datagram holds one or more."""

    kind: int
    version: bytes
    # 0 until encryption begins, then 1, because renegotiation is switched off
    epoch: int
    # the number of the record in its epoch, from 0
    number: int
    body: bytes


class Fragment(NamedTuple):
    """A handshake message, or the part of one that fits into one record."""

    kind: int
    # bytes of the whole message
    total: int
    # the number of the message, counted for each side
    number: int
    offset: int
    body: bytes


class ClientHello(NamedTuple):
    """The message that opens a connection, split up for the server."""

    record_number: int
    cookie: bytes
    # the message without the cookie. A client must not change it when it sends the cookie back.
    rest: bytes


# -- records ----------------------------------------------------------------------


def is_unencrypted(datagram: bytes) -> bool:
    """Whether this datagram begins with an unencrypted record, so it belongs to the handshake."""
    return datagram[3:5] == b"\x00\x00"


def is_of_handshake(datagram: bytes) -> bool:
    """Whether this datagram begins with a kind of record that only a handshake contains."""
    return datagram[:1] in (b"\x14", b"\x16")


def is_one_record_of_data(datagram: bytes) -> bool:
    """Whether this datagram is exactly one record of application data."""
    return datagram[:1] == b"\x17" and RECORD_OVERHEAD + int.from_bytes(
        datagram[11:RECORD_OVERHEAD], "big"
    ) == len(datagram)


def is_client_hello(datagram: bytes) -> bool:
    """Whether this datagram looks like a ClientHello. It may still be malformed."""
    return datagram[:1] == bytes([HANDSHAKE]) and datagram[13:14] == bytes([CLIENT_HELLO])


def read_records(datagram: bytes) -> list[Record]:
    """Split a datagram into its records.

    Raises:
        Malformed: The datagram is cut off in a record.
    """
    records = []
    at = 0
    while at < len(datagram):
        if len(datagram) - at < RECORD_OVERHEAD:
            raise Malformed("the header of a record is cut off")
        kind, version, epoch, high, low, length = _RECORD.unpack_from(datagram, at)
        at += RECORD_OVERHEAD
        body = datagram[at : at + length]
        if len(body) < length:
            raise Malformed("a record is cut off")
        at += length
        records.append(Record(kind, version, epoch, high << 32 | low, body))
    return records


def write_record(record: Record) -> bytes:
    """Return the bytes of a record."""
    kind, version, epoch, number, body = record
    return _RECORD.pack(kind, version, epoch, number >> 32, number & 0xFFFFFFFF, len(body)) + body


# -- handshake messages -----------------------------------------------------------


def read_fragment(body: bytes) -> Fragment:
    """Read the body of a record of kind ``HANDSHAKE``.

    Raises:
        Malformed: The message is cut off, or more bytes follow it.
    """
    if len(body) < FRAGMENT_OVERHEAD:
        raise Malformed("the header of a handshake message is cut off")
    kind, high, low, number, offset_high, offset_low, size_high, size_low = _FRAGMENT.unpack_from(
        body
    )
    content = body[FRAGMENT_OVERHEAD:]
    if len(content) != size_high << 16 | size_low:
        raise Malformed("the length of a handshake message does not fit its record")
    return Fragment(kind, high << 16 | low, number, offset_high << 16 | offset_low, content)


def write_fragment(fragment: Fragment) -> bytes:
    """Return the bytes of a handshake message, or of a part of one."""
    kind, total, number, offset, body = fragment
    header = _FRAGMENT.pack(
        kind,
        total >> 16,
        total & 0xFFFF,
        number,
        offset >> 16,
        offset & 0xFFFF,
        len(body) >> 16,
        len(body) & 0xFFFF,
    )
    return header + body


def read_client_hello(datagram: bytes) -> ClientHello:
    """Read the datagram that opens a connection.

    A ClientHello must come in one piece. To join pieces, the server would have to remember the
    sender, and it must not do that before the sender has proved its address.

    Raises:
        Malformed: The datagram is not a ClientHello, or one in pieces.
    """
    records = read_records(datagram)
    if not records or records[0].kind != HANDSHAKE or records[0].epoch != 0:
        raise Malformed("not a handshake record")
    message = read_fragment(records[0].body)
    if message.kind != CLIENT_HELLO:
        raise Malformed("not a ClientHello")
    if message.offset != 0 or len(message.body) != message.total:
        raise Malformed("a ClientHello in pieces")
    body = message.body
    # The body is: version (2 bytes), random bytes (32), session id and cookie (each after one byte
    # with its length), other fields.
    at = 2 + 32
    for name in ("session id", "cookie"):
        start = at
        if at >= len(body):
            raise Malformed(f"a ClientHello without a {name}")
        at += 1 + body[at]
        if at > len(body):
            raise Malformed(f"a ClientHello cut off in its {name}")
    return ClientHello(records[0].number, body[start + 1 : at], body[:start] + body[at:])


def hello_verify_request(hello: ClientHello, cookie: bytes) -> bytes:
    """Return the datagram that asks for the same ClientHello again, with this cookie.

    Its record has the number of the record that it answers, because the server does not count
    records yet. It has the oldest version, because a version has not been agreed on yet.
    """
    body = DTLS_1_0 + bytes([len(cookie)]) + cookie
    message = write_fragment(Fragment(HELLO_VERIFY_REQUEST, len(body), 0, 0, body))
    return write_record(Record(HANDSHAKE, DTLS_1_0, 0, hello.record_number, message))
