"""Awaiting a file descriptor again and again: the loop's table, waking, registering, closing."""

# Covered below 95 %: kept registrations are in test_stream.py; what a forked child drops is in
# test_forked.py, and forked children are not measured.

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import socket as stdlib
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator

import pytest

import nurseryio
from nurseryio import BusyResourceError, Cancelled, CancelScope, ClosedResourceError, lowlevel
from nurseryio._asyncio import compat, epoll
from nurseryio._core.task import current_state
from nurseryio._loop import readiness as readiness_module
from nurseryio._loop.readiness import (
    Readable,
    Readiness,
    Registrations,
    Writable,
    close_later,
    waits,
)
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked


def refuse() -> None:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.fixture(params=["epoll", "few", "no epoll", "full"], autouse=True)
def _watched_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # A system that has epoll, for all descriptors or not for the first few; a system that has none;
    # a process that has no descriptor left for it.
    if request.param == "epoll":
        monkeypatch.setattr(readiness_module, "DIRECT_LIMIT", 0)
    elif request.param == "no epoll":
        monkeypatch.setattr(epoll, "_epoll", None)
    elif request.param == "full":
        monkeypatch.setattr(epoll, "_epoll", refuse)


@contextlib.contextmanager
def pair(keep: bool = True) -> Iterator[tuple[Readable, Writable, stdlib.socket]]:
    """Both directions of one end of a pair of sockets, and the other end."""
    state = lowlevel.current_task()._state
    left, right = stdlib.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        readable = Readable(state, left, keep)
        writable = Writable(state, left, keep)
        try:
            yield readable, writable, right
        finally:
            readable.close()
            writable.close()


async def wait(readiness: Readiness) -> None:
    await readiness


@pytest.mark.parametrize("keep", [True, False])
async def test_a_readiness_can_be_awaited_again_and_again(keep: bool) -> None:
    with pair(keep) as (readable, _writable, peer):
        for n in range(1, 4):
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(wait, readable)
                await wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == 1
                peer.send(b"x")
            assert len(os.read(readable._fd, 10)) == 1, n


async def test_a_wait_for_a_descriptor_that_is_ready_already_is_a_checkpoint() -> None:
    with pair() as (readable, writable, peer):
        peer.send(b"x")
        for _ in range(3):
            with assert_checkpoints():
                await readable
            with assert_checkpoints():
                await writable


async def test_readable_and_writable_of_one_descriptor_can_be_awaited_at_once() -> None:
    with pair() as (readable, writable, peer), contextlib.ExitStack():
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait, readable)
            nursery.start_soon(wait, writable)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            peer.send(b"x")


async def test_two_tasks_cannot_wait_for_the_same_direction_of_a_descriptor() -> None:
    with pair() as (readable, _writable, peer):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait, readable)
            await wait_all_tasks_blocked()
            with pytest.raises(BusyResourceError, match="already reading / writing this fd"):
                await readable
            with pytest.raises(BusyResourceError):
                await lowlevel.wait_readable(readable._fd)
            peer.send(b"x")


async def test_a_readiness_conflicts_with_wait_readable_of_the_same_descriptor() -> None:
    with pair() as (readable, _writable, peer):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(lowlevel.wait_readable, readable._fd)
            await wait_all_tasks_blocked()
            with pytest.raises(BusyResourceError):
                await readable
            peer.send(b"x")
        await readable


async def test_wait_readable_ends_a_kept_registration_of_the_descriptor() -> None:
    with pair() as (readable, _writable, peer):
        peer.send(b"x")
        await readable
        assert readable.armed == readable._keep
        await lowlevel.wait_readable(readable._fd)
        assert not readable.armed
        os.read(readable._fd, 10)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(lowlevel.wait_readable, readable._fd)
            await wait_all_tasks_blocked()
            peer.send(b"x")
        await readable


async def test_a_kept_registration_is_removed_when_no_task_waits_any_more() -> None:
    with pair() as (readable, _writable, peer):
        peer.send(b"x")
        await readable
        assert readable.armed == readable._keep
        readable.drained = readable._keep
        await wait_all_tasks_blocked()
        assert not readable.armed
        assert not readable.drained
        assert not waits(readable.state)


async def test_a_registration_that_is_not_kept_ends_with_the_wait() -> None:
    with pair(keep=False) as (readable, _writable, peer):
        peer.send(b"x")
        await readable
        assert not readable.armed
        os.read(readable._fd, 10)
        with nurseryio.move_on_after(0.001):
            await readable
        assert not readable.armed
        assert not waits(readable.state)


