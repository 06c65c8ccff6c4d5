"""Calling blocking functions from tasks: ``to_thread.run_sync``, and how many threads it uses.

anyio's function is not used, for three reasons. While the thread works, anyio polls its cancelled
scopes. It has no names for threads. And it does not run the calls of ``from_thread`` in the waiting
task itself, as Trio documents.

Rule 1: a task that waits for a thread costs no CPU, cancelled or not. The result arrives by one
call into the loop, a cancellation by one call of ``Hop.abort``.

Rule 2: the limiter's token is given back when the *thread* is done. If the thread was abandoned,
that is later than the end of the task's wait.

The threads themselves are in ``_base.thread_cache``; calls from a thread back into the loop are in
``from_thread``.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from .._asyncio.compat import running_loop
from .._base import WouldBlock
from .._base.library_name import hide_library_name
from .._base.thread_cache import start_thread_soon
from .._base.unsupported import needs
from .._base.util import safe_repr, text_of
from .._core import checkpoint, checkpoint_if_cancelled, current_task, wait_task_rescheduled
from .._run.runvar import RunVar
from .._sync import Event
from .._sync.limiter import CapacityLimiter
from .thread_call import Hop

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    from .thread_call import Borrowable

    ArgsT = TypeVarTuple("ArgsT")

__all__ = [
    "active_thread_count",
    "current_default_thread_limiter",
    "to_thread_run_sync",
    "wait_all_threads_completed",
]

RetT = TypeVar("RetT")

# How many threads may work at a time for one event loop, unless another limiter is given.
DEFAULT_LIMIT = 40


class _LoopThreads:
    """The threads of one event loop: the default limiter, and the calls that tasks wait for."""

    __slots__ = ("_active", "limiter", "none_active")

    def __init__(self) -> None:
        self.limiter = CapacityLimiter(DEFAULT_LIMIT)
        # The calls for which a task waits, and the event that is set when there are none left.
        self._active: set[Hop] = set()
        self.none_active: Event | None = None

    @property
    def active(self) -> int:
        """How many tasks wait for a thread."""
        return len(self._active)

    def enter(self, hop: Hop) -> None:
        """Record that a task begins to wait."""
        self._active.add(hop)

    def leave(self, hop: Hop) -> None:
        """Record that the task has stopped waiting, for any reason. May be called twice."""
        hop.forsake()
        self._active.discard(hop)
        if self.none_active is not None and not self._active:
            self.none_active.set()
            self.none_active = None


_loop_threads: RunVar[_LoopThreads] = RunVar("threads")


def _threads_of_this_loop() -> _LoopThreads:
    try:
        return _loop_threads.get()
    except LookupError:
        threads = _LoopThreads()
        _loop_threads.set(threads)
        return threads


def current_default_thread_limiter() -> CapacityLimiter:
    """The limiter that :func:`nurseryio.to_thread.run_sync` uses if none is given.

    Each event loop has one, with 40 tokens at first. Set its ``total_tokens`` to change how many
    threads may work at a time.

    Returns:
        The limiter of the running loop.

    Raises:
        RuntimeError: No loop is running in this thread.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.to_thread.current_default_thread_limiter``.
    """
    return _threads_of_this_loop().limiter


def active_thread_count() -> int:
    """How many tasks of the running loop are waiting for a worker thread.

    Abandoned threads do not count.

    Raises:
        RuntimeError: No loop is running in this thread.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.testing.active_thread_count``.
    """
    return _threads_of_this_loop().active


async def wait_all_threads_completed() -> None:
    """Wait until no task of the running loop is waiting for a worker thread.

    This is for tests that must know that no thread is working any more. The tasks may start new
    threads when they continue. So wait in a loop, together with
    :func:`nurseryio.testing.wait_all_tasks_blocked`, until :func:`active_thread_count` is 0.

    Raises:
        Cancelled: The wait was cancelled.

    Checkpoint: yes.

    Trio: ``trio.testing.wait_all_threads_completed``.
    """
    threads = _threads_of_this_loop()
    await checkpoint()
    while threads.active:
        if threads.none_active is None:
            threads.none_active = Event()
        await threads.none_active.wait()


@needs("threads", "to_thread.run_sync()")
async def to_thread_run_sync(
    sync_fn: Callable[[Unpack[ArgsT]], RetT],
    *args: Unpack[ArgsT],
    thread_name: str | None = None,
    abandon_on_cancel: bool = False,
    limiter: Borrowable | None = None,
) -> RetT:
    """Call ``sync_fn(*args)`` in a worker thread and wait for its result.

    This is for calls that block: file access, database drivers, anything that would stop the loop.
    The function runs in a copy of the calling task's context variables. It can call the functions
    of :mod:`nurseryio.from_thread` to have code run in the loop.

    **Cancellation.** A function in a thread cannot be stopped from outside. If the task is
    cancelled before the thread is started, the call raises :exc:`Cancelled`. After that it
    depends on ``abandon_on_cancel``:

    * If false, the call keeps waiting, as if ``sync_fn`` had been called directly. The
      cancellation is raised at the next checkpoint. This holds for asyncio's ``task.cancel()``
      too, which is raised at the next ``await``. A task that ends before ends with its result.
      The function may ask for a cancellation with :func:`nurseryio.from_thread.check_cancelled`.
    * If true, the call raises :exc:`Cancelled` at once and **the thread continues in the
      background**. Its result or error is thrown away. Use that only for functions that do no
      harm in the background, such as looking up a name.

    A cancellation while a thread works costs no CPU. Worker threads, abandoned or not, never keep
    the process from ending.

    Args:
        sync_fn: The function to call. Use ``functools.partial`` for keyword arguments.
        *args: Its positional arguments.
        thread_name: Name of the thread while the function runs, as ``threading.Thread.name`` and,
            cut to 15 bytes, in the operating system. None stands for a name that is made of the
            names of the function and the task.
        abandon_on_cancel: Whether a cancelled call stops waiting for the thread.
        limiter: The limit to the number of threads: a :class:`CapacityLimiter`, or any object with
            its methods ``acquire_on_behalf_of`` and ``release_on_behalf_of``. The token is given
            back once the thread is done. None means :func:`current_default_thread_limiter`.

    Returns:
        The result of ``sync_fn``.

    Raises:
        Cancelled: The task was cancelled before the thread started, or, with
            ``abandon_on_cancel``, while it worked.
        TypeError: ``sync_fn`` is not callable or is an async function; or ``thread_name`` is not a
            string; or ``limiter`` does not have the methods.
        RuntimeError: The system cannot start another thread.
        Exception: Any error that ``sync_fn`` or the limiter raised.

    Checkpoint: yes.

    Trio: ``trio.to_thread.run_sync``.
    """
    await checkpoint_if_cancelled()
    abandon = bool(abandon_on_cancel)
    task = current_task()
    if not callable(sync_fn):
        raise TypeError(f"to_thread.run_sync needs a function to call, not {safe_repr(sync_fn)}")
    if thread_name is None:
        thread_name = f"{text_of(sync_fn, '__name__')} from {task.name}"
    elif not isinstance(thread_name, str):
        raise TypeError(f"thread_name must be a string or None, not {thread_name!r}")
    threads = _threads_of_this_loop()
    if limiter is None:
        limiter = threads.limiter
    context = copy_context()
    hide_library_name(context)
    hop = Hop((sync_fn, args, context), task, running_loop(), limiter, abandon)
    await acquire_token(limiter, hop)
    try:
        try:
            threads.enter(hop)
            try:
                start_thread_soon(hop.work, hop.deliver, thread_name)
            except BaseException:
                hop.release()
                raise
            while True:
                result: Any = await wait_task_rescheduled(hop.abort)
                if hop.finished:
                    return result  # type: ignore[no-any-return]
                try:
                    await result.serve()
                finally:
                    hop.end_request()
                    del result
        finally:
            threads.leave(hop)
    except BaseException:
        # Without this the hop would wake the task in a later wait.
        threads.leave(hop)
        raise


async def acquire_token(limiter: Borrowable, hop: Hop) -> None:
    if type(limiter) is CapacityLimiter:
        # No checkpoint is needed for a token that is free: the wait for the thread is one.
        try:
            limiter.acquire_on_behalf_of_nowait(hop)
        except WouldBlock:
            await limiter.acquire_on_behalf_of(hop)
    elif hasattr(limiter, "acquire_on_behalf_of") and hasattr(limiter, "release_on_behalf_of"):
        await limiter.acquire_on_behalf_of(hop)
    else:
        raise TypeError(
            "limiter must be a CapacityLimiter or have the methods acquire_on_behalf_of and "
            f"release_on_behalf_of, but {safe_repr(limiter)} has not"
        )
