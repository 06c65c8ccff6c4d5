"""Waiting until a file descriptor is ready."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

import nurseryio
from nurseryio import ClosedResourceError
from nurseryio.lowlevel import notify_closing, wait_readable, wait_writable
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    with a, b:
        yield a, b


def fill(sock: socket.socket) -> None:
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        pass


async def test_wait_readable_returns_when_data_arrives(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    a, b = pair
    record = []

    async def read() -> None:
        await wait_readable(a)
        record.append(a.recv(10))

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert record == []
        b.send(b"hello")
    assert record == [b"hello"]
    b.send(b"again")
    with assert_checkpoints():
        await wait_readable(a.fileno())


async def test_wait_writable_returns_when_the_buffer_has_space(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    a, b = pair
    with assert_checkpoints():
        await wait_writable(a)
    fill(a)
    record = []

    async def write() -> None:
        await wait_writable(a)
        record.append("writable")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        assert record == []
        while not record:
            try:
                b.recv(65536)
            except BlockingIOError:
                await nurseryio.sleep(0)


async def test_a_second_wait_readable_of_a_descriptor_raises_busy_resource_error(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    a, _ = pair
    fill(a)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait_readable, a)
        nursery.start_soon(wait_writable, a)
        await wait_all_tasks_blocked()
        with pytest.raises(nurseryio.BusyResourceError):
            await wait_readable(a)
        with pytest.raises(nurseryio.BusyResourceError):
            await wait_writable(a)
        nursery.cancel_scope.cancel()


async def test_a_cancelled_wait_readable_leaves_no_registration(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    a, b = pair
    with nurseryio.move_on_after(0.001) as scope:
        await wait_readable(a)
    assert scope.cancelled_caught
    b.send(b"x")
    await wait_readable(a)
    assert a.recv(1) == b"x"


async def test_notify_closing_wakes_the_tasks_that_wait(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    a, _ = pair
    errors = []

    async def read() -> None:
        try:
            await wait_readable(a)
        except nurseryio.ClosedResourceError as exc:
            errors.append(exc)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        notify_closing(a)
        a.close()
    assert len(errors) == 1


async def test_wait_readable_refuses_a_descriptor_that_is_not_open(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    a, _ = pair
    a.close()
    with pytest.raises((ValueError, OSError)):
        await wait_readable(a)
    with pytest.raises((TypeError, AttributeError)):
        await wait_readable("0")  # type: ignore[arg-type]


async def test_wait_readable_and_wait_writable_work_for_pipes() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"x")
        await wait_readable(reader)
        assert os.read(reader, 1) == b"x"
    finally:
        os.close(reader)
        os.close(writer)


async def test_wait_readable_refuses_an_object_without_a_descriptor() -> None:
    for wait in (wait_readable, wait_writable):
        with pytest.raises(TypeError, match=r"expected a file descriptor .*, not .a."):
            await wait("a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a file descriptor"):
        notify_closing(1.5)  # type: ignore[arg-type]


async def test_a_stale_wait_readable_ends_when_its_descriptor_number_is_reused() -> None:
    async def wait_in_vain(source: Any) -> None:
        with pytest.raises(ClosedResourceError):
            await wait_readable(source)

    for as_file in (False, True):
        left, right = socket.socketpair()
        other, far = socket.socketpair()
        fd = left.fileno()
        source = left.makefile("rb", buffering=0) if as_file else left
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait_in_vain, source)
            await wait_all_tasks_blocked()
            source.close()
            left.close()
            os.dup2(other.fileno(), fd)
            with nurseryio.move_on_after(0.001) as scope:
                await wait_readable(fd)
            assert scope.cancelled_caught
        os.close(fd)
        for sock in (right, other, far):
            sock.close()


async def test_wait_readable_keeps_its_socket_alive() -> None:
    left, right = socket.socketpair()
    with right:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait_readable, left)
            del left
            await wait_all_tasks_blocked()
            gc.collect()
            with pytest.warns(ResourceWarning, match="unclosed"):
                right.send(b"x")
                await wait_all_tasks_blocked()
                gc.collect()


# -- what others do to a descriptor -----------------------------------------------------


async def stream_with_number(number: int) -> tuple[nurseryio.SocketStream, socket.socket]:
    """A new stream whose descriptor has that number, and its peer."""
    one, other = socket.socketpair()
    if one.fileno() != number:
        one, other = other, one
    if one.fileno() != number:
        fd = one.detach()
        os.dup2(fd, number)
        os.close(fd)
        one = socket.socket(fileno=number)
    return nurseryio.SocketStream(nurseryio.socket.from_stdlib_socket(one)), other


async def test_a_stream_works_while_its_descriptor_is_stale_for_the_other_direction() -> None:
    one, other = socket.socketpair()
    for sock in (one, other):
        sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            one.send(bytes(2**16))
    number = one.fileno()

    async def wait() -> None:
        with pytest.raises(ClosedResourceError):
            await wait_writable(one)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        one.close()  # without a word
        stream, peer = await stream_with_number(number)
        nursery.start_soon(stream.receive_some)
        await wait_all_tasks_blocked()
        peer.send(b"x")
    other.close()
    peer.close()
    await stream.aclose()


@pytest.mark.parametrize("of", ["number", "socket"])
async def test_a_stale_descriptor_whose_file_is_still_open_is_reported_once(of: str) -> None:
    one, other = socket.socketpair()
    copy = one.dup()
    number = one.fileno()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait_readable, number if of == "number" else one)
        await wait_all_tasks_blocked()
        one.close()  # without a word
        other.send(b"x")
    # The loop would never be idle if it went on to report the copy.
    before = os.times()
    await nurseryio.sleep(0.1)
    after = os.times()
    assert after.user + after.system - before.user - before.system < 0.08
    copy.close()
    other.close()
