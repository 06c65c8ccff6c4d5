"""The way into a loop from elsewhere: other threads, signal handlers, other loops.

Rule 1: a function that was accepted runs, in order of arrival, in the loop's thread, outside any
task. Nothing is accepted once the run is over.

Rule 2: :meth:`TrioToken.run_sync_soon` may be called from signal handlers, in the middle of
itself: it takes a reentrant lock and only appends.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from .._base.errors import RunFinishedError
from .._base.forked import in_child
from .._base.util import NoPublicConstructor, safe_repr
from .._core.loop_state import LoopState, PerLoop, all_states, current_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    PosArgsT = TypeVarTuple("PosArgsT")


class LoopToken(metaclass=NoPublicConstructor):
    """Stands for one event loop; may be handed to other threads.

    Obtained by :func:`current_trio_token`. Two tokens are the same loop if they are the same
    object.

    Trio: ``trio.lowlevel.TrioToken`` (also available under that name).
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_crash",
        "_due",
        "_idempotent",
        "_lock",
        "_queue",
        "_state",
    )

    def __init__(self, state: LoopState) -> None:
        self._state = state
        self._lock = threading.RLock()
        self._queue: deque[tuple[Any, tuple[Any, ...]]] = deque()
        self._idempotent: dict[tuple[Any, tuple[Any, ...]], None] = {}
        self._closed = False
        # Invariant: _drain is scheduled while this is True.
        self._due = False
        # What to do with an error of a queued function; None: the loop's exception handler.
        self._crash: Callable[[BaseException], object] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._size()} calls waiting"
        return f"<LoopToken at {id(self):#x}, {state}, of {self._state.loop!r}>"

    def run_sync_soon(
        self,
        sync_fn: Callable[[Unpack[PosArgsT]], object],
        *args: Unpack[PosArgsT],
        idempotent: bool = False,
    ) -> None:
        """Have ``sync_fn(*args)`` called in the loop's thread, soon.

        May be called from any thread, and from signal handlers. An error in ``sync_fn`` ends a
        ``nurseryio.run`` with :exc:`TrioInternalError`; on another loop it goes to the loop's
        exception handler. ``SystemExit`` and ``KeyboardInterrupt`` end the program, as from any
        callback of the loop. Functions that were queued after one that fails run nevertheless.

        Args:
            sync_fn: a function that does not block.
            args: its positional arguments.
            idempotent: drop the call if an equal one is waiting already; ``sync_fn`` and
                ``args`` must be hashable then.

        Raises:
            RunFinishedError: the loop is over.
            TypeError: the call is to be idempotent and cannot be hashed.

        Checkpoint: no.

        Trio: ``trio.lowlevel.TrioToken.run_sync_soon``.
        """
        with self._lock:
            if self._closed:
                raise RunFinishedError("run() has exited")
            if self._state.loop.is_closed():
                raise RunFinishedError("the event loop is closed")
            if idempotent and (sync_fn, args) in self._idempotent:
                return
            # First the call that can fail: without it nothing would run what is in the queue.
            self._schedule()
            if idempotent:
                self._idempotent[sync_fn, args] = None
            else:
                self._queue.append((sync_fn, args))

    def _schedule(self) -> None:
        """Have the queue run soon."""
        if self._due:
            return
        loop = self._state.loop
        try:
            loop.call_soon_threadsafe(self._drain, context=self._state.context)
        except RuntimeError:
            if loop.is_closed():
                raise RunFinishedError("the event loop is closed") from None
            raise
        self._due = True

    def _drain(self) -> None:
        """Run what is there now; what comes meanwhile waits for the next turn of the loop, so
        that a function that queues itself again does not keep everybody else from running."""
        try:
            with self._lock:
                self._due = False
                self._queue.extend(self._idempotent)
                self._idempotent.clear()
                waiting = len(self._queue)
            for _ in range(waiting):
                self._call(*self._queue.popleft())
        except BaseException:
            # An exit passes through the loop, or this failed: the others come when the loop runs
            # again.
            with self._lock:
                self._due = False
                if self._size() and not self._state.loop.is_closed():
                    self._schedule()
            raise

    def _call(self, sync_fn: Any, args: tuple[Any, ...]) -> None:
        try:
            sync_fn(*args)
        except (SystemExit, KeyboardInterrupt) as exc:
            if self._crash is None:
                raise
            self._crash(exc)
        except BaseException as exc:
            if self._crash is not None:
                self._crash(exc)
            else:
                self._state.loop.call_exception_handler(
                    {
                        "message": f"error in a run_sync_soon() function {safe_repr(sync_fn)}",
                        "exception": exc,
                    }
                )

    def _close(self) -> None:
        """Accept nothing more, and run what was accepted."""
        with self._lock:
            self._closed = True
        self._drain()

    def _let_go(self) -> None:
        """In a forked child: the loop is the parent's. Another thread may have had the lock."""
        self._lock = threading.RLock()
        self._closed = True
        self._queue.clear()
        self._idempotent.clear()

    def _size(self) -> int:
        return len(self._queue) + len(self._idempotent)


token_of: PerLoop[LoopToken] = PerLoop(LoopToken._create)


@in_child
def _let_go_of_all() -> None:
    for state in all_states():
        token = token_of.find(state)
        if token is not None:
            token._let_go()


def current_trio_token() -> LoopToken:
    """The token of the loop that runs in this thread.

    Returns:
        The same object at each call.

    Raises:
        RuntimeError: where no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.current_trio_token``.
    """
    return token_of(current_state())
