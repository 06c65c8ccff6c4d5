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
"""

from __future__ import annotations

import select
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .host import Loop

# Absent where the system has none: macOS, Windows.
_epoll: Any = getattr(select, "epoll", None)

READ = 1  # EPOLLIN
WRITE = 4  # EPOLLOUT

# Reports fetched in one turn of the loop: few enough for the others of the loop to get theirs.
MOST = 128


class Poller:
    """Descriptors that one loop watches, with what is called when they are ready."""

    __slots__ = ("_fetch", "_loop", "_poll", "readers", "writers")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.readers: dict[int, Callable[[], object]] = {}
        self.writers: dict[int, Callable[[], object]] = {}
        # Invariant: not None while readers or writers has an entry.
        self._poll: Any = None
        self._fetch: Callable[[float, int], list[tuple[int, int]]] | None = None

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
            try:
                self._loop.add_reader(poll.fileno(), self._hand_out)
            except BaseException:
                poll.close()
                raise
            self._poll, self._fetch = poll, poll.poll
        return True

    def add(self, way: str, fd: int, callback: Callable[[], object]) -> None:
        """Have ``callback()`` called in each turn of the loop in which a descriptor is ready.

        Only after :meth:`open`.

        Args:
            way: "reader" or "writer"; no other callback may be registered for that.
            fd: The descriptor.
            callback: Is called for errors as well.

        Raises:
            OSError: The system cannot watch the descriptor.
        """
        reading = way == "reader"
        mine, others = (self.readers, self.writers) if reading else (self.writers, self.readers)
        try:
            if fd in others:
                self._poll.modify(fd, READ | WRITE)
            else:
                self._poll.register(fd, READ if reading else WRITE)
            mine[fd] = callback
        finally:
            self._close_if_empty()

    def remove(self, way: str, fd: int) -> None:
        """Forget a descriptor in one direction. It may have been closed already."""
        reading = way == "reader"
        mine, others = (self.readers, self.writers) if reading else (self.writers, self.readers)
        del mine[fd]
        with suppress(OSError):
            if fd in others:
                self._poll.modify(fd, WRITE if reading else READ)
            else:
                self._poll.unregister(fd)
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
        for fd, events in self._fetch(0, MOST):  # type: ignore[misc]
            # An error (neither bit) concerns both.
            if events != WRITE and fd in readers:
                readers[fd]()
            if events != READ and fd in writers:
                writers[fd]()


def poller_for(loop: Loop) -> Poller | None:
    """A poller, or None where the system has no epoll."""
    return None if _epoll is None else Poller(loop)
