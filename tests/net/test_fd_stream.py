"""Streams over bare file descriptors."""

# Covered below 95 %: an end that is given to a program is in test_process.py.

from __future__ import annotations

import contextlib
import gc
import os
import pty
import sys
import threading
import tty
from typing import Any

import pytest
from harness.core import cut_short, settle
from harness.net import is_open

import nurseryio
from nurseryio import (
    BrokenResourceError,
    BusyResourceError,
    Cancelled,
    CancelScope,
    ClosedResourceError,
    lowlevel,
)
from nurseryio.lowlevel import FdStream
from nurseryio.testing import assert_checkpoints, check_one_way_stream, wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def pipe() -> tuple[FdStream, FdStream]:
    """The two ends of a pipe: for sending, for receiving."""
    reader, writer = os.pipe()
    return FdStream(writer), FdStream(reader)


def clog(stream: FdStream) -> int:
    """Fill a pipe: how many bytes it took."""
    taken = 0
    # Pieces larger than the system writes as one, so that it is full to the last byte.
    with contextlib.suppress(BlockingIOError):
        while True:
            taken += os.write(stream.fileno(), bytes(100_000))
    return taken


async def test_fd_stream_passes_check_one_way_stream() -> None:
    async def make() -> tuple[FdStream, FdStream]:
        return pipe()

    async def make_clogged() -> tuple[FdStream, FdStream]:
        writer, reader = pipe()
        clog(writer)
        return writer, reader

    await check_one_way_stream(make, make_clogged)


async def test_fd_stream_bytes_pass_a_pipe_complete_and_in_order() -> None:
    data = os.urandom(2**20)
    writer, reader = pipe()
    got = b""
    async with reader, nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            async with writer:
                await writer.send_all(data)

        async for piece in reader:
            got += piece
    assert got == data


async def test_fd_stream_on_a_terminal_works_in_both_directions() -> None:
    try:
        master, terminal = pty.openpty()
    except OSError:  # without /dev/pts
        pytest.skip("this machine has no pseudo-terminals")
    tty.setraw(terminal)
    async with FdStream(master) as one, FdStream(terminal) as other:
        await one.send_all(b"typed")
        assert await other.receive_some() == b"typed"
        await other.send_all(b"shown")
        assert await one.receive_some() == b"shown"


async def test_each_fd_stream_method_is_a_checkpoint() -> None:
    writer, reader = pipe()
    async with writer, reader:
        with assert_checkpoints():
            await writer.send_all(b"x")
        with assert_checkpoints():
            await reader.receive_some()
        with assert_checkpoints():
            await writer.send_all(b"")
        with assert_checkpoints():
            await writer.wait_send_all_might_not_block()
        for _ in range(2):
            with assert_checkpoints():
                await writer.aclose()


async def test_fd_stream_descriptor_is_non_blocking_until_the_stream_is_closed() -> None:
    reader, writer = os.pipe()
    copy = os.dup(writer)
    stream = FdStream(writer)
    assert not os.get_blocking(copy)
    await stream.aclose()
    assert os.get_blocking(copy)
    os.close(copy)
    os.close(reader)


@pytest.mark.parametrize("fd", [None, "1", 1.0])
async def test_fd_stream_refuses_what_is_not_a_descriptor(fd: Any) -> None:
    with pytest.raises(TypeError, match="file descriptor must be an int"):
        FdStream(fd)


async def test_fd_stream_refuses_a_descriptor_that_is_not_open() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        FdStream(writer)


