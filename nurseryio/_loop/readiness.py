"""Waiting for a file descriptor again and again, fast: what streams and sockets stand on.

What lives here: :class:`Readable` and :class:`Writable`, which a task awaits; all of one descriptor
(:class:`Registrations`); and the loop's table of who waits for which descriptor. What does not:
reading and writing, and the public functions for waiting once (:mod:`waitio`).

Rule 1: while it waits or is registered, an object stands in the loop's table, so that two tasks
that wait for the same thing are told so, and closing finds whoever waits. The object holds the
descriptor's *owner*, a socket for example. So the garbage collector closes no descriptor that is
registered, and the number cannot become another file's meanwhile.

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

Rule 6: only the loop's thread changes its table. Finalizers, which are called in any thread and in
the middle of anything, and other loops that use the same descriptor schedule a call on the loop.

Rule 7: a forked child forgets all registrations, and takes none of them out: the epoll objects
are shared with the parent.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, TypeVar

from .._asyncio import compat
from .._asyncio.compat import callbacks_of, forget_who_awaits
from .._asyncio.epoll import Poller, poller_for
from .._base.errors import BusyResourceError, ClosedResourceError
from .._base.forked import in_child
from .._core.loop_state import PerLoop, all_states
from .watching import cannot_watch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator

    from typing_extensions import Protocol

    from .._core.loop_state import LoopState

    class HasFileno(Protocol):
        """Anything that has a file descriptor."""

        def fileno(self) -> int:
            """The descriptor."""

    class Standing(Protocol):
        """An entry of the loop's table."""

        armed: bool

        def is_awaited(self) -> bool:
            """Whether a task waits for the descriptor."""

        def has_lost(self) -> bool:
            """Whether its owner has been closed, or was given another number."""

        def close(self) -> None:
            """End the registration; the task that waits gets :class:`ClosedResourceError`."""


__all__ = [
    "Readable",
    "Readiness",
    "Registrations",
    "Writable",
    "close_later",
    "stop_watching",
    "waits",
]

KindT = TypeVar("KindT", bound="Readiness")

# Where registrations with the loop last, the first few go there. Each report costs more, but does
# not come through a second epoll object: that is what counts as long as they come one by one.
DIRECT_LIMIT = 4


class IOWaiters(dict[tuple[int, str], "Standing"]):
    """Who waits, or is registered, on one loop: by descriptor and "reader" or "writer"."""

    __slots__ = ("done", "direct_limit", "loop_keeps", "poller", "queue", "waking")

    def __init__(self, state: LoopState) -> None:
        super().__init__()
        # Watches the descriptors that stay registered; None where the loop itself does.
        self.poller: Poller | None = poller_for(state.loop)
        # uvloop forgets a registration of its own after an error.
        self.loop_keeps = compat.selector_of(state.loop) is not None
        # So many it watches itself nevertheless.
        self.direct_limit = DIRECT_LIMIT if self.loop_keeps else 0
        # Not empty while others are ready to run.
        self.queue = compat.ready_queue(state.loop)
        # The object whose task is making its step right now, from within the loop's callback.
        self.waking: Readiness | None = None
        # A finished future: what tasks are woken with in place.
        self.done = compat.new_future(loop=state.loop)
        self.done.set_result(None)

    def has_room(self, fd: int, direction: str) -> bool:
        """Whether a descriptor may be registered.

        If nobody waits behind an earlier registration, that gives way: it may be one of a file
        that has been closed behind our back. So does one whose owner has been closed.
        """
        standing = self.get((fd, direction))
        if standing is not None:
            if standing.is_awaited() and not standing.has_lost():
                return False
            standing.close()
        across = self.across(fd, direction)
        if across is not None and across.has_lost():
            across.close()
        return True

    def across(self, fd: int, direction: str) -> Standing | None:
        """The entry of a descriptor for the other direction."""
        return self.get((fd, "writer" if direction == "reader" else "reader"))

    def watch(self, fd: int, direction: str, add: Callable[[], object]) -> None:
        """Have the loop itself watch a descriptor, by ``add``."""
        try:
            add()
        except FileNotFoundError:
            # The loop watches, for the other direction, a file that was closed under this number.
            across = self.across(fd, direction)
            if across is None:
                raise
            across.close()
            add()

    def let_go(self) -> None:
        """Forget everything: the loop is closed, or this is a forked child (rule 7)."""
        for standing in self.values():
            standing.armed = False
        self.clear()
        if self.poller is not None:
            self.poller.let_go()


def let_go(state: LoopState) -> None:
    """See :meth:`Waits.let_go`; does nothing if there is no table."""
    table = waits.find(state)
    if table is not None:
        table.let_go()


@in_child
def _let_go_of_all() -> None:
    for state in all_states():
        let_go(state)


# The table of one loop.
waits: PerLoop[IOWaiters] = PerLoop(IOWaiters)


