"""Opening TCP listeners."""

from __future__ import annotations

import errno
import socket as stdlib
from typing import Any

import pytest
from harness import net

import nurseryio
from nurseryio import CancelScope, SocketListener, SocketStream, open_tcp_listeners, socket
from nurseryio.testing import assert_checkpoints, open_stream_to_socket_listener


async def close_all(listeners: list[SocketListener]) -> None:
    for listener in listeners:
        await listener.aclose()


async def test_open_tcp_listeners_without_a_host_listens_on_all_addresses() -> None:
    with assert_checkpoints():
        listeners = await open_tcp_listeners(0)
    addresses = {listener.socket.getsockname()[0] for listener in listeners}
    assert addresses == {"0.0.0.0"} | ({"::"} if net.has_ipv6() else set())
    for listener in listeners:
        async with await open_stream_to_socket_listener(listener) as client:
            async with await listener.accept() as server:
                await client.send_all(b"x")
                assert await server.receive_some() == b"x"
    await close_all(listeners)


@pytest.mark.skipif(not net.has_ipv6(), reason="this machine has no IPv6")
async def test_ipv6_and_ipv4_can_share_a_port_number() -> None:
    (four,) = await open_tcp_listeners(0, host="0.0.0.0")
    (six,) = await open_tcp_listeners(four.socket.getsockname()[1], host="::")
    assert six.socket.getsockname()[1] == four.socket.getsockname()[1]
    await close_all([four, six])


@net.needs_localhost
async def test_a_host_and_a_port_can_be_chosen() -> None:
    (first,) = await open_tcp_listeners(0, host="127.0.0.1")
    port = first.socket.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        await open_tcp_listeners(port, host=b"127.0.0.1")
    await first.aclose()
    # One for each address of the name, which may have one for IPv6 as well.
    again = await open_tcp_listeners(port, host="localhost")
    assert ("127.0.0.1", port) in [listener.socket.getsockname() for listener in again]
    await close_all(again)


async def test_reuse_addr_lets_a_port_be_used_again_in_spite_of_time_wait() -> None:
    (listener,) = await open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with await open_stream_to_socket_listener(listener):
        # Closed by the server first: the connection lingers on in the system.
        await (await listener.accept()).aclose()
    await listener.aclose()
    (again,) = await open_tcp_listeners(port, host="127.0.0.1")
    await again.aclose()


@pytest.mark.parametrize("port", [None, b"80", "http", 80.0])
async def test_open_tcp_listeners_refuses_a_port_that_is_not_an_integer(port: Any) -> None:
    for host in ("127.0.0.1", None):
        with pytest.raises(TypeError, match="port must be an int not "):
            await open_tcp_listeners(port, host=host)


@pytest.mark.parametrize("port", [-1, 65536, 70000])
async def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match=f"port must be between 0 and 65535, not {port}"):
        await open_tcp_listeners(port)
    with pytest.raises(ValueError, match="port must be between"):
        await nurseryio.serve_tcp(nurseryio.sleep_forever, port)  # type: ignore[arg-type]


async def test_a_host_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(TypeError, match="host must be str, bytes or None, not 5"):
        await open_tcp_listeners(0, host=5)  # type: ignore[arg-type]


class Fake(socket.SocketType):
    """A socket that listens if it is allowed to."""

    type = socket.SOCK_STREAM  # type: ignore[assignment]

    def __init__(self, family: int, may_listen: bool) -> None:
        self.kind = family
        self.may_listen = may_listen
        self.closed = False
        self.backlog = 0

    def getsockopt(self, *_args: Any) -> Any:
        return 1

    def setsockopt(self, *_args: Any) -> None:
        pass

    async def bind(self, address: Any) -> None:
        pass

    def listen(self, backlog: int = 0) -> None:
        if not self.may_listen:
            raise OSError("not allowed")
        self.backlog = backlog

    def close(self) -> None:
        self.closed = True


class FakeNetwork(nurseryio.abc.SocketFactory, nurseryio.abc.HostnameResolver):
    """Resolves every name to the families given; some of them this machine does not have."""

    def __init__(self, families: list[int], missing: dict[int, int], most: int = 99) -> None:
        self.families = families
        self.missing = missing
        self.most = most
        self.sockets: list[Fake] = []

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Any:
        if family in self.missing:
            raise OSError(self.missing[family], "nope")
        sock = Fake(family, len(self.sockets) < self.most)
        self.sockets.append(sock)
        return sock

    async def getaddrinfo(self, _host: Any, port: Any, *_rest: Any, **_named: Any) -> Any:
        return [(family, socket.SOCK_STREAM, 0, "", ("x", port)) for family in self.families]

    async def getnameinfo(self, *_args: Any) -> Any:
        raise NotImplementedError

    async def open(self, **options: Any) -> list[SocketListener]:
        socket.set_custom_hostname_resolver(self)
        socket.set_custom_socket_factory(self)
        try:
            return await open_tcp_listeners(80, host="example.org", **options)
        finally:
            socket.set_custom_hostname_resolver(None)
            socket.set_custom_socket_factory(None)


