"""TLS streams over streams inside the process: states, errors, closing, both directions at once.

Cancellation has a separate file (``test_tls_cancel``), and so have real peers (``test_tls_peers``).
"""

from __future__ import annotations

import array
import gc
import ssl
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from harness import certs, net, tlspairs
from harness.renegotiating import RenegotiatingPeer

import nurseryio
from nurseryio import (
    BrokenResourceError,
    BusyResourceError,
    ClosedResourceError,
    SSLStream,
)
from nurseryio._tls.stream import PIECE
from nurseryio.abc import Stream
from nurseryio.lowlevel import checkpoint
from nurseryio.testing import (
    assert_checkpoints,
    check_two_way_stream,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

pytestmark = pytest.mark.costly("TLS hardly depends on the loop")

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])

# More than fits into one piece, and no multiple of anything.
BIG = bytes(range(256)) * 1024 + b"end"


def cause_of(error: BaseException) -> BaseException:
    assert error.__cause__ is not None
    return error.__cause__


async def receive_all(stream: Stream) -> bytes:
    return b"".join([bytes(part) async for part in stream])


async def receive_exactly(stream: Stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        assert part
        data += part
    return data


# -- as any stream ----------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("https_compatible", [False, True])
async def test_ssl_stream_passes_check_two_way_stream(version: str, https_compatible: bool) -> None:
    options: dict[str, Any] = {"version": version, "https_compatible": https_compatible}

    async def make() -> tuple[Stream, Stream]:
        return tlspairs.over_memory(**options)

    async def make_clogged() -> tuple[Stream, Stream]:
        return await tlspairs.connect(tlspairs.over_lockstep(**options))

    await check_two_way_stream(make, make_clogged)


@both_versions
async def test_both_directions_may_be_used_at_once_from_before_the_handshake(version: str) -> None:
    pair = tlspairs.over_lockstep(version=version)
    async with nurseryio.open_nursery() as nursery:
        for stream in pair:
            nursery.start_soon(stream.send_all, BIG)
            nursery.start_soon(stream.do_handshake)
            nursery.start_soon(expect, stream, BIG)
            nursery.start_soon(stream.do_handshake)


async def expect(stream: Stream, data: bytes) -> None:
    assert await receive_exactly(stream, len(data)) == data


async def test_every_ssl_stream_method_is_a_checkpoint() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    with assert_checkpoints():
        await client.do_handshake()
    with assert_checkpoints():
        await client.wait_send_all_might_not_block()
    with assert_checkpoints():
        await client.send_all(b"123")
    with assert_checkpoints():
        await client.send_all(b"")
    for _ in range(3):
        with assert_checkpoints():
            await server.receive_some(1)
    with assert_checkpoints():
        await client.aclose()
    with assert_checkpoints():
        await client.aclose()
    for _ in range(2):
        with assert_checkpoints():
            assert await server.receive_some() == b""
    with assert_checkpoints():
        await server.aclose()


async def test_tls_works_inside_tls() -> None:
    outer = tlspairs.wrap(*tlspairs.over_memory())
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(outer[0].send_all, BIG)
        nursery.start_soon(expect, outer[1], BIG)


# -- handshake --------------------------------------------------------------------


class Counting(Stream):
    """Passes everything on, and notes what was sent and how often was received."""

    def __init__(self, inner: Stream) -> None:
        self.inner = inner
        self.sizes: list[int] = []
        self.receives = 0
        self.closes = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sizes.append(len(data))
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        self.receives += 1
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        self.closes += 1
        await self.inner.aclose()


async def test_tasks_that_need_the_handshake_share_one() -> None:
    left, right = memory_stream_pair()
    counting = Counting(left)
    pair = tlspairs.wrap(counting, right)
    async with nurseryio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(pair[0].do_handshake)
        nursery.start_soon(pair[1].do_handshake)
    assert len(counting.sizes) == 2


@both_versions
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("wrong host", f"Hostname mismatch, certificate is not valid for '{certs.HOST}'"),
        ("expired", "certificate has expired"),
        ("self-signed", "self-signed certificate"),
        ("unknown authority", "unable to get local issuer certificate"),
    ],
)
async def test_a_bad_certificate_breaks_the_stream_and_says_what_is_wrong_with_it(
    version: str, fault: str, says: str
) -> None:
    client, server = tlspairs.over_memory(
        version=version,
        context=certs.client_context(version=version, trusting=fault != "unknown authority"),
    )
    server.context = certs.bad_server_context(fault, version=version)
    heard: list[BaseException] = []

    async def serve() -> None:
        with pytest.raises(BrokenResourceError) as caught:
            await server.do_handshake()
            await server.receive_some()
        heard.append(caught.value)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(BrokenResourceError) as caught:
            await client.send_all(b"secret")
    text = says.replace("self-signed", "self[- ]signed")
    assert caught.match(f"handshake failed: the peer's certificate was rejected: {text}")
    assert isinstance(cause_of(caught.value), ssl.SSLCertVerificationError)
    # The server knows why its client has gone.
    assert "alert" in str(cause_of(heard[0])).lower()
    # It stays broken, for the same reason.
    for use in (client.do_handshake, client.receive_some, client.wait_send_all_might_not_block):
        with pytest.raises(BrokenResourceError, match=text) as caught:
            await use()
        assert isinstance(cause_of(caught.value), ssl.SSLCertVerificationError)


