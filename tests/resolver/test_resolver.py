"""Looking up names and addresses: by the system, by a custom resolver, or not at all."""

from __future__ import annotations

import socket as stdlib
from pathlib import Path
from typing import Any

import pytest
from harness import net

import nurseryio
from nurseryio import socket
from nurseryio._resolver.resolver import NUMERIC_ONLY, resolve_address
from nurseryio.testing import assert_checkpoints


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Records the calls of the system's getaddrinfo(); every name stands for 192.0.2.1."""
    questions = []
    ask = stdlib.getaddrinfo

    def note(host: Any, port: Any, family: int, type: int, proto: int, flags: int) -> Any:
        questions.append((host, port, family, type, proto, flags))
        if flags & stdlib.AI_NUMERICHOST:
            return ask(host, port, family, type, proto, flags)
        return ask("192.0.2.1", 80, family, type, proto, flags)

    monkeypatch.setattr(stdlib, "getaddrinfo", note)
    return questions


class Resolver(nurseryio.abc.HostnameResolver):
    """Answers with the question."""

    async def getaddrinfo(self, *question: Any, **_named: Any) -> Any:
        return question

    async def getnameinfo(self, *question: Any) -> Any:
        return question


async def test_getaddrinfo_of_a_numeric_address_needs_no_thread(
    asked: list[tuple[Any, ...]],
) -> None:
    with assert_checkpoints():
        found = await socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert [(f[0], f[4]) for f in found] == [(socket.AF_INET, ("127.0.0.1", 80))]
    with assert_checkpoints():
        found = await socket.getaddrinfo(b"::1", "80", type=socket.SOCK_DGRAM)
    assert [(f[0], f[4]) for f in found] == [(socket.AF_INET6, ("::1", 80, 0, 0))]
    assert all(flags & NUMERIC_ONLY == NUMERIC_ONLY for *_rest, flags in asked)


async def test_getaddrinfo_looks_a_host_name_up_in_its_encoded_form(
    asked: list[tuple[Any, ...]],
) -> None:
    with assert_checkpoints():
        found = await socket.getaddrinfo("bücher.example", 80, 0, socket.SOCK_STREAM)
    assert found[0][4] == ("192.0.2.1", 80)
    assert asked[-1] == (b"xn--bcher-kva.example", 80, 0, socket.SOCK_STREAM, 0, 0)


async def test_getaddrinfo_with_an_immediate_error_is_a_checkpoint_too() -> None:
    with assert_checkpoints(), pytest.raises(socket.gaierror):
        await socket.getaddrinfo("127.0.0.1", 80, type=-1)
    with assert_checkpoints(), pytest.raises(TypeError):
        await socket.getaddrinfo(5, 80)  # type: ignore[arg-type]


async def test_getaddrinfo_with_a_wrong_service_raises_gaierror() -> None:
    with pytest.raises(socket.gaierror):
        await socket.getaddrinfo("127.0.0.1", "no-such-service-anywhere")


NO_NAMES = ["127.0.0.1\0.example", b"localhost\0.example", "::1\0", "a..b", "ü" * 70]


@pytest.mark.parametrize("name", NO_NAMES, ids=ascii)
async def test_an_invalid_host_name_is_refused_wherever_one_is_given(name: Any) -> None:
    with assert_checkpoints(), pytest.raises(socket.gaierror, match="not a host name"):
        await socket.getaddrinfo(name, 80)
    with pytest.raises(socket.gaierror, match="not a host name"):
        await nurseryio.open_tcp_stream(name, 80)
    with pytest.raises(socket.gaierror, match="not a host name"):
        await nurseryio.open_tcp_stream("127.0.0.1", 80, local_address=name)
    with pytest.raises(socket.gaierror, match="not a host name"):
        await nurseryio.open_tcp_listeners(0, host=name)
    with pytest.raises(socket.gaierror, match="not a host name"):
        await nurseryio.serve_tcp(nurseryio.sleep, 0, host=name)  # type: ignore[arg-type]
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            for method in (sock.bind, sock.connect, lambda address: sock.sendto(b"", address)):
                with pytest.raises(socket.gaierror, match="not a host name"):
                    await method((name, 80))
    if isinstance(name, str):
        with pytest.raises(socket.gaierror, match="not a host name"):
            await socket.getnameinfo((name, 80), 0)


