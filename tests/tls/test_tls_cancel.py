"""TLS streams under cancellations at every await: no task hangs, no error is silent.

Each scenario is run once for every kind of cancellation at every step of every task, and on random
schedules. The scenarios define "wrong": data that arrives is a beginning of the data that was sent.
An end that is signed as complete is complete. A task that was cancelled finds the stream either
intact or broken, never in between. The transport streams are closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from harness import tlspairs

import nurseryio
from nurseryio import BrokenResourceError, Cancelled, ClosedResourceError, SSLStream
from nurseryio._checks.schedules import Schedule, cancel_at_every_await, random_schedules
from nurseryio._tls.stream import PIECE

pytestmark = pytest.mark.costly("TLS hardly depends on the loop")

# Several pieces, so that a send has an inside.
DATA = bytes(range(251)) * (PIECE // 100)

Pair = tuple[SSLStream[Any], SSLStream[Any]]

RANDOM_RUNS = 30


class Party:
    """One end of a connection, and the result of its use.

    Args:
        stream: That end.
        politely: Whether it sends close_notify even when it was cancelled, as far as the
            cancellation lets it. Where nothing is buffered, two close_notify at once wait for each
            other.
    """

    def __init__(self, stream: SSLStream[Any], politely: bool = True) -> None:
        self.stream = stream
        self.politely = politely
        self.received = b""
        # The peer has signed that this is all.
        self.complete = False
        # Its handshake, or its send, came to an end; or was interrupted before it began.
        self.connected = False
        self.sent = False
        self.untouched = False

    @asynccontextmanager
    async def closing(self) -> AsyncIterator[None]:
        try:
            yield
        except Cancelled:
            if not self.politely:
                await nurseryio.aclose_forcefully(self.stream)
            raise
        finally:
            await self.stream.aclose()

    async def connect(self) -> None:
        async with self.closing():
            try:
                await self.stream.do_handshake()
            except BrokenResourceError:
                return
            except Cancelled:
                await self.is_not_in_between()
                raise
            self.connected = True

    async def send(self) -> None:
        async with self.closing():
            try:
                await self.stream.send_all(DATA)
            except (BrokenResourceError, ClosedResourceError):
                return
            except Cancelled:
                await self.is_not_in_between()
                raise
            self.sent = True

    async def receive(self) -> None:
        async with self.closing():
            try:
                async for data in self.stream:
                    self.received += data
            except (BrokenResourceError, ClosedResourceError):
                return
            self.complete = True

    async def is_not_in_between(self) -> None:
        """After an interruption: as if nothing had begun, or broken for good."""
        with nurseryio.CancelScope(shield=True):
            if "broken" in repr(self.stream):
                with pytest.raises(BrokenResourceError):
                    await self.stream.do_handshake()
                with pytest.raises(BrokenResourceError):
                    await self.stream.send_all(b"more")
            else:
                assert "handshake not started" in repr(self.stream) or (
                    "handshake done" in repr(self.stream)
                )
                self.untouched = True


async def all_closed(*parties: Party) -> None:
    for party in parties:
        with pytest.raises(ClosedResourceError):
            await party.stream.transport_stream.send_all(b"x")
        with pytest.raises(ClosedResourceError):
            await party.stream.receive_some()


@pytest.fixture
def on_all_schedules(loop_kind: str, host_kind: str) -> Callable[[Any], Awaitable[None]]:
    """Runs a scenario on random schedules, and on one loop of each make on every schedule."""

    async def run(scenario: Any) -> None:
        if (loop_kind, host_kind) in (("stock", "run"), ("uvloop", "app")):
            assert await cancel_at_every_await(scenario, delays=1) > 40
        assert await random_schedules(scenario, runs=RANDOM_RUNS) > RANDOM_RUNS / 3

    return run


def make_parties(transport: str) -> tuple[Party, Party]:
    make = {"memory": tlspairs.over_memory, "lockstep": tlspairs.over_lockstep}[transport]
    client, server = make()
    return Party(client, transport == "memory"), Party(server, transport == "memory")


each_transport = pytest.mark.parametrize("transport", ["memory", "lockstep"])


@pytest.mark.limit(180)
@each_transport
async def test_a_handshake_cancelled_anywhere_breaks_the_stream_and_the_peer_notices(
    transport: str, on_all_schedules: Any
) -> None:
    async def scenario(schedule: Schedule) -> None:
        client, server = make_parties(transport)
        await schedule.run(client.connect, server.receive)
        if not schedule.landed:
            assert client.connected and server.complete
        await all_closed(client, server)

    await on_all_schedules(scenario)


@pytest.mark.limit(180)
@each_transport
async def test_a_transfer_cancelled_anywhere_is_never_taken_for_complete(
    transport: str, on_all_schedules: Any
) -> None:
    async def scenario(schedule: Schedule) -> None:
        client, server = make_parties(transport)
        await schedule.run(client.send, server.receive)
        assert DATA.startswith(server.received)
        if server.complete and not client.untouched:
            assert server.received == DATA
            assert client.sent
        if not schedule.landed:
            assert client.sent and server.complete
        await all_closed(client, server)

    await on_all_schedules(scenario)


@pytest.mark.limit(180)
async def test_both_directions_cancelled_anywhere_stay_correct(on_all_schedules: Any) -> None:
    async def scenario(schedule: Schedule) -> None:
        left, right = map(Party, await tlspairs.connect(tlspairs.over_memory()))

        # All four close their end when they are through, also under each other.
        await schedule.run(left.send, left.receive, right.send, right.receive)
        for here, there in ((left, right), (right, left)):
            assert DATA.startswith(here.received)
            if here.complete and not there.untouched:
                assert here.received == DATA
                assert there.sent
        await all_closed(left, right)

    await on_all_schedules(scenario)


@pytest.mark.limit(180)
async def test_a_receive_that_was_cancelled_has_lost_nothing() -> None:
    async def scenario(schedule: Schedule) -> None:
        client, server = await tlspairs.connect(tlspairs.over_memory())
        received = b""
        scope = nurseryio.CancelScope()

        async def send() -> None:
            for at in range(0, 1000, 100):
                await schedule.pause()
                await client.send_all(DATA[at : at + 100])
            await client.aclose()

        async def receive() -> None:
            nonlocal received, scope
            async with server:
                while True:
                    with nurseryio.CancelScope() as scope:
                        data = await server.receive_some(schedule.random.randrange(1, 200))
                        if not data:
                            return
                        received += data

        async def interrupt() -> None:
            for _ in range(40):
                await schedule.pause()
                scope.cancel()

        await schedule.run(send, receive, interrupt)
        assert received == DATA[:1000]

    for seed in range(RANDOM_RUNS):
        await scenario(Schedule(seed, ()))


@pytest.mark.limit(180)
@each_transport
async def test_an_unwrap_cancelled_anywhere_breaks_the_stream_or_is_done(
    transport: str, on_all_schedules: Any
) -> None:
    async def scenario(schedule: Schedule) -> None:
        pair = await tlspairs.connect(tuple(p.stream for p in make_parties(transport)))
        transports = [stream.transport_stream for stream in pair]
        plain: dict[int, Any] = {}

        async def unwrap(place: int) -> None:
            stream = pair[place]
            try:
                if place == 1:
                    assert await stream.receive_some() == b""
                plain[place], rest = await stream.unwrap()
                assert rest == b""
            except BrokenResourceError:
                pass
            finally:
                # Closed either way, so that the other one does not wait for ever.
                if place not in plain:
                    await nurseryio.aclose_forcefully(stream)

        await schedule.run(lambda: unwrap(0), lambda: unwrap(1))
        for place, below in enumerate(transports):
            assert plain.get(place, below) is below
            await below.aclose()
        if not schedule.landed:
            assert len(plain) == 2

    await on_all_schedules(scenario)


@pytest.mark.limit(180)
@each_transport
async def test_an_aclose_cancelled_anywhere_has_closed_nevertheless(
    transport: str, on_all_schedules: Any
) -> None:
    async def scenario(schedule: Schedule) -> None:
        client, server = make_parties(transport)

        async def close() -> None:
            # Never used, so its close_notify needs a handshake first.
            try:
                await client.stream.aclose()
            except BrokenResourceError:
                client.connected = False

        await schedule.run(close, server.receive)
        assert server.received == b""
        if not schedule.landed:
            assert server.complete
        await all_closed(client, server)

    await on_all_schedules(scenario)


async def test_a_send_cancelled_before_it_began_breaks_nothing() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await client.send_all(b"never")
    assert scope.cancelled_caught
    await client.send_all(b"sent")
    assert await server.receive_some() == b"sent"


async def test_a_handshake_cancelled_before_it_began_breaks_nothing() -> None:
    pair = tlspairs.over_memory()
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await pair[0].do_handshake()
    assert scope.cancelled_caught
    await tlspairs.connect(pair)


async def test_a_handshake_with_a_silent_peer_ends_with_its_scope_and_breaks_the_stream() -> None:
    client, _server = tlspairs.over_memory()
    with pytest.raises(nurseryio.TooSlowError), nurseryio.fail_after(0.01):
        await client.do_handshake()
    for use in (client.do_handshake, client.receive_some):
        with pytest.raises(BrokenResourceError, match="handshake did not complete"):
            await use()
    with pytest.raises(BrokenResourceError, match="handshake did not complete"):
        await client.send_all(b"x")
    await client.aclose()


async def test_a_waiting_task_gets_an_error_if_the_task_in_the_handshake_is_cancelled() -> None:
    client, _server = tlspairs.over_memory()
    scope = nurseryio.CancelScope()

    async def begin() -> None:
        with scope:
            await client.do_handshake()

    async def wait() -> None:
        with pytest.raises(BrokenResourceError, match="handshake did not complete"):
            await client.receive_some()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(begin)
        nursery.start_soon(wait)
        await nurseryio.testing.wait_all_tasks_blocked()
        scope.cancel()


async def test_a_task_cancelled_while_it_waits_for_anothers_handshake_breaks_nothing() -> None:
    client, server = tlspairs.over_memory()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        await nurseryio.testing.wait_all_tasks_blocked()
        with nurseryio.move_on_after(0.01) as scope:
            await client.send_all(b"x")
        assert scope.cancelled_caught
        nursery.start_soon(server.do_handshake)
    await client.send_all(b"y")
    assert await server.receive_some() == b"y"