async def test_a_cancelled_wait_for_readiness_can_be_followed_by_another() -> None:
    with pair() as (readable, _writable, peer):
        for _ in range(3):
            with CancelScope() as scope:
                async with nurseryio.open_nursery() as nursery:
                    nursery.start_soon(wait, readable)
                    await wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
        peer.send(b"x")
        await readable


async def test_a_native_cancel_of_a_wait_for_readiness_keeps_its_message() -> None:
    with pair() as (readable, _writable, _peer):
        task = asyncio.ensure_future(wait(readable))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task.cancel("because") is True
        with pytest.raises(Cancelled, match="because" if sys.version_info >= (3, 11) else None):
            await task


async def test_repr_of_a_readiness_shows_descriptor_and_direction() -> None:
    with pair() as (readable, writable, _peer):
        assert repr(readable) == f"<waiting until fd {readable._fd} is readable>"
        assert repr(writable) == f"<waiting until fd {readable._fd} is writable>"


async def test_a_native_cancel_before_a_wait_for_readiness_is_raised_at_once() -> None:
    with pair() as (readable, _writable, _peer):

        async def cancel_then_wait() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await readable

        with pytest.raises(Cancelled):
            await asyncio.ensure_future(cancel_then_wait())


async def test_notify_closing_wakes_the_waiting_tasks() -> None:
    with pair() as (readable, writable, peer):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writable._fd, bytes(65536))
        async with nurseryio.open_nursery() as nursery:
            for readiness in (readable, writable):

                @nursery.start_soon
                async def _(readiness: Readiness = readiness) -> None:
                    with pytest.raises(ClosedResourceError, match="closed this fd"):
                        await readiness

            await wait_all_tasks_blocked()
            lowlevel.notify_closing(readable._fd)
        assert not waits(readable.state)
        assert peer.fileno() != -1


async def test_waiting_for_readiness_repeatedly_reuses_its_future() -> None:
    with pair() as (readable, _writable, peer):
        seen = set()

        async def wait_and_read() -> None:
            for _ in range(5):
                await readable
                os.read(readable._fd, 10)
                seen.add(readable._future)

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait_and_read)
            for _ in range(5):
                await wait_all_tasks_blocked()
                peer.send(b"x")
        # uvloop without epoll registers for each wait.
        assert len(seen) == (1 if readable._keep else 5)
        assert not any(future.done() for future in seen if readable._keep)


async def test_a_wait_whose_coroutine_was_closed_does_not_block_the_next_wait() -> None:
    with pair() as (readable, _writable, peer):
        coro = wait(readable)
        coro.send(None)
        coro.close()
        peer.send(b"x")
        await readable


async def test_an_error_of_the_descriptor_is_reported_to_each_wait() -> None:
    with pair() as (readable, _writable, peer):
        await nurseryio.lowlevel.checkpoint()
        peer.send(b"x")
        await readable
        os.read(readable._fd, 10)
        # Data that is not read makes the end an error: ECONNRESET.
        os.write(readable._fd, b"y")
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait, readable)
            await wait_all_tasks_blocked()
            peer.close()
        for _ in range(3):
            with assert_checkpoints():
                await readable


async def test_readiness_and_a_cancellation_in_the_same_iteration() -> None:
    with pair() as (readable, _writable, peer):
        ends = []
        with CancelScope() as scope:
            async with nurseryio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    try:
                        await readable
                        ends.append("ready")
                        await lowlevel.checkpoint()
                    except Cancelled:
                        ends.append("cancelled")
                        raise

                await wait_all_tasks_blocked()
                peer.send(b"x")
                scope.cancel()
        assert ends in (["ready", "cancelled"], ["cancelled"])
        await readable


async def test_fairness_callbacks_ready_before_run_before_the_task_woken_by_io() -> None:
    with pair() as (readable, _writable, peer):
        peer.send(b"x")
        order = []
        loop = asyncio.get_running_loop()
        for n in range(5):
            loop.call_soon(order.append, n)
        await readable
        assert order == [0, 1, 2, 3, 4]


async def test_an_event_that_the_loop_fetched_before_the_wait_does_not_end_it_early() -> None:
    with pair() as (one, _writable, peer), pair() as (other, _writable2, peer2):
        for readable, far in ((one, peer), (other, peer2)):
            far.send(b"x")
            await readable
            os.read(readable._fd, 10)
        # Where both stay registered, they become ready in the same iteration of the loop.
        assert one.armed == other.armed == one._keep
        peer.send(b"x")
        peer2.send(b"x")
        for _ in range(3):
            for readable in (one, other):
                with assert_checkpoints():
                    await readable


