"""Waiting for the exit of a child process, and its exit status, on any loop without polling.

There are two ways to wait. On Linux it is a *pidfd*, a file descriptor that becomes readable when
the child exits. Elsewhere it is a worker thread that blocks until then. Neither needs ``SIGCHLD``
or the main thread.

Rule 1: this module asks the system for the status. ``subprocess`` does not, because it reports
success for a child that other code has reaped. The status is kept in ``Popen.returncode``, which is
public.

Rule 2: on systems that have ``waitid``, the status is read and kept before the child is reaped. So
the status is not lost if an error comes in between.
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
from .._loop.wait_io import wait_readable
from .._loop.watching import check_can_watch
from .._sync import Event

if TYPE_CHECKING:
    import asyncio
    import subprocess
    from collections.abc import Callable

    from .._base import Outcome

# Reported, as by asyncio, for a child whose exit status cannot be known any more.
UNKNOWN_STATUS = 255

logger = logging.getLogger("nurseryio.Process")


class ExitWatch:
    """The exit of one child: its status, and the wait for it. One task at a time may wait."""

    __slots__ = ("_generation", "_lock", "_popen", "_reaped", "_thread")

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        # After a fork, the program is not a child of the forked process.
        self._generation = generation()
        # Made when it is first needed. Not needed where there are pidfds.
        self._thread: _ExitThread | None = None
        # Held by the thread that asks the system. Any thread may call poll().
        self._lock = threading.Lock()
        self._reaped = False

    def poll(self) -> int | None:
        """Reap the child if it has exited, and return its status; None if it is running.

        May be called in any thread. The status is ``UNKNOWN_STATUS`` if other code has reaped the
        child. That is logged once.
        """
        if self._generation != generation():
            return self._popen.returncode  # forked process: as far as was known then
        # Do not wait for the lock: this may be a signal handler that interrupted its holder.
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
        # Else the thread reaps the child, and only one may.

    def _keep(self, ask: Callable[[int], int | None]) -> None:
        """Keep the status that ``ask`` gets from the system."""
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
            # Opened for each wait, so that none is open while no task waits.
            pidfd = os.pidfd_open(self._popen.pid)
        except ProcessLookupError:
            return  # the child is gone: the system reaped it, because SIGCHLD is ignored
        except (AttributeError, OSError, NotImplementedError):
            pass  # this Python, kernel, sandbox or loop does not have them
        else:
            try:
                await wait_readable(pidfd)
            except (OSError, NotImplementedError):
                pass  # descriptors ran out, or the loop cannot watch them
            finally:
                with suppress(OSError):
                    os.close(pidfd)
            if self.poll() is not None:
                return
            # Not reapable yet: a debugger that is attached to the child gets the status first.
        if self._thread is None:
            # Kept for later waits. Otherwise each cancelled wait would leave a thread behind.
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
    """The exit status of a child, without reaping it; None if it is running.

    Raises:
        ChildProcessError: There is no such child.
    """
    seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if seen is None:
        return None
    return seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status


def _take(pid: int, options: int = os.WNOHANG if os.name == "posix" else 0) -> int | None:
    """Reap a child and return its exit status; None if it is running.

    Raises:
        ChildProcessError: There is no such child.
    """
    reaped, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if reaped else None


class _ExitThread:
    """A worker thread that blocks until the child has exited, and then wakes the waiting tasks."""

    def __init__(self, watch: ExitWatch) -> None:
        self._lock = threading.Lock()
        # -- both under the lock --
        self._exited = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, Event]] = []
        start_thread_soon(watch.block, self._tell, f"waits for pid {watch._popen.pid}")

    def _tell(self, _outcome: Outcome[None]) -> None:
        # Also called after an error, which means that there is no such child any more.
        failed: BaseException | None = None
        with self._lock:
            self._exited = True
            for loop, event in self._waiting:
                try:
                    _call(loop, event.set)
                except BaseException as error:
                    failed = error  # continue: tasks of other loops wait as well
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
    """Have a function called in the loop's thread, unless the loop is closed.

    If that fails, it is tried once more.
    """
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
