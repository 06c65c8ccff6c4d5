"""One worker process, used from threads of this test: start, calls, kill, end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing.connection import Connection

import pytest
from harness import worker_jobs

from nurseryio._base.errors import BrokenWorkerProcess
from nurseryio._workers import spawning, worker_process as module
from nurseryio._workers.packing import pack_request, unpack
from nurseryio._workers.worker_process import WorkerProcess

pytestmark = [
    pytest.mark.costly("starts processes, which hardly depend on the loop"),
    pytest.mark.skipif(os.name != "posix", reason="looks at processes as Unix has them"),
    pytest.mark.limit(60),
]

PID = pack_request("f", worker_jobs.pid, ())


def pid_in(worker: WorkerProcess) -> int:
    pid: int = unpack(worker.exchange(PID, "pid"), "pid", worker.where)
    return pid


def test_a_worker_process_lives_from_its_first_call_to_its_end() -> None:
    worker = WorkerProcess()
    assert worker.is_working
    assert repr(worker) == "<worker process None>"
    pid = pid_in(worker)
    assert worker.pid == pid
    assert worker.where == f"worker process {pid}"
    assert not worker.is_working
    assert worker.rest()
    worker.kill()  # has its result, and is not killed
    assert worker.begin()
    assert pid_in(worker) == pid
    assert worker.end() == 0
    assert worker.ended.is_set()
    assert worker.end() == 0
    assert not worker_jobs.is_there(pid)
    assert not worker.rest()


def test_a_worker_process_that_is_killed_after_its_reply_gives_it_and_is_reaped() -> None:
    worker = WorkerProcess()
    pid_in(worker)
    assert worker.begin()
    connection = worker._connection
    assert connection is not None

    class Late:
        """A connection on which the kill arrives together with the reply."""

        def send_bytes(self, data: bytes) -> None:
            connection.send_bytes(data)

        def recv_bytes(self) -> bytes:
            reply = connection.recv_bytes()
            worker.kill()
            return reply

        def close(self) -> None:
            connection.close()

    worker._connection = Late()  # type: ignore[assignment]
    assert pid_in(worker) == worker.pid
    assert worker.broken
    assert worker.ended.is_set()
    assert not worker.rest()


def test_a_worker_process_that_was_killed_before_its_start_is_not_started() -> None:
    worker = WorkerProcess()
    worker.kill()
    with pytest.raises(BrokenWorkerProcess, match="not needed"):
        worker.exchange(PID, "pid")
    assert worker.pid is None
    assert worker.broken
    assert not worker.rest()


def test_a_worker_process_that_cannot_be_started_raises_the_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(spawning, "spawn_process", fail)
    worker = WorkerProcess()
    with pytest.raises(BlockingIOError):
        worker.exchange(PID, "pid")
    assert worker.ended.is_set()
    assert worker.broken


def test_a_worker_process_that_does_not_end_is_killed_after_the_time_of_grace() -> None:
    worker = WorkerProcess()
    pid = pid_in(worker)
    os.kill(pid, signal.SIGSTOP)
    assert worker.end(0.01) == -signal.SIGKILL


def test_the_exit_of_a_worker_process_is_waited_for_without_pidfds_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    worker = WorkerProcess()
    pid_in(worker)
    assert worker.end(10.0) == 0


def test_the_exit_status_of_a_worker_process_that_other_code_has_reaped_is_not_known() -> None:
    worker = WorkerProcess()
    pid = pid_in(worker)
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    assert worker.begin() is False
    worker._working = True
    with pytest.raises(BrokenWorkerProcess, match="exit status that is not known") as caught:
        worker.exchange(PID, "pid")
    assert caught.value.exitcode is None


def test_forsaking_a_worker_process_closes_its_connection_and_sends_no_signal() -> None:
    worker = WorkerProcess()
    pid_in(worker)
    popen = worker._popen
    worker.forsake()
    worker.kill()
    assert popen.wait() == 0  # by the end of its connection


def test_a_child_forked_while_a_worker_process_starts_keeps_no_end_of_its_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = WorkerProcess()
    lock = worker._lock
    closed = []

    def fork(_serve: object, *theirs: Connection) -> None:
        worker.forsake()  # as in the child
        closed.extend(end.closed for end in (worker._connection, worker._lifeline, *theirs) if end)
        raise BlockingIOError

    monkeypatch.setattr(spawning, "spawn_process", fork)
    with pytest.raises(BlockingIOError):
        worker.exchange(PID, "pid")
    assert closed == [True] * 4
    assert worker._lock is not lock  # a thread of the parent might hold it


def test_a_worker_process_is_started_with_ctrl_c_blocked() -> None:
    seen = []

    def look() -> None:
        with module._ctrl_c_blocked():
            seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert signal.SIGINT in seen[0]
    assert signal.SIGINT not in seen[1]


def test_a_signal_without_a_name_is_shown_by_its_number() -> None:
    assert module._signal_name(200) == "signal 200"
    assert module._signal_name(9) == ("SIGKILL" if sys.platform != "win32" else "signal 9")
