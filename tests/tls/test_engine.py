"""The TLS engine: two of them talk by plain bytes, cut up in every way."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import Iterable

import pytest
from harness import certs
from hypothesis import given, strategies as st

from nurseryio._tls.engine import RECORD, TLSEngine, check_context, explain, is_end_of_input

VERSIONS = ("1.2", "1.3")

# Marks the end of what the peer sends.
END = b""


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make_pair(version: str = "1.3") -> tuple[TLSEngine, TLSEngine]:
    client = TLSEngine(certs.client_context(version=version), server_hostname=certs.HOST)
    server = TLSEngine(certs.server_context(version=version), server_side=True)
    return client, server


def shake_hands(client: TLSEngine, server: TLSEngine) -> None:
    ready = [False, False]
    for _ in range(10):
        for i, (one, other) in enumerate([(client, server), (server, client)]):
            ready[i] = ready[i] or one.handshake()
            carry(one, other)
        if all(ready):
            return
    raise AssertionError("the handshake does not end")


def carry(sender: TLSEngine, receiver: TLSEngine) -> None:
    if data := sender.output():
        receiver.feed(data)


def connected(version: str = "1.3") -> tuple[TLSEngine, TLSEngine]:
    client, server = make_pair(version)
    shake_hands(client, server)
    return client, server


def encrypted(sender: TLSEngine, data: bytes) -> bytes:
    while data:
        data = data[sender.encrypt(data) :]
    return sender.output()


def pieces(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """The data in pieces of these sizes, over and over."""
    found = []
    for size in itertools.cycle(sizes):
        if not data:
            return found
        found.append(data[:size])
        data = data[size:]
    raise AssertionError


# -- handshake ------------------------------------------------------------------


def test_two_tls_engines_do_a_handshake_and_exchange_data_both_ways(version: str) -> None:
    client, server = connected(version)
    assert client.ssl_object.version() == server.ssl_object.version() == f"TLSv{version}"
    server.feed(encrypted(client, b"ping"))
    assert server.decrypt() == b"ping"
    client.feed(encrypted(server, b"pong"))
    assert client.decrypt() == b"pong"


def test_a_handshake_that_needs_input_says_so_and_has_output_for_the_peer() -> None:
    client, server = make_pair()
    assert not server.handshake()
    assert not server.has_output
    assert not client.handshake()
    assert client.has_output
    assert client.output()
    assert not client.has_output
    assert client.output() == b""


def test_a_wrong_server_hostname_fails_the_handshake_and_leaves_an_alert(version: str) -> None:
    client = TLSEngine(certs.client_context(version=version), server_hostname=certs.OTHER_HOST)
    server = TLSEngine(certs.server_context(version=version), server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(client, server)
    server.feed(client.output())
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        server.handshake() and server.decrypt()


def test_a_servers_session_tickets_wait_until_there_is_something_else_to_send() -> None:
    client, server = make_pair("1.3")
    client.handshake()
    carry(client, server)
    assert not server.handshake()
    carry(server, client)
    assert client.handshake()
    carry(client, server)
    assert server.handshake()
    assert not server.has_output
    assert server.output() == b""
    client.feed(encrypted(server, b"first"))
    assert client.decrypt() == b"first"


def test_session_tickets_that_waited_arrive_and_can_be_used() -> None:
    client, server = connected("1.3")
    client.feed(encrypted(server, b"first"))
    client.decrypt()
    session = client.ssl_object.session
    assert session is not None and session.has_ticket
    again, _ = make_pair("1.3")
    again.ssl_object.session = session
    shake_hands(again, TLSEngine(certs.server_context(version="1.3"), server_side=True))
    assert again.ssl_object.session_reused


def test_server_hostname_is_needed_where_the_context_checks_it() -> None:
    with pytest.raises(ValueError, match="server_hostname is needed"):
        TLSEngine(certs.client_context())


@pytest.mark.parametrize("name", ["", 5])
def test_a_wrong_server_hostname_is_refused(name: object) -> None:
    with pytest.raises((TypeError, ValueError), match="server_hostname"):
        TLSEngine(certs.client_context(), server_hostname=name)  # type: ignore[arg-type]


# -- data -----------------------------------------------------------------------


@given(
    data=st.binary(min_size=1, max_size=3 * RECORD),
    wire_sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
    read_sizes=st.lists(st.none() | st.integers(1, 40_000), min_size=1, max_size=5),
    version=st.sampled_from(VERSIONS),
)
def test_data_arrives_complete_however_the_ciphertext_and_the_reads_are_split(
    data: bytes, wire_sizes: list[int], read_sizes: list[int | None], version: str
) -> None:
    client, server = connected(version)
    received = b""
    reads = itertools.cycle(read_sizes)
    for piece in pieces(encrypted(client, data), wire_sizes):
        server.feed(piece)
        while not server.needs_input:
            limit = next(reads)
            part = server.decrypt(limit)
            if part is None:
                break
            assert 1 <= len(part) <= (limit or len(part))
            received += part
    assert received == data
    assert server.decrypt() is None


def test_without_a_limit_everything_that_was_fed_is_decrypted_at_once() -> None:
    client, server = connected()
    server.feed(encrypted(client, b"x" * 3 * RECORD) + encrypted(client, b"y"))
    data = server.decrypt()
    assert data == b"x" * 3 * RECORD + b"y"
    assert server.needs_input


def test_part_of_a_record_is_not_enough_to_decrypt() -> None:
    client, server = connected()
    wire = encrypted(client, b"data")
    server.feed(wire[:-1])
    assert not server.needs_input
    assert server.decrypt() is None
    assert server.needs_input
    server.feed(wire[-1:])
    assert not server.needs_input
    assert server.decrypt() == b"data"


def test_close_notify_after_data_ends_it_for_good(version: str) -> None:
    client, server = connected(version)
    wire = encrypted(client, b"last")
    assert not client.shut_down()
    server.feed(wire + client.output())
    assert server.decrypt() == b"last"
    assert server.decrypt() == b""
    assert server.decrypt(10) == b""


# -- errors ---------------------------------------------------------------------


@pytest.mark.parametrize("ignore", [False, True], ids=["strict", "openssl-ignores-it"])
def test_an_end_without_close_notify_is_an_error_whatever_the_contexts_options(
    version: str, ignore: bool
) -> None:
    context = ssl.create_default_context()
    certs.authority().configure_trust(context)
    certs.without_eof_option(certs.limited(context, version), ignore=ignore)
    client = TLSEngine(context, server_hostname=certs.HOST)
    server = TLSEngine(certs.server_context(version=version), server_side=True)
    shake_hands(client, server)
    client.feed(encrypted(server, b"half of it"))
    client.feed(END)
    assert client.decrypt() == b"half of it"
    for _ in range(2):
        with pytest.raises(ssl.SSLEOFError, match="without a TLS close_notify") as caught:
            client.decrypt()
        assert is_end_of_input(caught.value)


def test_an_end_of_file_in_the_middle_of_a_record_is_an_error() -> None:
    client, server = connected()
    server.feed(encrypted(client, b"data")[:-1])
    server.feed(END)
    assert not server.needs_input
    with pytest.raises(ssl.SSLEOFError):
        server.decrypt()


def test_an_end_of_file_after_close_notify_is_an_ordinary_end() -> None:
    client, server = connected()
    client.shut_down()
    server.feed(client.output())
    server.feed(END)
    assert server.decrypt() == b""


def test_an_end_of_file_during_the_handshake_is_an_error() -> None:
    client, _server = make_pair()
    client.handshake()
    client.feed(END)
    with pytest.raises(ssl.SSLEOFError):
        client.handshake()


def test_an_end_of_file_before_the_peers_close_notify_is_an_error() -> None:
    client, _server = connected()
    client.feed(END)
    with pytest.raises(ssl.SSLEOFError):
        client.shut_down()


def test_an_error_does_not_overtake_the_data_before_it() -> None:
    client, server = connected()
    good = encrypted(client, b"good")
    bad = bytearray(encrypted(client, b"bad"))
    bad[-1] ^= 1
    server.feed(good + bytes(bad))
    assert server.decrypt() == b"good"
    for _ in range(2):
        with pytest.raises(ssl.SSLError) as caught:
            server.decrypt()
        assert not is_end_of_input(caught.value)
    assert not server.needs_input


def test_a_byte_changed_in_the_ciphertext_is_always_noticed() -> None:
    client, server = connected()
    wire = encrypted(client, b"pay 10")
    for at in range(len(wire)):
        changed = bytearray(wire)
        changed[at] ^= 0x40
        victim, sender = connected()
        del sender
        victim.feed(bytes(changed))
        victim.feed(END)
        with pytest.raises(ssl.SSLError):
            victim.decrypt()
    server.feed(wire)
    assert server.decrypt() == b"pay 10"


# -- the end --------------------------------------------------------------------


def test_shutting_down_takes_a_close_notify_from_both(version: str) -> None:
    client, server = connected(version)
    assert not client.shut_down()
    carry(client, server)
    assert server.decrypt() == b""
    assert server.shut_down()
    carry(server, client)
    assert client.shut_down()


def test_unwrap_data_after_close_notify_is_the_trailing_data(version: str) -> None:
    client, server = connected(version)
    client.shut_down()
    server.feed(client.output() + b"plain text")
    assert server.decrypt() == b""
    assert server.shut_down()
    assert server.leftover() == b"plain text"
    assert server.leftover() == b""


def test_a_shutdown_that_meets_data_fails_but_sends_close_notify(version: str) -> None:
    client, server = connected(version)
    client.feed(encrypted(server, b"unread"))
    with pytest.raises(ssl.SSLError):
        client.shut_down()
    carry(client, server)
    assert server.decrypt() == b""


# -- helpers --------------------------------------------------------------------


def test_tls_engine_takes_only_an_ssl_context() -> None:
    for server_side in (False, True):
        with pytest.raises(TypeError, match=r"ssl\.create_default_context"):
            check_context("cert.pem", server_side=server_side)


def test_a_context_for_the_other_side_is_refused_with_what_to_make() -> None:
    check_context(certs.client_context(), server_side=False)
    check_context(certs.server_context(), server_side=True)
    with pytest.raises(ssl.SSLError, match=r"made for a client.*Purpose\.CLIENT_AUTH"):
        check_context(certs.client_context(), server_side=True)
    with pytest.raises(ssl.SSLError, match=r"made for a server.*create_default_context\(\)"):
        check_context(certs.server_context(), server_side=False)


def test_a_certificate_error_is_explained_by_what_is_wrong_with_the_certificate() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired"
    assert explain(error) == "the peer's certificate was rejected: certificate has expired"
    assert explain(ssl.SSLError(1, "[SSL] wrong version number")) == "[SSL] wrong version number"


def test_only_ssl_eof_error_is_an_end_of_input() -> None:
    assert not is_end_of_input(None)
    assert not is_end_of_input(EOFError())
    assert is_end_of_input(ssl.SSLEOFError(8, "cut off"))
