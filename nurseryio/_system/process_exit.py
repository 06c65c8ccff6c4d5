"""Learning that a child process has exited, on any loop and without polling.

Two ways: a *pidfd*, a file descriptor that becomes readable at the exit (Linux), and elsewhere a
worker thread that blocks until then. Neither needs ``SIGCHLD`` or the main thread, and neither
reaps: that is left to ``subprocess``, which must know the status.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from .._core import wait_readable
from .._core.host import running_loop
from .._core.thread_cache import start_thread_soon
from .._core.watching import check_can_watch
from .._sync import Event

if TYPE_CHECKING:
    import asyncio
    import subprocess
    from collections.abc import Callable

    from .._core import Outcome


class ExitWatch:
    """Waits for one child's exit, as often as asked; for one waiting task at a time."""

    __slots__ = ("_popen", "_thread")

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        # Made when it is first needed; there is no need where there are pidfds.
        self._thread: _ExitThread | None = None

    async def wait(self) -> None:
        """Return once the child can be reaped. Only for a child that has not been reaped yet.

        Checkpoint: only if it is still running.
        """
        try:
            check_can_watch("pidfds")
            # Opened anew each time, so that none is ever open without somebody waiting.
            pidfd = os.pidfd_open(self._popen.pid)
        except ProcessLookupError:
            return  # gone and, as SIGCHLD is ignored, reaped by the system
        except (AttributeError, OSError, NotImplementedError):
            pass  # not in this Python, in this kernel or sandbox, or on this loop
        else:
            try:
                await wait_readable(pidfd)
            finally:
                os.close(pidfd)
            return
        if self._thread is None:
            # Kept: waits that are cancelled must not leave one thread each behind.
            self._thread = _ExitThread(self._popen)
        await self._thread.wait()


class _ExitThread:
    """A worker thread that blocks until the child has exited, and then wakes who waits."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._lock = threading.Lock()
        # -- both under the lock --
        self._exited = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, Event]] = []
        start_thread_soon(self._block, self._tell, f"waits for pid {popen.pid}")

    def _block(self) -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._popen.wait()

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
