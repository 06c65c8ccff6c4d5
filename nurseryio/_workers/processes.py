"""Calling functions in worker processes: ``to_process.run_sync``.

anyio's function is not used, for six reasons. It waits for a cancelled call unless it is told
otherwise. It throws away the output of functions, and their tracebacks. Its workers get Ctrl-C of
the terminal. They live on after a parent that was killed in the middle of a call, and so do those
of a parent that has forked. It knows main modules by their path only, not those that were started
by ``python -m``. And it needs a loop that has pipes to processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from .._base.unsupported import needs
from .._core import checkpoint_if_cancelled, current_task
from .._core.task import current_state
from .._system.threads import acquire_token
from .call import make_call, wait_for_call
from .pool import pools_of_loops
from .worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeVarTuple, Unpack

    from .._sync.limiter import CapacityLimiter
    from .._system.thread_call import Borrowable

    ArgsT = TypeVarTuple("ArgsT")

__all__ = ["current_default_process_limiter", "to_process_run_sync"]

RetT = TypeVar("RetT")

_pool_of = pools_of_loops(WorkerProcess)


def current_default_process_limiter() -> CapacityLimiter:
    """The limiter that :func:`nurseryio.to_process.run_sync` uses if none is given.

    Each event loop has one. At first it has as many tokens as this process may use processors. Set
    its ``total_tokens`` to change how many worker processes may work at a time.

    Returns:
        The limiter of the running loop.

    Raises:
        RuntimeError: No loop is running in this thread.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    return _pool_of(current_state()).limiter


@needs("processes", "to_process.run_sync()")
async def to_process_run_sync(
    sync_fn: Callable[[Unpack[ArgsT]], RetT],
    *args: Unpack[ArgsT],
    limiter: Borrowable | None = None,
) -> RetT:
    """Call ``sync_fn(*args)`` in a worker process and wait for its result.

    This is for functions that compute for long: a thread does not make them faster, and slows the
    loop down. The function and its arguments are pickled at the call. So later changes of the
    arguments have no effect, and changes that the function makes to them are not seen here. Context
    variables are not sent.

    A worker imports the main module of the program, as ``multiprocessing`` does with its method
    "spawn". So the code that starts the program has to be under ``if __name__ == "__main__":``. A
    worker has no input, and its output goes where the output of this program goes. Workers are kept
    and used again. They end with the event loop.

    **Cancellation** kills the worker process, and the call raises :exc:`Cancelled` when the process
    has ended. The next call starts another one. If the result has arrived before, it is returned,
    and the next checkpoint raises. Processes that the function has started itself are not ended.
    Ctrl-C in a terminal reaches this program alone, not its workers.

    Args:
        sync_fn: The function to call. It must be possible to import it: not a lambda, and not
            defined inside of a function. Use ``functools.partial`` for keyword arguments.
        *args: Its positional arguments, which can be pickled.
        limiter: The limit to the number of worker processes that work at a time: a
            :class:`CapacityLimiter`, or any object with its methods ``acquire_on_behalf_of`` and
            ``release_on_behalf_of``. None means :func:`current_default_process_limiter`.

    Returns:
        The result of ``sync_fn``, which is a copy too.

    Raises:
        Cancelled: The task was cancelled. The worker process has ended.
        BrokenWorkerProcess: The process has ended before it returned a result, because it crashed,
            exited or was killed by other code; or it could not import the main module.
        pickle.PicklingError: The function, an argument or the result cannot be pickled.
        pickle.UnpicklingError: The worker cannot load the function or an argument; or the result
            cannot be loaded here.
        TypeError: ``sync_fn`` is not callable or is an async function; or ``limiter`` does not have
            the methods.
        RuntimeError: ``sync_fn`` raised an error that cannot be pickled, or a CancelledError; or
            this is a worker that is importing the main module.
        OSError: The system cannot start another process.
        Exception: Any error that ``sync_fn`` raised. The traceback in the worker is a note of it.

    Checkpoint: yes.

    Trio: none. It is ``anyio.to_process.run_sync``.
    """
    await checkpoint_if_cancelled()
    task = current_task()
    pool = _pool_of(task._state)
    if limiter is None:
        limiter = pool.limiter
    call = make_call("to_process", sync_fn, args, task, pool, limiter, kills=True)
    await acquire_token(limiter, call)
    return await wait_for_call(call, task)  # type: ignore[no-any-return]
