"""Worker threads, kept for a while and used again: pure threading, nothing of asyncio.

What lives here: :func:`start_thread_soon` and the cache behind it. How many threads may work at
once, and how a result finds its way into an event loop, is decided by the callers.

Rule 1: a thread that is idle costs no CPU. It sleeps on a lock of its own, and ends after
``IDLE_SECONDS`` without work.

Rule 2: the thread that became idle last works first. A few threads do nearly all the work, with
warm caches, while those that are too many stay idle long enough to end.

Rule 3: worker threads are daemons: one that is stuck never keeps the process from ending.

Rule 4: a thread counts as idle *before* it delivers its result. Whoever answers a result with
the next job gets the same thread, not a new one.

Rule 5: an idle thread refers to nothing of the job that it did last.

Rule 6: each job gets its answer: an error of this module itself is delivered as the job's. Names
of threads are for people; no job fails because of them.
"""

from __future__ import annotations

import sys
import threading
import traceback
from contextvars import Context
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .forked import in_child
from .outcome import Error, capture

if TYPE_CHECKING:
    from collections.abc import Callable

    from .outcome import Outcome

__all__ = ["start_thread_soon"]

RetT = TypeVar("RetT")

# How long (seconds) a thread waits for more work before it ends.
IDLE_SECONDS = 10.0

# The kernel keeps this many bytes of a thread's name.
_OS_NAME_BYTES = 15

_numbers = count()


# -- names ----------------------------------------------------------------------


def _find_os_rename() -> Callable[[str], object] | None:
    """Find the function that names the calling thread for the operating system, if one is needed.

    None where ``threading.Thread.name`` reaches the operating system by itself (Python 3.14),
    and where threads have no names.
    """
    if sys.version_info >= (3, 14) or sys.platform == "win32":
        return None
    try:
        # Here, not at the top: this is needed when the first thread starts, not at import.
        import ctypes

        # PyDLL keeps the interpreter's lock for the call, which is far shorter than a hand-over.
        rename = ctypes.PyDLL(None).pthread_setname_np
    except MemoryError:
        raise
    except Exception:
        return None  # no such function, or a Python without ctypes
    rename.restype = ctypes.c_int
    if sys.platform == "darwin":
        rename.argtypes = [ctypes.c_char_p]

        def rename_self(name: str) -> object:
            return rename(_os_name(name))

    else:
        rename.argtypes = [ctypes.c_void_p, ctypes.c_char_p]

        def rename_self(name: str) -> object:
            return rename(threading.get_ident(), _os_name(name))

    return rename_self


def _os_name(name: str) -> bytes:
    return name[:_OS_NAME_BYTES].encode("ascii", "replace")


# -- threads --------------------------------------------------------------------


# A function, the one that gets its outcome, and the name that the thread bears meanwhile.
Job: TypeAlias = "tuple[Callable[[], Any], Callable[[Any], object], str | None]"


class _Worker:
    """One thread. Its lock is free exactly while a job for it lies ready in ``job``."""

    __slots__ = ("_cache", "_rename", "_thread", "_usual_name", "delivering", "job", "ready")

    def __init__(self, cache: ThreadCache, job: Job) -> None:
        self._cache = cache
        # The job to do, and while it is being done, so that it is answered whatever fails.
        self.job: Job | None = job
        # While it counts as idle already, but the result of the last job is on its way.
        self.delivering = False
        self.ready = threading.Lock()
        self._usual_name = f"nurseryio thread {next(_numbers)}"
        self._rename = cache.os_rename()
        options: dict[str, Any] = {}
        if sys.version_info >= (3, 14):
            # Otherwise the thread would hold on to the context of whoever happened to start it.
            options["context"] = Context()
        self._thread = threading.Thread(
            target=self._work, name=self._usual_name, daemon=True, **options
        )
        self._thread.start()

    def _work(self) -> None:
        """What the thread does."""
        try:
            self._set_name(self._usual_name)
            while self._do_next():
                pass
        except BaseException as error:
            self._fail(error)

    def _do_next(self) -> bool:
        """Wait for a job and do it. False: the thread is to end."""
        if self.ready.acquire(timeout=IDLE_SECONDS):
            return self._do_job()
        return not self._cache.withdraw(self)

    def _fail(self, error: BaseException) -> None:
        """This class itself has failed: answer the job, if there is one or one is on its way."""
        try:
            if not self._cache.withdraw(self) and (
                self.job is not None or self.ready.acquire(timeout=IDLE_SECONDS)
            ):
                assert self.job is not None
                deliver = self.job[1]
                self.job = None
                deliver(Error(error))
            else:
                _report("nurseryio: exception in an idle worker thread")
        finally:
            del error  # no circle

    # A function of its own, so that its variables are gone while the thread is idle.
    def _do_job(self) -> bool:
        """Do the job that lies ready. False if the worker could not be offered for another one."""
        assert self.job is not None
        fn, deliver, name = self.job
        offered = False
        try:
            if name is not None:
                self._set_name(name)
            outcome = capture(fn)
            # What fn refers to must be free once the result is there, not some time after.
            self.job = None
            del fn
            if name is not None:
                self._set_name(self._usual_name)
            self.delivering = True
            offered = self._cache.offer(self)
        except BaseException as error:  # of memory, perhaps
            self.job = None
            outcome = Error(error)
        try:
            deliver(outcome)
        except BaseException:
            _report("nurseryio: exception while delivering result of a thread")
        finally:
            # An error's frames know this one, as the one that called them: no circle.
            del outcome, deliver
        self.delivering = False
        return offered

    def _set_name(self, name: str) -> None:
        try:
            self._thread.name = name
            if self._rename is not None:
                self._rename(name)
        except MemoryError:
            raise
        except Exception:
            pass


