"""Connecting by TCP: the order of the attempts, their timing, and what is left of them."""

from __future__ import annotations

import errno
import os
import socket as stdlib
from typing import Any, Literal

import pytest
from harness import net

import nurseryio
from nurseryio import CancelScope, lowlevel, open_tcp_stream, socket
from nurseryio._net.tcp_connect import in_order, spelled
from nurseryio.testing import MockClock, assert_checkpoints

Fate = tuple[str, float, Literal["success", "error"]]


class Fake(socket.SocketType):
    """A socket whose attempt to connect takes as long, and ends, as the ``Story`` says."""

    def __init__(self, story: Story, family: int) -> None:
        self.story = story
        self.kind = family
        self.address = ""
        self.closed = False

    @property
    def type(self) -> Any:
        return socket.SOCK_STREAM

    def setsockopt(self, *_args: Any) -> None:
        self.story.when_adopted(self)

    async def connect(self, address: Any) -> None:
        self.address = address[0]
        self.story.began[self.address] = nurseryio.current_time()
        _address, delay, end = self.story.fates[self.address]
        await nurseryio.sleep(delay)
        if end == "error":
            raise OSError(errno.ECONNREFUSED, f"{self.address} says no")

    def close(self) -> None:
        self.closed = True


class Story(nurseryio.abc.SocketFactory, nurseryio.abc.HostnameResolver):
    """A network of fakes: a name that stands for addresses, each with its fate."""

    def __init__(self, *fates: Fate, missing: int | None = None) -> None:
        self.fates = {fate[0]: fate for fate in fates}
        self.missing = missing
        self.sockets: list[Fake] = []
        # When each attempt began (seconds from the start).
        self.began: dict[str, float] = {}

    def when_adopted(self, sock: Fake) -> None:
        """Called when a socket becomes a stream."""

    def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Any:
        if family == self.missing:
            raise OSError(errno.EAFNOSUPPORT, "no such family here")
        sock = Fake(self, family)
        self.sockets.append(sock)
        return sock

    async def getaddrinfo(self, host: Any, port: Any, *rest: Any, **_named: Any) -> Any:
        assert host == b"test.example"
        return [entry(address, port) for address in self.fates]

    async def getnameinfo(self, *_args: Any) -> Any:
        raise NotImplementedError

    async def connect(self, **options: Any) -> str:
        """Connect: the address that won."""
        socket.set_custom_hostname_resolver(self)
        socket.set_custom_socket_factory(self)
        winner = None
        try:
            stream = await open_tcp_stream("test.example", 80, **options)
            winner = stream.socket
            assert isinstance(winner, Fake)
            return winner.address
        finally:
            socket.set_custom_hostname_resolver(None)
            socket.set_custom_socket_factory(None)
            assert all(sock.closed for sock in self.sockets if sock is not winner)
            assert winner is None or not winner.closed


def entry(address: str, port: int) -> Any:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))


# -- with fakes, in virtual time ------------------------------------------------


@pytest.mark.parametrize("delay", [0.1, 100])
async def test_happy_eyeballs_one_address_takes_as_long_as_its_attempt(
    autojump_clock: MockClock, delay: float
) -> None:
    assert await Story(("1.1.1.1", delay, "success")).connect() == "1.1.1.1"
    assert nurseryio.current_time() == delay


async def test_a_host_with_one_address_is_connected_to_in_the_callers_task(
    autojump_clock: MockClock,
) -> None:
    class Watched(Story):
        def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Any:
            self.task = lowlevel.current_task()
            return super().socket(family, type, proto)

    story = Watched(("1.1.1.1", 1, "success"))
    assert await story.connect() == "1.1.1.1"
    assert story.task is lowlevel.current_task()
    story = Watched(("1.1.1.1", 1, "success"))
    with nurseryio.move_on_after(0.5) as scope:
        await story.connect()
    assert scope.cancelled_caught
    assert story.sockets[0].closed


