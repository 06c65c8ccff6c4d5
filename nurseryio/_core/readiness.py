"""Waiting until the system can take or give bytes: the one mechanism below sockets, streams and pipes.

What lives here: :class:`Readable` and :class:`Writable`, which a task awaits, and the three public
functions on any file descriptor. What does not: reading and writing.

Rule 1: one object per file descriptor and direction, found through the loop's table, so that two
tasks that wait for the same thing are told so, and closing finds whoever waits.

Rule 2: the kernel's queue is the only buffer. Being woken means "try now"; nothing has been taken
out, so nothing is lost if a cancellation comes in between.

Rule 3: the object is what the task awaits: it follows asyncio's protocol for futures and can be
awaited again and again, so that waiting allocates little. On a stock loop the task is woken from
within the loop's callback: it makes its step there and then, as a ``Protocol`` would, and not a
turn of the loop later. Callbacks that were ready when the task went to sleep have run by then,
because the loop puts those of its selector behind them. On other loops, which promise no order,
and while instruments watch, the step goes through ``call_soon`` like every other.

Rule 4: a *kept* object stays registered with the loop between two waits, and is unregistered when
the loop finds that nobody waits any more. In the usual case that saves two system calls a wait. It
is for descriptors that are closed through this library alone: the loop's table would go wrong
if somebody else closed the descriptor.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from . import host
from .errors import BusyResourceError, Cancelled, ClosedResourceError
from .task import LoopState, current_state, current_task
from .traps import checkpoint_if_cancelled

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Generator

    from typing_extensions import TypeAlias

__all__ = [
    "Readable",
    "Writable",
    "kept",
    "notify_closing",
    "wait_readable",
    "wait_writable",
    "waiting_for_io",
]


class HasFileno(Protocol):
    """Anything with a file descriptor: sockets, files."""

    def fileno(self) -> int:
        """The file descriptor."""
        ...


class Readiness:
    """What one task at a time awaits until its file descriptor is ready. See the two subclasses.

    Args:
        state: The loop.
        fd: The file descriptor.
        keep: Stay registered with the loop between waits; see rule 4.
    """

    __slots__ = (
        "_armed",
        "_asyncio_future_blocking",
        "_context",
        "_direct",
        "_error",
        "_fd",
        "_keep",
        "_others",
        "_state",
        "_waiting",
        "_wakeup",
    )

    # What the descriptor is to be ready for, and the key of the loop's table.
    purpose: ClassVar[str]

    def __init__(self, state: LoopState, fd: int, keep: bool) -> None:
        self._state = state
        self._fd = fd
        self._keep = keep
        self._direct = host.selector_of(state.loop) is not None
        # Whether the loop calls _ready().
        self._armed = False
        # From the first step of an await to its last.
        self._waiting = False
        # Invariant: not None exactly while a task is suspended here and nobody has woken it.
        self._wakeup: Callable[[object], object] | None = None
        self._context: contextvars.Context | None = None
        # What the task that was woken raises.
        self._error: BaseException | None = None
        # Callbacks of others that want to know when the wait is over.
        self._others: list[tuple[Callable[[object], object], Any]] = []
        self._asyncio_future_blocking = False

    def __repr__(self) -> str:
        return f"<waiting until fd {self._fd} is {self.purpose}>"

    def _busy(self) -> BusyResourceError:
        return BusyResourceError(
            f"another task is already waiting until fd {self._fd} is {self.purpose}"
        )

    def __await__(self) -> Generator[Readiness, None, None]:
        if self._waiting:
            raise self._busy()
        if not self._armed:
            self._arm()
        self._waiting = True
        self._asyncio_future_blocking = True
        try:
            yield self
        finally:
            self._waiting = False
            self._wakeup = None
            if not self._keep:
                self.disarm()

    # -- what the loop and our own side call -----------------------------------

    def _ready(self) -> None:
        """The loop's callback: the descriptor is ready."""
        wakeup = self._wakeup
        if wakeup is None:
            self.disarm()
            return
        if not self._keep:
            self.disarm()
        if self._direct and self._state.instruments is None and not self._others:
            self._wakeup = None
            self._context.run(wakeup, self)  # type: ignore[union-attr]
        else:
            self._wake_soon(None)

    def _wake_soon(self, error: BaseException | None) -> None:
        """Have the task make its step at the loop's next turn."""
        wakeup, self._wakeup = self._wakeup, None
        self._error = error
        call_soon = self._state.loop.call_soon
        call_soon(wakeup, self, context=self._context)  # type: ignore[arg-type]
        others, self._others = self._others, []
        for callback, context in others:
            call_soon(callback, self, context=context)

    def _arm(self) -> None:
        if self._keep and _table(self._state, self.purpose).setdefault(self._fd, self) is not self:
            raise self._busy()
        self._watch()
        self._armed = True

    def disarm(self) -> None:
        """Take the descriptor out of the loop's hands until the next wait."""
        if self._armed:
            self._armed = False
            if self._keep:
                _table(self._state, self.purpose).pop(self._fd, None)
            if not self._state.loop.is_closed():
                self._unwatch()

    def close(self) -> None:
        """The descriptor is about to be closed: whoever waits gets :class:`ClosedResourceError`."""
        self.disarm()
        if self._wakeup is not None:
            self._wake_soon(ClosedResourceError("another task closed this file descriptor"))

    def _watch(self) -> None:
        raise NotImplementedError

    def _unwatch(self) -> None:
        raise NotImplementedError

    # -- asyncio's protocol for what a task waits for ---------------------------

    def get_loop(self) -> host.Loop:
        """The loop whose tasks may wait here."""
        return self._state.loop

    def add_done_callback(
        self, callback: Callable[[object], object], *, context: contextvars.Context | None = None
    ) -> None:
        """Keep what wakes the task: its own callback is the first of a wait."""
        if self._wakeup is None:
            self._wakeup = callback
            self._context = context
        else:
            self._others.append((callback, context))

    def remove_done_callback(self, callback: Callable[[object], object]) -> int:
        """Forget a callback that somebody else has added."""
        before = len(self._others)
        self._others = [pair for pair in self._others if pair[0] != callback]
        return before - len(self._others)

    def cancel(self, msg: Any = None) -> bool:
        """The waiting task is cancelled."""
        if self._wakeup is None:
            return False
        self._wake_soon(Cancelled() if msg is None else Cancelled(msg))
        return True

    def done(self) -> bool:
        """Whether nobody waits, or the one who does has been woken."""
        return self._wakeup is None

    def result(self) -> None:
        """Called by the task as it wakes: raises what it is woken with."""
        error = self._error
        if error is not None:
            self._error = None
            try:
                raise error
            finally:
                del error