def _report(what: str) -> None:
    """Print the error that is being handled. There may be nothing to print to."""
    try:
        print(what, file=sys.stderr)
        traceback.print_exc()
    except Exception:
        pass


class ThreadCache:
    """The threads of the process: those that are idle, and how to get one more.

    All methods may be called from any thread. They rely on ``append``, ``pop`` and ``remove`` of
    a list being atomic, which CPython guarantees with and without its global lock.
    """

    def __init__(self) -> None:
        # Invariant: a worker in here has no job and no job on its way.
        self._idle: list[_Worker] = []
        self._os_rename: Callable[[str], object] | None = None
        self._os_rename_known = False

    def start_thread_soon(
        self,
        fn: Callable[[], RetT],
        deliver: Callable[[Outcome[RetT]], object],
        name: str | None = None,
    ) -> None:
        """See :func:`start_thread_soon` of the module."""
        job = (fn, deliver, name)
        try:
            worker = self._idle.pop()
        except IndexError:
            _Worker(self, job)
            return
        try:
            worker.job = job
            worker.ready.release()
        except BaseException:
            worker.job = None
            self._idle.append(worker)
            raise

    def offer(self, worker: _Worker) -> bool:
        """The worker is ready for the next job. Returns True, in one go with the change."""
        return self._idle.append(worker) is None  # type: ignore[func-returns-value]

    def withdraw(self, worker: _Worker) -> bool:
        """The worker wants to end. False if it must not, because a job is on its way to it."""
        try:
            self._idle.remove(worker)
        except ValueError:
            return False
        return True

    def forget_all(self) -> None:
        """In a forked child: the threads of the parent are not there."""
        self._idle.clear()

    def os_rename(self) -> Callable[[str], object] | None:
        """The function that names the calling thread, looked up at the first call."""
        if not self._os_rename_known:
            self._os_rename = _find_os_rename()
            self._os_rename_known = True
        return self._os_rename

    def idle_threads(self) -> set[threading.Thread]:
        """The threads that have nothing to do, not even a result to deliver."""
        return {worker._thread for worker in list(self._idle) if not worker.delivering}


_cache = ThreadCache()

in_child(_cache.forget_all)


def idle_threads() -> set[threading.Thread]:
    """The worker threads of the process that have nothing to do; they wake nobody."""
    return _cache.idle_threads()


def prepare() -> None:
    """Load what the first thread would load."""
    _cache.os_rename()


def start_thread_soon(
    fn: Callable[[], RetT],
    deliver: Callable[[Outcome[RetT]], object],
    name: str | None = None,
) -> None:
    """Run ``deliver(capture(fn))`` in a worker thread, one that exists already if possible.

    This is the bare mechanism below :func:`nurseryio.to_thread.run_sync`: no limit on the number
    of threads, no way back into the event loop, no context variables. It may be called from any
    thread.

    The threads are daemons, so they end with the main thread, whatever they are doing. Neither
    function may leave thread-local state behind, as other jobs will run in the same thread.

    Args:
        fn: Does the work; may block.
        deliver: Gets what ``fn`` returned or raised, as an outcome with a method ``unwrap()``.
            Must not block. An exception that it raises is printed to standard error.
        name: Name of the thread while ``fn`` runs, for ``threading`` and, cut to 15 bytes, for
            the operating system. None leaves the thread its usual name.

    Raises:
        RuntimeError: The system cannot start one more thread.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.lowlevel.start_thread_soon``.
    """
    _cache.start_thread_soon(fn, deliver, name)
