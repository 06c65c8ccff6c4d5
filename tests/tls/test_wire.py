"""The traffic between a TLS engine and its stream: turns, order, and what a cancellation leaves."""

from __future__ import annotations

from typing import Any

import pytest

import nurseryio
from nurseryio import BrokenResourceError, ClosedResourceError, Event
from nurseryio._tls.wire import MOST_UNSENT, TLSWire
from nurseryio.abc import Stream
from nurseryio.lowlevel import checkpoint
from nurseryio.testing import wait_all_tasks_blocked


class Engine:
    """Stands in for the TLS engine: puts out what the test gives it, notes what it is fed."""

    def __init__(self) -> None:
        self.pending = b""
        self.fed: list[bytes] = []

    @property
    def has_output(self) -> bool:
        return bool(self.pending)

    @property
    def unsent(self) -> int:
        return len(self.pending)

    def output(self) -> bytes:
        data, self.pending = self.pending, b""
        return data

    def feed(self, data: bytes) -> None:
        self.fed.append(data)


class Gate(Stream):
    """A stream on which everything waits until the test opens it, one call in each direction."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.opened = Event()
        self.arrived = Event()
        self.senders = 0
        self.receivers = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.senders += 1
        assert self.senders == 1
        try:
            await self.opened.wait()
            self.sent.append(bytes(data))
        finally:
            self.senders -= 1

    async def wait_send_all_might_not_block(self) -> None:
        await self.send_all(b"")
        self.sent.pop()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.receivers += 1
        assert self.receivers == 1
        try:
            await self.arrived.wait()
            return b"input"
        finally:
            self.receivers -= 1

    async def aclose(self) -> None:
        await checkpoint()


def make() -> tuple[TLSWire[Gate], Engine, Gate]:
    engine, gate = Engine(), Gate()
    return TLSWire(gate, engine), engine, gate  # type: ignore[arg-type]


# -- sending ----------------------------------------------------------------------


async def test_the_task_with_the_send_lock_sends_later_output_as_well() -> None:
    wire, engine, gate = make()
    done: list[str] = []

    async def flush(name: str) -> None:
        await wire.flush()
        done.append(name)

    async with nurseryio.open_nursery() as nursery:
        engine.pending = b"one"
        nursery.start_soon(flush, "first")
        await wait_all_tasks_blocked()
        engine.pending = b"two"
        nursery.start_soon(flush, "second")
        await wait_all_tasks_blocked()
        assert not done
        assert wire.send_locked and wire.draining
        gate.opened.set()
    assert gate.sent == [b"one", b"two"]
    assert sorted(done) == ["first", "second"]
    assert not wire.send_locked and not wire.draining and not wire.write_failed


async def test_a_task_cancelled_while_it_waits_for_the_send_lock_loses_no_output() -> None:
    wire, engine, gate = make()
    async with nurseryio.open_nursery() as nursery:
        engine.pending = b"one"
        nursery.start_soon(wire.flush)
        await wait_all_tasks_blocked()
        engine.pending = b"two"
        with nurseryio.CancelScope() as scope:
            nursery.start_soon(cancel_when_blocked, scope)
            await wire.flush()
        assert scope.cancelled_caught
        assert not wire.write_failed
        assert engine.pending == b"two"
        gate.opened.set()
    assert gate.sent == [b"one", b"two"]


async def cancel_when_blocked(scope: nurseryio.CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_a_cancelled_send_breaks_the_tls_wire_and_wakes_the_others_with_an_error() -> None:
    wire, engine, _gate = make()
    errors: list[BrokenResourceError] = []

    async def flush_too() -> None:
        with pytest.raises(BrokenResourceError) as caught:
            await wire.flush()
        errors.append(caught.value)

    async with nurseryio.open_nursery() as nursery:
        engine.pending = b"one"
        with nurseryio.CancelScope() as scope:
            nursery.start_soon(flush_too)
            nursery.start_soon(cancel_when_blocked, scope)
            await wire.flush()
        assert scope.cancelled_caught
    assert wire.write_failed
    assert len(errors) == 1
    assert not wire.send_locked and not wire.draining
    engine.pending = b"three"
    with pytest.raises(BrokenResourceError):
        await wire.flush()
    assert engine.pending == b"three"


async def test_a_failed_send_breaks_the_tls_wire() -> None:
    class Failing(Gate):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            raise KeyError

    engine = Engine()
    engine.pending = b"one"
    wire: TLSWire[Failing] = TLSWire(Failing(), engine)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        await wire.flush()
    assert wire.write_failed


async def test_tasks_that_wait_for_the_send_lock_notice_that_the_stream_was_closed() -> None:
    class Closing(Gate):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await self.opened.wait()
            raise ClosedResourceError

    async def flush() -> None:
        with pytest.raises(ClosedResourceError):
            await wire.flush()

    engine, gate = Engine(), Closing()
    engine.pending = b"one"
    wire: TLSWire[Closing] = TLSWire(gate, engine)  # type: ignore[arg-type]
    async with nurseryio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(flush)
        await wait_all_tasks_blocked()
        gate.opened.set()
    assert wire.write_failed


# -- waiting to send ----------------------------------------------------------------


async def test_waiting_for_buffer_space_holds_the_send_lock_and_sends_later_output() -> None:
    wire, engine, gate = make()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wire.wait_writable)
        await wait_all_tasks_blocked()
        assert wire.send_locked and not wire.draining
        engine.pending = b"answer"
        nursery.start_soon(wire.flush)
        await wait_all_tasks_blocked()
        gate.opened.set()
    assert gate.sent == [b"answer"]


async def test_waiting_for_buffer_space_can_be_cancelled_without_harm() -> None:
    wire, engine, gate = make()
    async with nurseryio.open_nursery() as nursery:
        with nurseryio.CancelScope() as scope:
            nursery.start_soon(cancel_when_blocked, scope)
            await wire.wait_writable()
        assert scope.cancelled_caught
    assert not wire.write_failed and not wire.send_locked
    gate.opened.set()
    engine.pending = b"one"
    await wire.flush()
    assert gate.sent == [b"one"]


# -- receiving ------------------------------------------------------------------------


async def test_two_tasks_that_need_input_share_what_one_of_them_receives() -> None:
    wire, engine, gate = make()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wire.pull)
        nursery.start_soon(wire.pull)
        await wait_all_tasks_blocked()
        assert gate.receivers == 1
        gate.arrived.set()
    assert engine.fed == [b"input"]


async def test_if_the_task_that_receives_is_cancelled_the_other_one_is_woken() -> None:
    wire, engine, gate = make()
    returned = Event()

    async def pull_too() -> None:
        await wire.pull()
        returned.set()

    async with nurseryio.open_nursery() as nursery:
        with nurseryio.CancelScope() as scope:
            nursery.start_soon(pull_too)
            nursery.start_soon(cancel_when_blocked, scope)
            await wire.pull()
        assert scope.cancelled_caught
        await returned.wait()
        assert engine.fed == []
        gate.arrived.set()
        await wire.pull()
    assert engine.fed == [b"input"]


# -- both -----------------------------------------------------------------------------


async def test_an_exchange_sends_first_and_receives_when_there_is_nothing_to_send() -> None:
    wire, engine, gate = make()
    gate.opened.set()
    gate.arrived.set()
    engine.pending = b"question"
    await wire.exchange()
    assert (gate.sent, engine.fed) == ([b"question"], [])
    await wire.exchange()
    assert (gate.sent, engine.fed) == ([b"question"], [b"input"])


async def test_an_exchange_does_not_wait_for_a_sender_that_will_send_its_output_too() -> None:
    wire, engine, gate = make()
    gate.arrived.set()
    async with nurseryio.open_nursery() as nursery:
        engine.pending = b"data"
        nursery.start_soon(wire.flush)
        await wait_all_tasks_blocked()
        engine.pending = b"answer"
        await wire.exchange()
        assert engine.fed == [b"input"]
        gate.opened.set()
    assert gate.sent == [b"data", b"answer"]


async def test_back_pressure_with_too_much_unsent_output_no_input_is_received() -> None:
    wire, engine, gate = make()
    gate.arrived.set()
    async with nurseryio.open_nursery() as nursery:
        engine.pending = b"data"
        nursery.start_soon(wire.flush)
        await wait_all_tasks_blocked()
        engine.pending = b"a" * MOST_UNSENT
        await wire.exchange()
        assert engine.fed == [b"input"]
        engine.pending += b"a"
        nursery.start_soon(wire.exchange)
        await wait_all_tasks_blocked()
        assert engine.fed == [b"input"]
        gate.opened.set()
    # The task is not unblocked by input: it asks the engine again.
    assert engine.fed == [b"input"]
    assert gate.sent == [b"data", b"a" * MOST_UNSENT + b"a"]
    await wire.exchange()
    assert engine.fed == [b"input"] * 2


async def test_discard_arrived_reads_the_input_of_a_socket_and_drops_it() -> None:
    ours, theirs = map(nurseryio.SocketStream, nurseryio.socket.socketpair())
    wire: TLSWire[Any] = TLSWire(ours, Engine())  # type: ignore[arg-type]
    await wire.discard_arrived()
    await theirs.send_all(b"x" * 1000)
    await wire.discard_arrived()
    assert not ours.socket.is_readable()
    await theirs.send_all(b"the end")
    await theirs.aclose()
    await wire.discard_arrived()
    assert await ours.receive_some() == b""
    await ours.aclose()


async def test_discard_arrived_ends_although_the_peer_never_stops_sending() -> None:
    ours, theirs = map(nurseryio.SocketStream, nurseryio.socket.socketpair())
    wire: TLSWire[Any] = TLSWire(ours, Engine())  # type: ignore[arg-type]
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(flood, theirs)
        await nurseryio.lowlevel.wait_readable(ours.socket)
        await wire.discard_arrived()
        nursery.cancel_scope.cancel()
    await ours.aclose()
    await theirs.aclose()


async def flood(stream: Stream) -> None:
    while True:
        await stream.send_all(b"x" * 100_000)