async def test_a_numeric_ipv4_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_args: object) -> None:
        raise AssertionError("the system was asked")

    monkeypatch.setattr(stdlib, "getaddrinfo", asked)
    with stdlib.create_server(("127.0.0.1", 0)) as listener:
        with assert_checkpoints():
            stream = await open_tcp_stream(*listener.getsockname())
        async with stream:
            assert stream.remote_address == listener.getsockname()
            assert stream.socket.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_cancelled_connect_to_a_numeric_address_raises(host: str) -> None:
    with CancelScope() as scope:
        scope.cancel()
        await open_tcp_stream(host, 1)
    assert scope.cancelled_caught


async def test_happy_eyeballs_a_slow_attempt_is_joined_by_the_next_after_the_delay(
    autojump_clock: MockClock,
) -> None:
    story = Story(("1.1.1.1", 1, "success"), ("2.2.2.2", 1, "success"), ("3.3.3.3", 0.2, "success"))
    assert await story.connect() == "3.3.3.3"
    assert story.began == {"1.1.1.1": 0, "2.2.2.2": 0.25, "3.3.3.3": 0.5}
    assert nurseryio.current_time() == 0.7


async def test_happy_eyeballs_no_further_attempt_begins_after_the_first_success(
    autojump_clock: MockClock,
) -> None:
    story = Story(("1.1.1.1", 1, "error"), ("2.2.2.2", 0.1, "success"), ("3.3.3.3", 0, "success"))
    assert await story.connect() == "2.2.2.2"
    assert story.began == {"1.1.1.1": 0, "2.2.2.2": 0.25}


async def test_happy_eyeballs_delay_can_be_chosen(autojump_clock: MockClock) -> None:
    fates: list[Fate] = [("1.1.1.1", 1, "success"), ("2.2.2.2", 1, "success")]
    story = Story(*fates)
    assert await story.connect(happy_eyeballs_delay=0.5) == "1.1.1.1"
    assert story.began == {"1.1.1.1": 0, "2.2.2.2": 0.5}
    story = Story(*fates)
    assert await story.connect(happy_eyeballs_delay=float("inf")) == "1.1.1.1"
    assert list(story.began) == ["1.1.1.1"]
    story = Story(*fates)
    await story.connect(happy_eyeballs_delay=None)
    first, second = story.began.values()
    assert second - first == 0.25


async def test_happy_eyeballs_delay_of_zero_begins_all_attempts_at_once(
    autojump_clock: MockClock,
) -> None:
    story = Story(("1.1.1.1", 2, "success"), ("2.2.2.2", 1, "success"))
    assert await story.connect(happy_eyeballs_delay=0) == "2.2.2.2"
    assert set(story.began.values()) == {0}


async def test_happy_eyeballs_a_failed_attempt_lets_the_next_one_begin_at_once(
    autojump_clock: MockClock,
) -> None:
    story = Story(
        ("1.1.1.1", 0.1, "error"),
        ("2.2.2.2", 0.2, "error"),
        ("3.3.3.3", 10, "success"),
        ("4.4.4.4", 0.25, "success"),
    )
    assert await story.connect() == "4.4.4.4"
    assert story.began == {
        "1.1.1.1": 0,
        "2.2.2.2": 0.1,
        "3.3.3.3": pytest.approx(0.3),
        "4.4.4.4": pytest.approx(0.55),
    }


async def test_happy_eyeballs_the_second_attempt_is_for_the_other_address_family(
    autojump_clock: MockClock,
) -> None:
    story = Story(("1.1.1.1", 10, "error"), ("2.2.2.2", 1, "success"), ("::3", 0.5, "success"))
    assert await story.connect(happy_eyeballs_delay=1) == "::3"
    assert story.began == {"1.1.1.1": 0, "::3": 1}


async def test_happy_eyeballs_an_address_family_that_the_machine_lacks_costs_no_time(
    autojump_clock: MockClock,
) -> None:
    story = Story(("::1", 0, "success"), ("2.2.2.2", 0.1, "success"), missing=socket.AF_INET6)
    assert await story.connect() == "2.2.2.2"
    assert nurseryio.current_time() == 0.1


