"""A cache of worker threads: idle threads are kept for a while and used again. No asyncio.

This module has :func:`start_thread_soon` and the cache behind it. The callers limit how many
threads may work at once, and bring a result into an event loop.

Rule 1: an idle thread costs no CPU. It waits for its own lock, and ends after ``IDLE_SECONDS``
without work.

Rule 2: the thread that became idle last gets the next job. So a few threads do nearly all the work,
with warm caches, and surplus threads stay idle long enough to end.

Rule 3: worker threads are daemons. A thread that is stuck never keeps the process from ending.
A subinterpreter refuses daemons. There the idle threads end when the interpreter does, and the end
waits for the others.

Rule 4: a thread counts as idle *before* it delivers its result. Code that starts the next job when
it gets a result gets the same thread, not a new one.

Rule 5: an idle thread keeps no reference to anything of its last job.

Rule 6: each job gets an outcome. An error of this module itself is delivered as the error of the
job. Names of threads are for people, so no job fails because its thread cannot be named.
"""

from __future__ import annotations

import _thread
import sys
import threading
import traceback
from contextvars import Context
from itertools import count
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .._asyncio.interpreter import DAEMONS, before_threads_are_joined
from .forked import in_child
from .outcome import Error, capture
from .unsupported import needs

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

    None where threads have no names, and on Windows, where there is no limit to their length.
    """
    if sys.platform == "win32":
        return None
    if sys.version_info >= (3, 14):
        # threading.Thread.name reaches the operating system, but not if it is empty, and with
        # letters that the tools of the system may not show.
        set_name: Callable[[str], object] | None = getattr(_thread, "set_name", None)
        return set_name and (lambda name: set_name(_os_name(name).decode("ascii")))
    try:
        # Here, not at the top: this is needed when the first thread starts, not at import.
        import ctypes

        # PyDLL keeps the interpreter's lock during the call, which is far shorter than switching.
        # PyPy does not have it.
        rename = getattr(ctypes, "PyDLL", ctypes.CDLL)(None).pthread_setname_np
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


# A function, the function to call with its outcome, and the thread's name while it runs.
Job: TypeAlias = "tuple[Callable[[], Any], Callable[[Any], object], str | None]"


class _Worker:
    """One thread. Its lock is free while ``given`` holds a job that it has not taken yet.

    The lock is also freed, without a job, when the thread is to end with its interpreter; and by a
    start that a signal handler's error has interrupted, and that has taken its job back.
    """

    __slots__ = (
        "_cache",
        "_rename",
        "_thread",
        "_usual_name",
        "delivering",
        "given",
        "job",
        "ready",
    )

    def __init__(self, cache: ThreadCache, job: Job) -> None:
        self._cache = cache
        # The next job. Only one thread takes it out, because pop() is one step.
        self.given = [job]
        # The job being done, so that it gets an outcome whatever fails.
        self.job: Job | None = None
        # True while the thread counts as idle but is still delivering the result of its last job.
        self.delivering = False
        self.ready = threading.Lock()
        self._usual_name = f"nurseryio thread {next(_numbers)}"
        self._rename = cache.os_rename()
        options: dict[str, Any] = {}
        if sys.version_info >= (3, 14):
            # Otherwise the thread would keep the context of the code that started it alive.
            options["context"] = Context()
        self._thread = threading.Thread(
            target=self._work, name=self._usual_name, daemon=DAEMONS, **options
        )
        self._thread.start()

    def give(self, job: Job) -> None:
        """Give an idle worker its next job."""
        self.given.append(job)
        try:
            self.ready.release()
        except RuntimeError:
            pass  # it is free: an interrupted start has released it

    def take_back(self, job: Job) -> bool:
        """Take a job back, because an error has come out of :meth:`give`.

        The error may be a signal handler's, and come after the release of the lock.

        Returns:
            False if the worker has the job already. The job is done nevertheless.
        """
        try:
            found = self.given.pop()
        except IndexError:
            return False
        if found is job:
            return True
        self.give(found)  # the worker has done the job, and this is its next one
        return False

    def _work(self) -> None:
        """Do jobs until the thread is to end; this is the function that the thread runs."""
        try:
            self._set_name(self._usual_name)
            while self._do_next():
                pass
        except BaseException as error:
            self._fail(error)

    def _do_next(self) -> bool:
        """Wait for a job and do it. Returns False if the thread is to end."""
        if self.ready.acquire(timeout=0.0 if self._cache.ending else IDLE_SECONDS):
            try:
                self.job = self.given.pop()
            except IndexError:
                return not self._cache.ending
            return self._do_job()
        return not self._cache.withdraw(self)

    def _fail(self, error: BaseException) -> None:
        """This class itself has failed: deliver the error as the outcome of the job.

        There may be a job already, or one may be arriving. If there is none, print the error.
        """
        try:
            if not self._cache.withdraw(self) and self.job is None:
                if not self.given:
                    self.ready.acquire(timeout=IDLE_SECONDS)
                if self.given:
                    self.job = self.given.pop()
            if self.job is not None:
                deliver = self.job[1]
                self.job = None
                deliver(Error(error))
            else:
                _report("nurseryio: exception in an idle worker thread")
        finally:
            del error  # no reference cycle

    # A separate function, so that its variables are gone while the thread is idle.
    def _do_job(self) -> bool:
        """Do the job in ``job``. Returns False if the worker could not be offered for another."""
        assert self.job is not None
        fn, deliver, name = self.job
        offered = False
        try:
            if name is not None:
                self._set_name(name)
            outcome = capture(fn)
            # Objects that only fn refers to must be freed before the result is delivered.
            self.job = None
            del fn
            if name is not None:
                self._set_name(self._usual_name)
            self.delivering = True
            offered = self._cache.offer(self)
        except BaseException as error:  # lack of memory, for example
            self.job = None
            outcome = Error(error)
        try:
            deliver(outcome)
        except BaseException:
            _report("nurseryio: exception while delivering result of a thread")
        finally:
            # No reference cycle: the frames of an error refer to this frame, which called them.
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
    """Print the error that is being handled. Standard error may be closed or missing."""
    try:
        print(what, file=sys.stderr)
        traceback.print_exc()
    except Exception:
        pass


class ThreadCache:
    """The idle worker threads of the process; starts one more if none is idle.

    All methods may be called from any thread, also by a finalizer or signal handler that has
    interrupted another call. So there is no lock. They rely on ``popitem``, ``pop`` and
    ``setdefault`` of a dict being atomic for keys that are compared by identity. CPython documents
    that for its free-threaded build as well.
    """

    def __init__(self) -> None:
        # Invariant: a worker in this table has no job, and none is being given to it.
        self._idle: dict[_Worker, None] = {}
        # Whether the interpreter is ending, so that idle workers must end.
        self.ending = False
        self._os_rename: Callable[[str], object] | None = None
        self._os_rename_known = False

    def start_thread_soon(
        self,
        fn: Callable[[], RetT],
        deliver: Callable[[Outcome[RetT]], object],
        name: str | None = None,
    ) -> None:
        """See the module's function :func:`start_thread_soon`."""
        job = (fn, deliver, name)
        try:
            worker, _ = self._idle.popitem()
        except KeyError:
            _Worker(self, job)
            return
        try:
            worker.give(job)
        except BaseException:
            if worker.take_back(job):
                self._idle[worker] = None
            raise

    def offer(self, worker: _Worker) -> bool:
        """Add a worker that is ready for the next job. Adding it and returning True is one step."""
        return self._idle.setdefault(worker, None) is None

    def withdraw(self, worker: _Worker) -> bool:
        """Remove a worker that is about to end.

        Returns:
            False if the worker must not end, because a job is being given to it.
        """
        return self._idle.pop(worker, self) is None

    def forget_all(self) -> None:
        """Called in a forked child, where the threads of the parent do not exist."""
        self._idle.clear()

    def end_idle(self) -> None:
        """End the idle workers now, and each other one after its job: the interpreter ends."""
        self.ending = True
        while self._idle:
            try:
                worker, _ = self._idle.popitem()
            except KeyError:  # another thread has just taken the last one
                break
            worker.ready.release()

    def os_rename(self) -> Callable[[str], object] | None:
        """The function that names the calling thread, or None; looked up at the first call."""
        if not self._os_rename_known:
            self._os_rename = _find_os_rename()
            self._os_rename_known = True
        return self._os_rename

    def idle_threads(self) -> set[threading.Thread]:
        """The threads that have neither a job to do nor a result to deliver."""
        return {worker._thread for worker in self._idle.copy() if not worker.delivering}


