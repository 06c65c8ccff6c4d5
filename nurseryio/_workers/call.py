"""One call in a worker, as both sides see it: :class:`WorkerCall`; and waiting for it.

It is a hop (``_system.thread_call``): a thread of this program makes the call, and waits for the
worker. The thread calls no function of the user, except the methods by which objects unpickle
themselves.

Rule 1: the worker is back in its pool before the token is given back, and the token before the task
continues. So the next call finds both.

Rule 2: if a worker has been killed for a cancellation, the call ends with the cancellation when the
worker has ended, not before. If the result was there first, the call returns it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._base import Error, capture
from .._base.thread_cache import start_thread_soon
from .._base.util import safe_repr
from .._core import wait_task_rescheduled
from .._system.thread_call import Hop
from .packing import function_of, pack_request, unpack

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import NoReturn

    from .._base import Outcome
    from .._core import Abort, Task
    from .._system.thread_call import Borrowable
    from .pool import Pool, Worker


class WorkerCall(Hop):
    """A call in a worker. While it lasts, it is also the borrower of the limiter's token."""

    __slots__ = ("_kills", "_lost", "_packed", "_pool", "function", "kind", "worker")

    def __init__(
        self,
        kind: str,
        packed: bytes,
        function: str,
        pool: Pool,
        kills: bool,
        task: Task,
        loop: asyncio.AbstractEventLoop,
        limiter: Borrowable,
    ) -> None:
        super().__init__(None, task, loop, limiter, False)
        self._packed: bytes | None = packed
        self._pool = pool
        # Whether a cancellation kills the worker.
        self._kills = kills
        # Whether the worker has ended without a reply. Set in the thread, before the outcome.
        self._lost = False
        # The name of the public function, and that of the user's function.
        self.kind = kind
        self.function = function
        self.worker: Worker | None = None

    @property
    def name(self) -> str:
        """The name that the limiter's statistics show."""
        return f"nurseryio.{self.kind}.run_sync-{self._number}"

    # -- in the thread --

    def work(self) -> Any:
        """Make the call."""
        worker, packed = self.worker, self._packed
        self._packed = None
        assert worker is not None and packed is not None
        try:
            reply = worker.exchange(packed, self.function)
        except BaseException:
            self._lost = True
            raise
        finally:
            del packed
        return unpack(reply, self.function, worker.where)

    # -- in the loop's thread --

    def _finish(self, outcome: Outcome[Any]) -> None:
        try:
            try:
                self.give_back()
                if self._lost and self._kills and self.raise_cancel:
                    outcome = capture(self.raise_cancel)
            except BaseException as error:
                outcome = Error(error)  # the task has to be woken
            super()._finish(outcome)
        finally:
            del outcome  # no reference cycle

    def give_back(self) -> None:
        """Give the worker back to its pool."""
        worker, self.worker = self.worker, None
        if worker is not None:
            self._pool.put_back(worker)

    def abort(self, raise_cancel: Callable[[], NoReturn]) -> Abort:
        """The task's abort function: called when the task is cancelled while it waits."""
        if self._kills and self.worker is not None:
            self.worker.kill()
        return super().abort(raise_cancel)


def make_call(
    kind: str,
    sync_fn: Callable[..., Any],
    args: tuple[Any, ...],
    task: Task,
    pool: Pool,
    limiter: Borrowable,
    *,
    kills: bool,
) -> WorkerCall:
    """Make the call of ``sync_fn(*args)`` in a worker. The next step is to acquire its token.

    Args:
        kind: The name of the public module.
        sync_fn: The function.
        args: Its arguments.
        task: The task that calls.
        pool: The pool of the task's loop.
        limiter: The limiter.
        kills: Whether a cancellation kills the worker.

    Raises:
        TypeError: ``sync_fn`` is not callable.
        pickle.PicklingError: The function or an argument cannot be pickled.
    """
    caller = f"{kind}.run_sync"
    if not callable(sync_fn):
        raise TypeError(f"{caller} needs a function to call, not {safe_repr(sync_fn)}")
    packed = pack_request(caller, sync_fn, args)
    return WorkerCall(
        kind, packed, function_of(sync_fn), pool, kills, task, task._state.loop, limiter
    )


async def wait_for_call(call: WorkerCall, task: Task) -> Any:
    """Make a call, for which a token was acquired, and wait for its result.

    Raises:
        Cancelled: the task was cancelled, and the worker killed for it.
        Exception: any error of the call.
    """
    try:
        try:
            try:
                call.worker = call._pool.take()
                start_thread_soon(call.work, call.deliver, f"{call.function} from {task.name}")
            except BaseException:
                call.give_back()
                call.release()
                raise
            return await wait_task_rescheduled(call.abort)
        finally:
            call.forsake()
    except BaseException:
        # Without this the call would wake the task in a later wait.
        call.forsake()
        if call.worker is not None and call._kills:
            call.worker.kill()  # the coroutine is closed, for example with its loop
        raise
