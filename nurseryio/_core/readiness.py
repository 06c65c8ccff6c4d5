"""Waiting for a file descriptor again and again, fast: what streams and sockets stand on.

What lives here: :class:`Readable` and :class:`Writable`, which a task awaits, and the loop's table
of who waits for which descriptor. What does not: reading and writing, and the public functions
for waiting once (:mod:`waitio`).

Rule 1: while it waits or is registered, an object stands in the loop's table, so that two tasks
that wait for the same thing are told so, and closing finds whoever waits.

Rule 2: the kernel's queue is the only buffer. Being woken means "try now"; nothing has been taken
out, so nothing is lost if a cancellation comes in between.

Rule 3: a descriptor that is closed through this library alone may *keep* its registration between
two waits; it is taken back when it is reported ready and nobody waits any more. In the usual case
that saves two system calls a wait. (For others the table would go wrong if somebody else closed
the descriptor: they are registered with the loop for each wait, and the wait ends like any other.)

Rule 4: with a kept registration the task is woken *in place*: from within the loop's callback it
makes its step there and then, as a ``Protocol`` would, and not a turn of the loop later. What was
ready when the task went to sleep must have had its turn by then. Where that is not certain, the
first report is passed over; it comes again in the next turn. While instruments watch, the step
goes through ``call_soon`` like every other.

Rule 5: a task awaits a future of asyncio's plain kind. Waking in place takes the task's callback
out of it, so that the future stays pending and serves for the next wait: nothing is allocated and
no method of ours is called. Whatever else may happen to the task (a cancellation, closing)
ends the future as usual, and the next wait has a new one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from . import host
from .errors import BusyResourceError, ClosedResourceError
from .host import callbacks_of, forget_who_awaits
from .poller import Poller, poller_for
from .watching import cannot_watch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator

    from .loop_state import LoopState
    from .task import Task

__all__ = ["Readable", "Readiness", "Writable", "waits"]

# Where registrations with the loop last, the first few go there. Each report costs more, but does
# not come through a second epoll object: that is what counts as long as they come one by one.
FEW = 4

_WAITS = object()  # the key of a loop's table among its local values


class Waits(dict[tuple[int, str], "Task | Readiness"]):
    """Who waits, or is registered, on one loop: by descriptor and "reader" or "writer"."""

    __slots__ = ("done", "few", "loop_keeps", "poller", "queue", "waking")

    def __init__(self, state: LoopState) -> None:
        super().__init__()
        # Watches the descriptors that stay registered; None where the loop itself does.
        self.poller: Poller | None = poller_for(state.loop)
        # uvloop forgets a registration of its own after an error.
        self.loop_keeps = host.selector_of(state.loop) is not None
        # So many it watches itself nevertheless.
        self.few = FEW if self.loop_keeps else 0
        # Not empty while others are ready to run.
        self.queue = host.ready_queue(state.loop)
        # The object whose task is making its step right now, from within the loop's callback.
        self.waking: Readiness | None = None
        # A finished future: what tasks are woken with in place.
        self.done = host.new_future(loop=state.loop)
        self.done.set_result(None)


def waits(state: LoopState) -> Waits:
    """The table of one loop."""
    table: Waits | None = state.locals.get(_WAITS)
    if table is None:
        table = state.locals[_WAITS] = Waits(state)
    return table


class Readiness:
    """What one task at a time awaits until its file descriptor is ready. See the two subclasses.

    Args:
        state: The loop.
        fd: The file descriptor.
        keep: Stay registered between waits; see rule 3.
    """

    __slots__ = (
        "_fd",
        "_future",
        "_keep",
        "_may_keep",
        "_once",
        "_poller",
        "_stale",
        "_table",
        "_waiting",
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
        self._table = table = waits(state)
        self.queue = table.queue
        self._fd = fd
        self._may_keep = self._keep = keep
        # Where it is registered while it is armed; None stands for the loop itself.
        self._poller: Poller | None = None
        # Whether _ready() is called when the descriptor is ready.
        self.armed = False
        # For the caller's use: the last try took all there was, so the next one comes after a wait.
        self.exhausted = False
        # The next report is passed over: it may have been under way when the task went to sleep.
        self._stale = False
        # Invariant: True while a task waits.
        self._waiting = False
        self._renew()

    def _renew(self) -> None:
        self._future = host.new_future(loop=self.state.loop)
        # Its iterator is what a waiting coroutine is suspended in.
        self._once = (self._future,)

    def __repr__(self) -> str:
        return f"<waiting until fd {self._fd} is {self.purpose}>"

    def __await__(self) -> Generator[asyncio.Future[None], None, None]:
        if self._waiting:
            # Perhaps the wait was ended otherwise than in place.
            if not self._future.done() and callbacks_of(self._future):
                raise self._busy()
            self._renew()
        if not self.armed:
            self._arm()
        if not self._keep:
            return self._await_and_disarm()
        # If the task waits again from within its own waking, then all others have their turn before
        # the next report. Otherwise that may be on its way, ahead of those who are ready now.
        self._stale = self._table.waking is not self and len(self.queue) > 0
        self._waiting = True
        self._future._asyncio_future_blocking = True
        return iter(self._once)  # type: ignore[return-value]

    def _await_and_disarm(self) -> Generator[asyncio.Future[None], None, None]:
        self._waiting, self._stale = True, False
        try:
            yield from self._future
        finally:
            self.disarm()

    def _busy(self) -> BusyResourceError:
        return BusyResourceError(
            f"another task is already waiting until fd {self._fd} is {self.purpose}"
        )

    # -- what the loop and our own side call -----------------------------------

    def _ready(self) -> None:
        """The descriptor is ready."""
        future = self._future
        callbacks = callbacks_of(future)
        if not callbacks:
            # More has come, and nobody wants it yet.
            self.exhausted = False
            self.disarm()
        elif self._stale:
            self._stale = False
        elif self._keep and self.state.gauge is None and len(callbacks) == 1:
            ((wakeup, context),) = callbacks
            future.remove_done_callback(wakeup)
            if forget_who_awaits is not None:
                forget_who_awaits(future, wakeup.__self__)
            self._waiting = False
            table = self._table
            table.waking = self
            try:
                context.run(wakeup, table.done)
            finally:
                table.waking = None
        else:
            # It would be reported once more before the task has run.
            self.disarm()
            future.set_result(None)

    def _arm(self) -> None:
        table = self._table
        if table.setdefault((self._fd, self.way), self) is not self:
            raise self._busy()
        try:
            poller = table.poller if self._may_keep and len(table) > table.few else None
            if poller is not None and poller.open():
                poller.add(self.way, self._fd, self._ready)
                self._poller, self._keep = poller, True
            else:
                self._watch()
                self._poller, self._keep = None, self._may_keep and table.loop_keeps
        except BaseException as error:
            del table[self._fd, self.way]
            if isinstance(error, NotImplementedError):
                raise cannot_watch(self.state.loop, "waits for file descriptors") from None
            raise
        self.armed = True

    def disarm(self) -> None:
        """Have the descriptor watched no longer, until the next wait."""
        if self.armed:
            self.armed = False
            del self._table[self._fd, self.way]
            if self._poller is not None:
                self._poller.remove(self.way, self._fd)
            elif not self.state.loop.is_closed():
                # It fails if somebody else has closed the descriptor; then nothing is left to do.
                with suppress(OSError):
                    self._unwatch()

    def close(self) -> None:
        """The descriptor is about to be closed: whoever waits gets :class:`ClosedResourceError`."""
        self.disarm()
        # The next try must reach the system, which says that the descriptor is closed: its number
        # may be somebody else's by then, and must not be waited for.
        self.exhausted = False
        future = self._future
        if self._waiting and not future.done() and callbacks_of(future):
            # The error will hold the frame of whoever waits, and that holds this object: no circle.
            self._renew()
            self._waiting = False
            future.set_exception(ClosedResourceError("another task closed this file descriptor"))

    def others_wait(self, fd: int) -> bool:
        """Whether somebody waits for a descriptor by its bare number."""
        return (fd, "reader") in self._table or (fd, "writer") in self._table

    def _watch(self) -> None:
        raise NotImplementedError

    def _unwatch(self) -> None:
        raise NotImplementedError


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