async def expect_alert(server: SSLStream[Any]) -> None:
    with pytest.raises(BrokenResourceError, match=r"(?i)alert unknown ca"):
        await server.do_handshake()


async def test_a_task_that_waits_for_a_handshake_gets_its_failure() -> None:
    client, server = tlspairs.over_memory(
        context=certs.client_context(version="1.3", trusting=False)
    )
    heard: list[BaseException] = []

    async def use(method: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(BrokenResourceError, match="handshake failed") as caught:
            await method()
        heard.append(cause_of(caught.value))

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(use, client.do_handshake)
        nursery.start_soon(use, client.do_handshake)
        nursery.start_soon(use, client.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(BrokenResourceError):
            await server.receive_some()
    assert len(heard) == 3
    assert all(isinstance(error, ssl.SSLCertVerificationError) for error in heard)


async def test_a_peer_that_does_not_speak_tls_fails_the_handshake() -> None:
    left, right = memory_stream_pair()
    client, _ = tlspairs.wrap(left, right)
    await right.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(BrokenResourceError, match="handshake failed") as caught:
        await client.do_handshake()
    assert isinstance(cause_of(caught.value), ssl.SSLError)


async def test_a_peer_that_closes_during_the_handshake_fails_it() -> None:
    left, right = memory_stream_pair()
    client, _ = tlspairs.wrap(left, right)
    await right.aclose()
    with pytest.raises(BrokenResourceError):
        await client.do_handshake()
    with pytest.raises(BrokenResourceError, match="broken"):
        await client.send_all(b"x")


@pytest.mark.parametrize("hook", ["send_stream.send_all_hook", "receive_stream.receive_some_hook"])
async def test_an_error_of_the_transport_passes_through_the_handshake_and_breaks_it(
    hook: str,
) -> None:
    async def fail() -> None:
        raise KeyError

    left, right = memory_stream_pair()
    stream, name = hook.split(".")
    setattr(getattr(left, stream), name, fail)
    client, _ = tlspairs.wrap(left, right)
    with pytest.raises(KeyError):
        await client.do_handshake()
    with pytest.raises(BrokenResourceError, match="KeyError"):
        await client.do_handshake()


# -- data -------------------------------------------------------------------------


async def test_back_pressure_data_is_encrypted_and_sent_piece_by_piece() -> None:
    left, right = memory_stream_pair()
    counting = Counting(left)
    client, server = await tlspairs.connect(tlspairs.wrap(counting, right))
    del counting.sizes[:]
    await client.send_all(b"x" * (3 * PIECE + 1))
    assert len(counting.sizes) == 4
    assert max(counting.sizes) < PIECE * 1.01
    assert await receive_exactly(server, 3 * PIECE + 1)


async def test_back_pressure_input_is_received_only_when_a_task_needs_it() -> None:
    left, right = memory_stream_pair()
    counting = Counting(right)
    client, server = await tlspairs.connect(tlspairs.wrap(left, counting))
    counting.receives = 0
    await client.send_all(b"12345678")
    for _ in range(8):
        await server.receive_some(1)
    assert counting.receives == 1


@pytest.mark.parametrize(
    "data",
    [
        b"abcd",
        bytearray(b"abcd"),
        memoryview(b"abcd"),
        memoryview(b"abcd").cast("H"),
        memoryview(b"abcd").cast("B", (2, 2)),
        array.array("H", b"abcd"),
    ],
)
async def test_send_all_of_ssl_stream_takes_every_kind_of_buffer(data: Any) -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    await client.send_all(data)
    assert await server.receive_some() == b"abcd"


async def test_buffers_with_items_of_several_bytes_are_sent_completely() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    numbers = array.array("I", range(PIECE // 2))
    for data in (numbers, memoryview(numbers.tobytes()).cast("B", (PIECE, 2))):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, data)
            assert await receive_exactly(server, 2 * PIECE) == numbers.tobytes()


async def test_a_buffer_is_released_after_sending_also_if_that_fails() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    for data in (bytearray(b"abcd"), bytearray(BIG)):
        await client.send_all(data)
        data += b"e"
    await server.transport_stream.aclose()
    data = bytearray(BIG)
    with pytest.raises(BrokenResourceError) as _kept:
        await client.send_all(data)
    data += b"e"


@pytest.mark.parametrize("data", ["text", 5, None, memoryview(b"abcd")[::2]])
async def test_sending_something_that_is_not_bytes_is_refused_and_breaks_nothing(data: Any) -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    with pytest.raises(TypeError, match="takes bytes"):
        await client.send_all(data)
    await client.send_all(b"fine")
    assert await server.receive_some() == b"fine"


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError)])
async def test_receive_some_of_ssl_stream_refuses_a_wrong_max_bytes(
    limit: Any, error: type[Exception]
) -> None:
    client, _server = tlspairs.over_memory()
    with pytest.raises(error):
        await client.receive_some(limit)


