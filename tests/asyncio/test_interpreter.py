"""Which interpreter this is. ``tests/test_interpreters.py`` runs the library in others."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from nurseryio._asyncio import interpreter


def test_the_main_interpreter_allows_daemon_threads_and_signal_handlers() -> None:
    assert interpreter.DAEMONS
    assert interpreter.SIGNAL_HANDLERS


def test_a_function_is_called_before_the_interpreter_waits_for_its_threads() -> None:
    program = (
        "import threading\n"
        "from nurseryio._asyncio import interpreter\n"
        "gate = threading.Event()\n"
        "interpreter.before_threads_are_joined(gate.set)\n"
        "threading.Thread(target=lambda: print(gate.wait(30))).start()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == ["True"]


def test_an_interpreter_without_that_hook_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(threading, "_register_atexit")
    interpreter.before_threads_are_joined(lambda: None)