def stop_watching(
    loop: compat.Loop, fd: int, remove: Callable[[], object], distrust: bool = True
) -> None:
    """Have the loop itself watch a descriptor no longer, which others may have closed.

    Args:
        loop: The loop.
        fd: The descriptor.
        remove: Has the loop forget it.
        distrust: Whether to look if its file lives on elsewhere, which would be reported for ever.
    """
    in_vain = distrust and compat.watches_in_vain(loop, fd)
    # It fails if somebody else has closed the descriptor; then nothing is left to do.
    with suppress(OSError):
        remove()
    if in_vain:
        with suppress(OSError):
            compat.renew_epoll(loop, keep=True)


class Readiness:
    """What one task at a time awaits until its file descriptor is ready. See the two subclasses.

    Args:
        state: The loop.
        owner: What has the file descriptor, and closes it if it is forgotten.
        keep: Stay registered between waits; see rule 3.
    """

    __slots__ = (
        "_fd",
        "_future",
        "_keep",
        "_may_keep",
        "_once",
        "_owner",
        "_poller",
        "_stale",
        "_table",
        "_waiting",
        "armed",
        "drained",
        "queue",
        "state",
    )

    # "reader" or "writer", as in the table; and what the task waits for the descriptor to be.
    direction: ClassVar[str]
    awaited_state: ClassVar[str]

    def __init__(self, state: LoopState, owner: HasFileno, keep: bool) -> None:
        self.state = state
        self._table = table = waits(state)
        self.queue = table.queue
        self._owner: HasFileno | None = owner
        self._fd = owner.fileno()
        self._may_keep = self._keep = keep
        # Where it is registered while it is armed; None stands for the loop itself.
        self._poller: Poller | None = None
        # Whether _ready() is called when the descriptor is ready.
        self.armed = False
        # For the caller's use: the last try took all there was, so the next one comes after a wait.
        self.drained = False
        # The next report is passed over: it may have been under way when the task went to sleep.
        self._stale = False
        # Invariant: True while a task waits.
        self._waiting = False
        self._renew()

    def _renew(self) -> None:
        self._future = compat.new_future(loop=self.state.loop)
        # Its iterator is what a waiting coroutine is suspended in.
        self._once = (self._future,)

    def __repr__(self) -> str:
        return f"<waiting until fd {self._fd} is {self.awaited_state}>"

    def __await__(self) -> Generator[asyncio.Future[None], None, None]:
        if self._waiting:
            if self.is_awaited():
                raise self._busy()
            # The wait was ended otherwise than in place.
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

    async def once(self) -> None:
        """Wait, and have the descriptor watched no longer. For what is nearly always ready."""
        try:
            await self
        finally:
            self.release()

    def is_awaited(self) -> bool:
        """Whether a task waits."""
        return self._waiting and not self._future.done() and bool(callbacks_of(self._future))

    def has_lost(self) -> bool:
        """Whether the owner has been closed, or its number was handed away."""
        return self._fd == -1 or self._owner is None or self._owner.fileno() != self._fd

    def _busy(self) -> BusyResourceError:
        return BusyResourceError(
            f"another task is already waiting until fd {self._fd} is {self.awaited_state}"
        )

    # -- what the loop and our own side call -----------------------------------

    def _ready(self) -> None:
        """The descriptor is ready."""
        future = self._future
        callbacks = callbacks_of(future)
        if not callbacks:
            # More has come, and nobody wants it yet.
            self.drained = False
            if self._poller is None and compat.watches_in_vain(self.state.loop, self._fd):
                # It would be reported for ever.
                compat.renew_epoll(self.state.loop, keep=True)
            self.disarm()
        elif self._stale:
            self._stale = False
        elif self._keep and self.state.step_hooks is None and len(callbacks) == 1:
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
        if self.has_lost():
            raise ClosedResourceError("this file descriptor was already closed")
        if not table.has_room(self._fd, self.direction):
            raise self._busy()
        table[self._fd, self.direction] = self
        try:
            mine = self._may_keep or not table.loop_keeps
            poller = table.poller if mine and len(table) > table.direct_limit else None
            if poller is not None and poller.open():
                poller.add(self.direction, self._fd, self._ready)
                self._poller, self._keep = poller, self._may_keep
            else:
                table.watch(self._fd, self.direction, self._watch)
                self._poller, self._keep = None, self._may_keep and table.loop_keeps
        except BaseException as error:
            del table[self._fd, self.direction]
            if isinstance(error, NotImplementedError):
                raise cannot_watch(self.state.loop, "waits for file descriptors") from None
            raise
        self.armed = True

    def disarm(self) -> None:
        """Have the descriptor watched no longer, until the next wait."""
        if self.armed:
            self.armed = False
            del self._table[self._fd, self.direction]
            if self._poller is not None:
                self._poller.remove(self.direction, self._fd)
            elif not self.state.loop.is_closed():
                stop_watching(self.state.loop, self._fd, self._unwatch, not self._may_keep)

    def release(self) -> None:
        """The same, unless another task waits."""
        if not self.is_awaited():
            self.disarm()

    def close(self) -> None:
        """The descriptor is about to be closed: whoever waits gets :class:`ClosedResourceError`."""
        self.disarm()
        # The next try must reach the system, which says that the descriptor is closed: its number
        # may stand for something else by then, and must not be waited for.
        self.drained = False
        if self.is_awaited() and not self.state.loop.is_closed():
            future = self._future
            # The error will hold the frame of whoever waits, and that holds this object: no circle.
            self._renew()
            self._waiting = False
            future.set_exception(ClosedResourceError("another task closed this file descriptor"))

    def others_wait(self, fd: int) -> bool:
        """Whether somebody waits for a descriptor by its bare number."""
        return (fd, "reader") in self._table or (fd, "writer") in self._table

    # -- what others call, see rule 6 --------------------------------------------

    def is_elsewhere(self) -> bool:
        """Whether it is registered with a loop that runs, but not in this thread."""
        loop = self.state.loop
        return self.armed and loop.is_running() and compat.running_loop_or_none() is not loop

    def close_soon(self, owner: HasFileno | None = None) -> None:
        """Have the loop close it.

        Args:
            owner: The owner until then, instead of the one from before.
        """
        if owner is not None:
            self._owner = owner
        loop = self.state.loop
        try:
            loop.call_soon_threadsafe(self._close_and_drop, context=self.state.context)
        except RuntimeError:
            if not loop.is_closed():
                raise
            self._close_and_drop()

    def _close_and_drop(self) -> None:
        self.close()
        self._owner = None

    def _watch(self) -> None:
        raise NotImplementedError

    def _unwatch(self) -> None:
        raise NotImplementedError


