"""Waiting for a file descriptor again and again, fast: what streams and sockets stand on.

What lives here: :class:`Readable` and :class:`Writable`, which a task awaits, and the loop's table
of who waits for which descriptor. What does not: reading and writing, and the public functions
for waiting once (:mod:`waitio`).

Rule 1: while it waits or is registered, an object stands in the loop's table, so that two tasks
that wait for the same thing are told so, and closing finds whoever waits.

Rule 2: the kernel's queue is the only buffer. Being woken means "try now"; nothing has been taken
out, so nothing is lost if a cancellation comes in between.

Rule 3: the object is what the task awaits: it follows asyncio's protocol for futures and can be
awaited again and again, so that waiting allocates little. On a stock loop the task is woken from
within the loop's callback: it makes its step there and then, as a ``Protocol`` would, and not a
turn of the loop later. Callbacks that were ready when the task went to sleep have run by then,
because the loop puts those of its selector behind them; and what the selector may have reported
before that is passed over. On other loops, which promise no order, and while instruments watch, the
step goes through ``call_soon`` like every other.

Rule 4: an object may be told to *keep* its registration with the loop between two waits; it is
taken back when the loop finds that nobody waits any more. In the usual case that saves two system
calls a wait. It is for descriptors that are closed through this library alone: the loop's own table
would go wrong if somebody else closed the descriptor.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from . import host
from .errors import BusyResourceError, Cancelled, ClosedResourceError

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Generator

    from .task import LoopState, Task

__all__ = ["Readable", "Readiness", "Writable", "waits"]

_WAITS = object()  # the key of a loop's table among its local values


class Waits(dict[tuple[int, str], "Task | Readiness"]):
    """Who waits, or is registered, on one loop: by descriptor and "reader" or "writer"."""

    __slots__ = ("waking",)

    # The object whose task is making its step right now, from within the loop's callback.
    waking: Readiness | None


def waits(state: LoopState) -> Waits:
    """The table of one loop."""
    table: Waits | None = state.locals.get(_WAITS)
    if table is None:
        table = state.locals[_WAITS] = Waits()
        table.waking = None
    return table


class Readiness:
    """What one task at a time awaits until its file descriptor is ready. See the two subclasses.

    Args:
        state: The loop.
        fd: The file descriptor.
        keep: Stay registered with the loop between waits; see rule 4.
    """

    __slots__ = (
        "_asyncio_future_blocking",
        "_context",
        "_direct",
        "_error",
        "_fd",
        "_keep",
        "_others",
        "_stale",
        "_table",
        "_waiting",
        "_wakeup",
        "armed",
        "exhausted",
        "queue",
        "state",
    )

    # The direction, as the loop's table and methods have it, and for people.
    way: ClassVar[str]
    purpose: ClassVar[str]

    def __init__(self, state: LoopState, fd: int, keep: bool) -> None:
        self.state = state
        self._table = waits(state)
        self._fd = fd
        self._keep = keep
        self._direct = host.selector_of(state.loop) is not None
        # Not empty while others are ready to run.
        self.queue = host.ready_queue(state.loop)
        # Whether the loop calls _ready().
        self.armed = False
        # For the caller's use: the last try took all there was, so the next one comes after a wait.
        self.exhausted = False
        # The next callback of the loop may be about something from before the wait. Not so if the
        # task waits for the same again from within that callback.
        self._stale = False
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
        if not self.armed:
            self._arm()
        else:
            self._stale = self._table.waking is not self
        self._waiting = self._asyncio_future_blocking = True
        try:
            yield self
        finally:
            self._waiting = False
            self._wakeup = self._context = None
            if not self._keep:
                self.disarm()

    # -- what the loop and our own side call -----------------------------------

    def _ready(self) -> None:
        """The loop's callback: the descriptor is ready."""
        wakeup = self._wakeup
        if wakeup is None:
            # More has come, and nobody wants it yet.
            self.exhausted = False
            self.disarm()
            return
        if self._stale and self._direct:
            # The loop may have had this in hand before the task slept. It will say so again.
            self._stale = False
            return
        if not self._keep:
            self.disarm()
        if not self._direct:
            self._wake_soon(None)
        elif self.state.instruments is None and not self._others:
            self._wakeup = None
            table = self._table
            table.waking = self
            try:
                self._context.run(wakeup, self)  # type: ignore[union-attr]
            finally:
                table.waking = None
        else:
            # The loop would look again, and report the same once more, before the task has run.
            self.disarm()
            self._wake_soon(None)

    def _wake_soon(self, error: BaseException | None) -> None:
        """Have the task make its step at the loop's next turn."""
        wakeup, self._wakeup = self._wakeup, None
        self._error = error
        call_soon = self.state.loop.call_soon
        call_soon(wakeup, self, context=self._context)  # type: ignore[arg-type]
        others, self._others = self._others, []
        for callback, context in others:
            call_soon(callback, self, context=context)

    def _arm(self) -> None:
        table = self._table
        if table.setdefault((self._fd, self.way), self) is not self:
            raise self._busy()
        try:
            self._watch()
        except BaseException:
            del table[self._fd, self.way]
            raise
        self.armed = True

    def disarm(self) -> None:
        """Take the descriptor out of the loop's hands until the next wait."""
        if self.armed:
            self.armed = False
            del self._table[self._fd, self.way]
            if not self.state.loop.is_closed():
                # It fails if somebody else has closed the descriptor; then nothing is left to do.
                with suppress(OSError):
                    self._unwatch()

    def close(self) -> None:
        """The descriptor is about to be closed: whoever waits gets :class:`ClosedResourceError`."""
        if self.armed:
            self.disarm()
        if self._wakeup is not None:
            self._wake_soon(ClosedResourceError("another task closed this file descriptor"))

    def others_wait(self, fd: int) -> bool:
        """Whether somebody waits for a descriptor by its bare number."""
        return (fd, "reader") in self._table or (fd, "writer") in self._table

    def _watch(self) -> None:
        raise NotImplementedError

    def _unwatch(self) -> None:
        raise NotImplementedError

    # -- asyncio's protocol for what a task waits for ---------------------------

    def get_loop(self) -> host.Loop:
        """The loop whose tasks may wait here."""
        return self.state.loop

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
        """Called by the task as it wakes. Raises what it is woken with."""
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

    way = "reader"
    purpose = "readable"

    def _watch(self) -> None:
        self.state.loop.add_reader(self._fd, self._ready)

    def _unwatch(self) -> None:
        self.state.loop.remove_reader(self._fd)


class Writable(Readiness):
    """Awaited until there is room for bytes, or a connection attempt is decided."""

    __slots__ = ()

    way = "writer"
    purpose = "writable"

    def _watch(self) -> None:
        self.state.loop.add_writer(self._fd, self._ready)

    def _unwatch(self) -> None:
        self.state.loop.remove_writer(self._fd)
