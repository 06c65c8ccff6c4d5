"""Calling functions in subinterpreters: ``to_interpreter.run_sync`` (Python 3.14 and later).

A subinterpreter is a second Python in the same process, with a second global lock. It cannot
be stopped from outside. So a cancelled call waits, as one in a thread does.

anyio's function is not used. It relies on private parts of Python 3.13, and does not find the
functions of the main module. Its subinterpreters are closed at the end of the process alone.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from .._base.errors import BrokenWorkerInterpreter
from .._base.unsupported import needs
from .._base.util import safe_repr
from .._core import checkpoint_if_cancelled, current_task
from .._core.task import current_state
from .._system.threads import acquire_token
from .call import make_call, wait_for_call
from .packing import answer
from .pool import pools_of_loops

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    from .._sync.limiter import CapacityLimiter
    from .._system.thread_call import Borrowable

    ArgsT = TypeVarTuple("ArgsT")

__all__ = ["current_default_interpreter_limiter", "to_interpreter_run_sync"]

RetT = TypeVar("RetT")

# Whether this Python has the module concurrent.interpreters.
HAS_INTERPRETERS = sys.version_info >= (3, 14)


class WorkerInterpreter:
    """A subinterpreter. It is made by its first call. One call at a time may use it."""

    __slots__ = ("__weakref__", "_interpreter", "_working", "broken", "ended", "idle_since")

    def __init__(self) -> None:
        self._interpreter: Any = None
        self._working = True
        self.broken = False
        self.ended = threading.Event()
        self.idle_since = 0.0

    @property
    def where(self) -> str:
        """The worker, for the note at an error of a function."""
        return f"subinterpreter {getattr(self._interpreter, 'id', None)}"

    @property
    def is_working(self) -> bool:
        """Whether a call uses the worker."""
        return self._working

    # -- in the thread of a call --

    def exchange(self, request: bytes, function: str) -> bytes:
        """Have a request answered. Makes the subinterpreter if needed.

        Raises:
            BrokenWorkerInterpreter: The subinterpreter cannot be made ready, or has failed.
        """
        try:
            if self._interpreter is None:
                self._interpreter = _make_interpreter()
                # Also called at the end of a program that does not close its loop.
                weakref.finalize(self, _close, self._interpreter)
            reply: bytes = self._interpreter.call(answer, request)
        except Exception as error:
            self.broken = True
            self._working = False
            self.end()
            raise BrokenWorkerInterpreter(
                f"the subinterpreter for {function}() has failed: {safe_repr(error)}"
            ) from error
        self._working = False
        return reply

    # -- in any thread --

    def end(self) -> None:
        """Close the subinterpreter, unless a call uses it."""
        interpreter = self._interpreter
        try:
            if interpreter is not None:
                _close(interpreter)
        finally:
            self.ended.set()

    def kill(self) -> None:
        """Do nothing, because a subinterpreter cannot be stopped."""
        self.ended.set()

    # -- in the loop's thread --

    def begin(self) -> bool:
        """Reserve the idle worker for a call."""
        self._working = True
        return True

    def rest(self) -> bool:
        """Record that no call uses the worker. Returns whether another call may use it."""
        self._working = False
        self.idle_since = time.monotonic()
        return self._interpreter is not None and not self.broken

    def forsake(self) -> None:
        """In a forked child: leave the copy alone."""
        self.ended.set()


def _close(interpreter: Any) -> None:
    with suppress(Exception):  # it runs, or is closed already
        interpreter.close()


def _make_interpreter() -> Any:
    from concurrent import interpreters  # type: ignore[attr-defined, unused-ignore]

    from .spawning import preparation, prepare

    data = preparation()
    interpreter = interpreters.create()
    try:
        interpreter.prepare_main(nurseryio_path=tuple(data["sys_path"]))
        interpreter.exec("import sys; sys.path[:] = nurseryio_path; del nurseryio_path")
        interpreter.call(prepare, data)
    except BaseException:
        interpreter.close()
        raise
    return interpreter


# -- public -------------------------------------------------------------------------

_pool_of = pools_of_loops(WorkerInterpreter)


def current_default_interpreter_limiter() -> CapacityLimiter:
    """The limiter that :func:`nurseryio.to_interpreter.run_sync` uses if none is given.

    Each event loop has one. At first it has as many tokens as this process may use processors.

    Returns:
        The limiter of the running loop.

    Raises:
        RuntimeError: No loop is running in this thread.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    return _pool_of(current_state()).limiter


@needs("threads", "to_interpreter.run_sync()")
async def to_interpreter_run_sync(
    sync_fn: Callable[[Unpack[ArgsT]], RetT],
    *args: Unpack[ArgsT],
    limiter: Borrowable | None = None,
) -> RetT:
    """Call ``sync_fn(*args)`` in a subinterpreter of this process and wait for its result.

    Needs Python 3.14. A subinterpreter runs beside this program on another processor, as a worker
    process does, and a call costs less. Many packages with parts in C, such as NumPy, cannot be
    imported in one. The rules for the function, its arguments and the main module are those of
    :func:`nurseryio.to_process.run_sync`.

    **Cancellation.** A subinterpreter cannot be stopped from outside. A cancelled call keeps
    waiting, and the next checkpoint raises the cancellation, as with
    :func:`nurseryio.to_thread.run_sync`. If the task is cancelled before the call has begun, the
    call raises :exc:`Cancelled`.

    Args:
        sync_fn: The function to call. It must be possible to import it.
        *args: Its positional arguments, which can be pickled.
        limiter: The limit to the number of subinterpreters that work at a time. None means
            :func:`current_default_interpreter_limiter`.

    Returns:
        The result of ``sync_fn``, which is a copy.

    Raises:
        NotImplementedError: This Python is older than 3.14.
        Cancelled: The task was cancelled before the call had begun.
        BrokenWorkerInterpreter: The subinterpreter could not be made ready, for example because it
            cannot import the main module.
        pickle.PicklingError: The function, an argument or the result cannot be pickled.
        pickle.UnpicklingError: The subinterpreter cannot load the function or an argument; or the
            result cannot be loaded here.
        TypeError: ``sync_fn`` is not callable or is an async function; or ``limiter`` does not have
            the methods.
        RuntimeError: ``sync_fn`` raised an error that cannot be pickled, or a CancelledError.
        Exception: Any error that ``sync_fn`` raised. Its traceback is a note of it.

    Checkpoint: yes.

    Trio: none. It is ``anyio.to_interpreter.run_sync``.
    """
    if not HAS_INTERPRETERS:
        raise NotImplementedError(
            "to_interpreter.run_sync() needs Python 3.14: use to_process.run_sync() for work that "
            "computes, and to_thread.run_sync() for work that waits"
        )
    await checkpoint_if_cancelled()
    task = current_task()
    pool = _pool_of(task._state)
    if limiter is None:
        limiter = pool.limiter
    call = make_call("to_interpreter", sync_fn, args, task, pool, limiter, kills=False)
    await acquire_token(limiter, call)
    return await wait_for_call(call, task)  # type: ignore[no-any-return]