class Readable(Readiness):
    """Awaited until bytes, a connection or the end can be read."""

    __slots__ = ()

    direction = "reader"
    awaited_state = "readable"

    def _watch(self) -> None:
        self.state.loop.add_reader(self._fd, self._ready)

    def _unwatch(self) -> None:
        self.state.loop.remove_reader(self._fd)


class Writable(Readiness):
    """Awaited until there is room for bytes, or a connection attempt is decided."""

    __slots__ = ()

    direction = "writer"
    awaited_state = "writable"

    def _watch(self) -> None:
        self.state.loop.add_writer(self._fd, self._ready)

    def _unwatch(self) -> None:
        self.state.loop.remove_writer(self._fd)


class _Held:
    """A number that its owner has given up. It is closed with the last reference to this."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The number."""
        return self._fd

    def __del__(self) -> None:
        os.close(self._fd)


def close_later(registered: list[Readiness], fd: int) -> None:
    """Close a descriptor when the last of its registrations has ended, each in its loop's thread.

    The number stays taken until then: it cannot become another file's while a loop watches it.

    Args:
        registered: Its registrations.
        fd: The descriptor. Its former owner must have given it up.
    """
    held = _Held(fd)
    for waits in registered:
        waits.close_soon(held)


# Two loops may begin to use a descriptor at the same time.
_adding = threading.Lock()


class Registrations:
    """What waits for one descriptor: one :class:`Readiness` for each loop and direction.

    Args:
        owner: What has the descriptor.
        keep: Stay registered between waits; see rule 3.
    """

    __slots__ = ("_all", "_keep", "_owner")

    def __init__(self, owner: HasFileno, keep: bool) -> None:
        self._owner = owner
        self._keep = keep
        self._all: tuple[Readiness, ...] = ()

    def readable(self, state: LoopState) -> Readable:
        """What to await, on the running loop, until the descriptor can be read from."""
        return self._find(state, Readable)

    def writable(self, state: LoopState) -> Writable:
        """The same for writing. To be released afterwards."""
        return self._find(state, Writable)

    def _find(self, state: LoopState, kind: type[KindT]) -> KindT:
        for waits in self._all:
            if waits.state is state and type(waits) is kind:
                return waits
        made = kind(state, self._owner, self._keep)
        with _adding:
            others = (waits for waits in self._all if not waits.state.loop.is_closed())
            self._all = (*others, made)
        return made

    def others_wait(self, fd: int) -> bool:
        """Whether somebody may be waiting for the descriptor by its bare number."""
        return not self._all or any(waits.others_wait(fd) for waits in self._all)

    def close(self) -> list[Readiness]:
        """The descriptor is about to be closed: see :meth:`Readiness.close`.

        Returns:
            Those that are registered with loops in other threads, which have to end that
            themselves. See :func:`close_later` and :meth:`Readiness.close_soon`.
        """
        elsewhere = [waits for waits in self._all if waits.is_elsewhere()]
        for waits in self._all:
            if waits not in elsewhere:
                waits.close()
        return elsewhere

    def registered(self) -> list[Readiness]:
        """Those that are registered with a loop."""
        return [waits for waits in self._all if waits.armed]
