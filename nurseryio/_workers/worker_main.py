"""The program of a worker process: :func:`serve`.

``multiprocessing`` starts it by its method "spawn", which has imported the program's main module
before. The process gets requests from one connection, and calls one function at a time in its main
thread. ``worker_process`` is the other side.

Rule 1: standard input and output belong to the functions. Messages travel over the connection only.
Input is empty, because a worker would take the program's own. Output goes where that of the program
goes, and is flushed after each call.

Rule 2: a thread waits for the end of the connection. If the parent is gone, the process ends at
once, also in the middle of a call. An idle worker ends like any Python program.

Rule 3: Ctrl-C in a terminal reaches each process that runs there. Only the parent acts on it.

Rule 4: a process that a function has forked does not hold the connection. So the end of the worker
is noticed although its children run.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from .._base.forked import in_child
from .packing import answer

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# The first message of a worker: it has imported the program's main module.
READY = b"ready"

# The exit status of a worker whose parent is gone in the middle of a call.
_ORPHAN = 1


class _Requests:
    """The requests of the parent, received by a thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._received: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # Whether a function is being called, and whether the parent is gone. Each side sets its own
        # flag before it reads the other's, so one of the two sees both.
        self._working = False
        self._parent_gone = False
        threading.Thread(target=self._receive, name="nurseryio requests", daemon=True).start()

    def _receive(self) -> None:
        try:
            while True:
                self._received.put(self._connection.recv_bytes())
        except (EOFError, OSError):
            pass
        self._parent_gone = True
        if self._working:
            os._exit(_ORPHAN)
        self._received.put(None)

    def next(self) -> bytes | None:
        """Wait for a request; None if there will be none."""
        request = self._received.get()
        self._working = True
        return None if self._parent_gone else request

    def reply(self, reply: bytes) -> None:
        """Send the reply to the last request."""
        self._working = False
        self._connection.send_bytes(reply)


def serve(connection: Connection) -> None:
    """Answer requests until the connection ends."""
    _ignore_ctrl_c()
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
    in_child(connection.close)
    requests = _Requests(connection)
    with suppress(BrokenPipeError, ConnectionResetError):  # the parent is gone
        connection.send_bytes(READY)
        while (request := requests.next()) is not None:
            reply = answer(request)
            del request
            _flush()
            requests.reply(reply)
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
