"""Generic checks that every implementation of the stream interfaces must pass.

This module has the three public checks and the checks of two-way streams. The checks of a one-way
stream are in ``one_way`` and ``clogged``.

Rule 1: a check raises ``AssertionError`` with a sentence, or lets the stream's own error pass.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from .._base import ClosedResourceError, HalfCloseableStream, Stream
from .._loop.selector_idle import wait_all_tasks_blocked
from .._nursery import open_nursery
from .checkpoints import assert_checkpoints
from .clogged import CLOGGED_CHECKS, check_eof_while_sending
from .one_way import ONE_WAY_CHECKS
from .support import expect, fresh

if TYPE_CHECKING:
    from .._base import ReceiveStream, SendStream
    from .support import StreamMaker

# How much is sent each way at the same time, and the largest piece of it, both in bytes.
DUPLEX_BYTES = 2**20
LARGEST_PIECE = 2**14


async def check_one_way_stream(
    stream_maker: StreamMaker[SendStream, ReceiveStream],
    clogged_stream_maker: StreamMaker[SendStream, ReceiveStream] | None,
) -> None:
    """Check that a one-way stream keeps the promises of its interface.

    Args:
        stream_maker: async function that returns a fresh, connected pair: sender, receiver.
        clogged_stream_maker: the same, but ``send_all`` and ``wait_send_all_might_not_block`` of
            the pair wait until ``receive_some`` is called (for example, because buffers are
            full). None leaves out the checks that need such a pair.

    Raises:
        AssertionError: if the stream does not behave as it must; bare or in a group.
        Exception: an error that the stream must not raise there; bare or in a group.

    Checkpoint: yes.

    Trio: ``trio.testing.check_one_way_stream``.
    """
    for check in ONE_WAY_CHECKS:
        await check(stream_maker)
    if clogged_stream_maker is not None:
        for check in CLOGGED_CHECKS:
            await check(clogged_stream_maker)


async def check_two_way_stream(
    stream_maker: StreamMaker[Stream, Stream],
    clogged_stream_maker: StreamMaker[Stream, Stream] | None,
) -> None:
    """Check that a two-way stream keeps the promises of its interface.

    All of :func:`check_one_way_stream` is checked in both directions, so you do not have to call
    it as well.

    Args:
        stream_maker: async function that returns a fresh, connected pair.
        clogged_stream_maker: the same, with sends waiting both ways; see
            :func:`check_one_way_stream`. None leaves out the checks that need it.

    Raises:
        AssertionError: if the stream does not behave as it must; bare or in a group.
        Exception: an error that the stream must not raise there; bare or in a group.

    Checkpoint: yes.

    Trio: ``trio.testing.check_two_way_stream``.
    """
    await check_one_way_stream(stream_maker, clogged_stream_maker)
    await check_one_way_stream(
        _flipped(stream_maker),
        None if clogged_stream_maker is None else _flipped(clogged_stream_maker),
    )
    await _check_duplex(stream_maker)


async def check_half_closeable_stream(
    stream_maker: StreamMaker[HalfCloseableStream, HalfCloseableStream],
    clogged_stream_maker: StreamMaker[HalfCloseableStream, HalfCloseableStream] | None,
) -> None:
    """Check that a half-closeable stream keeps the promises of its interface.

    All of :func:`check_two_way_stream` is checked, so you do not have to call it as well.

    Args:
        stream_maker: async function that returns a fresh, connected pair.
        clogged_stream_maker: the same, with sends waiting both ways; see
            :func:`check_one_way_stream`. None leaves out the checks that need it.

    Raises:
        AssertionError: if the stream does not behave as it must; bare or in a group.
        Exception: an error that the stream must not raise there; bare or in a group.

    Checkpoint: yes.

    Trio: ``trio.testing.check_half_closeable_stream``.
    """
    await check_two_way_stream(stream_maker, clogged_stream_maker)
    await _check_half_close(stream_maker)
    if clogged_stream_maker is not None:
        await check_eof_while_sending(clogged_stream_maker)


def _flipped(maker: StreamMaker[Stream, Stream]) -> StreamMaker[Stream, Stream]:
    async def make() -> tuple[Stream, Stream]:
        left, right = await maker()
        return right, left

    return make


async def _check_duplex(maker: StreamMaker[Stream, Stream]) -> None:
    """A lot of data is sent both ways at once, in pieces of random size, and arrives intact."""
    async with fresh(maker) as (left, right):
        assert isinstance(left, Stream), f"{left!r} must be an abc.Stream"
        assert isinstance(right, Stream), f"{right!r} must be an abc.Stream"
        there = random.Random(0).randbytes(DUPLEX_BYTES)
        back = there[::-1]

        async def send(stream: Stream, data: bytes, seed: int) -> None:
            sizes = random.Random(seed)
            rest = memoryview(data)
            while rest:
                size = sizes.randint(1, LARGEST_PIECE)
                await stream.send_all(rest[:size])
                rest = rest[size:]

        async def receive(stream: Stream, expected: bytes, seed: int) -> None:
            sizes = random.Random(seed)
            got = bytearray()
            while len(got) < len(expected):
                piece = await stream.receive_some(sizes.randint(1, LARGEST_PIECE))
                assert piece, f"the stream ended after {len(got)} of {len(expected)} bytes"
                got += piece
            if got != expected:  # not an assert: pytest would spell out how a mebibyte differs
                raise AssertionError("the data that arrived is not the data that was sent")

        async with open_nursery() as nursery:
            nursery.start_soon(send, left, there, 1)
            nursery.start_soon(send, right, back, 2)
            nursery.start_soon(receive, left, back, 3)
            nursery.start_soon(receive, right, there, 4)

        async def expect_end() -> None:
            got = await right.receive_some(10)
            assert got == b"", (
                f"after the peer's close, receive_some must return b'', not {bytes(got)!r}"
            )
            await right.aclose()

        async with open_nursery() as nursery:
            nursery.start_soon(expect_end)
            nursery.start_soon(left.aclose)


async def _check_half_close(maker: StreamMaker[HalfCloseableStream, HalfCloseableStream]) -> None:
    """``send_eof`` ends one direction, may be repeated, and leaves the other direction open."""
    async with fresh(maker) as (left, right):
        for stream in (left, right):
            assert isinstance(stream, HalfCloseableStream), (
                f"{stream!r} must be an abc.HalfCloseableStream"
            )

        async def send_x_then_eof(stream: HalfCloseableStream) -> None:
            await stream.send_all(b"x")
            with assert_checkpoints():
                await stream.send_eof()

        async def expect_x_then_eof(stream: HalfCloseableStream) -> None:
            await wait_all_tasks_blocked()
            for expected in (b"x", b""):
                got = await stream.receive_some(10)
                assert got == expected, f"receive_some must return {expected!r}, not {bytes(got)!r}"

        async with open_nursery() as nursery:
            nursery.start_soon(send_x_then_eof, left)
            nursery.start_soon(expect_x_then_eof, right)

        with expect(ClosedResourceError):
            await left.send_all(b"y")
        with assert_checkpoints():
            await left.send_eof()

        async with open_nursery() as nursery:
            nursery.start_soon(send_x_then_eof, right)
            nursery.start_soon(expect_x_then_eof, left)