async def test_done_callbacks_may_be_added_to_the_future_of_a_wait_for_readiness() -> None:
    with pair() as (readable, _writable, peer):
        told = []

        def tell(_future: object) -> None:
            told.append("told")

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait, readable)
            await wait_all_tasks_blocked()
            (task,) = nursery.child_tasks
            future = compat.waiter(task.asyncio_task)
            future.add_done_callback(tell)
            peer.send(b"x")
        await lowlevel.checkpoint()
        assert told == ["told"]


async def test_a_descriptor_that_cannot_be_watched_is_an_error_and_leaves_nothing() -> None:
    state = lowlevel.current_task()._state
    with open(__file__) as file:
        for keep in (True, False):
            with pytest.raises(PermissionError):
                await Readable(state, file, keep)
    assert not waits(state)


async def test_a_descriptor_that_was_closed_cannot_be_awaited() -> None:
    state = lowlevel.current_task()._state
    for keep in (True, False):
        with stdlib.socket() as sock:
            readable = Readable(state, sock, keep)
        for _ in range(2):
            with pytest.raises(ClosedResourceError):
                await readable
        with pytest.raises(ClosedResourceError):
            await Readable(state, sock, keep)
    assert not waits(state)


async def test_closing_a_descriptor_without_notify_closing_breaks_nothing_else() -> None:
    with pair(keep=False) as (readable, writable, _peer):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writable._fd, bytes(65536))
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait, readable)
            nursery.start_soon(wait, writable)
            await wait_all_tasks_blocked()
            spare = os.dup(readable._fd)
            os.close(readable._fd)
            nursery.cancel_scope.cancel()
        # The pair closes it again at the end.
        os.dup2(spare, readable._fd)
        os.close(spare)
        assert not waits(readable.state)


async def test_a_system_exit_in_an_asyncio_task_woken_by_io_ends_the_loop_as_usual() -> None:
    # In a separate loop, in a separate thread.
    async def leave(peer: stdlib.socket, readable: Readable) -> None:
        await readable
        raise SystemExit(3)

    async def main() -> None:
        with pair() as (readable, _writable, peer):
            task = asyncio.ensure_future(leave(peer, readable))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            peer.send(b"x")
            await task

    def run() -> int:
        try:
            asyncio.run(main())
        except SystemExit as exc:
            assert isinstance(exc.code, int)
            return exc.code
        return -1

    assert await asyncio.get_running_loop().run_in_executor(None, run) == 3


# -- what others do to a descriptor -----------------------------------------------------


async def test_a_stale_registration_without_a_waiter_is_replaced() -> None:
    # Other code has closed the descriptor, and its number belongs to another socket now.
    with pair() as (readable, _writable, peer):
        peer.send(b"x")
        await readable
        with stdlib.socket(fileno=os.dup(readable._fd)) as keeps_the_file_open:
            left, right = stdlib.socketpair()
            os.dup2(left.fileno(), readable._fd)
            left.close()
            again = Readable(readable.state, FakeOwner(readable._fd), True)
            with right:
                async with nurseryio.open_nursery() as nursery:
                    nursery.start_soon(wait, again)
                    await wait_all_tasks_blocked()
                    assert not readable.armed
                    right.send(b"x")
            again.close()
            keeps_the_file_open.recv(1)
            peer.send(b"x")
            await wait_all_tasks_blocked()
    assert not waits(readable.state)


class FakeOwner:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd


@pytest.mark.parametrize("keep", [True, False])
async def test_a_stale_wait_ends_when_its_descriptor_number_is_reused(
    keep: bool,
) -> None:
    state = lowlevel.current_task()._state
    left, right = stdlib.socketpair()
    with right, stdlib.socket(fileno=os.dup(left.fileno())) as other:
        readable = Readable(state, left, keep)
        async with nurseryio.open_nursery() as nursery:

            async def wait_in_vain() -> None:
                with pytest.raises(ClosedResourceError):
                    await readable

            nursery.start_soon(wait_in_vain)
            await wait_all_tasks_blocked()
            fd = left.detach()
            assert len(nursery.child_tasks) == 1
            again = Readable(state, FakeOwner(fd), keep)
            nursery.start_soon(wait, again)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            right.send(b"x")
        again.close()
        os.close(fd)
        other.recv(1)
    assert not waits(state)


