"""The DTLS engine: two of them talk by plain datagrams, which get lost, repeated and forged."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest
from harness import certs
from harness.crowd import Doorway, in_threads
from OpenSSL import SSL

from nurseryio._dtls import engine as engine_module
from nurseryio._dtls.codec import (
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    RECORD_OVERHEAD,
    Record,
    hello_verify_request,
    read_client_hello,
    read_records,
    write_record,
)
from nurseryio._dtls.engine import (
    SEALED_KEPT,
    DTLSEngine,
    HandshakeFailed,
    PeerClosed,
    describe,
    prepare_context,
    pyopenssl,
)
from nurseryio._dtls.flight import Packer

MTU = 1400


class End:
    """An engine with what numbers its records."""

    def __init__(self, engine: DTLSEngine) -> None:
        self.engine = engine
        self.packer = Packer()

    def flight(self) -> list[bytes]:
        return self.packer.pack(self.engine.flight, MTU)


def make_client(context: SSL.Context | None = None) -> End:
    context = context or certs.dtls_client_context()
    prepare_context(context, server_side=False)
    client = End(DTLSEngine(context, MTU))
    client.engine.be_client()
    client.engine.begin()
    return client


def make_server(hello: bytes) -> End:
    context = certs.dtls_server_context()
    prepare_context(context, server_side=True)
    server = End(DTLSEngine(context, MTU))
    assert server.engine.be_server(hello)
    server.packer = Packer(read_client_hello(hello).record_number)
    return server


def hello_with_cookie(client: End) -> bytes:
    """The ClientHello that a client sends after a HelloVerifyRequest."""
    (hello,) = client.flight()
    assert client.engine.advance(hello_verify_request(read_client_hello(hello), b"cookie"))
    (hello,) = client.flight()
    return hello


def make_pair(client: End | None = None) -> tuple[End, End]:
    client = client or make_client()
    server = make_server(hello_with_cookie(client))
    server.engine.begin()
    return client, server


def talk(sender: End, receiver: End) -> bool:
    return answered(receiver, sender.flight())


def answered(receiver: End, datagrams: list[bytes]) -> bool:
    """Whether any of the datagrams, all of which arrive, brought a new flight about."""
    return True in [receiver.engine.advance(datagram) for datagram in datagrams]


def connected() -> tuple[DTLSEngine, DTLSEngine]:
    client, server = make_pair()
    assert talk(server, client)
    assert talk(client, server)
    assert talk(server, client)
    assert client.engine.done and server.engine.done
    return client.engine, server.engine


def test_two_dtls_engines_do_a_handshake_and_exchange_data_both_ways() -> None:
    client, server = connected()
    assert server.decrypt(client.encrypt(b"ping")) == b"ping"
    assert client.decrypt(server.encrypt(b"pong")) == b"pong"


def test_retransmit_a_flight_stays_the_same_until_the_answer_is_complete() -> None:
    client, server = make_pair()
    first = client.engine.flight
    *some, last = server.packer.pack(server.engine.flight, 300)
    for datagram in some:
        assert not client.engine.advance(datagram)
        assert client.engine.flight == first
    assert client.engine.advance(last)
    assert client.engine.flight != first


def test_beginning_the_dtls_handshake_again_changes_nothing() -> None:
    client = make_client()
    flight = client.engine.flight
    client.engine.begin()
    assert client.engine.flight == flight


def test_retransmit_a_flight_that_arrives_twice_is_answered_once() -> None:
    client, server = make_pair()
    datagrams = server.flight()
    assert answered(client, datagrams)
    assert not answered(client, datagrams)


def test_packets_that_are_not_dtls_are_ignored() -> None:
    client, server = make_pair()
    for rubbish in (b"", b"x", b"\x16\xfe\xfd" + bytes(60), bytes(1000)):
        assert not client.engine.advance(rubbish)
        assert not client.engine.alerts
    assert talk(server, client)
    assert talk(client, server)
    assert talk(server, client)


def test_an_untrusted_certificate_fails_the_handshake_and_the_peer_gets_an_alert() -> None:
    client, server = make_pair(make_client(certs.dtls_client_context(trusting=False)))
    with pytest.raises(HandshakeFailed, match="certificate verify failed") as caught:
        talk(server, client)
    assert isinstance(caught.value.__cause__, SSL.Error)
    with pytest.raises(HandshakeFailed, match="alert"):
        for datagram in client.packer.pack(client.engine.alerts, MTU):
            server.engine.advance(datagram)


def test_a_server_refuses_what_openssl_refuses() -> None:
    context = certs.dtls_server_context()
    prepare_context(context, server_side=True)
    # OpenSSL wants a cookie, of whatever kind.
    (hello,) = make_client().flight()
    assert not DTLSEngine(context, MTU).be_server(hello)


def test_forged_or_replayed_records_are_ignored() -> None:
    client, server = connected()
    datagram = client.encrypt(b"data")
    for at in range(len(datagram)):
        forged = bytearray(datagram)
        forged[at] ^= 1
        assert server.decrypt(bytes(forged)) == b""
    assert server.decrypt(datagram) == b"data"
    assert server.decrypt(datagram) == b""
    assert server.decrypt(b"rubbish") == b""
    assert server.decrypt(b"") == b""


def connected_with_last_flight() -> tuple[End, End, list[bytes]]:
    """A client and a server, and what the client said before the server's last flight."""
    client, server = make_pair()
    assert talk(server, client)
    last = client.flight()
    assert answered(server, last)
    assert talk(server, client)
    return client, server, last


