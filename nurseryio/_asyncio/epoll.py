"""One epoll object between a loop and all file descriptors that stay registered with it.

This module has :class:`Poller`, and two functions for the epoll object that a stock loop has of its
own. Which task waits for a descriptor, and how it is woken, is in ``_loop.readiness``.

Rule 1: the loop, of any kind, watches a single descriptor: that of the epoll object. All reports of
the epoll object are fetched in one call and handed out directly. For each descriptor this costs
less than a handle of the loop.

Rule 2: reports are *level-triggered*: a report that no code has handled comes again in the next
iteration of the loop. This holds for errors as well. (uvloop's ``add_reader`` reports an error
once, and then has silently forgotten the descriptor.)

Rule 3: the epoll object is open only while a descriptor is registered, so that nothing is left
over.

Rule 4: the system knows a registration by its number *and* its open file. Other code may close the
number while the open file still exists (in a duplicate, in a forked child). Then the registration
cannot be removed, and is reported for ever. A new epoll object, made from the tables, then replaces
the old one.
"""

from __future__ import annotations

import contextlib
import select
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .compat import Loop

# None on systems without epoll: macOS, Windows.
_epoll: Any = getattr(select, "epoll", None)

READ = 1  # EPOLLIN
WRITE = 4  # EPOLLOUT

# How many reports are fetched in one iteration: few enough that other callbacks are not delayed.
MOST = 128


class Poller:
    """Descriptors that one loop watches, and the callbacks for when they are ready."""

    __slots__ = ("_fetch", "_loop", "_poll", "_unknown", "readers", "writers")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.readers: dict[int, Callable[[], object]] = {}
        self.writers: dict[int, Callable[[], object]] = {}
        # Invariant: not None while readers or writers has an entry.
        self._poll: Any = None
        # The method ``poll`` of the epoll object, or a function that makes a new object first.
        self._fetch: Callable[[float, int], list[tuple[int, int]]] | None = None
        # Numbers in the last reports that are in neither table.
        self._unknown: set[int] = set()

    def open(self) -> bool:
        """Prepare for :meth:`add`: make the epoll object if there is none.

        Returns:
            False if the process has no descriptor left.
        """
        if self._poll is not None:
            self._close_if_empty()  # again, if it was interrupted
        if self._poll is None:
            try:
                poll = _epoll()
            except OSError:
                return False
            self._begin_with(poll)
        return True

    def _begin_with(self, poll: Any) -> None:
        try:
            self._loop.add_reader(poll.fileno(), self._hand_out)
        except BaseException:
            poll.close()
            raise
        self._poll, self._fetch = poll, poll.poll
        self._unknown = set()

    def add(self, direction: str, fd: int, callback: Callable[[], object]) -> None:
        """Have ``callback()`` called in each iteration of the loop in which a descriptor is ready.

        Call :meth:`open` first.

        Args:
            direction: "reader" or "writer". No other callback may be registered for it.
            fd: The descriptor.
            callback: The function. It is called for errors as well.

        Raises:
            OSError: The system cannot watch the descriptor.
        """
        reading = direction == "reader"
        mine, others = (self.readers, self.writers) if reading else (self.writers, self.readers)
        try:
            try:
                if fd in others:
                    self._poll.modify(fd, READ | WRITE)
                else:
                    self._poll.register(fd, READ if reading else WRITE)
            except (FileNotFoundError, FileExistsError):
                # Other code has closed the number of an earlier registration, and it is used again.
                self._distrust()
                if fd in others:
                    self._poll.register(fd, READ | WRITE)
                else:
                    self._poll.modify(fd, READ if reading else WRITE)
            mine[fd] = callback
        except BaseException:
            self._close_if_empty()
            raise

    def remove(self, direction: str, fd: int) -> None:
        """Remove a descriptor in one direction. It may have been closed or removed already."""
        reading = direction == "reader"
        mine, others = (self.readers, self.writers) if reading else (self.writers, self.readers)
        mine.pop(fd, None)
        if self._poll is None:
            return
        try:
            if fd in others:
                self._poll.modify(fd, WRITE if reading else READ)
            else:
                self._poll.unregister(fd)
        except OSError:
            self._distrust()
        self._close_if_empty()

    def _close_if_empty(self) -> None:
        if not (self.readers or self.writers):
            poll = self._poll
            if not self._loop.is_closed():
                self._loop.remove_reader(poll.fileno())
            self._poll = self._fetch = None
            poll.close()

    def _hand_out(self) -> None:
        """The loop's callback: something is ready."""
        readers, writers = self.readers, self.writers
        # A callback may register and remove others. A descriptor that was removed is skipped.
        unknown = None
        for fd, events in self._fetch(0, MOST):  # type: ignore[misc]
            # An error (neither bit) concerns both.
            if events != WRITE and fd in readers:
                readers[fd]()
                if events != READ and fd in writers:
                    writers[fd]()
            elif events != READ and fd in writers:
                writers[fd]()
            elif fd not in readers and fd not in writers:
                unknown = {fd} if unknown is None else {fd, *unknown}
        if unknown is not None:
            # The first time, another callback of this iteration may have removed it.
            if unknown & self._unknown:
                self._distrust()
            self._unknown = unknown

    # -- when the system's table differs from this one --------------------------

    def _distrust(self) -> None:
        """Have a new epoll object made before the next reports are fetched (rule 4)."""
        if self._poll is not None:
            self._fetch = self._renew_and_fetch

    def _renew_and_fetch(self, timeout: float, most: int) -> list[tuple[int, int]]:
        before = self._poll
        try:
            poll = _epoll()
        except OSError:
            # No descriptor is left for it: the next iteration tries again.
            reports: list[tuple[int, int]] = before.poll(timeout, most)
            return reports
        self._begin_with(poll)
        self._loop.remove_reader(before.fileno())
        before.close()
        for fd in {*self.readers, *self.writers}:
            try:
                poll.register(fd, READ * (fd in self.readers) + WRITE * (fd in self.writers))
            except OSError:
                self._report_closed(fd)
        reports = poll.poll(timeout, most)
        return reports

    def _report_closed(self, fd: int) -> None:
        """Wake the tasks that wait for a number without an open file: their next call fails."""
        for table in (self.readers, self.writers):
            callback = table.get(fd)
            if callback is not None:
                # Twice: a task that has just begun to wait ignores the first report.
                self._loop.call_soon(callback)
                self._loop.call_soon(callback)

    def let_go(self) -> None:
        """In a forked child: forget all descriptors. The epoll object is shared with the parent."""
        poll, self._poll, self._fetch = self._poll, None, None
        self.readers.clear()
        self.writers.clear()
        if poll is not None:
            poll.close()