class Readable(Readiness):
    """Awaited until bytes, a connection or the end can be read."""

    __slots__ = ()

    purpose = "readable"

    def _watch(self) -> None:
        self._state.loop.add_reader(self._fd, self._ready)

    def _unwatch(self) -> None:
        self._state.loop.remove_reader(self._fd)


class Writable(Readiness):
    """Awaited until there is room for bytes, or a connection attempt is decided."""

    __slots__ = ()

    purpose = "writable"

    def _watch(self) -> None:
        self._state.loop.add_writer(self._fd, self._ready)

    def _unwatch(self) -> None:
        self._state.loop.remove_writer(self._fd)


# -- the loop's tables ----------------------------------------------------------

Table: TypeAlias = dict[int, Readiness]


def _table(state: LoopState, purpose: str) -> Table:
    """Who waits, or is registered, on one loop for one purpose, by file descriptor."""
    table: Table = state.locals.setdefault(purpose, {})
    return table


def waiting_for_io(state: LoopState) -> tuple[int, int]:
    """How many tasks of a loop wait here: for reading, for writing."""
    reading, writing = (
        sum(entry._waiting for entry in _table(state, kind.purpose).values())
        for kind in (Readable, Writable)
    )
    return reading, writing


def _fileno(fd: int | HasFileno) -> int:
    if not isinstance(fd, int):
        if not hasattr(fd, "fileno"):
            raise TypeError(f"expected a file descriptor or an object with fileno(), not {fd!r}")
        fd = fd.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return fd


async def _wait(kind: type[Readiness], fd: int | HasFileno) -> None:
    state = current_task()._state
    fd = _fileno(fd)
    table = _table(state, kind.purpose)
    entry = table.get(fd)
    if entry is not None:
        if entry._waiting:
            raise entry._busy()
        await checkpoint_if_cancelled()
        await entry
        return
    await checkpoint_if_cancelled()
    entry = table[fd] = kind(state, fd, False)
    try:
        await entry
    finally:
        if table.get(fd) is entry:
            del table[fd]


async def wait_readable(fd: int | HasFileno) -> None:
    """Wait until the system says that ``fd`` can be read from: there is something, or the end.

    Args:
        fd: a file descriptor, or an object with a ``fileno()`` method. It should be in
            non-blocking mode.

    Raises:
        BusyResourceError: another task is waiting for the same already.
        ClosedResourceError: :func:`notify_closing` was called for it meanwhile.
        OSError: it is no open file descriptor, or of a kind that cannot be waited for.
        NotImplementedError: the loop cannot watch file descriptors (Windows' Proactor loop).
        Cancelled: if the task is cancelled while it waits.

    Checkpoint: yes.

    Trio: ``trio.lowlevel.wait_readable``.
    """
    await _wait(Readable, fd)


async def wait_writable(fd: int | HasFileno) -> None:
    """Wait until the system says that ``fd`` can be written to.

    Args:
        fd: as for :func:`wait_readable`.

    Raises:
        BusyResourceError: another task is waiting for the same already.
        ClosedResourceError: :func:`notify_closing` was called for it meanwhile.
        OSError: it is no open file descriptor, or of a kind that cannot be waited for.
        NotImplementedError: the loop cannot watch file descriptors (Windows' Proactor loop).
        Cancelled: if the task is cancelled while it waits.

    Checkpoint: yes.

    Trio: ``trio.lowlevel.wait_writable``.
    """
    await _wait(Writable, fd)


def notify_closing(fd: int | HasFileno) -> None:
    """Say that ``fd`` is about to be closed. To be called right before closing it.

    Tasks that wait for it get :class:`ClosedResourceError` instead of waiting for ever.

    Args:
        fd: as for :func:`wait_readable`. One that is closed already is ignored.

    Raises:
        RuntimeError: where no loop is running.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.lowlevel.notify_closing``.
    """
    state = current_state()
    number = fd if isinstance(fd, int) else fd.fileno()
    for kind in (Readable, Writable):
        entry = _table(state, kind.purpose).pop(number, None)
        if entry is not None:
            entry.close()


def kept(kind: type[Readiness], state: LoopState, fd: int) -> Readiness:
    """An object for a descriptor that this library opened and will close itself; see rule 4."""
    return kind(state, fd, True)
