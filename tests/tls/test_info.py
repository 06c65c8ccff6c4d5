"""What can be asked about a TLS connection, and when."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from harness import certs, tlspairs

from nurseryio import NeedHandshakeError, SSLStream

AFTER_HANDSHAKE = [
    "getpeercert",
    "selected_alpn_protocol",
    "selected_npn_protocol",
    "cipher",
    "shared_ciphers",
    "compression",
    "get_channel_binding",
    "version",
]


@pytest.mark.parametrize("name", AFTER_HANDSHAKE)
async def test_what_the_handshake_finds_out_cannot_be_asked_before(name: str) -> None:
    for stream in tlspairs.over_memory():
        with pytest.raises(NeedHandshakeError, match=rf"do_handshake\(\).* {name}\(\)"):
            getattr(stream, name)()


async def test_whether_a_session_was_resumed_cannot_be_asked_before_the_handshake() -> None:
    client, _server = tlspairs.over_memory()
    with pytest.raises(NeedHandshakeError):
        _ = client.session_reused


async def test_what_is_known_from_the_start_can_be_read_at_any_time() -> None:
    client, server = tlspairs.over_memory()
    for _ in range(2):
        assert client.server_hostname == certs.HOST
        assert server.server_hostname is None
        assert (client.server_side, server.server_side) == (False, True)
        assert client.context is certs.client_context(version="1.3")
        assert client.pending() == 0
        await tlspairs.connect((client, server))


async def test_libraries_written_for_trio_find_the_ssl_object_where_they_look() -> None:
    client, _server = await tlspairs.connect(tlspairs.over_memory())
    assert isinstance(client._ssl_object, ssl.SSLObject)
    assert client._ssl_object.selected_alpn_protocol() is None


async def test_what_is_fixed_cannot_be_set() -> None:
    client, _server = tlspairs.over_memory()
    for name in ("server_side", "server_hostname", "session_reused"):
        with pytest.raises(AttributeError):
            setattr(client, name, True)
    with pytest.raises(AttributeError):
        _ = client.no_such_thing


async def test_after_the_handshake_both_ends_tell_the_same_story() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory(version="1.2"))
    assert client.version() == server.version() == "TLSv1.2"
    assert client.cipher() == server.cipher() is not None
    assert client.compression() is server.compression() is None
    assert client.selected_alpn_protocol() is server.selected_alpn_protocol() is None
    assert client.selected_npn_protocol() is None
    assert client.get_channel_binding() == server.get_channel_binding() is not None
    assert client.session_reused is False
    assert client.shared_ciphers() == client._ssl_object.shared_ciphers()
    assert server.shared_ciphers()


async def test_the_peers_certificate_can_be_looked_at() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    certificate = client.getpeercert()
    assert certificate is not None
    assert ("DNS", certs.HOST) in certificate["subjectAltName"]
    assert isinstance(client.getpeercert(binary_form=True), bytes)
    assert server.getpeercert() is None


async def test_a_protocol_that_both_ends_offer_is_selected() -> None:
    context = ssl.create_default_context()
    certs.authority().configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certs.certificate().configure_cert(server_context)
    server_context.set_alpn_protocols(["http/1.1"])
    client, server = tlspairs.over_memory(context=context)
    server.context = server_context
    await tlspairs.connect((client, server))
    assert client.selected_alpn_protocol() == server.selected_alpn_protocol() == "http/1.1"


async def test_decrypted_bytes_that_wait_are_counted() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    await client.send_all(b"12345")
    assert await server.receive_some(2) == b"12"
    assert server.pending() == 3


async def test_a_session_can_be_resumed_by_a_later_connection() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory(version="1.2"))
    again, again_server = tlspairs.over_memory(version="1.2")
    session = client.session
    assert session is not None
    again.session = session
    await tlspairs.connect((again, again_server))
    assert again.session_reused is True
    assert server.session_reused is False


def test_the_attributes_of_the_ssl_object_are_listed() -> None:
    names = dir(SSLStream)
    assert {*AFTER_HANDSHAKE, "context", "server_hostname", "session", "pending"} <= {*names}


async def test_a_name_can_decide_which_certificate_is_shown() -> None:
    def choose(ssl_object: Any, name: str | None, _context: ssl.SSLContext) -> None:
        asked.append(name)
        ssl_object.context = certs.server_context(version="1.3")

    asked: list[str | None] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certs.certificate(certs.OTHER_HOST).configure_cert(context)
    context.sni_callback = choose
    client, server = tlspairs.over_memory()
    server.context = context
    await tlspairs.connect((client, server))
    assert asked == [certs.HOST]