def repeated_by_openssl(client: End) -> bytes:
    """Its last flight with new numbers, encrypted again. OpenSSL goes by the clock on the wall."""
    connection = client.engine._connection
    while not connection.DTLSv1_handle_timeout():
        left = connection.DTLSv1_get_timeout()
        assert left is not None
        time.sleep(left)
    return client.engine._read_all(connection.bio_read)


def nothing_is_left_in_the_output(engine: DTLSEngine) -> bool:
    try:
        engine._connection.bio_read(1)
    except SSL.WantReadError:
        return True
    return False


def test_retransmit_the_last_flight_answers_a_repetition_of_the_peers_flight_only() -> None:
    client, server, last = connected_with_last_flight()
    engine = server.engine
    assert engine.flight
    (datagram,) = last
    assert engine.answer(datagram) == engine.flight
    records = read_records(datagram)
    assert [record.kind for record in records] == [HANDSHAKE, CHANGE_CIPHER_SPEC, HANDSHAKE]
    *open_ones, sealed = map(write_record, records)
    assert engine.answer(sealed) == engine.flight
    # An unencrypted packet could come from any sender, and be sent to any other.
    for record in (*open_ones, b"".join(open_ones)):
        assert engine.answer(record) == []
    for at in range(RECORD_OVERHEAD, len(sealed)):
        forged = bytearray(sealed)
        forged[at] ^= 1
        assert engine.answer(bytes(forged)) == []
    for junk in (b"", b"\x16", b"\x16\xfe\xfd" + bytes(11), b"\x16" * 1400, datagram[:-1]):
        assert engine.answer(junk) == []
    # The client, which did not speak last, has nothing to repeat.
    for answer in server.flight():
        assert client.engine.answer(answer) == []
    assert engine.decrypt(client.engine.encrypt(b"still fine")) == b"still fine"


def test_retransmit_a_repetition_that_was_encrypted_again_is_answered_once() -> None:
    client, server = make_pair()
    assert talk(server, client)
    assert talk(client, server)
    repeated = repeated_by_openssl(client)
    assert repeated not in client.flight()
    assert server.engine.answer(repeated) == server.engine.flight
    assert nothing_is_left_in_the_output(server.engine)
    # The same bytes once more are a copy that a third party made.
    assert server.engine.answer(repeated) == []
    assert talk(server, client)


