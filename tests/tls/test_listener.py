"""Listeners that speak TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from harness import certs

import nurseryio
from nurseryio import ClosedResourceError, SSLListener, SSLStream
from nurseryio.abc import Listener, Stream
from nurseryio.lowlevel import checkpoint
from nurseryio.testing import memory_stream_pair


class Memory(Listener[Any]):
    """A listener whose connections are inside the process."""

    def __init__(self) -> None:
        self.clients: list[Stream] = []
        self.servers: list[Stream] = []
        self.closed = False

    async def accept(self) -> Any:
        await checkpoint()
        if self.closed:
            raise ClosedResourceError
        client, server = memory_stream_pair()
        self.clients.append(client)
        self.servers.append(server)
        return server

    async def aclose(self) -> None:
        self.closed = True
        await checkpoint()


def client_of(listener: Memory, **options: Any) -> SSLStream[Any]:
    context = certs.client_context(version="1.3")
    return SSLStream(listener.clients[-1], context, server_hostname=certs.HOST, **options)


async def test_ssl_listener_accepts_server_side_streams_before_their_handshake() -> None:
    memory = Memory()
    listener: SSLListener[Any] = SSLListener(memory, certs.server_context())
    assert listener.transport_listener is memory
    assert repr(listener) == f"<SSLListener over {memory!r}>"
    server = await listener.accept()
    assert isinstance(server, SSLStream)
    assert server.server_side
    assert server.transport_stream is memory.servers[0]
    assert "not started" in repr(server)
    client = client_of(memory)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"x")
        assert await server.receive_some() == b"x"


@pytest.mark.parametrize("https_compatible", [False, True])
async def test_ssl_listener_passes_https_compatible_on(https_compatible: bool) -> None:
    memory = Memory()
    listener: SSLListener[Any] = SSLListener(
        memory, certs.server_context(), https_compatible=https_compatible
    )
    server = await listener.accept()
    client = client_of(memory, https_compatible=True)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"x")
        assert await server.receive_some() == b"x"
    await client.aclose()
    if https_compatible:
        assert await server.receive_some() == b""
    else:
        with pytest.raises(nurseryio.BrokenResourceError, match="close_notify"):
            await server.receive_some()


async def test_closing_an_ssl_listener_closes_its_transport_listener_only() -> None:
    memory = Memory()
    listener: SSLListener[Any] = SSLListener(memory, certs.server_context())
    server = await listener.accept()
    await listener.aclose()
    assert memory.closed
    with pytest.raises(ClosedResourceError):
        await listener.accept()
    await server.transport_stream.send_all(b"still open")


async def test_an_accepted_connection_that_cannot_be_wrapped_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise MemoryError

    memory = Memory()
    listener: SSLListener[Any] = SSLListener(memory, certs.server_context())
    monkeypatch.setattr("nurseryio._tls.listener.SSLStream", fail)
    with pytest.raises(MemoryError):
        await listener.accept()
    with pytest.raises(ClosedResourceError):
        await memory.servers[0].send_all(b"x")


@pytest.mark.parametrize("context", ["server.pem", None])
def test_ssl_listener_takes_only_an_ssl_context(context: Any) -> None:
    make: Callable[..., object] = SSLListener
    with pytest.raises(TypeError, match=r"ssl\.create_default_context"):
        make(Memory(), context)


def test_ssl_listener_refuses_a_client_context() -> None:
    with pytest.raises(ssl.SSLError, match=r"made for a client.*Purpose\.CLIENT_AUTH"):
        SSLListener(Memory(), certs.client_context())


async def test_tls_connections_in_the_systems_queue_are_served_after_a_stop_request() -> None:
    async def handler(stream: SSLStream[Any]) -> None:
        async with stream:
            await stream.send_all(await stream.receive_some())

    async def client(address: Any) -> None:
        transport = await nurseryio.open_tcp_stream(*address)
        stream = SSLStream(
            transport, certs.client_context(version="1.3"), server_hostname=certs.HOST
        )
        async with stream:
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"

    async with nurseryio.open_nursery() as clients, nurseryio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(
                nurseryio.serve_ssl_over_tcp, handler, 0, certs.server_context(), host="127.0.0.1"
            )
        )
        address = listeners[0].transport_listener.socket.getsockname()
        clients.start_soon(client, address)
        await nurseryio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.request_stop()


async def test_a_tls_listener_over_another_kind_of_listener_has_no_queue_to_accept() -> None:
    listener: SSLListener[Any] = SSLListener(Memory(), certs.server_context())
    assert listener._accept_queued() is None
