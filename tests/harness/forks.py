"""Forked children for the tests: making one, and its exit code.

Rule 1: a child never comes back into the test. It ends by ``os._exit``, whatever happens in it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable

# Seconds after which a child is ended by SIGALRM.
PATIENCE = 30

FAILED = 100


def fork(function: Callable[[], object]) -> int:
    """Call ``function()`` in a forked child, which ends with 0 or, after an error, ``FAILED``."""
    with warnings.catch_warnings():
        # That the process has several threads is what some tests are about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    code = FAILED
    try:
        signal.alarm(PATIENCE)
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def code_of(pid: int) -> int:
    """Wait for a child: its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(function: Callable[[], object]) -> int:
    """Both in one."""
    return code_of(fork(function))


def killed_in_child(signum: int) -> int:
    """The exit code of a child that gets a signal while it has nothing to do.

    A ``KeyboardInterrupt`` gives ``FAILED``.
    """
    reader, writer = os.pipe()

    def wait() -> None:
        os.write(writer, b"x")
        while True:
            # Not pause(): the system may give the signal to a thread of some C library.
            time.sleep(0.001)

    try:
        pid = fork(wait)
        os.read(reader, 1)
        os.kill(pid, signum)
        return code_of(pid)
    finally:
        os.close(reader)
        os.close(writer)