BOTH: list[int] = [socket.AF_INET, socket.AF_INET6]


async def test_an_address_family_that_the_machine_lacks_is_left_out() -> None:
    network = FakeNetwork(BOTH, {socket.AF_INET6: errno.EAFNOSUPPORT})
    (listener,) = await network.open()
    assert listener.socket is network.sockets[0]
    assert network.sockets[0].kind == socket.AF_INET


async def test_without_any_address_family_the_cause_holds_the_error_of_each() -> None:
    network = FakeNetwork(BOTH, dict.fromkeys(BOTH, errno.EAFNOSUPPORT))
    with pytest.raises(OSError, match="doesn't support any of the kinds of socket") as caught:
        await network.open()
    assert caught.value.errno == errno.EAFNOSUPPORT
    errors: Any = caught.value.__cause__
    assert [e.errno for e in errors.exceptions] == [errno.EAFNOSUPPORT] * 2


async def test_another_error_of_one_address_family_is_raised_unchanged() -> None:
    network = FakeNetwork(BOTH, {socket.AF_INET: errno.EAFNOSUPPORT, socket.AF_INET6: errno.EINVAL})
    with pytest.raises(OSError, match="nope") as caught:
        await network.open()
    assert caught.value.errno == errno.EINVAL
    assert caught.value.__cause__ is None


async def test_if_one_address_fails_no_listener_is_left_open() -> None:
    network = FakeNetwork([socket.AF_INET] * 3, {}, most=2)
    with pytest.raises(OSError, match="not allowed"):
        await network.open()
    assert [sock.closed for sock in network.sockets] == [True, True, True]


async def test_an_address_in_use_is_named_with_its_port_in_the_error() -> None:
    (listener,) = await open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1, port {port}$") as caught:
            await nurseryio.serve_tcp(nurseryio.sleep, port, host="127.0.0.1")  # type: ignore[arg-type]
    assert caught.value.errno == errno.EADDRINUSE
    assert caught.value.__cause__.errno == caught.value.errno  # type: ignore[union-attr]


async def test_the_error_for_an_address_keeps_its_class() -> None:
    class Refusing(Fake):
        async def bind(self, address: Any) -> None:
            raise OSError(errno.EACCES, "Permission denied")

    class Network(FakeNetwork):
        def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Any:
            return Refusing(family, True)

    with pytest.raises(
        PermissionError, match=r"^\[Errno 13\] Permission denied: cannot listen on x, port 80$"
    ):
        await Network([socket.AF_INET], {}).open()


async def test_an_error_of_a_look_up_while_binding_is_raised_unchanged() -> None:
    error = stdlib.gaierror(stdlib.EAI_FAIL, "no name server")

    class Failing(Fake):
        async def bind(self, address: Any) -> None:
            raise error

    class Network(FakeNetwork):
        def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Any:
            return Failing(family, True)

    with pytest.raises(stdlib.gaierror) as caught:
        await Network([socket.AF_INET], {}).open()
    assert caught.value is error


@pytest.mark.parametrize(
    ("given", "asked_for"), [(None, 65535), (10, 10), (1, 1), (99_999_999, 65535)]
)
async def test_the_default_backlog_is_as_large_as_systems_allow(
    given: int | None, asked_for: int
) -> None:
    network = FakeNetwork([socket.AF_INET], {})
    await network.open(backlog=given)
    assert network.sockets[0].backlog == asked_for


async def test_a_backlog_that_is_not_an_integer_is_refused() -> None:
    with pytest.raises(TypeError, match=r"backlog must be an int or None, not 2\.5"):
        await open_tcp_listeners(0, backlog=2.5)  # type: ignore[arg-type]


async def test_serve_tcp_starts_with_its_listeners_and_serves_until_cancelled() -> None:
    async def shout(stream: SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data.upper())

    async with nurseryio.open_nursery() as nursery:
        listeners = await nursery.start(nurseryio.serve_tcp, shout, net.free_port())
        for listener in listeners:
            async with await open_stream_to_socket_listener(listener) as client:
                await client.send_all(b"hello")
                assert await client.receive_some() == b"HELLO"
        ports = [listener.socket.getsockname()[:2] for listener in listeners]
        nursery.cancel_scope.cancel()
    for host, port in ports:
        family = stdlib.AF_INET6 if ":" in host else stdlib.AF_INET
        with stdlib.socket(family) as probe:
            # As a new server would: the old connections may still be dying away.
            probe.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen()


async def test_open_tcp_listeners_can_be_cancelled() -> None:
    with CancelScope() as scope:
        scope.cancel()
        await open_tcp_listeners(0)
    assert scope.cancelled_caught
