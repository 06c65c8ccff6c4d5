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
def test_a_flight_can_be_packed_into_datagrams_of_any_size_and_read_back(
    handshakes: list[Handshake], mtu: int
) -> None:
    flight: Flight = [*handshakes, SWITCH, FINISHED]
    datagrams = Packer().pack(flight, mtu)
    assert all(0 < len(datagram) <= mtu for datagram in datagrams)
    assert read_flight(b"".join(datagrams)) == flight


@given(flights)
def test_handshake_fragments_may_arrive_in_any_order(handshakes: list[Handshake]) -> None:
    datagrams = Packer().pack(handshakes, 200)
    again = read_flight(b"".join(reversed(datagrams)))
    assert sorted(again, key=lambda m: m.number) == handshakes  # type: ignore[union-attr]


def test_small_handshake_messages_share_a_datagram() -> None:
    assert len(Packer().pack([message(0, 100), message(1, 100), SWITCH, FINISHED], 1472)) == 1


def test_a_handshake_message_begins_in_the_rest_of_a_datagram() -> None:
    first, second = Packer().pack([message(0, 100), message(1, 300)], 300)
    assert len(first) == 300
    assert len(second) == 100 + 25 + 300 + 25 + 25 - 300


def test_retransmit_each_record_gets_a_new_sequence_number() -> None:
    packer = Packer(first_number=5)
    flight: Flight = [message(0, 500), SWITCH]
    numbers = [
        record.number
        for _ in range(2)
        for datagram in packer.pack(flight, 200)
        for record in read_records(datagram)
    ]
    assert numbers == list(range(5, 5 + len(numbers)))


def test_retransmit_an_encrypted_record_keeps_its_sequence_number() -> None:
    packer = Packer(first_number=5)
    for _ in range(2):
        assert packer.pack([FINISHED], 200) == [write_record(FINISHED.record)]


def test_an_empty_handshake_message_is_sent_too() -> None:
    assert read_flight(b"".join(Packer().pack([message(3, 0)], 200))) == [message(3, 0)]


def test_an_empty_flight_needs_no_datagram() -> None:
    assert Packer().pack([], 200) == []


@pytest.mark.parametrize("room", [0, 1, 24, 25])
def test_no_handshake_fragment_is_put_where_it_does_not_fit(room: int) -> None:
    datagrams = Packer().pack([message(0, 200 - 25 - room), message(1, 50)], 200)
    assert [len(datagram) for datagram in datagrams] == [200 - room, 75]


def test_an_alert_is_not_a_handshake_message() -> None:
    alert = Short(VERSION, ALERT, b"\x02\x30")
    assert read_flight(write_record(Record(ALERT, VERSION, 0, 3, alert.body))) == [alert]