def test_a_flood_of_forged_last_flights_before_the_real_one_does_not_affect_data() -> None:
    client, server = make_pair()
    assert talk(server, client)
    last = client.flight()
    for number in range(100):
        forged = Record(HANDSHAKE, b"\xfe\xfd", 1, number, b"%048d" % number)
        assert not server.engine.advance(write_record(forged))
    assert len(server.engine._sealed) == SEALED_KEPT
    assert answered(server, last)
    assert talk(server, client)
    assert server.engine.decrypt(client.engine.encrypt(b"x")) == b"x"


@pytest.mark.parametrize("use", ["decrypt", "answer"])
def test_answers_to_the_peer_after_the_handshake_do_not_accumulate(use: str) -> None:
    # A client of another make, which wants a renegotiation, and gets an alert for it.
    context = certs.dtls_client_context()
    context.set_options(SSL.OP_NO_QUERY_MTU)
    client = End(DTLSEngine(context, MTU))
    client.engine.be_client()
    client.engine.begin()
    client, server = make_pair(client)
    assert talk(server, client) and talk(client, server) and talk(server, client)
    connection = client.engine._connection
    assert connection.renegotiate()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    hello = client.engine._read_all(connection.bio_read)
    assert not getattr(server.engine, use)(hello)
    assert nothing_is_left_in_the_output(server.engine)


def test_dtls_packets_may_arrive_in_any_order() -> None:
    client, server = connected()
    first, second = client.encrypt(b"first"), client.encrypt(b"second")
    assert server.decrypt(second) == b"second"
    assert server.decrypt(first) == b"first"


def test_close_notify_of_the_peer_is_noticed() -> None:
    client, server = connected()
    client._connection.shutdown()
    goodbye = client._read_all(client._connection.bio_read)
    with pytest.raises(PeerClosed):
        server.decrypt(goodbye)


def test_the_ciphertext_mtu_decides_the_cleartext_mtu() -> None:
    client, _server = connected()
    client.set_mtu(1000)
    small = client.data_mtu()
    client.set_mtu(1200)
    assert client.data_mtu() == small + 200
    client.set_mtu(1000)
    assert len(client.encrypt(b"x" * small)) <= 1000


def test_only_contexts_of_pyopenssl_are_taken() -> None:
    with pytest.raises(TypeError, match=r"OpenSSL\.SSL\.Context\(OpenSSL\.SSL\.DTLS_METHOD\)"):
        prepare_context(certs.client_context(), server_side=False)  # type: ignore[arg-type]


def test_dtls_contexts_that_cannot_work_are_refused_with_what_to_make() -> None:
    made_for: Any
    for made_for, server_side, says in (
        (SSL.TLS_METHOD, True, "made for TLS"),
        (SSL.TLS_CLIENT_METHOD, False, "made for TLS"),
        (SSL.DTLS_CLIENT_METHOD, True, "for a server"),
        (SSL.DTLS_SERVER_METHOD, False, "for a client"),
    ):
        context = SSL.Context(made_for)
        for _ in range(2):
            with pytest.raises(ValueError, match=rf"{says}.*DTLS_METHOD"):
                prepare_context(context, server_side=server_side)
    # ... and can still be used for the side that they were made for.
    prepare_context(context, server_side=True)


def test_dtls_engine_without_pyopenssl_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert pyopenssl() is SSL
    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    with pytest.raises(ImportError, match="pip install pyOpenSSL"):
        pyopenssl()


def test_errors_of_openssl_are_described_by_their_reasons() -> None:
    error = SSL.Error([("SSL routines", "", "one"), ("SSL routines", "", "two")])
    assert describe(error) == "one; two"
    assert describe(SSL.Error([])) == "Error([])"
    assert describe(SSL.SysCallError(-1, "Unexpected EOF")) == "SysCallError(-1, 'Unexpected EOF')"
    assert describe(None) == "None"


def test_a_dtls_context_that_two_threads_begin_to_use_is_prepared_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = SSL.Context(SSL.DTLS_METHOD)
    doorway = Doorway(engine_module._set_options)
    monkeypatch.setattr(engine_module, "_set_options", doorway)
    in_threads(lambda: prepare_context(context, server_side=False))
    assert doorway.calls == 1
