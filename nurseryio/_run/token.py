"""``TrioToken``: calls into a loop from other threads, signal handlers and other loops.

Rule 1: an accepted function is called in the loop's thread, outside any task, in order of arrival.
Nothing is accepted once the run is over.

Rule 2: :meth:`LoopToken.run_sync_soon` may be called from a signal handler that has interrupted
another call of it. So the method takes a reentrant lock and only appends.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from .._base.errors import RunFinishedError
from .._base.forked import in_child
from .._base.library_name import call_outside_task
from .._base.util import NoPublicConstructor, safe_repr
from .._core.loop_state import LoopState, PerLoop, all_states
from .._core.task import current_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    PosArgsT = TypeVarTuple("PosArgsT")


class LoopToken(metaclass=NoPublicConstructor):
    """A handle of one event loop, which may be passed to other threads.

    :func:`current_trio_token` returns it. There is one token object for each loop.

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
        # Called with an error of a queued function. None: the loop's exception handler gets it.
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
        """Schedule a call of ``sync_fn(*args)`` in the loop's thread.

        This may be called from any thread, and from signal handlers. An error in ``sync_fn`` ends a
        ``nurseryio.run`` with :exc:`TrioInternalError`; on another loop the loop's exception
        handler gets it. ``SystemExit`` and ``KeyboardInterrupt`` end the program, as from any
        callback of the loop. If a function fails, those queued after it are called nevertheless.

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
            # First the call that can fail: if it failed later, nothing would empty the queue.
            self._schedule()
            if idempotent:
                self._idempotent[sync_fn, args] = None
            else:
                self._queue.append((sync_fn, args))

    def _schedule(self) -> None:
        """Schedule :meth:`_drain`, if it is not scheduled yet."""
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
        """Call the functions that are queued now.

        Functions that are queued meanwhile wait for the next iteration of the loop. Otherwise a
        function that queues itself again would keep all tasks from running.
        """
        try:
            with self._lock:
                self._due = False
                self._queue.extend(self._idempotent)
                self._idempotent.clear()
                waiting = len(self._queue)
            for _ in range(waiting):
                self._call(*self._queue.popleft())
        except BaseException:
            # An exit passes through the loop, or this method failed. The remaining functions are
            # called when the loop runs again.
            with self._lock:
                self._due = False
                if self._size() and not self._state.loop.is_closed():
                    self._schedule()
            raise

    def _call(self, sync_fn: Any, args: tuple[Any, ...]) -> None:
        try:
            call_outside_task(sync_fn, *args)
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
        """Accept no more functions, and call the accepted ones."""
        with self._lock:
            self._closed = True
        self._drain()

    def _let_go(self) -> None:
        """Close the token in a forked child, where the loop is the parent's.

        The lock is new, because another thread of the parent may have held it.
        """
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
    """Return the token of the loop that runs in this thread.

    Returns:
        The same object at each call.

    Raises:
        RuntimeError: where no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.current_trio_token``.
    """
    return token_of(current_state())


TrioToken = LoopToken
