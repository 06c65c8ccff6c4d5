"""One worker process, as the program that has started it uses it: :class:`WorkerProcess`.

``multiprocessing`` starts the process by its method "spawn". So the rules for the program's main
module, ``set_executable``, frozen programs and shared memory are those of ``multiprocessing``. Its
``Process.start()`` is not used, only the function below it. ``start()`` would enter the process in
a table that each forked child inherits, whose processes other code reaps, and that the end of the
program waits for.

Rule 1: a call is made in a thread, which blocks. So this works with every loop, and on Windows.

Rule 2: the thread that makes a call reaps the process if it ends during the call. An idle process
is ended, and reaped, in a thread too. Nothing is a zombie for longer than that takes.

Rule 3: no signal is sent once the process may have been reaped, because its id may be reused.

Rule 4: killing a worker that has its result already does nothing. The result is not lost.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .._base.errors import BrokenWorkerProcess
from .._base.exc_fields import explained
from .worker_main import GRACE_SECONDS, READY, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

_ADVICE_START = (
    "its error output says more. A worker imports the main module of the program, so the code that "
    "starts the program must be under: if __name__ == '__main__':, and be in a file, not come from "
    "standard input"
)
_ADVICE_KILLED = "systems do this when memory runs out"


class WorkerProcess:
    """A worker process. It is started by its first call. One call at a time may use it."""

    __slots__ = (
        "_connection",
        "_doomed",
        "_ended",
        "_lifeline",
        "_lock",
        "_popen",
        "_theirs",
        "_working",
        "broken",
        "ended",
        "idle_since",
    )

    def __init__(self) -> None:
        # Reentrant, because a finalizer or a signal handler may interrupt the code that holds it.
        self._lock = threading.RLock()
        self._connection: Connection[Any, Any] | None = None
        # Ends, for the process, when this program does.
        self._lifeline: Connection[Any, Any] | None = None
        # The ends of the process, as long as this program has them too.
        self._theirs: list[Connection[Any, Any]] = []
        self._popen: Any = None
        # -- under the lock --
        # Whether a call uses it, or will use it: its thread reaps the process.
        self._working = True
        # Whether the process is to be killed, or was.
        self._doomed = False
        # Whether a thread has begun to reap it.
        self._ended = False
        # -- written by the thread of a call --
        # Whether the process ended during a call, or could not be started.
        self.broken = False
        # Set when the process is reaped.
        self.ended = threading.Event()
        # The time (``time.monotonic``) at which it became idle.
        self.idle_since = 0.0

    def __repr__(self) -> str:
        return f"<worker process {self.pid}>"

    @property
    def pid(self) -> int | None:
        """The process id; None if it was not started."""
        pid: int | None = getattr(self._popen, "pid", None)
        return pid

    @property
    def where(self) -> str:
        """The worker, for the note at an error of a function."""
        return f"worker process {self.pid}"

    # -- in the thread of a call --

    def exchange(self, request: bytes, function: str) -> bytes:
        """Send a request and wait for the reply. Starts the process if needed.

        Raises:
            BrokenWorkerProcess: The process has ended, or it could not be started.
            Exception: The system or ``multiprocessing`` refuses to start it.
        """
        try:
            if self._popen is None:
                self._start()
            connection = self._connection
            assert connection is not None
            try:
                connection.send_bytes(request)
                reply = connection.recv_bytes()
            except (EOFError, OSError) as error:
                raise self._death(f"while it called {function}()") from error
        except BaseException:
            self.broken = True
            self.end(0.0)
            raise
        with self._lock:
            self._working = False
            doomed = self._doomed
        if doomed:
            self.broken = True
            self.end(0.0)
        return reply

    def _start(self) -> None:
        # multiprocessing is loaded here, at the first call.
        from multiprocessing import Pipe

        from .spawning import spawn_process

        try:
            self._connection, theirs = Pipe()
            self._theirs.append(theirs)
            end, self._lifeline = Pipe(duplex=False)
            self._theirs.append(end)
            with self._lock:
                doomed = self._doomed
            if doomed:
                raise BrokenWorkerProcess("the worker process was not needed any more")
            with _ctrl_c_blocked():
                popen = spawn_process(serve, theirs, end)
            with self._lock:
                self._popen = popen
                if self._doomed:
                    self._send_kill()
        finally:
            while self._theirs:
                self._theirs.pop().close()
        try:
            ready = self._connection.recv_bytes() == READY
        except (EOFError, OSError):
            ready = False
        if not ready:
            raise explained(self._death("before it could call a function"), _ADVICE_START)

    def _death(self, when: str) -> BrokenWorkerProcess:
        """Reap the process, and make the error that says how it has ended."""
        status = self.end(0.0 if self._doomed else GRACE_SECONDS)
        if status is None:
            how = "has ended, with an exit status that is not known,"
        elif status < 0:
            how = f"was killed by {_signal_name(-status)}"
        else:
            how = f"exited with status {status}"
        error = BrokenWorkerProcess(f"worker process {self.pid} {how} {when}", self.pid, status)
        if status == -_SIGKILL:
            explained(error, _ADVICE_KILLED)
        return error

    # -- in any thread --

    def end(self, grace: float = GRACE_SECONDS) -> int | None:
        """End the process by the end of its connection, and reap it. Blocks until then.

        Args:
            grace: for how many seconds it may live on before it is killed.

        Returns:
            The exit status, or the negative number of a signal; None if it is not known.
        """
        with self._lock:
            first = not self._ended
            self._ended = True
            if first and grace <= 0:
                self._send_kill()
        if not first:
            return self._popen and self._popen.returncode  # type: ignore[no-any-return]
        try:
            for mine in (self._connection, self._lifeline):
                if mine is not None:
                    mine.close()
            popen = self._popen
            if popen is None:
                return None
            status: int | None = _wait(popen, grace) if grace > 0 else None
            if status is None:
                self._send_kill()
                status = popen.wait()
            popen.close()
            return status
        finally:
            self.ended.set()

    def kill(self) -> None:
        """Kill the process if a call uses it; the thread of the call reaps it."""
        with self._lock:
            if self._working and not self._doomed:
                self._doomed = True
                if self._popen is not None and not self._ended:
                    self._send_kill()

    def _send_kill(self) -> None:
        popen = self._popen
        if popen is None or popen.returncode is not None:
            return
        with suppress(OSError):  # it has ended, or runs as another user now
            if os.name == "posix":
                os.kill(popen.pid, signal.SIGKILL)
            else:
                popen.kill()

    # -- in the loop's thread --

    def begin(self) -> bool:
        """Reserve the idle worker for a call. Returns False if its process has ended meanwhile."""
        assert self._connection is not None
        try:
            alive = not self._connection.poll()  # nothing but the end can be read now
        except OSError:
            alive = False
        if alive:
            with self._lock:
                self._working = True
        return alive

    def rest(self) -> bool:
        """Record that no call uses the worker. Returns whether another call may use it."""
        with self._lock:
            self._working = False
        self.idle_since = time.monotonic()
        return self._popen is not None and not self.broken and not self._ended

    @property
    def is_working(self) -> bool:
        """Whether a call uses the worker."""
        return self._working

    def forsake(self) -> None:
        """In a forked child: close the copies of the parent's descriptors."""
        self._lock = threading.RLock()  # a thread of the parent may hold the old one
        self._ended = True
        self.ended.set()
        # A copy of the worker's ends would hide from the parent that the worker has ended.
        for copy in (self._connection, self._lifeline, *self._theirs):
            with suppress(OSError):
                if copy is not None:
                    copy.close()


def _wait(popen: Any, seconds: float) -> int | None:
    """Wait for an exit, for a limited time. Returns its status, or None."""
    try:
        pidfd = os.pidfd_open(popen.pid)
    except (AttributeError, OSError):
        # This waits for the end of a pipe, which children of the process may hold.
        status: int | None = popen.wait(seconds)
        return status
    from multiprocessing.connection import wait

    try:
        wait([pidfd], seconds)
    finally:
        os.close(pidfd)
    status = popen.poll()
    return status


_SIGKILL: int = getattr(signal, "SIGKILL", 9)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """A process that is started inside gets no SIGINT until it asks for it."""
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    # multiprocessing starts this process by the way, and unblocks the signal on old Pythons.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