async def test_two_tasks_in_one_direction_get_busy_resource_error() -> None:
    async def conflict(first: str, second: str) -> None:
        client, _server = tlspairs.over_lockstep()
        methods: dict[str, Callable[[], Awaitable[object]]] = {
            "send": lambda: client.send_all(b"x"),
            "wait": client.wait_send_all_might_not_block,
            "receive": client.receive_some,
            "unwrap": client.unwrap,
        }
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(methods[first])
            await wait_all_tasks_blocked()
            with pytest.raises(BusyResourceError, match="another task"):
                await methods[second]()
            nursery.cancel_scope.cancel()

    await conflict("send", "send")
    await conflict("send", "wait")
    await conflict("wait", "send")
    await conflict("wait", "wait")
    await conflict("receive", "receive")
    await conflict("send", "unwrap")
    await conflict("receive", "unwrap")


async def test_a_send_that_yields_first_notices_a_close_by_another_task() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        with pytest.raises(ClosedResourceError), assert_checkpoints():
            await client.send_all(b"x")
    assert await server.receive_some() == b""


async def test_an_error_in_the_middle_of_a_send_breaks_the_stream() -> None:
    client, _server = await tlspairs.connect(tlspairs.over_memory())

    async def fail() -> None:
        raise KeyError

    client.transport_stream.send_stream.send_all_hook = fail
    with pytest.raises(KeyError):
        await client.send_all(b"x")
    for use in (client.wait_send_all_might_not_block, client.receive_some, client.unwrap):
        with pytest.raises(BrokenResourceError, match=r"sending was cut short \(KeyError\)"):
            await use()


