"""Closing in a hurry, and two one-way streams made into one."""

from __future__ import annotations

import pytest

import nurseryio
from nurseryio import StapledStream, aclose_forcefully
from nurseryio.abc import AsyncResource, ReceiveStream, SendStream
from nurseryio.testing import assert_checkpoints, memory_stream_one_way_pair


class Resource(AsyncResource):
    """Its graceful close never ends by itself: only a cancellation ends it."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    async def aclose(self) -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            self.closed.append(str(nurseryio.current_effective_deadline()))


async def test_aclose_forcefully_does_not_wait_for_the_graceful_close() -> None:
    resource = Resource()
    with assert_checkpoints():
        await aclose_forcefully(resource)
    assert resource.closed == ["-inf"]


async def test_aclose_forcefully_works_in_a_cancelled_scope() -> None:
    resource = Resource()
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await aclose_forcefully(resource)
    assert scope.cancelled_caught
    assert resource.closed == ["-inf"]


async def test_aclose_forcefully_passes_an_error_of_aclose_on() -> None:
    class Broken(AsyncResource):
        async def aclose(self) -> None:
            raise KeyError("goodbye")

    with pytest.raises(KeyError, match="goodbye"):
        await aclose_forcefully(Broken())


class Sender(SendStream):
    def __init__(self) -> None:
        self.calls: list[object] = []

    async def send_all(self, data: object) -> None:
        self.calls.append(data)

    async def wait_send_all_might_not_block(self) -> None:
        self.calls.append("wait")

    async def aclose(self) -> None:
        self.calls.append("aclose")


class HalfCloseableSender(Sender):
    async def send_eof(self) -> None:
        self.calls.append("eof")


class Receiver(ReceiveStream):
    def __init__(self) -> None:
        self.calls: list[object] = []

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        self.calls.append(max_bytes)
        return b"data"

    async def aclose(self) -> None:
        self.calls.append("aclose")


async def test_stapled_stream_passes_each_call_to_its_half() -> None:
    stream = StapledStream(Sender(), Receiver())
    await stream.send_all(b"x")
    await stream.wait_send_all_might_not_block()
    assert await stream.receive_some() == b"data"
    assert await stream.receive_some(5) == b"data"
    assert stream.send_stream.calls == [b"x", "wait"]
    assert stream.receive_stream.calls == [None, 5]
    await stream.aclose()
    assert stream.send_stream.calls[2:] == stream.receive_stream.calls[2:] == ["aclose"]


async def test_stapled_stream_send_eof_half_closes_or_else_closes_the_send_stream() -> None:
    half_closeable = StapledStream(HalfCloseableSender(), Receiver())
    await half_closeable.send_eof()
    assert half_closeable.send_stream.calls == ["eof"]
    plain = StapledStream(Sender(), Receiver())
    await plain.send_eof()
    assert plain.send_stream.calls == ["aclose"]
    assert plain.receive_stream.calls == []


async def test_stapled_stream_closes_the_second_half_even_if_closing_the_first_fails() -> None:
    class BrokenSender(Sender):
        async def aclose(self) -> None:
            raise ValueError("sender")

    class BrokenReceiver(Receiver):
        async def aclose(self) -> None:
            await super().aclose()
            raise ValueError("receiver")

    stream = StapledStream(BrokenSender(), BrokenReceiver())
    with pytest.raises(ValueError, match="receiver") as caught:
        await stream.aclose()
    assert isinstance(caught.value.__context__, ValueError)
    assert stream.receive_stream.calls == ["aclose"]


async def test_stapled_streams_of_two_one_way_pairs_make_a_two_way_stream() -> None:
    left_out, right_in = memory_stream_one_way_pair()
    right_out, left_in = memory_stream_one_way_pair()
    left = StapledStream(left_out, left_in)
    right = StapledStream(right_out, right_in)
    async with left, right:
        await left.send_all(b"question")
        assert await right.receive_some() == b"question"
        await right.send_all(b"answer")
        assert await left.receive_some() == b"answer"


def test_repr_of_a_stapled_stream_names_its_halves_and_it_can_be_subscripted() -> None:
    assert StapledStream[Sender, Receiver] is not None
    shown = repr(StapledStream(Sender(), Receiver()))
    assert shown.startswith("StapledStream(send_stream=<")
    assert ", receive_stream=<" in shown
    with pytest.raises(TypeError, match="does not support subclassing"):
        type("Mine", (StapledStream,), {})