async def test_happy_eyeballs_if_all_attempts_fail_the_error_names_each(
    autojump_clock: MockClock,
) -> None:
    story = Story(("1.1.1.1", 0.1, "error"), ("::2", 5, "error"), ("3.3.3.3", 0.1, "error"))
    with pytest.raises(OSError) as caught:
        await story.connect()
    refused = os.strerror(errno.ECONNREFUSED)
    assert str(caught.value) == (
        "all attempts to connect to test.example:80 failed: "
        f"1.1.1.1:80 ({refused}), 3.3.3.3:80 ({refused}), [::2]:80 ({refused})"
    )
    group: Any = caught.value.__cause__
    assert group.message == "all attempts to connect to test.example:80 failed"
    assert [e.strerror for e in group.exceptions] == [
        "1.1.1.1 says no",
        "3.3.3.3 says no",
        "::2 says no",
    ]
    assert nurseryio.current_time() == pytest.approx(5.1)


async def test_happy_eyeballs_of_two_attempts_that_succeed_at_once_one_is_kept(
    autojump_clock: MockClock,
) -> None:
    story = Story(("1.1.1.1", 1, "success"), ("2.2.2.2", 1, "success"))
    await story.connect(happy_eyeballs_delay=0)
    assert sum(not sock.closed for sock in story.sockets) == 1


async def test_a_host_name_without_addresses_is_an_error() -> None:
    with pytest.raises(OSError, match=r"no results found for hostname lookup: test.example:80"):
        await Story().connect()


async def test_happy_eyeballs_a_cancel_ends_all_attempts_and_closes_their_sockets(
    autojump_clock: MockClock,
) -> None:
    story = Story(("1.1.1.1", 10, "success"), ("2.2.2.2", 10, "success"))
    with nurseryio.move_on_after(5) as scope:
        await story.connect()
    assert scope.cancelled_caught
    assert nurseryio.current_time() == 5
    assert len(story.sockets) == 2


async def test_a_socket_that_cannot_become_a_stream_is_closed(autojump_clock: MockClock) -> None:
    class Unwilling(Story):
        def when_adopted(self, sock: Fake) -> None:
            raise KeyError("not me")

    story = Unwilling(("1.1.1.1", 0, "success"))
    with pytest.raises(KeyError):
        await story.connect()
    assert story.sockets[0].closed


async def test_happy_eyeballs_an_unexpected_error_of_an_attempt_ends_the_others(
    autojump_clock: MockClock,
) -> None:
    class Broken(Story):
        def socket(self, family: int = 0, type: int = 0, proto: int = 0) -> Any:
            if len(self.sockets) == 1:
                raise KeyError("unexpected")
            return super().socket(family, type, proto)

    with pytest.RaisesGroup(KeyError):
        await Broken(("1.1.1.1", 9, "success"), ("2.2.2.2", 9, "success")).connect()
    assert nurseryio.current_time() == 0.25


# -- the parts ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        (["1", "2", "3"], ["1", "2", "3"]),
        (["1"], ["1"]),
        ([], []),
        (["1", ":2", "3"], ["1", ":2", "3"]),
        (["1", "2", "3", ":4", ":5"], ["1", ":4", "2", "3", ":5"]),
        ([":1", ":2", "3", "4"], [":1", "3", ":2", "4"]),
    ],
)
def test_happy_eyeballs_order_of_addresses(found: list[str], tried: list[str]) -> None:
    entries = [entry(address, 80) for address in found]
    assert [e[4][0] for e in in_order(entries)] == tried


def test_addresses_in_messages_are_spelled_host_colon_port() -> None:
    assert spelled("127.0.0.1", 80) == spelled(b"127.0.0.1", 80) == "127.0.0.1:80"
    assert spelled("::1", "http") == spelled(b"::1", "http") == "[::1]:http"
    assert spelled(b"\xff", 80) == "\\xff:80"