# -- the end of the data ------------------------------------------------------------


@both_versions
async def test_data_without_close_notify_is_not_taken_for_complete(version: str) -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory(version=version))
    await client.send_all(b"pay 100")
    await client.transport_stream.aclose()
    assert await server.receive_some() == b"pay 100"
    for _ in range(2):
        with pytest.raises(BrokenResourceError, match="close_notify") as caught:
            await server.receive_some()
        assert isinstance(cause_of(caught.value), ssl.SSLEOFError)
    with pytest.raises(BrokenResourceError):
        await server.send_all(b"x" * 10)


@both_versions
async def test_https_compatible_an_end_without_close_notify_is_the_end(version: str) -> None:
    client, server = await tlspairs.connect(
        tlspairs.over_memory(version=version, https_compatible=True)
    )
    await client.send_all(b"body")
    await client.aclose()
    assert await server.receive_some() == b"body"
    for _ in range(3):
        with assert_checkpoints():
            assert await server.receive_some() == b""
    with pytest.raises(BrokenResourceError):
        await server.send_all(b"x" * 10)


async def test_https_compatible_an_end_before_the_handshake_is_the_end() -> None:
    client, server = tlspairs.over_memory(https_compatible=True)
    await client.aclose()
    for _ in range(2):
        assert await server.receive_some() == b""


async def test_https_compatible_a_bad_certificate_is_still_an_error() -> None:
    client, server = tlspairs.over_memory(
        https_compatible=True, context=certs.client_context(version="1.3", trusting=False)
    )
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(expect_alert, server)
        with pytest.raises(BrokenResourceError, match="certificate"):
            await client.receive_some()
    with pytest.raises(BrokenResourceError, match="certificate"):
        await client.receive_some()


async def test_https_compatible_on_one_side_only_is_an_error_on_the_other_side() -> None:
    left, right = memory_stream_pair()
    client, _ = tlspairs.wrap(left, right, https_compatible=True)
    _, server = tlspairs.wrap(left, right)
    await tlspairs.connect((client, server))
    await client.aclose()
    with pytest.raises(BrokenResourceError, match="close_notify"):
        await server.receive_some()


# -- closing ------------------------------------------------------------------------


@both_versions
async def test_aclose_sends_close_notify_and_closes_the_transport_stream(version: str) -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory(version=version))
    await client.aclose()
    assert await server.receive_some() == b""
    assert await server.receive_some() == b""
    await server.aclose()
    for stream in (client, server):
        with pytest.raises(ClosedResourceError):
            await stream.transport_stream.send_all(b"x")
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda stream=stream: stream.send_all(b"x"),  # type: ignore[misc]
            stream.receive_some,
            stream.do_handshake,
            stream.unwrap,
            stream.wait_send_all_might_not_block,
        ]
        for use in uses:
            with pytest.raises(ClosedResourceError):
                await use()


async def test_aclose_of_an_unused_stream_does_the_handshake_before_close_notify() -> None:
    client, server = tlspairs.over_memory()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        assert await server.receive_some() == b""
    await server.aclose()


async def test_aclose_does_not_hide_that_the_peer_was_never_trusted() -> None:
    client, server = tlspairs.over_memory(
        context=certs.client_context(version="1.3", trusting=False)
    )
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(expect_alert, server)
        with pytest.raises(BrokenResourceError, match="certificate"):
            await client.aclose()
    with pytest.raises(ClosedResourceError):
        await client.transport_stream.receive_some()
    with pytest.raises(ClosedResourceError):
        await client.receive_some()


async def test_both_sides_may_close_at_once_without_an_error() -> None:
    pair = await tlspairs.connect(tlspairs.over_memory())
    async with nurseryio.open_nursery() as nursery:
        for stream in pair:
            nursery.start_soon(stream.aclose)


