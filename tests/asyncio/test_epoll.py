"""The epoll object behind which descriptors stay registered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import selectors
import socket as stdlib
from collections.abc import Callable, Iterator
from functools import partial
from unittest.mock import Mock

import pytest

from nurseryio._asyncio import epoll as module
from nurseryio._asyncio.epoll import MOST, Poller, poller_for

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="the system has no epoll")


class Opened(Poller):
    """Opens itself."""

    def add(self, direction: str, fd: int, callback: Callable[[], object]) -> None:
        assert self.open()
        super().add(direction, fd, callback)


@contextlib.contextmanager
def pair() -> Iterator[tuple[stdlib.socket, stdlib.socket]]:
    left, right = stdlib.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_level_triggered_a_callback_is_called_while_its_descriptor_is_ready() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (sock, peer):
        calls: list[str] = []
        poller.add("reader", sock.fileno(), lambda: calls.append("reader"))
        await turns()
        assert calls == []
        peer.send(b"x")
        await turns(5)
        assert len(calls) >= 3
        sock.recv(1)
        await turns()
        calls.clear()
        await turns()
        assert calls == []
        poller.remove("reader", sock.fileno())


async def test_reader_and_writer_of_one_descriptor_are_kept_apart() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (sock, peer):
        fd = sock.fileno()
        calls: set[str] = set()
        for first, second in (("reader", "writer"), ("writer", "reader")):
            poller.add(first, fd, partial(calls.add, first))
            poller.add(second, fd, partial(calls.add, second))
            calls.clear()
            await turns()
            assert calls == {"writer"}
            peer.send(b"x")
            await turns()
            assert calls == {"reader", "writer"}
            poller.remove(first, fd)
            calls.clear()
            await turns()
            assert calls == {second}
            poller.remove(second, fd)
            sock.recv(1)


async def test_a_broken_connection_is_reported_to_both_directions_again_and_again() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (sock, peer):
        fd = sock.fileno()
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(65536))
        calls: list[str] = []
        poller.add("reader", fd, lambda: calls.append("reader"))
        poller.add("writer", fd, lambda: calls.append("writer"))
        peer.close()
        await turns(5)
        assert calls.count("reader") >= 3
        assert calls.count("writer") >= 3
        poller.remove("reader", fd)
        poller.remove("writer", fd)


async def test_the_epoll_object_is_open_only_while_a_descriptor_is_registered() -> None:
    poller = Opened(asyncio.get_running_loop())
    assert poller._poll is None
    with pair() as (sock, peer):
        for _ in range(2):
            poller.add("reader", sock.fileno(), print)
            poller.add("reader", peer.fileno(), print)
            poller.remove("reader", sock.fileno())
            assert not poller._poll.closed
            poll = poller._poll
            poller.remove("reader", peer.fileno())
            assert poll.closed
            assert poller._poll is None


async def test_a_callback_may_remove_other_registrations_of_the_same_iteration() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (one, far), pair() as (two, far2):
        calls: list[int] = []

        def stop() -> None:
            calls.append(1)
            poller.remove("reader", one.fileno())
            poller.remove("reader", two.fileno())

        poller.add("reader", one.fileno(), stop)
        poller.add("reader", two.fileno(), stop)
        far.send(b"x")
        far2.send(b"x")
        await turns()
        assert calls == [1]
        assert poller._poll is None


async def test_epoll_handles_a_limited_number_of_events_per_iteration_for_fairness() -> None:
    poller = Opened(asyncio.get_running_loop())
    with contextlib.ExitStack() as stack:
        calls: list[int] = []
        numbers = []
        for _ in range(MOST + 20):
            sock, peer = stack.enter_context(pair())
            peer.send(b"x")
            numbers.append(sock.fileno())
            poller.add("reader", sock.fileno(), partial(calls.append, sock.fileno()))
        poller._hand_out()
        assert len(calls) == len(set(calls)) == MOST
        for _ in range(3):
            poller._hand_out()
        # The system goes round.
        assert set(calls) == set(numbers)
        for fd in numbers:
            poller.remove("reader", fd)


async def test_a_descriptor_that_epoll_cannot_watch_is_an_error_and_leaves_nothing() -> None:
    poller = Opened(asyncio.get_running_loop())
    with open(__file__) as file, pytest.raises(PermissionError):
        poller.add("reader", file.fileno(), print)
    assert poller._poll is None
    assert not poller.readers


async def test_a_descriptor_closed_by_others_can_be_forgotten() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (sock, _peer):
        fd = sock.fileno()
        poller.add("reader", fd, print)
        poller.add("writer", fd, print)
        sock.close()
        poller.remove("writer", fd)
        poller.remove("reader", fd)
        assert poller._poll is None


async def test_a_loop_whose_add_reader_fails_leaves_no_epoll_descriptor_open() -> None:
    class Blind:
        def add_reader(self, *_args: object) -> None:
            raise NotImplementedError

        def is_closed(self) -> bool:
            return False

    poller = Opened(Blind())  # type: ignore[arg-type]
    with pair() as (sock, _peer), pytest.raises(NotImplementedError):
        poller.add("reader", sock.fileno(), print)
    assert poller._poll is None


def test_registrations_can_be_removed_after_the_loop_was_closed() -> None:
    loop = asyncio.new_event_loop()
    poller = Opened(loop)
    with pair() as (sock, _peer):
        poller.add("reader", sock.fileno(), print)
        loop.close()
        poller.remove("reader", sock.fileno())
    assert poller._poll is None


async def test_with_emfile_no_epoll_object_is_opened_until_a_descriptor_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    poller = Poller(asyncio.get_running_loop())
    monkeypatch.setattr(module, "_epoll", refuse)
    assert not poller.open()
    monkeypatch.undo()
    with pair() as (sock, _peer):
        assert poller.open()
        poller.add("reader", sock.fileno(), print)
        poller.remove("reader", sock.fileno())


def test_a_system_without_epoll_has_no_epoll_poller(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.new_event_loop()
    try:
        assert isinstance(poller_for(loop), Poller)
        monkeypatch.setattr(module, "_epoll", None)
        assert poller_for(loop) is None
    finally:
        loop.close()


# -- when others have closed a descriptor -----------------------------------------------


@contextlib.contextmanager
def lost(poller: Poller) -> Iterator[tuple[int, stdlib.socket]]:
    """A registered descriptor that other code has closed; its open file still exists, and is
    readable."""
    sock, peer = stdlib.socketpair()
    with peer, sock.dup():
        fd = sock.detach()
        poller.add("reader", fd, print)
        # The number that a new epoll object is given is not the one that has been closed.
        spare = os.dup(peer.fileno())
        os.close(fd)
        os.dup2(spare, fd)
        os.close(spare)
        peer.send(b"x")
        try:
            yield fd, peer
        finally:
            os.close(fd)


async def test_a_stale_descriptor_not_unregistered_is_dropped_with_the_epoll_object() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (sock, peer), lost(poller) as (fd, _peer):
        calls: list[int] = []
        poller.add("reader", sock.fileno(), lambda: calls.append(1))
        poll = poller._poll
        poller.remove("reader", fd)
        await turns()
        assert poll.closed
        assert poller._poll.poll(0) == []
        peer.send(b"x")
        await turns()
        assert calls
        poller.remove("reader", sock.fileno())


async def test_an_event_of_an_unknown_descriptor_drops_the_epoll_object_too() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (sock, _peer), pair() as (other, far):
        poller.add("reader", sock.fileno(), print)
        poll = poller._poll
        poll.register(other.fileno(), select.EPOLLIN)
        far.send(b"x")
        await turns(5)
        assert poll.closed
        assert poller._poll.poll(0) == []
        poller.remove("reader", sock.fileno())


async def test_removing_a_registration_in_the_iteration_of_its_event_is_harmless() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (one, far), pair() as (two, far2), pair() as (three, _far3):
        for _ in range(3):
            poller.add("reader", one.fileno(), lambda: poller.remove("reader", two.fileno()))
            poller.add("reader", two.fileno(), lambda: poller.remove("reader", one.fileno()))
            poller.add("reader", three.fileno(), print)
            poll = poller._poll
            far.send(b"x")
            far2.send(b"x")
            poller._hand_out()
            assert poller._poll is poll
            assert poller._fetch == poll.poll
            for fd in list(poller.readers):
                poller.remove("reader", fd)


async def test_a_reused_descriptor_number_can_be_registered() -> None:
    poller = Opened(asyncio.get_running_loop())
    with lost(poller) as (fd, _peer):
        calls: list[str] = []
        poller.add("writer", fd, lambda: calls.append("writer"))
        await turns()
        assert "writer" in calls
        poller.remove("writer", fd)
        poller.remove("reader", fd)
    assert poller._poll is None


async def test_waiters_of_a_descriptor_that_was_closed_are_called() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (sock, _peer), lost(poller) as (fd, _far):
        calls: list[int] = []
        closed = os.dup(sock.fileno())
        poller.add("reader", closed, lambda: calls.append(closed))
        os.close(closed)
        poller.add("reader", sock.fileno(), print)
        poller.remove("reader", fd)
        await turns()
        assert set(calls) == {closed}
        poller.remove("reader", closed)
        poller.remove("reader", sock.fileno())
    await turns()


async def test_no_registration_is_lost_if_no_descriptor_is_free_for_a_new_epoll_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (sock, peer), lost(poller) as (fd, _peer):
        calls: list[int] = []
        poller.add("reader", sock.fileno(), lambda: calls.append(1))
        poll = poller._poll
        poller.remove("reader", fd)
        peer.send(b"x")
        with monkeypatch.context() as patch:
            patch.setattr(module, "_epoll", Mock(side_effect=OSError(errno.EMFILE, "")))
            await turns()
        assert calls
        await turns()
        assert poll.closed
        poller.remove("reader", sock.fileno())


async def test_let_go_closes_the_epoll_object_without_unregistering() -> None:
    poller = Opened(asyncio.get_running_loop())
    with pair() as (sock, peer):
        poller.add("reader", sock.fileno(), print)
        with select.epoll.fromfd(os.dup(poller._poll.fileno())) as shared:
            asyncio.get_running_loop().remove_reader(poller._poll.fileno())
            poller.let_go()
            assert poller._poll is None
            assert not poller.readers
            peer.send(b"x")
            assert shared.poll(0) == [(sock.fileno(), select.EPOLLIN)]


# -- the epoll object of a stock loop -------------------------------------------


@pytest.mark.parametrize("keep", [True, False])
def test_a_stock_loop_gets_a_new_epoll_object(keep: bool) -> None:
    loop = asyncio.SelectorEventLoop(selectors.EpollSelector())
    left, right = stdlib.socketpair()
    with left, right, contextlib.closing(loop):
        calls: list[int] = []
        loop.add_reader(left, lambda: (calls.append(1), left.recv(1)))
        before = loop._selector._selector  # type: ignore[attr-defined]
        module.renew_epoll(loop, keep)
        assert before.closed
        right.send(b"x")
        if keep:
            loop.call_soon_threadsafe(loop.stop)
            loop.run_forever()
            loop.run_until_complete(asyncio.sleep(0))
        assert bool(calls) == keep
        assert loop.remove_reader(left) == keep


def test_a_file_that_a_stock_loop_watches_in_vain_is_found() -> None:
    loop = asyncio.SelectorEventLoop(selectors.EpollSelector())
    left, right = stdlib.socketpair()
    with right, contextlib.closing(loop), left.dup():
        fd = left.detach()
        assert not module.watches_in_vain(loop, fd)
        loop.add_reader(fd, print)
        loop.add_writer(fd, print)
        assert not module.watches_in_vain(loop, fd)
        loop.remove_reader(fd)
        assert not module.watches_in_vain(loop, fd)
        os.close(fd)
        assert module.watches_in_vain(loop, fd)
        loop.remove_writer(fd)


@pytest.mark.parametrize("acted", [False, True])
async def test_a_close_that_was_interrupted_is_repeated_before_the_next_registration(
    acted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    poller = Opened(loop)
    with pair() as (sock, peer):
        calls: list[str] = []
        poller.add("reader", sock.fileno(), lambda: calls.append("first"))

        def interrupt(fd: int) -> bool:
            patch.undo()
            if acted:
                loop.remove_reader(fd)
            raise KeyError("of a signal handler")

        patch = pytest.MonkeyPatch()
        patch.setattr(poller, "_loop", Mock(is_closed=loop.is_closed, remove_reader=interrupt))
        with pytest.raises(KeyError, match="of a signal handler"):
            poller.remove("reader", sock.fileno())
        poller.add("reader", sock.fileno(), lambda: calls.append("second"))
        peer.send(b"x")
        await turns()
        assert set(calls) == {"second"}
        poller.remove("reader", sock.fileno())
        poller.remove("reader", sock.fileno())  # does nothing