def poller_for(loop: Loop) -> Poller | None:
    """A poller, or None if the system does not have epoll."""
    return None if _epoll is None else Poller(loop)


# -- the epoll object of a stock loop --------------------------------------------

# Absent where the system has no epoll.
_EpollSelector: Any = getattr(selectors, "EpollSelector", ())


def renew_epoll(loop: Loop, keep: bool) -> None:
    """Give a stock loop a new epoll object.

    It watches nothing; with ``keep``, it watches those of the loop's descriptors that are open.

    Raises:
        OSError: No descriptor is left for the object. Nothing has changed.
    """
    selector = getattr(loop, "_selector", None)
    if not isinstance(selector, _EpollSelector):
        return
    before = selector._selector
    with type(before)() as low:
        selector._selector = type(before).fromfd(_duplicate_above(low.fileno(), before.fileno()))
    before.close()
    for key in list(selector.get_map().values()):
        selector.unregister(key.fileobj)
        if keep:
            with contextlib.suppress(OSError):
                selector.register(key.fileobj, key.events, key.data)


def _duplicate_above(fd: int, below: int) -> int:
    """Duplicate a descriptor, under a number greater than ``below``.

    The new epoll object is needed because other code has closed a number that was not its to close.
    That code may do so again, and the lowest free number may be that number.
    """
    import fcntl  # not on Windows

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, below + 1)


def watches_in_vain(loop: Loop, fd: int) -> bool:
    """Whether a stock loop watches a file whose descriptor ``fd`` other code has closed."""
    selector = getattr(loop, "_selector", None)
    if isinstance(selector, _EpollSelector) and fd in selector.get_map():
        events = selector.get_key(fd).events
        try:  # without changing anything; EPOLLIN is 1, EPOLLOUT is 4
            selector._selector.modify(fd, events & 1 | (events & 2) * 2)
        except OSError:
            return True
    return False
