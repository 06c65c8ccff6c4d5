"""The common parts of the stream checks."""

from __future__ import annotations

import sys

import pytest

import nurseryio
from nurseryio._checks.support import (
    close,
    expect,
    fresh,
    receive,
    receive_exactly,
    send,
    wait_writable,
)
from nurseryio.testing import memory_stream_one_way_pair

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


class Mute(nurseryio.abc.SendStream):
    """A stream whose methods are not checkpoints, and whose ``send_all`` returns something."""

    async def send_all(self, data: object) -> None:
        return 3  # type: ignore[return-value]

    async def wait_send_all_might_not_block(self) -> None:
        """Do nothing."""

    async def receive_some(self, max_bytes: object = None) -> bytes:
        return b""

    async def aclose(self) -> None:
        """Do nothing."""


class Yielding(Mute):
    async def send_all(self, data: object) -> None:
        await nurseryio.lowlevel.checkpoint()
        return 3  # type: ignore[return-value]


def test_an_expected_error_is_caught() -> None:
    with expect(RuntimeError):
        raise RuntimeError
    with expect(LookupError, in_group=True):
        raise ExceptionGroup("", [KeyError()])


def test_a_missing_error_or_one_in_the_wrong_group_is_reported() -> None:
    group = ExceptionGroup("", [KeyError()])
    for in_group, error, message in (
        (False, None, "got no error"),
        (False, group, "expected a bare KeyError"),
        (True, KeyError(), "expected a group of one KeyError"),
        (True, ExceptionGroup("", [KeyError(), KeyError()]), "expected a group of one KeyError"),
        (True, ExceptionGroup("", [OSError()]), "expected a group of one KeyError"),
    ):
        with pytest.raises(AssertionError, match=message):
            with expect(KeyError, in_group=in_group):
                if error is not None:
                    raise error


def test_an_error_that_is_not_expected_passes_through() -> None:
    with pytest.raises(TypeError):
        with expect(RuntimeError):
            raise TypeError


async def test_both_ends_of_a_fresh_stream_pair_are_always_closed() -> None:
    async def make() -> tuple[nurseryio.abc.SendStream, nurseryio.abc.ReceiveStream]:
        return memory_stream_one_way_pair()

    with pytest.raises(ZeroDivisionError):
        async with fresh(make) as (sender, receiver):
            raise ZeroDivisionError
    with pytest.raises(nurseryio.ClosedResourceError):
        await sender.send_all(b"")
    with pytest.raises(nurseryio.ClosedResourceError):
        await receiver.receive_some()


async def test_stream_calls_that_are_not_checkpoints_are_reported() -> None:
    for call in (
        lambda: send(Mute(), b""),
        lambda: receive(Mute()),
        lambda: wait_writable(Mute()),
        lambda: close(Mute()),
    ):
        with pytest.raises(AssertionError, match="did not yield"):
            await call()


async def test_a_send_that_does_not_return_none_is_reported() -> None:
    with pytest.raises(AssertionError, match="must return None, not 3"):
        await send(Yielding(), b"")


async def test_received_data_is_compared() -> None:
    sender, receiver = memory_stream_one_way_pair()
    await sender.send_all(b"ab")
    await receive_exactly(receiver, b"a")
    with pytest.raises(AssertionError, match=r"must return b'x' here"):
        await receive_exactly(receiver, b"x")
