"""The workers of one event loop: :class:`Pool`.

Rule 1: the worker that became idle last gets the next call. So the others stay idle, and are ended
after ``IDLE_SECONDS``. That is looked at when a call ends, so no timer is needed.

Rule 2: closing the loop ends all workers and waits for their end, for a limited time. Workers that
are idle end as they like. Workers that a call uses are killed.

Rule 3: the end of a program that does not close its loop kills the workers that a call uses. Else
it would wait for them: ``multiprocessing`` waits for its resource tracker, which waits for them.

Rule 4: a forked child does not touch the processes of its parent. It only closes its copies of
their connections, so that they notice the end of the parent.
"""

from __future__ import annotations

import atexit
import os
import time
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakMethod

from .._asyncio.closing import closing_of
from .._base.forked import generation, in_child
from .._base.thread_cache import start_thread_soon
from .._core.loop_state import PerLoop, all_states
from .._sync.limiter import CapacityLimiter

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from .._core.loop_state import LoopState

# How long (seconds) a worker is kept without a call.
IDLE_SECONDS = 300.0

# How long (seconds) the end of a loop waits for the end of its workers.
CLOSE_SECONDS = 10.0


class Worker(Protocol):
    """The methods of workers of all kinds."""

    broken: bool
    ended: threading.Event
    idle_since: float

    @property
    def is_working(self) -> bool: ...
    @property
    def where(self) -> str: ...
    def exchange(self, request: bytes, function: str) -> bytes: ...
    def end(self) -> object: ...
    def kill(self) -> None: ...
    def begin(self) -> bool: ...
    def rest(self) -> bool: ...
    def forsake(self) -> None: ...


class Pool:
    """The workers of one kind that belong to one event loop."""

    __slots__ = ("__weakref__", "_closed", "_generation", "_idle", "_make", "_workers", "limiter")

    def __init__(self, state: LoopState, make: Callable[[], Worker]) -> None:
        self.limiter = CapacityLimiter(processors())
        self._make = make
        self._generation = generation()
        # All workers that have not ended; those without a call, the last one became idle last. A
        # dict, because another thread may copy it.
        self._workers: dict[Worker, None] = {}
        self._idle: list[Worker] = []
        self._closed = False
        closing = closing_of(state.loop)
        if closing is not None:
            close = WeakMethod(self.close)
            closing.add(close, lambda: (bound := close()) and bound())
        # Else the finalizer closes the pool.

    # -- in the loop's thread --

    def take(self) -> Worker:
        """A worker for a call: an idle one, or else a new one."""
        while self._idle:
            worker = self._idle.pop()
            if worker.begin():
                return worker
            self._end(worker)
        worker = self._make()
        self._workers[worker] = None
        return worker

    def put_back(self, worker: Worker) -> None:
        """Take a worker back after a call, or after an attempt to make one."""
        if not worker.rest():
            self._workers.pop(worker, None)
            return
        if self._closed:
            self._end(worker)
            return
        self._idle.append(worker)
        oldest = time.monotonic() - IDLE_SECONDS
        while self._idle and (
            self._idle[0].idle_since < oldest or len(self._idle) > self.limiter.total_tokens
        ):
            self._end(self._idle.pop(0))

    def _end(self, worker: Worker) -> None:
        """End a worker in a thread."""
        self._workers.pop(worker, None)
        _end_in_thread(worker)

    # -- the end --

    def close(self, wait: bool = True) -> None:
        """End all workers. May be called twice."""
        if self._closed or self._generation != generation():
            return
        self._closed = True
        workers, self._workers, self._idle = self._workers, {}, []
        for worker in workers:
            if worker.is_working:
                worker.kill()
            else:
                _end_in_thread(worker)
        if wait:
            limit = time.monotonic() + CLOSE_SECONDS
            for worker in workers:
                worker.ended.wait(max(0.0, limit - time.monotonic()))

    def kill_all(self) -> None:
        """Kill the workers that a call uses. May be called from any thread."""
        for worker in self._workers.copy():
            worker.kill()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close(wait=False)

    def forsake(self) -> None:
        """In a forked child: forget the workers, which belong to the parent."""
        self._closed = True
        workers, self._workers, self._idle = self._workers, {}, []
        for worker in workers:
            worker.forsake()


def _end_in_thread(worker: Worker) -> None:
    try:
        start_thread_soon(worker.end, _ignore, "ends a worker")
    except RuntimeError:
        worker.end()  # the interpreter starts no more threads


def _ignore(_outcome: object) -> None:
    pass


def processors() -> int:
    """How many processors this process may use."""
    count: int | None
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        count = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count()
    return count or 1


def pools_of_loops(make: Callable[[], Worker]) -> PerLoop[Pool]:
    """The pools of one kind of workers, one for each loop."""
    pools: PerLoop[Pool] = PerLoop(lambda state: Pool(state, make))

    def made() -> Iterator[tuple[LoopState, Pool]]:
        for state in all_states():
            pool: Any = pools.find(state)
            if pool is not None:
                yield state, pool

    @in_child
    def forsake_all() -> None:
        for state, pool in made():
            pools.drop(state)
            pool.forsake()

    @atexit.register
    def kill_all() -> None:
        for _state, pool in made():
            pool.kill_all()

    return pools
