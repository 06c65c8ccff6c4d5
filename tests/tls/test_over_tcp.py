"""TLS over TCP in one call: connecting, listening, serving."""

from __future__ import annotations

import ssl
from functools import partial
from typing import Any

import pytest
from harness import certs

import nurseryio
from nurseryio import (
    BrokenResourceError,
    SocketListener,
    SocketStream,
    SSLListener,
    SSLStream,
    open_ssl_over_tcp_listeners,
    open_ssl_over_tcp_stream,
    serve_ssl_over_tcp,
)


async def echo(stream: SSLStream[SocketStream]) -> None:
    try:
        async with stream:
            async for data in stream:
                await stream.send_all(data)
    except BrokenResourceError:
        pass


async def start(nursery: nurseryio.Nursery, **options: Any) -> int:
    """Start an echo server, and return its port."""
    context = options.pop("context", certs.server_context())
    serve = partial(serve_ssl_over_tcp, echo, 0, context, host="127.0.0.1", **options)
    (listener,) = await nursery.start(serve)
    assert isinstance(listener, SSLListener)
    assert isinstance(listener.transport_listener, SocketListener)
    port: int = listener.transport_listener.socket.getsockname()[1]
    return port


def local_context() -> Any:
    """A client's context that trusts the tests' authority."""
    return certs.client_context(version="1.3")


async def test_open_ssl_over_tcp_stream_and_serve_ssl_over_tcp_exchange_data() -> None:
    async with nurseryio.open_nursery() as nursery:
        port = await start(nursery, context=certs.server_context_for("127.0.0.1"))
        stream = await open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=local_context())
        assert isinstance(stream, SSLStream)
        assert isinstance(stream.transport_stream, SocketStream)
        assert stream.server_hostname == "127.0.0.1"
        async with stream:
            await stream.send_all(b"x" * 100_000)
            received = b""
            while len(received) < 100_000:
                received += await stream.receive_some()
            assert received == b"x" * 100_000
        nursery.cancel_scope.cancel()


async def test_an_untrusted_server_fails_the_handshake() -> None:
    async with nurseryio.open_nursery() as nursery:
        port = await start(nursery, context=certs.server_context_for("127.0.0.1"))
        # By default the system's authorities are trusted, and no others.
        for context, says in ((None, "certificate"), (local_context(), None)):
            stream = await open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=context)
            async with stream:
                if says is None:
                    await stream.do_handshake()
                else:
                    with pytest.raises(BrokenResourceError, match=says):
                        await stream.do_handshake()
        nursery.cancel_scope.cancel()


async def test_a_server_with_another_host_name_fails_the_handshake() -> None:
    async with nurseryio.open_nursery() as nursery:
        port = await start(nursery, context=certs.server_context_for(certs.OTHER_HOST))
        stream = await open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=local_context())
        async with stream:
            with pytest.raises(BrokenResourceError, match="IP address mismatch"):
                await stream.do_handshake()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("https_compatible", [False, True])
async def test_open_ssl_over_tcp_functions_pass_https_compatible_on(https_compatible: bool) -> None:
    async with nurseryio.open_nursery() as nursery:
        # It sends close_notify or not; either is fine for a client that keeps to HTTPS.
        port = await start(
            nursery,
            context=certs.server_context_for("127.0.0.1"),
            https_compatible=https_compatible,
        )
        stream = await open_ssl_over_tcp_stream(
            "127.0.0.1",
            port,
            ssl_context=local_context(),
            https_compatible=https_compatible,
            happy_eyeballs_delay=1,
        )
        await stream.send_all(b"x")
        assert await stream.receive_some() == b"x"
        (listener,) = await open_ssl_over_tcp_listeners(
            0, certs.server_context(), host="127.0.0.1", https_compatible=https_compatible
        )
        async with listener:
            assert listener._https_compatible is https_compatible
        await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_open_ssl_over_tcp_listeners_listens_on_the_given_host_and_port() -> None:
    listeners = await open_ssl_over_tcp_listeners(
        0, certs.server_context(), host="127.0.0.1", backlog=5
    )
    (listener,) = listeners
    async with listener:
        below = listener.transport_listener
        assert isinstance(below, SocketListener)
        assert below.socket.getsockname()[0] == "127.0.0.1"


async def test_handler_nursery_of_serve_ssl_over_tcp_runs_the_handlers() -> None:
    async with nurseryio.open_nursery() as handlers, nurseryio.open_nursery() as nursery:
        port = await start(
            nursery,
            context=certs.server_context_for("127.0.0.1"),
            handler_nursery=handlers,
        )
        stream = await open_ssl_over_tcp_stream("127.0.0.1", port, ssl_context=local_context())
        await stream.send_all(b"x")
        nursery.cancel_scope.cancel()
        with nurseryio.CancelScope(shield=True):
            assert await stream.receive_some() == b"x"
            await stream.aclose()


@pytest.mark.parametrize("context", ["client.pem", True])
async def test_an_object_that_is_not_an_ssl_context_is_refused_before_anything_is_connected(
    context: Any,
) -> None:
    with pytest.raises(TypeError, match=r"ssl_context must be an ssl\.SSLContext"):
        # Nothing listens there, which is never noticed.
        await open_ssl_over_tcp_stream("127.0.0.1", 1, ssl_context=context)
    with pytest.raises(TypeError, match=r"ssl_context must be an ssl\.SSLContext"):
        await open_ssl_over_tcp_listeners(0, context)
    with pytest.raises(TypeError, match=r"ssl_context must be an ssl\.SSLContext"):
        await serve_ssl_over_tcp(echo, 0, context)


async def test_an_ssl_context_for_the_other_side_is_refused_before_anything_is_connected() -> None:
    with pytest.raises(ssl.SSLError, match="made for a server"):
        await open_ssl_over_tcp_stream("127.0.0.1", 1, ssl_context=certs.server_context())
    # The port is not a number: the context comes first.
    port: Any = "port"
    with pytest.raises(ssl.SSLError, match=r"made for a client.*Purpose\.CLIENT_AUTH"):
        await open_ssl_over_tcp_listeners(port, certs.client_context())
    with pytest.raises(ssl.SSLError, match=r"made for a client.*Purpose\.CLIENT_AUTH"):
        await serve_ssl_over_tcp(echo, port, certs.client_context())


async def test_a_tcp_connection_that_cannot_be_wrapped_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise MemoryError

    async with nurseryio.open_nursery() as nursery:
        port = await start(nursery)
        monkeypatch.setattr("nurseryio._tls.over_tcp.SSLStream", fail)
        # The file descriptor is gone, or the test would not end clean.
        with pytest.raises(MemoryError):
            await open_ssl_over_tcp_stream("127.0.0.1", port)
        nursery.cancel_scope.cancel()