async def test_an_invalid_host_name_is_not_passed_to_a_custom_hostname_resolver() -> None:
    socket.set_custom_hostname_resolver(Resolver())
    try:
        with pytest.raises(socket.gaierror, match="NUL"):
            await socket.getaddrinfo("x\0y", 80)
        with pytest.raises(socket.gaierror, match="NUL"):
            await socket.getnameinfo(("x\0y", 80), 0)
    finally:
        socket.set_custom_hostname_resolver(None)


@pytest.mark.parametrize("service", ["80\0x", b"80\0x", "http\0", "\udcff"], ids=ascii)
async def test_a_service_with_a_nul_is_refused(service: Any) -> None:
    with assert_checkpoints(), pytest.raises(socket.gaierror, match="name of a service"):
        await socket.getaddrinfo("127.0.0.1", service)


@pytest.mark.skipif(not net.has_ipv6(), reason="needs IPv6")
async def test_the_zone_in_a_host_name_is_used_unless_a_scope_id_is_given() -> None:
    name, number = stdlib.if_nameindex()[0][1], stdlib.if_nameindex()[0][0]
    host = f"fe80::1%{name}"
    with stdlib.socket(stdlib.AF_INET6) as sock:
        for given in ((host, 80), (host, 80, 0), (host, 80, 0, 0), ("fe80::1", 80, 0, number)):
            assert await resolve_address(sock, given, False) == ("fe80::1", 80, 0, number)
        assert (await resolve_address(sock, (host, 80, 0, 7), False))[3] == 7


async def test_getnameinfo_gives_the_names_of_addresses() -> None:
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    with assert_checkpoints():
        assert await socket.getnameinfo(("127.0.0.1", 80), numeric) == ("127.0.0.1", "80")
    with assert_checkpoints(), pytest.raises(socket.gaierror):
        await socket.getnameinfo(("not numeric", 80), 0)


async def test_getprotobyname_gives_the_numbers_of_protocols() -> None:
    try:
        stdlib.getprotobyname("tcp")
    except OSError:  # without /etc/protocols
        pytest.skip("this machine knows no protocols by name")
    with assert_checkpoints():
        assert await socket.getprotobyname("tcp") == socket.IPPROTO_TCP
    with pytest.raises(OSError, match="protocol not found"):
        await socket.getprotobyname("no-such-protocol")


async def test_set_custom_hostname_resolver_is_called_for_names_only() -> None:
    resolver = Resolver()
    assert socket.set_custom_hostname_resolver(resolver) is None
    answer: Any = await socket.getaddrinfo("bücher.example", "http", 0, 1, 2, 3)
    assert answer == (b"xn--bcher-kva.example", "http", 0, 1, 2, 3)
    answer = await socket.getnameinfo(("x", 1), 7)
    assert answer == (("x", 1), 7)
    found = await socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert found[0][4] == ("127.0.0.1", 80)
    assert socket.set_custom_hostname_resolver(None) is resolver
    assert socket.set_custom_hostname_resolver(None) is None


def test_set_custom_hostname_resolver_belongs_to_one_loop() -> None:
    async def set_one() -> None:
        assert socket.set_custom_hostname_resolver(Resolver()) is None

    nurseryio.run(set_one)
    nurseryio.run(set_one)
    with pytest.raises(RuntimeError):
        socket.set_custom_hostname_resolver(None)


