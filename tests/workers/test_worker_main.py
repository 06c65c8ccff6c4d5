"""The program of a worker process, as far as it can be tried in this process."""

# Covered below 95 %: serve() takes the standard input and the handler of Ctrl-C of its process, so
# it runs in worker processes only (test_processes).

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import pytest

from nurseryio._workers import worker_main as module
from nurseryio._workers.worker_main import _flush, _ignore_ctrl_c, _Parent


def test_a_worker_ends_at_once_when_its_parent_goes_in_the_middle_of_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(module.os, "_exit", ended.append)
    gone = threading.Event()
    parent = _Parent(gone.wait)
    assert parent.begin()
    gone.set()
    parent.thread.join()
    assert ended == [1]


def test_an_idle_worker_whose_parent_has_gone_begins_no_call_and_ends_after_a_time_of_grace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[float] = []
    monkeypatch.setattr(module.os, "_exit", ended.append)
    monkeypatch.setattr(module.time, "sleep", ended.append)
    gone = threading.Event()
    parent = _Parent(gone.wait)
    assert parent.begin()
    parent.rest()
    gone.set()
    parent.thread.join()
    assert ended == [module.GRACE_SECONDS, 1]
    assert not parent.begin()


def test_a_worker_flushes_output_that_a_function_has_replaced_or_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def flush(self) -> Any:
            raise ValueError("closed")

    flushed: list[str] = []

    class Good:
        def flush(self) -> None:
            flushed.append("stderr")

    monkeypatch.setattr(sys, "stdout", Broken())
    monkeypatch.setattr(sys, "stderr", Good())
    _flush()
    assert flushed == ["stderr"]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal to itself")
def test_ctrl_c_does_nothing_in_a_worker_and_is_not_ignored_by_its_children() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        _ignore_ctrl_c()
        signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
