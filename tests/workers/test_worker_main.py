"""The program of a worker process, as far as it can be tried in this process."""

# Covered below 95 %: serve() takes the standard input and the handler of Ctrl-C of its process, so
# it runs in worker processes only (test_processes).

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import Pipe
from typing import Any

import pytest

from nurseryio._workers import worker_main as module
from nurseryio._workers.worker_main import _flush, _ignore_ctrl_c, _Requests


def test_the_requests_of_a_worker_come_in_order_and_end_with_the_connection() -> None:
    ours, theirs = Pipe()
    requests = _Requests(theirs)
    with ours:
        ours.send_bytes(b"one")
        assert requests.next() == b"one"
        requests.reply(b"reply")
        assert ours.recv_bytes() == b"reply"
    assert requests.next() is None
    theirs.close()


def test_a_worker_ends_at_once_when_its_parent_goes_in_the_middle_of_a_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(module.os, "_exit", ended.append)
    ours, theirs = Pipe()
    requests = _Requests(theirs)
    ours.send_bytes(b"one")
    assert requests.next() == b"one"
    ours.close()
    # The thread puts this after its attempt to end the process.
    assert requests._received.get(timeout=10) is None
    assert ended == [1]
    theirs.close()


def test_a_worker_does_not_begin_a_call_after_its_parent_has_gone() -> None:
    ours, theirs = Pipe()
    requests = _Requests(theirs)
    ours.send_bytes(b"one")
    ours.close()
    while requests._received.qsize() < 2:
        pass
    assert requests.next() is None
    theirs.close()


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