async def test_the_zone_of_a_link_local_address_stays_in_the_error(
    autojump_clock: MockClock,
) -> None:
    number, name = stdlib.if_nameindex()[0]
    zones = {number: name, 2**31: str(2**31)}

    class Zones(Story):
        async def getaddrinfo(self, *_question: Any, **_named: Any) -> Any:
            kind = (socket.AF_INET6, socket.SOCK_STREAM, 0, "")
            return [(*kind, ("fe80::1", 80, 0, zone)) for zone in zones]

    with pytest.raises(OSError, match="all attempts") as caught:
        await Zones(("fe80::1", 0, "error")).connect()
    for zone in zones.values():
        assert f"[fe80::1%{zone}]:80 (" in str(caught.value)


# -- for real -------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        pytest.param("localhost", marks=net.needs_localhost),
        pytest.param(b"localhost", marks=net.needs_localhost),
    ],
)
async def test_open_tcp_stream_connects_to_a_listener(host: str | bytes) -> None:
    with socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        with assert_checkpoints():
            stream = await open_tcp_stream(host, listener.getsockname()[1])
        async with stream:
            server, _address = await listener.accept()
            with server:
                await stream.send_all(b"x")
                assert await server.recv(1) == b"x"


@net.needs_localhost
async def test_a_refused_connection_names_the_address() -> None:
    port = net.free_port()
    with pytest.raises(OSError) as caught:
        await open_tcp_stream("127.0.0.1", port)
    assert str(caught.value) == f"all attempts to connect to 127.0.0.1:{port} failed"
    with pytest.raises(OSError) as caught:
        await open_tcp_stream("localhost", port)
    text = str(caught.value)
    assert text.startswith(f"all attempts to connect to localhost:{port} failed: ")
    assert f"127.0.0.1:{port} (Connection refused)" in text
    group: Any = caught.value.__cause__
    assert all(isinstance(e, ConnectionRefusedError) for e in group.exceptions)


@pytest.mark.skipif(not net.has_ipv6(), reason="this machine has no IPv6")
async def test_a_refused_connection_by_ipv6() -> None:
    port = net.free_port()
    with pytest.raises(OSError, match=rf"^all attempts to connect to \[::1\]:{port} failed$"):
        await open_tcp_stream("::1", port)


async def test_a_name_that_cannot_be_resolved_is_an_error() -> None:
    with pytest.raises(socket.gaierror):
        await open_tcp_stream("no-such-host.invalid", 80)


@pytest.mark.parametrize(
    "local", ["127.0.0.2", "0.0.0.0", pytest.param("localhost", marks=net.needs_localhost)]
)
async def test_local_address_can_be_chosen(local: str) -> None:
    with socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        async with await open_tcp_stream("127.0.0.1", port, local_address=local) as stream:
            own = stream.socket.getsockname()
            if local == "127.0.0.2":
                assert own[0] == local
            server, address = await listener.accept()
            server.close()
            assert address == own


async def test_a_local_address_of_the_other_address_family_is_an_error() -> None:
    with pytest.raises(OSError, match=r"^all attempts to connect to 127.0.0.1:1 failed$") as caught:
        await open_tcp_stream("127.0.0.1", 1, local_address="::")
    group: Any = caught.value.__cause__
    [error] = group.exceptions
    assert "local_address='::' is incompatible with remote address" in str(error)
    assert isinstance(error.__cause__, OSError) and error.__cause__.strerror in str(error)


@pytest.mark.parametrize("host", [None, 5, ["localhost"]])
async def test_open_tcp_stream_refuses_a_host_of_the_wrong_type(host: Any) -> None:
    with pytest.raises(ValueError, match="host must be str or bytes, not "):
        await open_tcp_stream(host, 80)


@pytest.mark.parametrize(
    ("port", "error"), [("80", TypeError), (None, TypeError), (-1, ValueError), (70000, ValueError)]
)
async def test_open_tcp_stream_refuses_a_wrong_port(port: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="port must be "):
        await open_tcp_stream("localhost", port)


@pytest.mark.parametrize("delay", [-1, float("nan")])
async def test_open_tcp_stream_refuses_a_wrong_happy_eyeballs_delay(delay: float) -> None:
    with pytest.raises(ValueError, match="happy_eyeballs_delay must be seconds"):
        await open_tcp_stream("localhost", 80, happy_eyeballs_delay=delay)
