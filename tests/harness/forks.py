"""Forked children for the tests: making one, and its exit code.

Rule 1: a child never comes back into the test. It ends by ``os._exit``, whatever happens in it.
Signals are blocked while it is outside the ``try`` that sees to this: one may come at once.
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
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    pid = -1
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with warnings.catch_warnings():
            # That the process has several threads is what some tests are about.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
    finally:
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if pid:
        return pid
    code = FAILED
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        function()
        code = 0
    except BaseException:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
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
    never, writer = os.pipe()
    pid = fork(lambda: os.read(never, 1))
    try:
        while True:
            # Again and again: it may come before the child waits. Python 3.13.0 calls handlers in
            # a child that was forked in a thread only when a system call has been interrupted.
            os.kill(pid, signum)
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
    finally:
        os.close(never)
        os.close(writer)