async def test_getaddrinfo_can_be_cancelled() -> None:
    class Silent(Resolver):
        async def getaddrinfo(self, *_question: Any, **_named: Any) -> Any:
            await nurseryio.sleep_forever()

    socket.set_custom_hostname_resolver(Silent())
    with nurseryio.move_on_after(0.001) as scope:
        await socket.getaddrinfo("example.org", 80)
    assert scope.cancelled_caught
    socket.set_custom_hostname_resolver(None)


# -- addresses of sockets -------------------------------------------------------


async def resolved(sock: stdlib.socket, address: Any, *, local: bool = False) -> Any:
    with sock:
        return await resolve_address(sock, address, local)


async def test_host_names_in_ipv4_addresses_are_resolved(asked: list[tuple[Any, ...]]) -> None:
    assert await resolved(stdlib.socket(), ("10.0.0.1", 80)) == ("10.0.0.1", 80)
    assert not asked
    assert await resolved(stdlib.socket(), ("10.0.0.1", "80")) == ("10.0.0.1", 80)
    assert await resolved(stdlib.socket(), ("example.org", 80)) == ("192.0.2.1", 80)
    assert await resolved(stdlib.socket(), ("<broadcast>", "9")) == ("255.255.255.255", 9)
    for nowhere in ("", None):
        assert await resolved(stdlib.socket(), (nowhere, 80)) == ("127.0.0.1", 80)
        assert await resolved(stdlib.socket(), (nowhere, 80), local=True) == ("0.0.0.0", 80)


@pytest.mark.skipif(not net.has_ipv6(), reason="this machine has no IPv6")
async def test_host_names_in_ipv6_addresses_are_resolved_and_the_other_two_fields_kept() -> None:
    def six() -> stdlib.socket:
        return stdlib.socket(stdlib.AF_INET6)

    assert await resolved(six(), ("1::2", 80)) == ("1::2", 80)
    for given, expected in [
        (("1::2", "80"), ("1::2", 80, 0, 0)),
        (("1::2", "80", 5), ("1::2", 80, 5, 0)),
        (("1::2", "80", 5, 6), ("1::2", 80, 5, 6)),
        (("", 80), ("::1", 80, 0, 0)),
    ]:
        assert await resolved(six(), given) == expected
    both = six()
    both.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, 0)
    assert await resolved(both, ("1.2.3.4", "80")) == ("::ffff:1.2.3.4", 80, 0, 0)
    only = six()
    only.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, 1)
    with pytest.raises(socket.gaierror):
        await resolved(only, ("1.2.3.4", "80"))


@pytest.mark.parametrize("address", ["1.2.3.4", ("1.2.3.4",), ("1.2.3.4", 80, 0), ["1.2.3.4", 80]])
async def test_an_address_of_the_wrong_form_is_refused(address: Any) -> None:
    with pytest.raises(ValueError, match=r"address should be a \(host, port\) tuple"):
        await resolved(stdlib.socket(), address)


@pytest.mark.skipif(not net.has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("address", ["::1", ("::1",), ("::1", 80, 0, 0, 0)])
async def test_an_address_of_the_wrong_form_for_ipv6_is_refused(address: Any) -> None:
    with pytest.raises(ValueError, match=r"address should be a \(host, port, \[flowinfo"):
        await resolved(stdlib.socket(stdlib.AF_INET6), address)


async def test_unix_socket_paths_are_passed_on_unchanged() -> None:
    def unix() -> stdlib.socket:
        return stdlib.socket(stdlib.AF_UNIX)

    assert await resolved(unix(), "/a") == "/a"
    assert await resolved(unix(), b"/a") == b"/a"
    assert await resolved(unix(), Path("/a")) == "/a"
    with pytest.raises(TypeError):
        await resolved(unix(), 5)


@pytest.mark.skipif(not hasattr(stdlib, "AF_NETLINK"), reason="Linux has this family")
async def test_addresses_of_unknown_address_families_are_passed_on() -> None:
    address = object()
    sock = stdlib.socket(stdlib.AF_NETLINK, stdlib.SOCK_DGRAM)
    assert await resolved(sock, address) is address
