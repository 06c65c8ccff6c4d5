"""The program of a worker process: :func:`serve`.

``multiprocessing`` starts it by its method "spawn", which has imported the program's main module
before. The process gets requests from one connection, and calls one function at a time in its main
thread. ``worker_process`` is the other side.

Rule 1: standard input and output belong to the functions. Messages travel over the connection only.
Input is empty, because a worker would take the program's own. Output goes where that of the program
goes, and is flushed after each call.

Rule 2: a thread waits for the end of the parent. Then the process ends at once, also in the middle
of a call. An idle worker ends with its connection, like any Python program. But it ends after
``GRACE_SECONDS`` at the latest, although a function may have left a thread that is not a daemon.

Rule 3: Ctrl-C in a terminal reaches each process that runs there. Only the parent acts on it.

Rule 4: a process that a function has forked does not hold the connection. So the end of the worker
is noticed although its children run.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from .._base.forked import in_child
from .packing import answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

# The first message of a worker: it has imported the program's main module.
READY = b"ready"

# How long (seconds) a process has to exit by itself after the end of its connection.
GRACE_SECONDS = 2.0

# The exit status of a worker that has ended itself because its parent is gone.
_ORPHAN = 1


class _Parent:
    """A thread that waits for the end of the parent.

    Args:
        wait: a function that returns when the parent has ended.
    """

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait
        # Whether a function is being called, and whether the parent has ended. Each thread sets its
        # own flag before it reads the other's, so one of the two sees both.
        self._working = False
        self._gone = False
        self.thread = threading.Thread(target=self._watch, name="nurseryio parent", daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        self._wait()
        self._gone = True
        if not self._working:
            # The main thread leaves serve(), and ends the process if it can.
            time.sleep(GRACE_SECONDS)
        os._exit(_ORPHAN)

    def begin(self) -> bool:
        """Record that a call begins. Returns False if the parent has ended."""
        self._working = True
        return not self._gone

    def rest(self) -> None:
        """Record that the call has ended."""
        self._working = False


def _wait_for_end(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv_bytes()


def serve(connection: Connection, lifeline: Connection) -> None:
    """Answer requests until the connection ends.

    Args:
        connection: for requests and replies.
        lifeline: ends when the parent does. Nothing is sent over it.
    """
    _ignore_ctrl_c()
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
    in_child(connection.close)
    parent = _Parent(partial(_wait_for_end, lifeline))
    with suppress(EOFError, OSError):  # the parent has closed the connection
        connection.send_bytes(READY)
        while True:
            request = connection.recv_bytes()
            if not parent.begin():
                break
            reply = answer(request)
            del request
            _flush()
            parent.rest()
            connection.send_bytes(reply)
            del reply  # an idle worker keeps no results


def _ignore_ctrl_c() -> None:
    # A function, not SIG_IGN: programs that are started here would inherit that.
    signal.signal(signal.SIGINT, _do_nothing)
    if hasattr(signal, "pthread_sigmask"):
        # The parent has blocked it for the start.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _do_nothing(_signum: int, _frame: object) -> None:
    pass


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # None, closed, or replaced by the function
            stream.flush()
