"""The attributes of a TLS connection, and when they can be read."""

# Covered below 95 %: some methods exist on Python 3.13 and later, others on 3.15 and later.

from __future__ import annotations

import socket
import ssl
import sys
from typing import Any

import pytest
from harness import certs, tlspairs

from nurseryio import (
    BrokenResourceError,
    ClosedResourceError,
    NeedHandshakeError,
    SSLStream,
    open_nursery,
)
from nurseryio._tls.info import TLSInfo
from nurseryio.testing import memory_stream_pair

pytestmark = pytest.mark.costly("TLS hardly depends on the loop")

AFTER_HANDSHAKE = [
    "getpeercert",
    "selected_alpn_protocol",
    "selected_npn_protocol",
    "cipher",
    "shared_ciphers",
    "compression",
    "get_channel_binding",
    "version",
    "verify_client_post_handshake",
]
if sys.version_info >= (3, 13):
    AFTER_HANDSHAKE += ["get_verified_chain", "get_unverified_chain"]
if sys.version_info >= (3, 15):
    AFTER_HANDSHAKE += ["group", "client_sigalg", "server_sigalg"]

# The methods of the ssl module's classes that move bytes.
OTHERWISE_NAMED = {"read": "receive_some", "write": "send_all"}


@pytest.mark.parametrize("name", AFTER_HANDSHAKE)
async def test_handshake_results_before_the_handshake_raise_need_handshake_error(name: str) -> None:
    for stream in tlspairs.over_memory():
        with pytest.raises(NeedHandshakeError, match=rf"do_handshake\(\).* '{name}'"):
            getattr(stream, name)()


async def test_session_reused_before_the_handshake_raises_need_handshake_error() -> None:
    client, _server = tlspairs.over_memory()
    with pytest.raises(NeedHandshakeError):
        _ = client.session_reused


async def test_ssl_attributes_known_from_the_start_can_be_read_at_any_time() -> None:
    client, server = tlspairs.over_memory()
    for _ in range(2):
        assert client.server_hostname == certs.HOST
        assert server.server_hostname is None
        assert (client.server_side, server.server_side) == (False, True)
        assert client.context is certs.client_context(version="1.3")
        assert client.pending() == 0
        await tlspairs.connect((client, server))


async def test_libraries_written_for_trio_find_the_private_ssl_object() -> None:
    client, _server = await tlspairs.connect(tlspairs.over_memory())
    assert isinstance(client._ssl_object, ssl.SSLObject)
    assert client._ssl_object.selected_alpn_protocol() is None


async def test_read_only_ssl_attributes_cannot_be_set() -> None:
    client, _server = tlspairs.over_memory()
    for name in ("server_side", "server_hostname", "session_reused"):
        with pytest.raises(AttributeError):
            setattr(client, name, True)
    with pytest.raises(AttributeError):
        _ = client.no_such_thing


async def test_after_the_handshake_both_ends_report_the_same_version_and_cipher() -> None:
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


async def test_getpeercert_returns_the_peers_certificate() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    certificate = client.getpeercert()
    assert certificate is not None
    assert ("DNS", certs.HOST) in certificate["subjectAltName"]
    assert isinstance(client.getpeercert(binary_form=True), bytes)
    assert server.getpeercert() is None


async def test_alpn_selects_a_protocol_that_both_ends_offer() -> None:
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


async def test_pending_counts_decrypted_bytes() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    await client.send_all(b"12345")
    assert await server.receive_some(2) == b"12"
    assert server.pending() == 3


async def test_a_tls_session_can_be_resumed_by_a_later_connection() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory(version="1.2"))
    again, again_server = tlspairs.over_memory(version="1.2")
    session = client.session
    assert session is not None
    again.session = session
    await tlspairs.connect((again, again_server))
    assert again.session_reused is True
    assert server.session_reused is False


@pytest.mark.parametrize("theirs", [ssl.SSLObject, ssl.SSLSocket])
def test_every_name_of_the_ssl_modules_classes_is_there(theirs: type) -> None:
    names = {name for name in {*dir(theirs)} - {*dir(socket.socket)} if not name.startswith("_")}
    assert {*OTHERWISE_NAMED} <= names
    ours = {OTHERWISE_NAMED.get(name, name) for name in names}
    assert ours - {*dir(SSLStream)} == set()


def test_no_method_is_there_that_this_python_does_not_have() -> None:
    ours = {name for name in dir(TLSInfo) if not name.startswith("_")}
    assert ours - {*dir(ssl.SSLObject)} == set()


async def pair_with_post_handshake_auth() -> tuple[SSLStream[Any], SSLStream[Any]]:
    """A client and a server that may ask for its certificate after the handshake."""
    context = ssl.create_default_context()
    certs.authority().configure_trust(context)
    certs.certificate(certs.OTHER_HOST).configure_cert(context)
    context.post_handshake_auth = True
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certs.certificate().configure_cert(server_context)
    certs.authority().configure_trust(server_context)
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.post_handshake_auth = True
    ends = memory_stream_pair()
    client: SSLStream[Any] = SSLStream(ends[0], context, server_hostname=certs.HOST)
    server: SSLStream[Any] = SSLStream(ends[1], server_context, server_side=True)
    await tlspairs.connect((client, server))
    return client, server


async def test_a_server_requests_the_clients_certificate_after_the_handshake() -> None:
    client, server = await pair_with_post_handshake_auth()
    assert server.getpeercert() is None
    with pytest.raises(ssl.SSLError):
        client.verify_client_post_handshake()

    server.verify_client_post_handshake()
    await server.send_all(b"show it")
    assert await client.receive_some() == b"show it"
    await client.send_all(b"shown")
    assert await server.receive_some() == b"shown"
    certificate = server.getpeercert()
    assert certificate is not None
    assert ("DNS", certs.OTHER_HOST) in certificate["subjectAltName"]


@pytest.mark.parametrize("how", ["closed", "unwrapped", "broken"])
async def test_a_server_that_cannot_send_its_request_for_a_certificate_says_so(how: str) -> None:
    client, server = await pair_with_post_handshake_auth()
    if how == "broken":
        await client.transport_stream.send_stream.aclose()
        with pytest.raises(BrokenResourceError):
            await server.receive_some()
        with pytest.raises(BrokenResourceError):
            server.verify_client_post_handshake()
    else:
        async with open_nursery() as nursery:
            for end in (client, server):
                nursery.start_soon(end.aclose if how == "closed" else end.unwrap)
        with pytest.raises(ClosedResourceError):
            server.verify_client_post_handshake()


if sys.version_info >= (3, 13):

    async def test_the_chain_of_the_peers_certificates_is_shown() -> None:
        client, server = await tlspairs.connect(tlspairs.over_memory())
        own = client.getpeercert(binary_form=True)
        root = ssl.PEM_cert_to_DER_cert(certs.authority().cert_pem.bytes().decode())
        assert client.get_verified_chain() == [own, root]
        assert client.get_unverified_chain()[0] == own
        assert server.get_verified_chain() == server.get_unverified_chain() == []


if sys.version_info >= (3, 15):

    async def test_group_and_signature_algorithms_of_a_handshake_are_told() -> None:
        client, server = await tlspairs.connect(tlspairs.over_memory())
        for name in ("group", "client_sigalg", "server_sigalg"):
            try:
                expected = getattr(server._ssl_object, name)()
            except NotImplementedError:  # an older TLS library
                with pytest.raises(NotImplementedError):
                    getattr(client, name)()
            else:
                assert getattr(client, name)() == getattr(server, name)() == expected


async def test_sni_the_server_name_can_decide_which_certificate_is_shown() -> None:
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