async def test_aclose_with_data_unread_still_sends_close_notify() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    await client.send_all(b"12345")
    assert await server.receive_some(1) == b"1"
    await server.aclose()
    assert await client.receive_some() == b""


async def test_the_transport_stream_is_closed_once_even_if_that_fails() -> None:
    left, right = memory_stream_pair()
    counting = Counting(left)
    client, _server = await tlspairs.connect(tlspairs.wrap(counting, right))

    def fail() -> None:
        raise KeyError

    left.send_stream.close_hook = fail
    with pytest.raises(KeyError):
        await client.aclose()
    assert counting.closes == 1
    await client.aclose()
    assert counting.closes == 1


async def test_aclose_wakes_a_task_that_receives() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, client.receive_some)
        await wait_all_tasks_blocked()
        await client.aclose()
    assert await server.receive_some() == b""


async def expect_closed(use: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(ClosedResourceError):
        await use()


async def test_aclose_during_a_send_of_another_task_raises_in_that_task() -> None:
    client, server = await tlspairs.connect(tlspairs.over_lockstep())
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, lambda: client.send_all(BIG))
        assert await server.receive_some()
        await wait_all_tasks_blocked()
        await client.aclose()
    with pytest.raises(BrokenResourceError, match="close_notify"):
        await receive_all(server)


async def test_aclose_wakes_a_task_in_the_handshake() -> None:
    client, _server = tlspairs.over_memory()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, client.do_handshake)
        nursery.start_soon(expect_closed, client.do_handshake)
        nursery.start_soon(expect_closed, client.receive_some)
        await wait_all_tasks_blocked()
        await client.aclose()


async def test_a_task_that_waited_for_the_handshake_notices_an_aclose_right_after_it() -> None:
    client, server = tlspairs.over_memory()

    async def connect_and_close() -> None:
        await client.do_handshake()
        await client.aclose()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(connect_and_close)
        await wait_all_tasks_blocked()
        nursery.start_soon(expect_closed, lambda: client.send_all(b"too late"))
        await wait_all_tasks_blocked()
        assert await server.receive_some() == b""


async def test_a_second_aclose_waits_for_the_close_notify_of_the_first() -> None:
    client, server = tlspairs.over_memory()
    closed: list[int] = []

    async def close(number: int) -> None:
        await client.aclose()
        closed.append(number)

    async with nurseryio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(close, number)
        await wait_all_tasks_blocked()
        assert not closed
        with pytest.raises(ClosedResourceError):
            await client.send_all(b"x")
        assert await server.receive_some() == b""
    assert sorted(closed) == [0, 1, 2]


async def test_aclose_forcefully_ends_the_close_notify_of_another_task() -> None:
    client, _server = tlspairs.over_lockstep()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        await wait_all_tasks_blocked()
        await nurseryio.aclose_forcefully(client)
        with pytest.raises(ClosedResourceError):
            await client.transport_stream.receive_some()


async def test_aclose_forcefully_sends_no_close_notify() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    await nurseryio.aclose_forcefully(client)
    with pytest.raises(ClosedResourceError):
        await client.transport_stream.send_all(b"x")
    with pytest.raises(BrokenResourceError, match="close_notify"):
        await server.receive_some()
    await server.aclose()


async def test_a_broken_stream_is_closed_without_close_notify() -> None:
    left, right = memory_stream_pair()
    client, server = await tlspairs.connect(tlspairs.wrap(left, right))
    await left.send_all(b"not TLS at all")
    with pytest.raises(BrokenResourceError):
        await server.receive_some()
    await server.aclose()
    with pytest.raises(BrokenResourceError, match="close_notify"):
        await client.receive_some()


# -- unwrapping -----------------------------------------------------------------------


