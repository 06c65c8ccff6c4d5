"""Learning that a child process has exited, and how, on any loop and without polling.

Two ways to wait: a *pidfd*, a file descriptor that becomes readable at the exit (Linux), and
elsewhere a worker thread that blocks until then. Neither needs ``SIGCHLD`` or the main thread.

Rule 1: the status is asked for here, not by ``subprocess``, which reports success for a child that
somebody else has reaped. It is kept in ``Popen.returncode``, which is public.

Rule 2: where the system can (``waitid``), the status is read and kept before the child is reaped,
so that nothing that happens in between loses it.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from .._asyncio.compat import running_loop
from .._base.forked import generation
from .._base.thread_cache import start_thread_soon
from .._loop import wait_readable
from .._loop.watching import check_can_watch
from .._sync import Event

if TYPE_CHECKING:
    import asyncio
    import subprocess
    from collections.abc import Callable

    from .._base import Outcome

# Reported for a child whose exit status nobody can know any more, as by asyncio.
UNKNOWN_STATUS = 255

logger = logging.getLogger("nurseryio.Process")


class ExitWatch:
    """Knows whether one child has exited; waits for it, for one waiting task at a time."""

    __slots__ = ("_generation", "_lock", "_popen", "_reaped", "_thread")

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        # In a forked child the program is not a child of ours.
        self._generation = generation()
        # Made when it is first needed; there is no need where there are pidfds.
        self._thread: _ExitThread | None = None
        # Whoever has it asks the system; any thread may poll.
        self._lock = threading.Lock()
        self._reaped = False

    def poll(self) -> int | None:
        """The exit status, None if the child is running. Reaps it; may be called in any thread.

        ``UNKNOWN_STATUS`` if somebody else has reaped it, which is logged once.
        """
        # Not waited for: a handler of a signal may have interrupted who has the lock.
        if self._generation != generation():
            return self._popen.returncode  # in a forked child: what the parent knew then
        if not self._reaped and self._lock.acquire(blocking=False):
            try:
                if not self._reaped:
                    self._reap()
            finally:
                self._lock.release()
        return self._popen.returncode

    def _reap(self) -> None:
        popen = self._popen
        if os.name != "posix":
            self._reaped = popen.poll() is not None
        elif hasattr(os, "waitid"):
            if popen.returncode is None:
                self._keep(_peek)
            if popen.returncode is not None:
                with suppress(ChildProcessError):
                    os.waitpid(popen.pid, os.WNOHANG)
                self._reaped = True
        elif self._thread is None:
            self._keep(_take)
            self._reaped = popen.returncode is not None
        # Else the thread reaps, and two must not.

    def _keep(self, ask: Callable[[int], int | None]) -> None:
        """Keep what the system says of the child."""
        try:
            self._popen.returncode = ask(self._popen.pid)
        except ChildProcessError:
            if self._popen.returncode is not None:
                return
            self._popen.returncode = UNKNOWN_STATUS
            logger.warning(
                "the exit status of process %d is not known and will be reported as %d: it was "
                "taken by other code that waits for child processes, or SIGCHLD is ignored",
                self._popen.pid,
                UNKNOWN_STATUS,
            )

    def check_parent(self) -> None:
        """Raise RuntimeError if this process was forked from the one that has started the child."""
        if self._generation != generation():
            raise RuntimeError(
                f"process {self._popen.pid} was started before this one was forked: only the "
                "process that has started it can wait for it"
            )

    async def wait(self) -> None:
        """Return once the child can be reaped. Only for a child that has not been reaped yet.

        Checkpoint: only if it is still running.
        """
        try:
            check_can_watch("pidfds")
            # Opened again each time, so that none is ever open without somebody waiting.
            pidfd = os.pidfd_open(self._popen.pid)
        except ProcessLookupError:
            return  # gone and, as SIGCHLD is ignored, reaped by the system
        except (AttributeError, OSError, NotImplementedError):
            pass  # not in this Python, in this kernel or sandbox, or on this loop
        else:
            try:
                await wait_readable(pidfd)
            except (OSError, NotImplementedError):
                pass  # no descriptor is left to wait with, or the loop watches none
            finally:
                with suppress(OSError):
                    os.close(pidfd)
            if self.poll() is not None:
                return
            # A debugger that has attached to it is told first.
        if self._thread is None:
            # Kept: waits that are cancelled must not leave one thread each behind.
            self._thread = _ExitThread(self)
        await self._thread.wait()

    def block(self) -> None:
        """Wait in this thread until the child has exited."""
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
        elif os.name == "posix":
            self._keep(partial(_take, options=0))
            self._reaped = True
        else:
            self._popen.wait()


def _peek(pid: int) -> int | None:
    """The exit status of a child, which stays to be reaped; None if it is running.

    Raises:
        ChildProcessError: There is no such child.
    """
    seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if seen is None:
        return None
    return seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status


def _take(pid: int, options: int = os.WNOHANG if os.name == "posix" else 0) -> int | None:
    """The exit status of a child, which is reaped; None if it is running.

    Raises:
        ChildProcessError: There is no such child.
    """
    reaped, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if reaped else None


class _ExitThread:
    """A worker thread that blocks until the child has exited, and then wakes who waits."""

    def __init__(self, watch: ExitWatch) -> None:
        self._lock = threading.Lock()
        # -- both under the lock --
        self._exited = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, Event]] = []
        start_thread_soon(watch.block, self._tell, f"waits for pid {watch._popen.pid}")

    def _tell(self, _outcome: Outcome[None]) -> None:
        # Also after an error, which means that there is no such child any more.
        failed: BaseException | None = None
        with self._lock:
            self._exited = True
            for loop, event in self._waiting:
                try:
                    _call(loop, event.set)
                except BaseException as error:
                    failed = error  # the tasks of other loops wait as well
        if failed is not None:
            try:
                raise failed
            finally:
                del failed

    async def wait(self) -> None:
        """Wait until the child has exited."""
        entry = (running_loop(), Event())
        with self._lock:
            if self._exited:
                return
            self._waiting.append(entry)
        try:
            await entry[1].wait()
        finally:
            with self._lock:
                self._waiting.remove(entry)


def _call(loop: asyncio.AbstractEventLoop, fn: Callable[[], object]) -> None:
    """Have a function called in the loop's thread; once more if that fails, but for good."""
    for last in (False, True):
        try:
            loop.call_soon_threadsafe(fn)
        except BaseException:
            if loop.is_closed():
                return
            if last:
                raise
        else:
            return
