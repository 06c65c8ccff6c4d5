"""One epoll object between a loop and all descriptors that stay registered with it.

What lives here: :class:`Poller`. What does not: who waits for a descriptor, and how it is woken
(:mod:`readiness`).

Rule 1: the loop, whichever it is, watches a single descriptor, that of the epoll object. What is
ready behind it is fetched in one go and handed out directly, which costs less for each descriptor
than a handle of the loop's.

Rule 2: reports are *level-triggered*: what nobody has dealt with is reported again in the loop's
next turn. That holds for errors as well. (uvloop's own ``add_reader`` reports an error once, and
then has silently forgotten the descriptor.)

Rule 3: the epoll object is open while a descriptor is registered, so that nothing is left over.

Rule 4: the system knows a registration by its number *and* its open file. If others close the
number while the open file lives on (in a duplicate, in a forked child), it can be taken out no
more, and is reported for ever. Then a new epoll object, made from the tables, takes the place of
the old one.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .compat import Loop

# Absent where the system has none: macOS, Windows.
_epoll: Any = getattr(select, "epoll", None)

READ = 1  # EPOLLIN
WRITE = 4  # EPOLLOUT

# Reports fetched in one turn of the loop: few enough for the others of the loop to get theirs.
MOST = 128


class Poller:
    """Descriptors that one loop watches, with what is called when they are ready."""

    __slots__ = ("_fetch", "_loop", "_poll", "_unknown", "readers", "writers")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.readers: dict[int, Callable[[], object]] = {}
        self.writers: dict[int, Callable[[], object]] = {}
        # Invariant: not None while readers or writers has an entry.
        self._poll: Any = None
        # Its method, or what makes a new epoll object first.
        self._fetch: Callable[[float, int], list[tuple[int, int]]] | None = None
        # Numbers that were reported lately, and are in neither table.
        self._unknown: set[int] = set()

    def open(self) -> bool:
        """Be ready for :meth:`add`.

        Returns:
            False if the process has no descriptor left.
        """
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
        """Have ``callback()`` called in each turn of the loop in which a descriptor is ready.

        Only after :meth:`open`.

        Args:
            way: "reader" or "writer"; no other callback may be registered for that.
            fd: The descriptor.
            callback: Is called for errors as well.

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
                # Others have closed the number of an earlier registration, and it is used again.
                self._distrust()
                if fd in others:
                    self._poll.register(fd, READ | WRITE)
                else:
                    self._poll.modify(fd, READ if reading else WRITE)
            mine[fd] = callback
        finally:
            self._close_if_empty()

    def remove(self, direction: str, fd: int) -> None:
        """Forget a descriptor in one direction. It may have been closed already."""
        reading = direction == "reader"
        mine, others = (self.readers, self.writers) if reading else (self.writers, self.readers)
        del mine[fd]
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
            if not self._loop.is_closed():
                self._loop.remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = self._fetch = None

    def _hand_out(self) -> None:
        """The loop's callback: something is ready."""
        readers, writers = self.readers, self.writers
        # A callback may register and remove others; what is gone by its turn is passed over.
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
            # The first time it may have been forgotten by another callback of this turn.
            if unknown & self._unknown:
                self._distrust()
            self._unknown = unknown

    # -- when the system's table is not ours any more ---------------------------

    def _distrust(self) -> None:
        """Have a new epoll object made before the next reports are fetched (rule 4)."""
        if self._poll is not None:
            self._fetch = self._renew_and_fetch

    def _renew_and_fetch(self, timeout: float, most: int) -> list[tuple[int, int]]:
        before = self._poll
        try:
            poll = _epoll()
        except OSError:
            # No descriptor is left for it: the next turn tries again.
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
        """A number of the tables stands for no open file: who waits for it finds out by trying."""
        for table in (self.readers, self.writers):
            callback = table.get(fd)
            if callback is not None:
                # Twice: one that has just begun to wait passes the first report over.
                self._loop.call_soon(callback)
                self._loop.call_soon(callback)

    def let_go(self) -> None:
        """In a forked child: forget everything. The epoll object is shared with the parent."""
        poll, self._poll, self._fetch = self._poll, None, None
        self.readers.clear()
        self.writers.clear()
        if poll is not None:
            poll.close()


def poller_for(loop: Loop) -> Poller | None:
    """A poller, or None where the system has no epoll."""
    return None if _epoll is None else Poller(loop)