@both_versions
async def test_unwrap_returns_the_transport_stream_and_the_trailing_data(version: str) -> None:
    left, right = memory_stream_pair()
    client, server = await tlspairs.connect(tlspairs.wrap(left, right, version=version))
    # Keep back what the client sends, so that all of it arrives at once.
    hook, left.send_stream.send_all_hook = left.send_stream.send_all_hook, None
    results: list[object] = []

    async def unwrap_server() -> None:
        results.append(await server.unwrap())

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(unwrap_server)
        assert await client.receive_some() == b""
        transport, rest = await client.unwrap()
        assert transport is left
        assert rest == b""
        await transport.send_all(b"plain text")
        left.send_stream.send_all_hook = hook
        await hook()
    assert results == [(right, b"plain text")]
    for stream in (client, server):
        assert stream.transport_stream is None
        with pytest.raises(ClosedResourceError):
            await stream.send_all(b"x")
        await stream.aclose()
    await right.send_all(b"and back")
    assert await left.receive_some() == b"and back"


async def test_unwrap_fails_if_the_peer_goes_on_sending() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    await server.send_all(b"one more thing")
    with pytest.raises(BrokenResourceError, match="did not end the encryption"):
        await client.unwrap()
    with pytest.raises(BrokenResourceError, match="broken"):
        await client.receive_some()


async def test_unwrap_fails_if_the_peer_closes_without_close_notify() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    await server.transport_stream.aclose()
    with pytest.raises(BrokenResourceError):
        await client.unwrap()


# -- renegotiation ----------------------------------------------------------------------


async def test_a_renegotiation_by_the_peer_works() -> None:
    peer = RenegotiatingPeer()
    client: SSLStream[Any] = SSLStream(
        peer, certs.client_context(version="1.2"), server_hostname=certs.HOST
    )
    await client.do_handshake()
    for number in range(5):
        peer.renegotiate()
        await client.send_all(b"%d" % number)
        assert await client.receive_some() == b"%d" % number
        await client.send_all(b"-")
        assert await client.receive_some() == b"-"
    assert peer.renegotiations == 5
    await client.aclose()


@pytest.mark.parametrize("slow", ["send_all", "receive_some", "neither"])
async def test_a_renegotiation_during_send_and_receive_never_has_two_tasks_in_one_direction(
    slow: str,
) -> None:
    peer = RenegotiatingPeer(slow)
    client: SSLStream[Any] = SSLStream(
        peer, certs.client_context(version="1.2"), server_hostname=certs.HOST
    )
    await client.do_handshake()
    for number in range(10):
        peer.renegotiate()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, b"%d" % number)
            nursery.start_soon(expect, client, b"%d" % number)
        while peer.is_renegotiating:
            await client.send_all(b"-")
            assert await client.receive_some(1) == b"-"
    assert peer.renegotiations == 10


async def test_a_receive_cancelled_while_it_answers_a_renegotiation_breaks_the_stream() -> None:
    peer = RenegotiatingPeer("send_all")
    client: SSLStream[Any] = SSLStream(
        peer, certs.client_context(version="1.2"), server_hostname=certs.HOST
    )
    await client.do_handshake()
    peer.renegotiate()
    # The answer to this carries the request.
    await client.send_all(b"x")
    scope = nurseryio.CancelScope()

    async def receive() -> None:
        with scope:
            await client.receive_some()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receive)
        while "send" not in peer.in_use:
            await checkpoint()
        scope.cancel()
    assert scope.cancelled_caught
    for use in (client.receive_some, client.wait_send_all_might_not_block):
        with pytest.raises(BrokenResourceError, match="sending was cut short"):
            await use()


async def test_wait_send_all_might_not_block_does_not_block_a_renegotiation() -> None:
    peer = RenegotiatingPeer("wait_send_all_might_not_block")
    client: SSLStream[Any] = SSLStream(
        peer, certs.client_context(version="1.2"), server_hostname=certs.HOST
    )
    await client.send_all(b"x")
    peer.renegotiate()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(client.wait_send_all_might_not_block)
        nursery.start_soon(expect, client, b"x")


# -- making one -------------------------------------------------------------------------