@pytest.mark.parametrize(("most", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
async def test_a_wrong_number_of_bytes_is_refused(most: Any, error: type[Exception]) -> None:
    writer, reader = pipe()
    async with writer, reader:
        with pytest.raises(error, match=r"^max_bytes must be integer >= 1$"):
            await reader.receive_some(most)


async def test_sending_text_is_refused() -> None:
    writer, reader = pipe()
    async with writer, reader:
        with pytest.raises(TypeError, match="encode it first"):
            await writer.send_all("text")  # type: ignore[arg-type]


async def test_two_tasks_in_the_same_direction_get_busy_resource_error() -> None:
    writer, reader = pipe()
    async with writer, reader, nurseryio.open_nursery() as nursery:
        nursery.start_soon(reader.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(BusyResourceError, match="using this stream for receive"):
            await reader.receive_some()
        clog(writer)
        await wait_all_tasks_blocked()
        clog(writer)
        nursery.start_soon(writer.send_all, b"x")
        await wait_all_tasks_blocked()
        with pytest.raises(BusyResourceError, match="using this stream for send"):
            await writer.send_all(b"y")
        with pytest.raises(BusyResourceError, match="using this stream for send"):
            await writer.wait_send_all_might_not_block()
        nursery.cancel_scope.cancel()


async def test_closing_wakes_the_tasks_that_wait() -> None:
    writer, reader = pipe()
    clog(writer)
    async with nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(ClosedResourceError):
                await writer.send_all(b"x")

        await wait_all_tasks_blocked()
        await writer.aclose()
    while await reader.receive_some():
        pass
    writer2, reader2 = pipe()
    async with nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(ClosedResourceError):
                await reader2.receive_some()

        await wait_all_tasks_blocked()
        reader2.close()
    await reader.aclose()
    await writer2.aclose()


async def test_closing_wakes_a_task_that_waits_for_the_bare_descriptor() -> None:
    writer, reader = pipe()
    async with nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(ClosedResourceError):
                await lowlevel.wait_readable(reader.fileno())

        await wait_all_tasks_blocked()
        await reader.aclose()
    await writer.aclose()


async def test_use_after_closing_is_refused() -> None:
    writer, reader = pipe()
    await writer.aclose()
    await reader.aclose()
    assert writer.fileno() == reader.fileno() == -1
    assert repr(writer) == "<FdStream, closed>"
    with assert_checkpoints(), pytest.raises(ClosedResourceError):
        await reader.receive_some()
    for data in (b"x", b""):
        with pytest.raises(ClosedResourceError):
            await writer.send_all(data)
    with pytest.raises(ClosedResourceError):
        await writer.wait_send_all_might_not_block()


async def test_a_closed_fd_stream_does_not_touch_the_new_owner_of_its_descriptor_number() -> None:
    _writer, reader = pipe()
    number = reader.fileno()
    await reader.aclose()
    new_reader, new_writer = os.pipe()
    os.dup2(new_reader, number)
    if new_reader != number:
        os.close(new_reader)
    async with FdStream(number) as successor, nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            assert await successor.receive_some() == b""

        await wait_all_tasks_blocked()
        await reader.aclose()
        await wait_all_tasks_blocked()
        os.close(new_writer)
    await _writer.aclose()


async def test_sending_to_a_pipe_without_a_reader_raises_broken_resource_error() -> None:
    writer, reader = pipe()
    await reader.aclose()
    async with writer:
        with pytest.raises(BrokenResourceError) as caught:
            await writer.send_all(b"x")
        assert isinstance(caught.value.__cause__, BrokenPipeError)


async def test_an_unexpected_oserror_raises_broken_resource_error() -> None:
    writer, reader = pipe()
    async with writer, reader:
        directory = os.open("/", os.O_RDONLY)
        try:
            os.dup2(directory, reader.fileno())
        finally:
            os.close(directory)
        with pytest.raises(BrokenResourceError) as caught:
            await reader.receive_some()
        assert isinstance(caught.value.__cause__, IsADirectoryError)


async def test_a_cancelled_receive_loses_nothing_and_a_cancelled_send_may_be_partial() -> None:
    writer, reader = pipe()
    async with writer, reader:
        with cut_short():
            try:
                await reader.receive_some()
            except Cancelled as exc:
                assert exc.__context__ is None
                raise
        await writer.send_all(b"x")
        assert await reader.receive_some() == b"x"
        with CancelScope() as scope:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(writer.send_all, bytes(2**20))
                await wait_all_tasks_blocked()
                scope.cancel()
        await writer.aclose()
        got = 0
        async for piece in reader:
            got += len(piece)
        assert 0 < got < 2**20


async def test_a_garbage_collected_fd_stream_closes_and_unregisters_its_descriptor() -> None:
    writer, reader = pipe()
    with cut_short():
        await reader.receive_some()
    await lowlevel.checkpoint()
    numbers = {writer.fileno(), reader.fileno()}
    del writer, reader
    gc.collect()  # silently, as in Trio
    await settle()
    writer, reader = pipe()
    assert {writer.fileno(), reader.fileno()} == numbers
    async with writer, reader:
        await writer.send_all(b"x")
        assert await reader.receive_some() == b"x"
        assert repr(reader) == f"<FdStream over fd {reader.fileno()}>"


def test_an_fd_stream_can_be_used_on_one_loop_after_another() -> None:
    writer, reader = pipe()

    async def main() -> None:
        with cut_short():
            await reader.receive_some()
        await writer.send_all(b"x")
        assert await reader.receive_some() == b"x"

    nurseryio.run(main)
    nurseryio.run(main)
    writer.close()
    reader.close()


async def test_an_fd_stream_may_be_used_by_two_loops_and_closed_by_one() -> None:
    writer, reader = pipe()
    clog(writer)
    fd = writer.fileno()
    outcome: list[BaseException] = []
    waits = threading.Event()

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(writer.send_all, b"x")
            await settle()
            waits.set()

    def work() -> None:
        try:
            nurseryio.run(main)
        except BaseException as exc:
            outcome.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    assert waits.wait(30)
    writer.close()
    assert writer.fileno() == -1
    thread.join(30)
    assert not is_open(fd)
    (error,) = outcome
    assert isinstance(error, BaseExceptionGroup)
    assert isinstance(error.exceptions[0], ClosedResourceError)
    await reader.aclose()
