"""Waiting once until a file descriptor is ready, on any loop that can watch descriptors.

Rule 1: one task may wait for one direction of one descriptor. The registration ends as soon as the
wait is over, so none is left when the number is used again.

Rule 2: a wait keeps a reference to the object that it was given, so that the garbage collector does
not close the descriptor meanwhile.

Rule 3: code that closes a descriptor calls :func:`notify_closing` first. Closing alone does not
wake the waiting task.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from .._base.errors import BusyResourceError, ClosedResourceError
from .._base.outcome import Error
from .._core.delivery import Abort
from .._core.task import current_state, current_task
from .._core.traps import reschedule, wait_task_rescheduled
from .readiness import stop_watching, waits
from .watching import cannot_watch

if TYPE_CHECKING:
    from .._asyncio.epoll import Poller
    from .._core.task import Task
    from .readiness import HasFileno


async def wait_readable(fd: int | HasFileno) -> None:
    """Wait until a file descriptor has data to read, or a connection to accept.

    Args:
        fd: the descriptor, or an object with ``fileno()``; its kind must be one that the loop
            can watch (sockets and pipes, not regular files).

    Raises:
        BusyResourceError: another task waits for the same descriptor and direction already.
        ClosedResourceError: :func:`notify_closing` was called meanwhile.
        Cancelled: if the task is cancelled while it waits.
        NotImplementedError: the loop cannot watch descriptors (Windows' Proactor loop).
        OSError: the loop cannot watch the descriptor.
        TypeError: ``fd`` is neither an int nor an object with ``fileno()``.

    Checkpoint: yes.

    Trio: ``trio.lowlevel.wait_readable``.
    """
    await _wait(fd, "reader")


async def wait_writable(fd: int | HasFileno) -> None:
    """Wait until a file descriptor takes more data.

    Args:
        fd: the descriptor, or an object with ``fileno()``; its kind must be one that the loop
            can watch (sockets and pipes, not regular files).

    Raises:
        BusyResourceError: another task waits for the same descriptor and direction already.
        ClosedResourceError: :func:`notify_closing` was called meanwhile.
        Cancelled: if the task is cancelled while it waits.
        NotImplementedError: the loop cannot watch descriptors (Windows' Proactor loop).
        OSError: the loop cannot watch the descriptor.
        TypeError: ``fd`` is neither an int nor an object with ``fileno()``.

    Checkpoint: yes.

    Trio: ``trio.lowlevel.wait_writable``.
    """
    await _wait(fd, "writer")


def notify_closing(fd: int | HasFileno) -> None:
    """Announce that a file descriptor is about to be closed, and wake the tasks that wait for it.

    Args:
        fd: the descriptor, or an object with ``fileno()``.

    Raises:
        RuntimeError: where no loop is running.
        TypeError: ``fd`` is neither an int nor an object with ``fileno()``.

    Checkpoint: no. The waiting tasks get :exc:`ClosedResourceError`.

    Trio: ``trio.lowlevel.notify_closing``.
    """
    number = _number(fd)
    table = waits(current_state())
    for direction in ("reader", "writer"):
        standing = table.get((number, direction))
        if standing is not None:
            standing.close()


class _Once:
    """A task's wait for one descriptor: an entry of the loop's table.

    Args:
        task: The task.
        source: The caller's argument: the number, or the object that has it.
        number: The number.
        direction: "reader" or "writer".
    """

    __slots__ = ("_number", "_poller", "_source", "_task", "_direction", "armed")

    def __init__(self, task: Task, source: int | HasFileno, number: int, direction: str) -> None:
        self._task = task
        self._source = source
        self._number = number
        self._direction = direction
        # The poller that watches the descriptor; None stands for the loop itself.
        self._poller: Poller | None = None
        self.armed = False

    def arm(self) -> None:
        state = self._task._state
        table = waits(state)
        # uvloop itself is not used: it registers a descriptor with the system only later, and if
        # that fails, it ends the process.
        poller = None if table.loop_keeps else table.poller
        try:
            if poller is not None and poller.open():
                poller.add(self._direction, self._number, self._ready)
                self._poller = poller
            else:
                add = partial(
                    getattr(state.loop, f"add_{self._direction}"), self._number, self._ready
                )
                table.watch(self._number, self._direction, add)
        except NotImplementedError:
            raise cannot_watch(state.loop, "wait_readable() and wait_writable()") from None
        table[self._number, self._direction] = self
        self.armed = True

    def disarm(self) -> bool:
        """End the registration. False if it has ended already."""
        if not self.armed:
            return False
        self.armed = False
        state = self._task._state
        del waits(state)[self._number, self._direction]
        if self._poller is not None:
            self._poller.remove(self._direction, self._number)
        elif not state.loop.is_closed():
            remove = partial(getattr(state.loop, f"remove_{self._direction}"), self._number)
            stop_watching(state.loop, self._number, remove)
        return True

    def _ready(self) -> None:
        if self.disarm():
            reschedule(self._task)

    def abort(self, _raise_cancel: object) -> Abort:
        self.disarm()
        return Abort.SUCCEEDED

    def is_awaited(self) -> bool:
        return True

    def has_lost(self) -> bool:
        if isinstance(self._source, int):
            return False
        try:
            return self._source.fileno() != self._number
        except Exception:
            return True  # a file object that has been closed

    def close(self) -> None:
        if self.disarm():
            error = ClosedResourceError("another task closed this fd")
            reschedule(self._task, Error(error))


async def _wait(fd: Any, direction: str) -> None:
    number = _number(fd)
    task = current_task()
    if not waits(task._state).has_room(number, direction):
        raise BusyResourceError("another task is already reading / writing this fd")
    once = _Once(task, fd, number, direction)
    once.arm()
    await wait_task_rescheduled(once.abort)


def _number(fd: Any) -> int:
    if not isinstance(fd, int):
        if not hasattr(fd, "fileno"):
            raise TypeError(f"expected a file descriptor or an object with fileno(), not {fd!r}")
        fd = fd.fileno()
    if fd < 0:
        # The system's error for a number that is not an open file's.
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    number: int = fd
    return number
