"""TLS peers that request answers again and again and do not read them: memory stays bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import tlspairs
from harness.keyupdates import KeyUpdater, logging_context

import nurseryio
from nurseryio import BrokenResourceError, ClosedResourceError, Event, SSLStream, StapledStream
from nurseryio._tls.wire import MOST_UNSENT, RECEIVE_SIZE
from nurseryio.abc import Stream
from nurseryio.lowlevel import checkpoint
from nurseryio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    memory_stream_pump,
    wait_all_tasks_blocked,
)

pytestmark = pytest.mark.costly("TLS hardly depends on the loop")

# The most that waits: up to the bound, plus the answers to one receive (an answer is as long as
# its request), plus what the sending task adds before it waits as well.
MOST_WAITING = MOST_UNSENT + RECEIVE_SIZE

# Requests of 27 bytes, well above that.
MANY = 9_000


class Way(Stream):
    """The server's end of a connection. The test decides when its client reads."""

    def __init__(self, to_client: MemoryReceiveStream) -> None:
        self.incoming = MemoryReceiveStream()
        self.client_reads = Event()
        self.client_reads.set()
        self.fetched = 0
        self.closed = False
        self._to_client = to_client

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.client_reads.wait()
        await checkpoint()
        if self.closed:
            raise ClosedResourceError
        self._to_client.put_data(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.client_reads.wait()
        await checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.incoming.receive_some(max_bytes)
        self.fetched += len(data)
        return data

    async def aclose(self) -> None:
        self.closed = True
        self.client_reads.set()
        await self.incoming.aclose()


async def connected(keylog: Path) -> tuple[SSLStream[Any], SSLStream[Any], Way, KeyUpdater]:
    """A client and its server, and what makes the client's records from now on."""
    client_side = StapledStream(MemorySendStream(), MemoryReceiveStream())
    way = Way(client_side.receive_stream)

    async def to_server() -> None:
        memory_stream_pump(client_side.send_stream, way.incoming)

    client_side.send_stream.send_all_hook = to_server
    pair = tlspairs.wrap(client_side, way, context=logging_context(keylog))
    client, server = await tlspairs.connect(pair)
    await client.send_all(b"hello")
    assert await server.receive_some() == b"hello"
    return client, server, way, KeyUpdater(keylog, 1)


async def test_key_update_requests_are_not_read_while_own_data_is_unsent(tmp_path: Path) -> None:
    client, server, way, updater = await connected(tmp_path / "keys")
    way.client_reads = Event()
    received: list[bytes] = []
    data = b"z" * 300_000

    async def receive() -> None:
        received.append(await server.receive_some())

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, data)
        nursery.start_soon(receive)
        way.fetched = 0
        for _ in range(MANY):
            way.incoming.put_data(updater.request())
        way.incoming.put_data(updater.data(b"the end"))
        await wait_all_tasks_blocked()
        assert MOST_UNSENT < server._engine.unsent <= MOST_WAITING
        assert way.fetched <= MOST_WAITING
        assert not received
        # The client reads, and gets its answers in between the data.
        way.client_reads.set()
        got = b""
        while len(got) < len(data):
            got += await client.receive_some()
        assert got == data
    assert received == [b"the end"]
    # The last answers leave with the next output.
    await server.send_all(b"more")
    assert not server._engine.unsent
    assert await client.receive_some() == b"more"


async def test_a_flood_of_key_update_requests_is_answered_with_little_memory(
    tmp_path: Path,
) -> None:
    _client, server, way, updater = await connected(tmp_path / "keys")
    for _ in range(MANY):
        way.incoming.put_data(updater.request())
    way.incoming.put_data(updater.data(b"the end"))
    assert await server.receive_some() == b"the end"
    assert server._engine.unsent <= MOST_WAITING


async def test_back_pressure_a_receiver_that_waits_for_unsent_answers_can_be_cancelled(
    tmp_path: Path,
) -> None:
    client, server, way, updater = await connected(tmp_path / "keys")
    way.client_reads = Event()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(server.send_all, b"data")
        for _ in range(MANY):
            way.incoming.put_data(updater.request())
        way.incoming.put_data(updater.data(b"the end"))
        for _ in range(3):
            with nurseryio.CancelScope() as scope:
                nursery.start_soon(cancel_when_blocked, scope)
                await server.receive_some()
            assert scope.cancelled_caught
        way.client_reads.set()
        assert await server.receive_some() == b"the end"
        assert await client.receive_some() == b"data"


async def test_back_pressure_aclose_wakes_a_receiver_that_waits_for_unsent_answers(
    tmp_path: Path,
) -> None:
    _client, server, way, updater = await connected(tmp_path / "keys")
    way.client_reads = Event()

    async def use(method: Any, *args: Any) -> None:
        with pytest.raises(ClosedResourceError):
            await method(*args)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(use, server.send_all, b"data")
        nursery.start_soon(use, server.receive_some)
        for _ in range(MANY):
            way.incoming.put_data(updater.request())
        await wait_all_tasks_blocked()
        assert server._engine.unsent > MOST_UNSENT
        await server.aclose()


async def cancel_when_blocked(scope: nurseryio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_data_beside_a_key_update_request_is_kept_if_the_answer_cannot_be_sent(
    tmp_path: Path,
) -> None:
    _client, server, way, updater = await connected(tmp_path / "keys")

    async def refuse(_data: object) -> None:
        raise BrokenResourceError

    way.send_all = refuse  # type: ignore[method-assign]
    # OpenSSL answers the last request with the next data, so there are two.
    way.incoming.put_data(updater.request() + updater.request() + updater.data(b"last words"))
    assert await server.receive_some() == b"last words"
    with pytest.raises(BrokenResourceError):
        await server.receive_some()
