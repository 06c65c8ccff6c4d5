"""The time limit of pytest-timeout with the method "thread", for tests of the plugin's.

By itself that method prints all stacks and ends the process, because a thread cannot interrupt
another one. A thread can interrupt a task. So the test is stopped, its fixtures are torn down, and
the next test runs.

Rule 1: where that does not work the process is ended as pytest-timeout does it: if no step of a
test is under way, if the loop is blocked, or if the test goes on regardless.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

import pytest

from .one_task import interrupt_step
from .time_limit import BLOCKED, GRACE


def set_timer(item: Any, settings: Any) -> None:
    """Start the timer of one test; pytest-timeout stops it by ``item.cancel_timeout``.

    Args:
        item: the test.
        settings: those of pytest-timeout.
    """
    stopped = threading.Event()
    thread = threading.Thread(
        target=_watch,
        args=(item, settings, stopped),
        name=f"pytest_timeout {item.nodeid}",
        daemon=True,
    )

    def cancel() -> None:
        stopped.set()
        thread.join()

    item.cancel_timeout = cancel
    thread.start()


def _watch(item: Any, settings: Any, stopped: threading.Event) -> None:
    pytest_timeout: Any = importlib.import_module("pytest_timeout")

    if stopped.wait(settings.timeout):
        return
    if not settings.disable_debugger_detection and pytest_timeout.is_debugging():
        return
    error = pytest.fail.Exception(f"Timeout (>{settings.timeout}s) from pytest-timeout.")
    arrived = interrupt_step(error)
    if arrived is None or not arrived.wait(BLOCKED) or not stopped.wait(GRACE):
        pytest_timeout.timeout_timer(item, settings)
