"""Flights: taken apart into whole messages, and packed again into datagrams of any size."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from nurseryio._dtls.codec import (
    ALERT,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    Record,
    read_records,
    write_record,
)
from nurseryio._dtls.flight import Flight, Handshake, Packer, Sealed, Short, read_flight

VERSION = b"\xfe\xfd"
FINISHED = Sealed(Record(HANDSHAKE, VERSION, 1, 0, b"x" * 40))
SWITCH = Short(VERSION, CHANGE_CIPHER_SPEC, b"\x01")


def message(number: int, size: int) -> Handshake:
    return Handshake(VERSION, 11, number, bytearray(bytes([number % 256]) * size))


flights = st.lists(st.integers(0, 3000), max_size=6).map(
    lambda sizes: [message(number, size) for number, size in enumerate(sizes)]
)


@given(flights, st.integers(64, 1500))
def test_a_flight_survives_being_packed_for_any_size_of_datagram(
    handshakes: list[Handshake], mtu: int
) -> None:
    flight: Flight = [*handshakes, SWITCH, FINISHED]
    datagrams = Packer().pack(flight, mtu)
    assert all(0 < len(datagram) <= mtu for datagram in datagrams)
    assert read_flight(b"".join(datagrams)) == flight


@given(flights)
def test_pieces_may_arrive_in_any_order(handshakes: list[Handshake]) -> None:
    datagrams = Packer().pack(handshakes, 200)
    again = read_flight(b"".join(reversed(datagrams)))
    assert sorted(again, key=lambda m: m.number) == handshakes  # type: ignore[union-attr]


def test_small_messages_share_a_datagram() -> None:
    assert len(Packer().pack([message(0, 100), message(1, 100), SWITCH, FINISHED], 1472)) == 1


def test_a_message_begins_in_what_is_left_of_a_datagram() -> None:
    first, second = Packer().pack([message(0, 100), message(1, 300)], 300)
    assert len(first) == 300
    assert len(second) == 100 + 25 + 300 + 25 + 25 - 300


def test_each_record_gets_a_number_of_its_own_also_when_it_is_sent_again() -> None:
    packer = Packer(first_number=5)
    flight: Flight = [message(0, 500), SWITCH]
    numbers = [
        record.number
        for _ in range(2)
        for datagram in packer.pack(flight, 200)
        for record in read_records(datagram)
    ]
    assert numbers == list(range(5, 5 + len(numbers)))


def test_what_is_encrypted_keeps_its_number() -> None:
    packer = Packer(first_number=5)
    for _ in range(2):
        assert packer.pack([FINISHED], 200) == [write_record(FINISHED.record)]


def test_an_empty_message_is_sent_too() -> None:
    assert read_flight(b"".join(Packer().pack([message(3, 0)], 200))) == [message(3, 0)]


def test_an_empty_flight_needs_no_datagram() -> None:
    assert Packer().pack([], 200) == []


@pytest.mark.parametrize("room", [0, 1, 24, 25])
def test_no_piece_is_put_where_it_does_not_fit(room: int) -> None:
    datagrams = Packer().pack([message(0, 200 - 25 - room), message(1, 50)], 200)
    assert [len(datagram) for datagram in datagrams] == [200 - room, 75]


def test_an_alert_is_no_handshake_message() -> None:
    alert = Short(VERSION, ALERT, b"\x02\x30")
    assert read_flight(write_record(Record(ALERT, VERSION, 0, 3, alert.body))) == [alert]