_cache = ThreadCache()

in_child(_cache.forget_all)

if not DAEMONS:
    before_threads_are_joined(_cache.end_idle)


def idle_threads() -> set[threading.Thread]:
    """The worker threads of the process that have nothing to do; they will not wake any task."""
    return _cache.idle_threads()


def prepare() -> None:
    """Do the imports now that starting the first thread would do."""
    _cache.os_rename()


@needs("threads")
def start_thread_soon(
    fn: Callable[[], RetT],
    deliver: Callable[[Outcome[RetT]], object],
    name: str | None = None,
) -> None:
    """Run ``deliver(capture(fn))`` in a worker thread, an existing one if possible.

    :func:`nurseryio.to_thread.run_sync` is built on this function. This one does not limit the
    number of threads, does not return to the event loop, and does not set context variables. It may
    be called from any thread.

    The threads are daemons, so they end with the main thread, whatever they are doing. (A
    subinterpreter does not allow daemons. Its end waits for the functions that are running.)
    Neither function may leave thread-local state behind, because other jobs will run in the same
    thread.

    Args:
        fn: Does the work; may block.
        deliver: Called with the outcome of ``fn``, an object with a method ``unwrap()``. Must not
            block. An exception that it raises is printed to standard error.
        name: Name of the thread while ``fn`` runs, for ``threading`` and, cut to 15 bytes, for
            the operating system. None leaves the thread its usual name.

    Raises:
        RuntimeError: The system cannot start one more thread.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.lowlevel.start_thread_soon``.
    """
    _cache.start_thread_soon(fn, deliver, name)
