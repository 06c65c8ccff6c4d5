"""Waiting until a file descriptor is ready, on any loop that can watch one.

Rule 1: one task may wait for one direction of one descriptor. The loop's watch is taken off as
soon as the wait is over, so that nothing is left behind when the number is used again.

Rule 2: whoever closes a descriptor says so first, by :func:`notify_closing`; closing does not
wake anybody of itself.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .delivery import Abort
from .errors import BusyResourceError, ClosedResourceError
from .loop_state import LoopState
from .outcome import Error
from .readiness import Readiness, waits
from .task import Task, current_state, current_task
from .traps import checkpoint_if_cancelled, reschedule, wait_task_rescheduled
from .watching import cannot_watch

if TYPE_CHECKING:
    from typing_extensions import Protocol

    class HasFileno(Protocol):
        """Anything that has a file descriptor."""

        def fileno(self) -> int:
            """The descriptor."""


async def wait_readable(fd: int | HasFileno) -> None:
    """Wait until there is something to read, or to accept, at a file descriptor.

    Args:
        fd: the descriptor, or an object with ``fileno()``; its kind must be one that the loop
            can watch (sockets and pipes, not regular files).

    Raises:
        BusyResourceError: another task waits for the same already.
        ClosedResourceError: somebody called :func:`notify_closing` meanwhile.
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
        BusyResourceError: another task waits for the same already.
        ClosedResourceError: somebody called :func:`notify_closing` meanwhile.
        Cancelled: if the task is cancelled while it waits.
        NotImplementedError: the loop cannot watch descriptors (Windows' Proactor loop).
        OSError: the loop cannot watch the descriptor.
        TypeError: ``fd`` is neither an int nor an object with ``fileno()``.

    Checkpoint: yes.

    Trio: ``trio.lowlevel.wait_writable``.
    """
    await _wait(fd, "writer")


def notify_closing(fd: int | HasFileno) -> None:
    """Say that a file descriptor is about to be closed: whoever waits for it is woken.

    Args:
        fd: the descriptor, or an object with ``fileno()``.

    Raises:
        RuntimeError: where no loop is running.
        TypeError: ``fd`` is neither an int nor an object with ``fileno()``.

    Checkpoint: no. The waiting tasks get :exc:`ClosedResourceError`.

    Trio: ``trio.lowlevel.notify_closing``.
    """
    number = _number(fd)
    state = current_state()
    for way in ("reader", "writer"):
        standing = waits(state).get((number, way))
        if isinstance(standing, Readiness):
            standing.close()
            continue
        task = _stop(state, number, way)
        if task is not None:
            reschedule(task, Error(ClosedResourceError("another task closed this fd")))


async def _wait(fd: Any, way: str) -> None:
    number = _number(fd)
    task = current_task()
    state = task._state
    table = waits(state)
    standing = table.get((number, way))
    if isinstance(standing, Readiness):
        # A stream or socket of ours is registered; wait where it would.
        await checkpoint_if_cancelled()
        await standing
        return
    if standing is not None:
        raise BusyResourceError(
            f"another task is already waiting for fd {number} as a {way}; only one may"
        )
    try:
        getattr(state.loop, f"add_{way}")(number, _ready, state, number, way)
    except NotImplementedError:
        raise cannot_watch(state.loop, "wait_readable() and wait_writable()") from None
    table[number, way] = task

    def abort(_raise_cancel: object) -> Abort:
        _stop(state, number, way)
        return Abort.SUCCEEDED

    await wait_task_rescheduled(abort)


def _ready(state: LoopState, number: int, way: str) -> None:
    task = _stop(state, number, way)
    if task is not None:
        reschedule(task)


def _stop(state: LoopState, number: int, way: str) -> Task | None:
    task = waits(state).pop((number, way), None)
    if task is None or isinstance(task, Readiness):
        return None
    # It fails if somebody has closed the descriptor without telling: nothing is left to remove.
    with suppress(OSError):
        getattr(state.loop, f"remove_{way}")(number)
    return task


def _number(fd: Any) -> int:
    if not isinstance(fd, int):
        if not hasattr(fd, "fileno"):
            raise TypeError(f"expected a file descriptor or an object with fileno(), not {fd!r}")
        fd = fd.fileno()
    if fd < 0:
        # The error that the system has for a number that stands for no open file.
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    number: int = fd
    return number
