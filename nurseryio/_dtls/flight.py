"""Flights of DTLS: handshake messages that are sent together, and again when they get lost.

This module has :func:`read_flight`, which splits OpenSSL's output into whole messages. It also has
:class:`Packer`, which packs messages into datagrams of a given size. The timer that sends a flight
again is in :mod:`channel`.

A "flight" (the word of RFC 6347) is the messages that one side sends before it waits for the other
side. OpenSSL packs a flight into datagrams of a fixed size, and repeats it by its clock. This
library repeats a flight by the clock of the run, and in smaller datagrams if the first ones do not
seem to arrive. So the messages are unpacked here, kept, and packed again each time.

Rule 1: the input of ``read_flight`` comes from OpenSSL and is trusted to be well formed.

Rule 2: each record gets a new number, also when its message is sent again, because a receiver drops
records whose number it has seen. Encrypted records are the exception: their number is part of the
encryption.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .codec import (
    FRAGMENT_OVERHEAD,
    HANDSHAKE,
    RECORD_OVERHEAD,
    Fragment,
    Record,
    read_fragment,
    read_records,
    write_fragment,
    write_record,
)

__all__ = ["Flight", "Handshake", "Packer", "Sealed", "Short", "read_flight"]


class Handshake(NamedTuple):
    """A whole handshake message. It may be sent in pieces."""

    version: bytes
    kind: int
    number: int
    body: bytearray


class Short(NamedTuple):
    """An unencrypted record of another kind: an alert, or the switch to encryption."""

    version: bytes
    kind: int
    body: bytes


class Sealed(NamedTuple):
    """An encrypted record. Only the last message of a handshake is one. It is a hash, so small."""

    record: Record


Message = Handshake | Short | Sealed
Flight = list[Message]

HEADERS = RECORD_OVERHEAD + FRAGMENT_OVERHEAD


def read_flight(output: bytes) -> Flight:
    """Split OpenSSL's output into whole messages, in order."""
    flight: Flight = []
    whole: dict[int, Handshake] = {}
    for record in read_records(output):
        if record.epoch:
            flight.append(Sealed(record))
        elif record.kind != HANDSHAKE:
            flight.append(Short(record.version, record.kind, record.body))
        else:
            piece = read_fragment(record.body)
            message = whole.get(piece.number)
            if message is None:
                message = Handshake(
                    record.version, piece.kind, piece.number, bytearray(piece.total)
                )
                whole[piece.number] = message
                flight.append(message)
            message.body[piece.offset : piece.offset + len(piece.body)] = piece.body
    return flight


class Packer:
    """Makes datagrams from flights, and numbers the records.

    Args:
        first_number: Number of the first record.
    """

    __slots__ = ("_next_number",)

    def __init__(self, first_number: int = 0) -> None:
        self._next_number = first_number

    def pack(self, flight: Iterable[Message], mtu: int) -> list[bytes]:
        """Pack messages into datagrams, in order.

        Args:
            flight: The messages.
            mtu: The most bytes of a datagram. It must be well above 25, the size of both headers.
        """
        datagrams = [bytearray()]
        for message in flight:
            if isinstance(message, Handshake):
                self._pack_in_pieces(message, mtu, datagrams)
                continue
            record = self._record_of(message)
            if len(datagrams[-1]) + len(record) > mtu:
                datagrams.append(bytearray())
            datagrams[-1] += record
        return [bytes(datagram) for datagram in datagrams if datagram]

    def _pack_in_pieces(self, message: Handshake, mtu: int, datagrams: list[bytearray]) -> None:
        version, kind, number, body = message
        offset = 0
        while True:
            room = mtu - len(datagrams[-1]) - HEADERS
            if room < 1:
                datagrams.append(bytearray())
                room = mtu - HEADERS
            piece = bytes(body[offset : offset + room])
            fragment = Fragment(kind, len(body), number, offset, piece)
            datagrams[-1] += self._numbered(HANDSHAKE, version, write_fragment(fragment))
            offset += len(piece)
            # Checked at the end of the loop, so that an empty message is sent as well.
            if offset == len(body):
                return

    def _record_of(self, message: Short | Sealed) -> bytes:
        if isinstance(message, Sealed):
            return write_record(message.record)
        return self._numbered(message.kind, message.version, message.body)

    def _numbered(self, kind: int, version: bytes, body: bytes) -> bytes:
        number = self._next_number
        self._next_number += 1
        return write_record(Record(kind, version, 0, number, body))