async def test_ssl_stream_refuses_wrong_arguments_when_it_is_made() -> None:
    left, _right = memory_stream_pair()
    context = certs.client_context(version="1.3")
    with pytest.raises(TypeError, match=r"ssl_context must be an ssl\.SSLContext"):
        SSLStream(left, True, server_hostname=certs.HOST)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"SocketStream\(socket\)"):
        SSLStream(object(), context, server_hostname=certs.HOST)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="server_hostname is needed"):
        SSLStream(left, context)
    for name in ("127.0.0.1\0x", b"good.example\0", "a..b", "ü" * 70):
        with pytest.raises(ValueError, match="not a host name"):
            SSLStream(left, context, server_hostname=name)


async def test_ssl_stream_refuses_a_context_for_the_other_side_when_it_is_made() -> None:
    left, _right = memory_stream_pair()
    with pytest.raises(ssl.SSLError, match=r"made for a client.*Purpose\.CLIENT_AUTH"):
        SSLStream(left, certs.client_context(), server_side=True)
    with pytest.raises(ssl.SSLError, match="made for a server"):
        SSLStream(left, certs.server_context(), server_hostname=certs.HOST)


async def test_server_hostname_beyond_ascii_follows_idna_2008() -> None:
    left, right = memory_stream_pair()
    context = certs.client_context(version="1.3")
    assert SSLStream(left, context, server_hostname="faß.de").server_hostname == "xn--fa-hia.de"
    assert SSLStream(right, context, server_hostname=b"plain.de").server_hostname == "plain.de"


def test_ssl_stream_can_be_subscripted_and_not_subclassed() -> None:
    assert SSLStream[Stream] is not None
    with pytest.raises(TypeError, match="subclass"):
        type("Mine", (SSLStream,), {})


async def test_repr_of_an_ssl_stream_shows_the_side_and_the_state() -> None:
    client, server = tlspairs.over_memory()
    assert f"client of '{certs.HOST}', handshake not started, over Stapled" in repr(client)
    assert "server, handshake not started" in repr(server)
    await tlspairs.connect((client, server))
    assert "handshake done" in repr(client)
    await client.aclose()
    assert "closed" in repr(client)


async def test_a_dropped_ssl_stream_leaves_no_reference_cycle() -> None:
    async def use() -> list[weakref.ref[Any]]:
        client, server = await tlspairs.connect(tlspairs.over_memory())
        await client.send_all(b"x")
        await server.receive_some()
        await client.aclose()
        await server.aclose()
        return [weakref.ref(client), weakref.ref(server)]

    gc.collect()
    gc.disable()
    try:
        assert [ref() for ref in await use()] == [None, None]
    finally:
        gc.enable()


async def test_receive_some_with_decrypted_data_left_notices_an_aclose() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory(version="1.2"))
    await server.send_all(bytes(60_000))
    await client.receive_some(1)

    async def receive() -> None:
        with pytest.raises(ClosedResourceError):
            await client.receive_some(10)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(client.aclose)
    await nurseryio.aclose_forcefully(server)


async def test_addresses_of_a_tls_stream_are_those_of_its_transport() -> None:
    async with net.tcp_pair() as (left, right):
        client, server = tlspairs.wrap(left, right)
        assert client.local_address == server.remote_address == left.local_address
        assert client.remote_address == server.local_address == right.local_address
        await nurseryio.aclose_forcefully(client)
        assert client.remote_address == right.local_address
        await nurseryio.aclose_forcefully(server)


async def test_a_tls_stream_over_a_transport_without_addresses_has_none() -> None:
    client, _server = tlspairs.over_memory()
    assert not hasattr(client, "remote_address")
    with pytest.raises(AttributeError, match="local_address"):
        assert client.local_address


async def test_addresses_after_unwrap_are_those_of_a_closed_stream() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(client.unwrap)
        nursery.start_soon(server.unwrap)
    with pytest.raises(ClosedResourceError):
        assert client.remote_address
