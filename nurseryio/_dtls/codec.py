"""How DTLS 1.2 looks on the wire, as far as we must read and write it ourselves (RFC 6347).

What lives here: records, fragments of handshake messages, and what a server reads of a ClientHello
before it spends any memory on its sender. What does not: cryptography, which is OpenSSL's.

Rule 1: what comes from the network can be anything. Every function that reads raises
:exc:`Malformed` on bytes that it does not understand, and nothing else.
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

# Versions count backwards, in one's complement.
DTLS_1_0 = b"\xfe\xff"

# kind, version, epoch, number in the epoch (48 bits, here 16 and 32), length of what follows
_RECORD = struct.Struct("!B2sHHIH")
RECORD_OVERHEAD = _RECORD.size

# kind, length of the whole message (24 bits, here 8 and 16), number of the message, then offset and
# length of this fragment (24 bits each, likewise)
_FRAGMENT = struct.Struct("!BBHHBHBH")
FRAGMENT_OVERHEAD = _FRAGMENT.size


class Malformed(Exception):
    """These bytes are not what they should be."""


class Record(NamedTuple):
    """A record: the unit of encryption. A datagram holds one or more."""

    kind: int
    version: bytes
    # 0 until encryption begins, then 1, as there is no renegotiation here
    epoch: int
    # counts from 0 in each epoch
    number: int
    body: bytes


class Fragment(NamedTuple):
    """A handshake message, or the part of one that fits into one record."""

    kind: int
    # bytes of the whole message
    total: int
    # counts the messages of one side
    number: int
    offset: int
    body: bytes


class ClientHello(NamedTuple):
    """The message that opens a connection, as its receiver sees it."""

    record_number: int
    cookie: bytes
    # all of the message but the cookie: a client must not change it when it sends the cookie back
    rest: bytes


# -- records ----------------------------------------------------------------------


def is_unencrypted(datagram: bytes) -> bool:
    """Whether this datagram is of the time before encryption, when all is handshake."""
    return datagram[3:5] == b"\x00\x00"


def is_of_handshake(datagram: bytes) -> bool:
    """Whether this datagram begins with what only a handshake contains."""
    return datagram[:1] in (b"\x14", b"\x16")


def is_one_record_of_data(datagram: bytes) -> bool:
    """Whether this datagram is one record with data of the user, and nothing else."""
    return datagram[:1] == b"\x17" and RECORD_OVERHEAD + int.from_bytes(
        datagram[11:RECORD_OVERHEAD], "big"
    ) == len(datagram)


def is_client_hello(datagram: bytes) -> bool:
    """Whether this datagram looks like a ClientHello: a first glance, which settles nothing."""
    return datagram[:1] == bytes([HANDSHAKE]) and datagram[13:14] == bytes([CLIENT_HELLO])


def read_records(datagram: bytes) -> list[Record]:
    """Take a datagram apart.

    Raises:
        Malformed: It is cut off somewhere.
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
    """The bytes of a record."""
    kind, version, epoch, number, body = record
    return _RECORD.pack(kind, version, epoch, number >> 32, number & 0xFFFFFFFF, len(body)) + body


# -- handshake messages -----------------------------------------------------------


def read_fragment(body: bytes) -> Fragment:
    """Read the body of a record of kind ``HANDSHAKE``.

    Raises:
        Malformed: It is cut off, or something follows.
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
    """The bytes of a handshake message or of a part of one."""
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

    A ClientHello must come in one piece: to put pieces together, one has to remember something
    about their sender, and this is read in order to find out whether the sender is worth it.

    Raises:
        Malformed: It is none, or in pieces.
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
    # version (2), random bytes (32), session id and cookie, each with a byte for its length, the
    # rest
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
    """The datagram that asks the sender of a ClientHello to send it again, with this cookie.

    It carries the number of the record that it answers, as the server has no count of its own yet,
    and the oldest version, as none has been agreed on.
    """
    body = DTLS_1_0 + bytes([len(cookie)]) + cookie
    message = write_fragment(Fragment(HELLO_VERIFY_REQUEST, len(body), 0, 0, body))
    return write_record(Record(HANDSHAKE, DTLS_1_0, 0, hello.record_number, message))
