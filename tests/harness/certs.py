"""Certificates for the TLS tests, each made once per run of the tests.

All server certificates are for ``HOST``, signed by one authority, unless their name says otherwise.
"""

from __future__ import annotations

import datetime
import functools
import ssl

import trustme
from OpenSSL import SSL

HOST = "server.test.example"
OTHER_HOST = "another.test.example"


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def certificate(host: str = HOST, *, expired: bool = False) -> trustme.LeafCert:
    not_after = datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc) if expired else None
    not_before = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)
    return authority().issue_cert(host, not_before=not_before, not_after=not_after)


@functools.cache
def server_context(*, version: str = "1.3") -> ssl.SSLContext:
    """A server's context, which speaks this TLS version at most."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate().configure_cert(context)
    return limited(context, version)


@functools.cache
def server_context_for(host: str) -> ssl.SSLContext:
    """A server's context with a certificate for this name or address."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate(host).configure_cert(context)
    return context


@functools.cache
def bad_server_context(fault: str, *, version: str) -> ssl.SSLContext:
    """A server's context with a certificate that no client should accept."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if fault == "self-signed":
        # The certificate of an authority that no other code trusts.
        stranger = trustme.CA()
        with stranger.cert_pem.tempfile() as cert, stranger.private_key_pem.tempfile() as key:
            context.load_cert_chain(cert, key)
    elif fault == "wrong host":
        certificate(OTHER_HOST).configure_cert(context)
    else:
        certificate(expired=fault == "expired").configure_cert(context)
    return limited(context, version)


@functools.cache
def client_context(*, version: str = "1.3", trusting: bool = True) -> ssl.SSLContext:
    """A client's context, which speaks this TLS version at most and may trust the authority."""
    context = ssl.create_default_context()
    if trusting:
        authority().configure_trust(context)
    return limited(context, version)


def limited(context: ssl.SSLContext, version: str) -> ssl.SSLContext:
    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    context.maximum_version = versions[version]
    return context


def without_eof_option(context: ssl.SSLContext, *, ignore: bool) -> ssl.SSLContext:
    """Switch whether OpenSSL itself takes an end without close_notify for an ordinary one."""
    option = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0x80)
    if ignore:
        context.options |= option
    else:
        context.options &= ~option
    return context


# -- for DTLS -------------------------------------------------------------------


def dtls_server_context() -> SSL.Context:
    """A new pyOpenSSL context for a DTLS server."""
    context = SSL.Context(SSL.DTLS_METHOD)
    certificate().configure_cert(context)
    return context


def dtls_client_context(*, trusting: bool = True) -> SSL.Context:
    """A new pyOpenSSL context for a DTLS client, which insists on a certificate that it trusts."""
    context = SSL.Context(SSL.DTLS_METHOD)
    if trusting:
        authority().configure_trust(context)
    context.set_verify(SSL.VERIFY_PEER, lambda _conn, _cert, _error, _depth, ok: bool(ok))
    return context
