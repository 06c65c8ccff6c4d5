"""The time limits of pytest-timeout with the method "thread", for tests of nurseryio's plugin.

Without this module, the method prints all stacks and ends the process, because a thread cannot
interrupt another one. But a thread can interrupt a task, and send a signal to the main thread. So
the test is stopped, its fixtures are torn down, and the next test runs.

Rule 1: if ``SIGALRM`` is free, the thread sends that signal, and the rest is as with the method
"signal" (``time_limit``). Otherwise it has the loop interrupt the running step.

Rule 2: if that does not work, the tasks are printed, and the process is ended as pytest-timeout
does it. The cases are: no step of a test is running, the loop is blocked, or the test does not end.
"""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from typing import Any

import pytest

from .._observe.dump import trees
from .step_runner import interrupt_step
from .time_limit import BLOCKED, GRACE, SIGNAL, take_drawing


def set_timer(item: Any, settings: Any) -> None:
    """Start the timer of one test; pytest-timeout stops it by ``item.cancel_timeout``.

    Args:
        item: the test.
        settings: the settings of pytest-timeout.
    """
    stopped = threading.Event()
    error = pytest.fail.Exception(f"Timeout (>{settings.timeout}s) from pytest-timeout.")
    signalled = _is_free()

    def handler(_number: int, _frame: object) -> None:
        __tracebackhide__ = True
        raise error

    def interrupt() -> bool:
        """Stop the test, and return whether it has ended."""
        if signalled:
            signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
            return stopped.wait(3 * GRACE)
        arrived = interrupt_step(error)
        return arrived is not None and arrived.wait(BLOCKED) and stopped.wait(GRACE)

    def watch() -> None:
        pytest_timeout: Any = importlib.import_module("pytest_timeout")
        if stopped.wait(settings.timeout):
            return
        if not settings.disable_debugger_detection and pytest_timeout.is_debugging():
            return
        if not interrupt():
            _print_tasks()
            pytest_timeout.timeout_timer(item, settings)

    def cancel() -> None:
        stopped.set()
        thread.join()
        if signalled and signal.getsignal(SIGNAL) is handler:
            signal.signal(SIGNAL, signal.SIG_DFL)

    thread = threading.Thread(target=watch, name=f"pytest_timeout {item.nodeid}", daemon=True)
    if signalled:
        signal.signal(SIGNAL, handler)
    item.cancel_timeout = cancel
    thread.start()


def _print_tasks() -> None:
    """Print the tasks, because the process is about to be ended without a report."""
    print(take_drawing() or trees(None), file=sys.stderr)


def _is_free() -> bool:
    """Return whether the signal can be used: it exists, and no handler for it is set."""
    return (
        hasattr(signal, "pthread_kill")
        and SIGNAL is not None
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(SIGNAL) == signal.SIG_DFL
    )
