"""The DTLS wire format: the codec reads what it wrote, and malformed input does not break it."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from nurseryio._dtls.codec import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    CLIENT_HELLO,
    DTLS_1_0,
    FRAGMENT_OVERHEAD,
    HANDSHAKE,
    HELLO_VERIFY_REQUEST,
    RECORD_OVERHEAD,
    ClientHello,
    Fragment,
    Malformed,
    Record,
    hello_verify_request,
    is_client_hello,
    is_of_handshake,
    is_one_record_of_data,
    is_unencrypted,
    read_client_hello,
    read_fragment,
    read_records,
    write_fragment,
    write_record,
)

DTLS_1_2 = b"\xfe\xfd"

records = st.builds(
    Record,
    kind=st.integers(0, 255),
    version=st.binary(min_size=2, max_size=2),
    epoch=st.integers(0, 2**16 - 1),
    number=st.integers(0, 2**48 - 1),
    body=st.binary(max_size=100),
)
fragments = st.builds(
    Fragment,
    kind=st.integers(0, 255),
    total=st.integers(0, 2**24 - 1),
    number=st.integers(0, 2**16 - 1),
    offset=st.integers(0, 2**24 - 1),
    body=st.binary(max_size=100),
)


def client_hello(
    *,
    cookie: bytes = b"",
    session: bytes = b"session",
    rest: bytes = b"ciphers",
    number: int = 7,
    total: int | None = None,
    offset: int = 0,
    kind: int = CLIENT_HELLO,
    epoch: int = 0,
) -> bytes:
    body = DTLS_1_2 + bytes(32) + bytes([len(session)]) + session
    body += bytes([len(cookie)]) + cookie + rest
    message = Fragment(kind, len(body) if total is None else total, 0, offset, body)
    return write_record(Record(HANDSHAKE, DTLS_1_0, epoch, number, write_fragment(message)))


@given(st.lists(records, max_size=4))
def test_dtls_records_are_read_as_they_were_written(written: list[Record]) -> None:
    assert read_records(b"".join(map(write_record, written))) == written


@given(fragments)
def test_handshake_fragments_are_read_as_they_were_written(fragment: Fragment) -> None:
    assert read_fragment(write_fragment(fragment)) == fragment


def test_a_dtls_record_has_the_bytes_of_the_standard() -> None:
    wire = write_record(Record(HANDSHAKE, DTLS_1_2, 1, 0x010203040506, b"xyz"))
    assert wire == bytes.fromhex("16 fefd 0001 010203040506 0003") + b"xyz"
    assert len(wire) == RECORD_OVERHEAD + 3


def test_a_handshake_fragment_has_the_bytes_of_the_standard() -> None:
    wire = write_fragment(Fragment(CLIENT_HELLO, 0x010203, 0x0405, 0x060708, b"xyz"))
    assert wire == bytes.fromhex("01 010203 0405 060708 000003") + b"xyz"
    assert len(wire) == FRAGMENT_OVERHEAD + 3


@given(st.binary(max_size=120))
def test_any_bytes_from_the_network_are_read_or_refused_as_malformed(data: bytes) -> None:
    for read in (read_records, read_fragment, read_client_hello):
        try:
            read(data)
        except Malformed:
            pass
    assert isinstance(is_client_hello(data), bool)
    assert isinstance(is_unencrypted(data), bool)


@given(st.data())
def test_a_client_hello_damaged_anywhere_is_read_or_refused_as_malformed(
    data: st.DataObject,
) -> None:
    hello = bytearray(client_hello(cookie=b"cookie"))
    for _ in range(data.draw(st.integers(1, 3))):
        hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(hello)))
    try:
        read_client_hello(bytes(hello[:cut]))
    except Malformed:
        pass


def test_a_client_hello_is_split_into_its_cookie_and_the_rest() -> None:
    without = read_client_hello(client_hello())
    with_cookie = read_client_hello(client_hello(cookie=b"cookie", number=8))
    assert (without.cookie, without.record_number) == (b"", 7)
    assert (with_cookie.cookie, with_cookie.record_number) == (b"cookie", 8)
    assert without.rest == with_cookie.rest == DTLS_1_2 + bytes(32) + b"\x07sessionciphers"


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"xyz",
        client_hello()[:-1],
        client_hello() + b"\0",
        client_hello(total=1000),
        client_hello(offset=1),
        client_hello(kind=HELLO_VERIFY_REQUEST),
        client_hello(epoch=1),
        write_record(Record(ALERT, DTLS_1_2, 0, 0, b"xx")),
        write_record(Record(HANDSHAKE, DTLS_1_2, 0, 0, b"")),
        write_record(
            Record(HANDSHAKE, DTLS_1_2, 0, 0, write_fragment(Fragment(1, 34, 0, 0, bytes(34))))
        ),
        write_record(
            Record(
                HANDSHAKE,
                DTLS_1_2,
                0,
                0,
                write_fragment(Fragment(1, 35, 0, 0, bytes(34) + b"\xff")),
            )
        ),
    ],
)
def test_an_incomplete_client_hello_is_refused(datagram: bytes) -> None:
    with pytest.raises(Malformed):
        read_client_hello(datagram)


def test_is_client_hello_and_is_unencrypted_look_at_the_record_header() -> None:
    assert is_client_hello(client_hello())
    assert not is_client_hello(client_hello(kind=HELLO_VERIFY_REQUEST))
    assert not is_client_hello(b"\x16")
    assert is_unencrypted(client_hello())
    assert not is_unencrypted(client_hello(epoch=1))
    assert not is_unencrypted(b"")


def test_is_one_record_of_data_and_is_of_handshake_look_at_the_record_header() -> None:
    data = write_record(Record(APPLICATION_DATA, DTLS_1_2, 1, 5, b"x" * 300))
    alert = write_record(Record(ALERT, DTLS_1_2, 1, 5, b"x"))
    switch = write_record(Record(CHANGE_CIPHER_SPEC, DTLS_1_2, 0, 5, b"\1"))
    assert is_of_handshake(client_hello()) and is_of_handshake(switch)
    assert not any(map(is_of_handshake, (data, alert, b"", b"x")))
    assert is_one_record_of_data(data)
    others = (data + data, data + alert, data[:-1], data[:12], b"\x17", b"", alert, switch)
    assert not any(map(is_one_record_of_data, others))


def test_a_hello_verify_request_answers_the_record_that_it_is_for() -> None:
    hello = ClientHello(0x123456789A, b"", b"rest")
    (record,) = read_records(hello_verify_request(hello, b"cookie"))
    assert (record.kind, record.version, record.epoch) == (HANDSHAKE, DTLS_1_0, 0)
    assert record.number == hello.record_number
    message = read_fragment(record.body)
    assert (message.kind, message.number, message.offset) == (HELLO_VERIFY_REQUEST, 0, 0)
    assert message.body == DTLS_1_0 + b"\x06cookie"
    assert message.total == len(message.body)
