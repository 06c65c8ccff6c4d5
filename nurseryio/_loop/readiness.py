"""Awaiting a file descriptor again and again, fast: the base of sockets and streams.

This module has :class:`Readable` and :class:`Writable`, which a task awaits, and
:class:`Registrations`, which has all of them for one descriptor. It also has the loop's table of
waits. Reading and writing are in ``_net``. The public functions for a single wait are in
``wait_io``.

Rule 1: an object is in the loop's table while a task awaits it or while it is registered. So a
second task that waits for the same gets :class:`BusyResourceError`, and closing finds the waiting
task. The object refers to the descriptor's *owner*, for example a socket. So the garbage collector
does not close a descriptor that is registered. The number cannot become another file's meanwhile.

Rule 2: the kernel's queue is the only buffer. A task that is woken tries its system call then. No
data has been read before that, so nothing is lost if a cancellation comes in between.

Rule 3: a descriptor that only this library closes may *keep* its registration between two waits.
The registration is removed when the descriptor is reported ready and no task waits. Usually that
saves two system calls in each wait. With any other descriptor the table would become wrong if other
code closed it. Such a descriptor is registered with the loop for each wait, and the task is woken
in the usual way.

Rule 4: with a kept registration the task is woken *in place*: it makes its step inside the loop's
callback, like a ``Protocol``, and not one iteration later. Callbacks that were ready when the task
began to wait must have been called by then. If that is not certain, the first report is ignored. It
comes again in the next iteration. While instruments are installed, the step is scheduled by
``call_soon`` like any other.

Rule 5: a task awaits a plain asyncio future. To wake the task in place, its callback is removed
from the future. So the future stays pending and serves for the next wait: nothing is allocated, and
no method of this library is called. Other events, such as a cancellation or closing, end the future
as usual. Then the next wait makes a new one.

Rule 6: a loop's table is changed only in the loop's thread. Finalizers may be called in any thread
and between any two instructions. Finalizers, and other loops that use the same descriptor, schedule
a call on the loop.

Rule 7: a forked child forgets all registrations and does not remove them, because the epoll objects
are shared with the parent.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .._asyncio import compat
from .._asyncio.compat import callbacks_of, forget_who_awaits
from .._asyncio.epoll import Poller, poller_for, renew_epoll, watches_in_vain
from .._base.errors import BusyResourceError, ClosedResourceError
from .._base.forked import in_child, process_lock
from .._core.loop_state import PerLoop, all_states
from .watching import cannot_watch

if TYPE_CHECKING:
    import asyncio
    import contextvars
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
            """Whether its owner was closed or has another number now."""

        def close(self) -> None:
            """End the registration; a waiting task gets :class:`ClosedResourceError`."""


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

# On a loop that keeps registrations, this many descriptors are registered with the loop itself. One
# report costs more then, but does not come through a second epoll object. While reports come one by
# one, that is cheaper.
DIRECT_LIMIT = 4


class IOWaiters(dict[tuple[int, str], "Standing"]):
    """The table of one loop: entries that wait or are registered, by descriptor and direction.

    The direction is "reader" or "writer".
    """

    __slots__ = ("done", "direct_limit", "loop_keeps", "poller", "queue", "waking")

    def __init__(self, state: LoopState) -> None:
        super().__init__()
        # Watches the descriptors that stay registered; None if the loop itself watches them.
        self.poller: Poller | None = poller_for(state.loop)
        # Whether the loop keeps registrations: uvloop drops one after an error.
        self.loop_keeps = state.selector is not None
        # The number of descriptors that the loop watches nevertheless, although there is a poller.
        self.direct_limit = DIRECT_LIMIT if self.loop_keeps else 0
        # The loop's queue of callbacks. Not empty while other callbacks are ready.
        self.queue = state.ready
        # The object whose task is being woken in place now (rule 4).
        self.waking: Readiness | None = None
        # A future that is done: the argument for the callback of a task that is woken in place.
        self.done = compat.new_future(loop=state.loop)
        self.done.set_result(None)

    def has_room(self, fd: int, direction: str) -> bool:
        """Whether a descriptor may be registered.

        An earlier registration is ended if no task waits for it, because other code may have closed
        its file. It is also ended if its owner has been closed.
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
        """Register a descriptor with the loop itself, by calling ``add``."""
        try:
            add()
        except FileNotFoundError:
            # The loop still watches, in the other direction, a file that had this number and was
            # closed.
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
    """See :meth:`IOWaiters.let_go`; does nothing if the loop does not have a table."""
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
    """Remove a descriptor, which other code may have closed, from the loop itself.

    Args:
        loop: The loop.
        fd: The descriptor.
        remove: Removes it from the loop.
        distrust: Whether to check if its open file still exists under another number or in another
            process. The loop would report such a file for ever.
    """
    in_vain = distrust and watches_in_vain(loop, fd)
    # This fails if other code has closed the descriptor. Then there is nothing left to do.
    with suppress(OSError):
        remove()
    if in_vain:
        with suppress(OSError):
            renew_epoll(loop, keep=True)


