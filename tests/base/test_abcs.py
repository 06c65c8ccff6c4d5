"""The abstract base classes: the methods they require, and the methods they provide."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import nurseryio
from nurseryio._base import abcs

INTERFACES = [getattr(abcs, name) for name in abcs.__all__]


@pytest.mark.parametrize("interface", INTERFACES, ids=lambda cls: cls.__name__)
def test_abcs_have_empty_slots_so_subclasses_may_have_slots(interface: type) -> None:
    assert interface.__dict__["__slots__"] == ()


@pytest.mark.parametrize(
    ("interface", "methods"),
    [
        (abcs.Clock, {"start_clock", "current_time", "deadline_to_sleep_time"}),
        (abcs.Instrument, set()),
        (abcs.HostnameResolver, {"getaddrinfo", "getnameinfo"}),
        (abcs.SocketFactory, {"socket"}),
        (abcs.AsyncResource, {"aclose"}),
        (abcs.SendStream, {"aclose", "send_all", "wait_send_all_might_not_block"}),
        (abcs.ReceiveStream, {"aclose", "receive_some"}),
        (
            abcs.HalfCloseableStream,
            {
                "aclose",
                "receive_some",
                "send_all",
                "send_eof",
                "wait_send_all_might_not_block",
            },
        ),
        (abcs.Listener, {"aclose", "accept"}),
        (abcs.SendChannel, {"aclose", "send"}),
        (abcs.ReceiveChannel, {"aclose", "receive"}),
        (abcs.Channel, {"aclose", "send", "receive"}),
    ],
)
def test_each_abc_requires_its_abstract_methods(interface: Any, methods: set[str]) -> None:
    assert interface.__abstractmethods__ == methods


def test_every_hook_of_an_instrument_is_optional() -> None:
    instrument = abcs.Instrument()
    hooks = {
        name: function
        for name, function in vars(abcs.Instrument).items()
        if inspect.isfunction(function)
    }
    assert len(hooks) == 9
    for name, function in hooks.items():
        parameters = len(inspect.signature(function).parameters)
        assert getattr(instrument, name)(*[None] * (parameters - 1)) is None


async def test_async_resource_aclose_is_called_at_the_end_of_async_with() -> None:
    class Door(abcs.AsyncResource):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    async with Door() as door:
        assert door.closed == 0
    assert door.closed == 1
    with pytest.raises(ZeroDivisionError):
        async with door:
            raise ZeroDivisionError
    assert door.closed == 2


async def test_iterating_a_receive_stream_gives_chunks_until_end_of_file() -> None:
    class Pieces(abcs.ReceiveStream):
        def __init__(self) -> None:
            self.left = [b"a", bytearray(b"bc"), b"", b"never"]

        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            return self.left.pop(0)

        async def aclose(self) -> None:
            raise AssertionError("iterating does not close")

    assert [piece async for piece in Pieces()] == [b"a", b"bc"]


async def test_iterating_a_receive_channel_stops_at_end_of_channel() -> None:
    class Countdown(abcs.ReceiveChannel[int]):
        left = 2

        async def receive(self) -> int:
            if self.left == 0:
                raise nurseryio.EndOfChannel
            self.left -= 1
            return self.left

        async def aclose(self) -> None:
            raise AssertionError("iterating does not close")

    assert [item async for item in Countdown()] == [1, 0]


def test_generic_abcs_can_be_subclassed_with_slots() -> None:
    class Slotted(abcs.SendChannel[abcs.Stream]):
        __slots__ = ("x",)

        async def send(self, value: abcs.Stream) -> None:
            raise AssertionError("not called")

        async def aclose(self) -> None:
            raise AssertionError("not called")

    assert not hasattr(Slotted(), "__dict__")