async def test_a_stale_descriptor_closed_by_other_code_is_not_reported_for_ever() -> None:
    with pair() as (readable, _writable, peer):
        with nurseryio.move_on_after(0.001):
            await readable
        spare = os.dup(readable._fd)
        with stdlib.socket() as another:
            os.dup2(another.fileno(), readable._fd)
        peer.send(b"x")
        await wait_all_tasks_blocked()
        epolls = [readable.state.selector, waits(readable.state).poller]
        for epoll in filter(None, [getattr(each, "_selector", None) for each in epolls]):
            assert epoll.poll(0) == []
        os.dup2(spare, readable._fd)
        os.close(spare)


def test_closing_after_the_loop_was_closed_under_a_waiting_task_is_no_error() -> None:
    async def main() -> tuple[Readable, asyncio.Task[None]]:
        readable = Readable(lowlevel.current_task()._state, left, True)
        task = asyncio.ensure_future(wait(readable))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert readable.is_awaited()
        return readable, task

    left, right = stdlib.socketpair()
    with left, right:
        loop = asyncio.new_event_loop()
        readable, task = loop.run_until_complete(main())
        loop.close()
        for _ in range(2):
            readable.close()
        assert not waits(readable.state)
        task._log_destroy_pending = False  # type: ignore[attr-defined]


async def test_after_the_run_no_owner_of_a_descriptor_is_kept_alive() -> None:
    class Owner(stdlib.socket):
        pass

    async def main() -> weakref.ref[Owner]:
        owner = Owner(fileno=os.dup(left.fileno()))
        with nurseryio.move_on_after(0.001):
            await Readable(lowlevel.current_task()._state, owner, True)
        return weakref.ref(owner)

    left, right = stdlib.socketpair()
    with left, right:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            owner = await asyncio.to_thread(nurseryio.run, main)
            gc.collect()
        assert owner() is None


def test_a_descriptor_that_is_given_up_is_closed_by_its_last_registration() -> None:
    descriptor, other = os.pipe()
    held = readiness_module._Held(descriptor, 2)
    keep = held  # as a thread that has not dropped it yet
    held.release()
    assert keep.fileno() == descriptor
    os.fstat(descriptor)
    held.release()
    assert keep.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    os.close(other)


def test_a_descriptor_that_is_given_up_is_closed_though_a_loop_never_ends_its_registration() -> (
    None
):
    descriptor, other = os.pipe()
    held = readiness_module._Held(descriptor, 2)
    held.release()
    del held
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    os.close(other)


async def test_closing_in_another_thread_sees_a_wait_that_is_about_to_begin() -> None:
    left, right = stdlib.socketpair()
    with left, right:
        registrations = Registrations(left, True)
        readable = registrations.readable(current_state())
        assert not readable.armed
        elsewhere = await asyncio.to_thread(registrations.close)
        assert elsewhere == [readable]
        close_later(elsewhere, left.detach())
        await asyncio.sleep(0)
        for waits_for in (readable, registrations.writable(current_state())):
            with pytest.raises(ClosedResourceError):
                await waits_for
        assert right.recv(1) == b""


async def test_a_socket_that_another_thread_closes_as_a_wait_begins_wakes_its_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, right = nurseryio.socket.socketpair()
    has_lost = Readable.has_lost

    def close_meanwhile(self: Readable) -> bool:
        monkeypatch.setattr(Readable, "has_lost", has_lost)
        lost = has_lost(self)
        thread = threading.Thread(target=left.close)
        thread.start()
        thread.join()
        return lost

    monkeypatch.setattr(Readable, "has_lost", close_meanwhile)
    with right:
        with pytest.raises(ClosedResourceError):
            await left.recv(1)
        assert await right.recv(1) == b""


async def test_a_task_whose_wake_up_in_place_fails_is_woken_in_the_next_iteration() -> None:
    with pair() as (readable, _, peer):
        woken: list[str] = []

        async def wait() -> None:
            await readable
            woken.append("woken")

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            peer.send(b"x")
            ((_, context),) = compat.callbacks_of(readable._future) or ()
            readable._stale = False
            if not readable._keep:
                return  # the task is not woken in place
            # The task cannot make its step in a context that is entered already.
            with pytest.raises(RuntimeError, match="is already entered"):
                context.run(readable._ready)
            assert waits(readable.state).waking is None
            assert woken == []
        assert woken == ["woken"]