class Readiness:
    """An object that one task at a time awaits until its file descriptor is ready.

    This is the base of :class:`Readable` and :class:`Writable`.

    Args:
        state: The loop's state.
        owner: The object that has the file descriptor, and closes it when garbage collected.
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

    # "reader" or "writer", as in the table; and an adjective for that, "readable" or "writable".
    direction: ClassVar[str]
    awaited_state: ClassVar[str]

    def __init__(self, state: LoopState, owner: HasFileno, keep: bool) -> None:
        self.state = state
        self._table = table = waits(state)
        self.queue = table.queue
        self._owner: HasFileno | None = owner
        self._fd = owner.fileno()
        self._may_keep = self._keep = keep
        # The poller at which it is registered while it is armed; None stands for the loop itself.
        self._poller: Poller | None = None
        # Whether it is registered, so that _ready() is called when the descriptor is ready.
        self.armed = False
        # Used by the caller: its last system call took all there was, so it waits before the next.
        self.drained = False
        # Whether to ignore the next report, because it may date from before the wait (rule 4).
        self._stale = False
        # Invariant: True while a task waits.
        self._waiting = False
        self._renew()

    def _renew(self) -> None:
        self._future = compat.new_future(loop=self.state.loop)
        # A waiting coroutine awaits an iterator over this tuple.
        self._once = (self._future,)

    def __repr__(self) -> str:
        return f"<waiting until fd {self._fd} is {self.awaited_state}>"

    def __await__(self) -> Generator[asyncio.Future[None], None, None]:
        if self._waiting:
            if self.is_awaited():
                raise self._busy()
            # The last wait did not end in place, so its future cannot be used again.
            self._renew()
        if not self.armed:
            self._arm()
        if not self._keep:
            return self._await_and_disarm()
        # If a task awaits again during its step in place, all callbacks that are ready run before
        # the next report. Otherwise a report may come before callbacks that are ready now.
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
        """Wait, and end the registration. For a direction that is nearly always ready."""
        try:
            await self
        finally:
            self.release()

    def is_awaited(self) -> bool:
        """Whether a task waits."""
        return self._waiting and not self._future.done() and bool(callbacks_of(self._future))

    def has_lost(self) -> bool:
        """Whether the owner was closed, or does not have this number any more."""
        return self._fd == -1 or self._owner is None or self._owner.fileno() != self._fd

    def _busy(self) -> BusyResourceError:
        return BusyResourceError("another task is already reading / writing this fd")

    # -- called by the loop and by this module ----------------------------------

    def _ready(self) -> None:
        """Wake the task, because the descriptor is ready."""
        future = self._future
        callbacks = callbacks_of(future)
        if not callbacks:
            # More data has come, and no task waits for it yet.
            self.drained = False
            if self._poller is None and watches_in_vain(self.state.loop, self._fd):
                # The loop would report the closed file for ever.
                renew_epoll(self.state.loop, keep=True)
            self.disarm()
        elif self._stale:
            self._stale = False
        elif self._keep and self.state.step_hooks is None and len(callbacks) == 1:
            ((wakeup, context),) = callbacks
            table = self._table
            try:
                future.remove_done_callback(wakeup)
                if forget_who_awaits is not None:
                    forget_who_awaits(future, wakeup.__self__)
                self._waiting = False
                table.waking = self
                context.run(wakeup, table.done)
            except BaseException:
                self._wake_later(future, wakeup, context)
                raise
            finally:
                table.waking = None
        else:
            # Without this the descriptor would be reported again before the task has run.
            self.disarm()
            future.set_result(None)

    def _wake_later(
        self, future: asyncio.Future[None], wakeup: Any, context: contextvars.Context
    ) -> None:
        """After an error: wake the task in the next iteration if it has not made its step."""
        task = compat.owner_of(wakeup)
        if task is not None and compat.waiter(task) is future and not callbacks_of(future):
            self.state.finish_later(context.run, wakeup, self._table.done)

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
        """End the registration, until the next wait. If this is interrupted, it may be repeated."""
        if self.armed:
            if self._poller is not None:
                self._poller.remove(self.direction, self._fd)
            elif not self.state.loop.is_closed():
                stop_watching(self.state.loop, self._fd, self._unwatch, not self._may_keep)
            self._table.pop((self._fd, self.direction), None)
            self.armed = False

    def release(self) -> None:
        """End the registration, unless another task waits."""
        if not self.is_awaited():
            self.disarm()

    def close(self) -> None:
        """Prepare closing the descriptor: a waiting task gets :class:`ClosedResourceError`."""
        self.disarm()
        # The caller's next attempt must be a system call, whose error says that the descriptor is
        # closed. It must not wait first, because the number may be another file's by then.
        self.drained = False
        if self.is_awaited() and not self.state.loop.is_closed():
            future = self._future
            # The error will refer to the waiting frame, which refers to this object. If the object
            # kept the future, that would be a reference cycle.
            self._renew()
            self._waiting = False
            future.set_exception(ClosedResourceError("another task closed this fd"))

    def others_wait(self, fd: int) -> bool:
        """Whether the table has an entry for a descriptor's bare number."""
        return (fd, "reader") in self._table or (fd, "writer") in self._table

    # -- called by finalizers and other loops (rule 6) ---------------------------

    def is_elsewhere(self) -> bool:
        """Whether it belongs to a loop that runs, but not in this thread.

        A task there may be just about to register it, so ``armed`` shows nothing.
        """
        loop = self.state.loop
        return compat.running_loop_or_none() is not loop and loop.is_running()

    def lose(self) -> None:
        """Have the next wait raise :class:`ClosedResourceError`."""
        self._owner = None

    def close_soon(self, owner: HasFileno | None = None) -> None:
        """Schedule :meth:`close` on the loop.

        Args:
            owner: The owner until then, instead of the previous one.
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
        owner, self._owner = self._owner, None
        if isinstance(owner, _Held):
            owner.release()

    def _watch(self) -> None:
        raise NotImplementedError

    def _unwatch(self) -> None:
        raise NotImplementedError


class Readable(Readiness):
    """Is awaited until data, a connection or the end of the data can be read."""

    __slots__ = ()

    direction = "reader"
    awaited_state = "readable"

    def _watch(self) -> None:
        self.state.loop.add_reader(self._fd, self._ready)

    def _unwatch(self) -> None:
        self.state.loop.remove_reader(self._fd)


class Writable(Readiness):
    """Is awaited until there is room for data, or until a connection attempt has ended."""

    __slots__ = ()

    direction = "writer"
    awaited_state = "writable"

    def _watch(self) -> None:
        self.state.loop.add_writer(self._fd, self._ready)

    def _unwatch(self) -> None:
        self.state.loop.remove_writer(self._fd)


class _Held:
    """Owns a descriptor that its former owner gave up, until the last registration has ended.

    If a loop is closed before it ends its registration, the finalizer closes the descriptor.

    Args:
        fd: The descriptor.
        registrations: How many calls of :meth:`release` there will be, each in another thread.
    """

    __slots__ = ("_fd", "_left", "_lock")

    def __init__(self, fd: int, registrations: int) -> None:
        self._fd = fd
        self._left = registrations
        self._lock = threading.RLock()

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self._fd

    def release(self) -> None:
        """Note that one registration has ended."""
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self._close()


def close_later(registered: list[Readiness], fd: int) -> None:
    """Close a descriptor once all of its registrations have ended, each in its loop's thread.

    The number stays in use until then, so it cannot become another file's while a loop watches it.

    Args:
        registered: The registrations of the descriptor.
        fd: The descriptor. Its former owner must have given it up.
    """
    held = _Held(fd, len(registered))
    for waits in registered:
        waits.close_soon(held)


# Needed because two loops may begin to use a descriptor at the same time. It is reentrant, because
# a finalizer that runs while it is held may wait for another descriptor.
_adding = process_lock(globals(), "_adding")


class Registrations:
    """The :class:`Readiness` objects of one descriptor: one for each loop and direction.

    Args:
        owner: The object that has the descriptor.
        keep: Stay registered between waits; see rule 3.
    """

    __slots__ = ("_all", "_closed", "_keep", "_owner")

    def __init__(self, owner: HasFileno, keep: bool) -> None:
        self._owner = owner
        self._keep = keep
        self._all: tuple[Readiness, ...] = ()
        self._closed = False

    def readable(self, state: LoopState) -> Readable:
        """The object to await, on the running loop, until the descriptor can be read from."""
        return self._find(state, Readable)

    def writable(self, state: LoopState) -> Writable:
        """The same for writing. The caller releases it afterwards."""
        return self._find(state, Writable)

    def _find(self, state: LoopState, kind: type[KindT]) -> KindT:
        for waits in self._all:
            if waits.state is state and type(waits) is kind:
                return waits
        made = kind(state, self._owner, self._keep)
        with _adding:
            if self._closed:  # by another thread, which did not see the new object
                made.lose()
            others = [waits for waits in self._all if not waits.state.loop.is_closed()]
            self._all = (*others, made)
        return made

    def others_wait(self, fd: int) -> bool:
        """Whether a table may have an entry for the descriptor's bare number."""
        for waits in self._all:
            if waits.others_wait(fd):
                return True
        return not self._all

    def close(self) -> list[Readiness]:
        """Prepare closing the descriptor, see :meth:`Readiness.close`.

        Returns:
            The objects that belong to running loops in other threads. Only those loops can end
            them, see :func:`close_later` and :meth:`Readiness.close_soon`.
        """
        with _adding:
            self._closed = True
            known = self._all
        elsewhere = [waits for waits in known if waits.is_elsewhere()]
        for waits in known:
            if waits not in elsewhere:
                waits.close()
        return elsewhere

    def registered(self) -> list[Readiness]:
        """The objects that are registered with a loop."""
        return [waits for waits in self._all if waits.armed]
