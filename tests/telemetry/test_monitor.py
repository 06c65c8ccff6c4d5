"""A socket through which others look at this process."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.core import forever
from harness.forks import in_child

import nurseryio
from nurseryio._telemetry import monitor as monitor_module
from nurseryio._telemetry.monitor import answer, default_path
from nurseryio.instruments import Monitor, serve_monitor
from nurseryio.lowlevel import current_task
from nurseryio.testing import wait_all_tasks_blocked


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    with serve_monitor(tmp_path / "m") as opened:
        yield opened


def send(path: str, data: bytes) -> bytes:
    """What the monitor sends for some bytes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(path)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def ask(path: str, **request: Any) -> dict[str, Any]:
    answered: dict[str, Any] = json.loads(send(path, json.dumps(request).encode() + b"\n"))
    return answered


async def test_the_monitor_answers_with_the_task_tree_while_the_loop_is_blocked(
    monitor: Monitor, loop_kind: str
) -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(forever, name="waits")
        await wait_all_tasks_blocked()
        found = ask(monitor.path, command="tree")  # the loop is blocked here
        nursery.cancel_scope.cancel()
    assert found["pid"] == os.getpid()
    assert "─ waits " in found["text"]
    (loop,) = found["loops"]
    assert "waits" in [task["name"] for task in loop["tasks"]]
    # The data have the step that the loop is in, as the text.
    assert bool(loop["blocking"]) == ("the loop is in a step" in found["text"])
    assert bool(loop["blocking"]) == (loop_kind != "uvloop")


async def test_the_monitor_shows_which_task_is_running_in_top(monitor: Monitor) -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(forever, name="waits")
        await wait_all_tasks_blocked()
        found = ask(monitor.path, command="top", seconds=0.05)  # this task runs all the time
        nursery.cancel_scope.cancel()
        (loop,) = found["loops"]
        shares = {task["id"]: task["running"] for task in loop["tasks"]}
        assert shares.pop(id(current_task())) == pytest.approx(1.0)
        assert {*shares.values()} == {0.0}
        (waits,) = (task for task in loop["tasks"] if task["name"] == "waits")
        assert waits["text"].startswith("waits at ")


def test_top_looks_for_no_longer_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "LONGEST_TOP", 0.01)
    before = time.monotonic()
    assert answer({"command": "top", "seconds": 1e9})["seconds"] == 0.01
    assert time.monotonic() - before < 60


def test_only_this_user_can_connect_to_the_monitor(monitor: Monitor) -> None:
    assert stat.S_IMODE(os.lstat(monitor.path).st_mode) == 0o600


@pytest.mark.parametrize("request_", [b"\n", b"not json\n", b"[]\n", b'{"command": "stop"}\n'])
def test_the_monitor_answers_a_wrong_request_with_an_error_and_goes_on(
    monitor: Monitor, request_: bytes
) -> None:
    answered = json.loads(send(monitor.path, request_))
    assert answered["error"]
    assert send(monitor.path, b"") == b""
    assert ask(monitor.path, command="tree")["pid"] == os.getpid()


def test_a_slow_client_does_not_keep_the_monitor_from_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor_module, "PATIENCE", 0.05)
    monitor = serve_monitor(tmp_path / "m")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
        slow.connect(monitor.path)
        assert ask(monitor.path, command="tree")["pid"] == os.getpid()
        monitor.close()


def test_close_removes_the_socket_and_the_thread(tmp_path: Path) -> None:
    monitor = serve_monitor(tmp_path / "m")
    monitor.close()
    monitor.close()
    assert not os.path.exists(monitor.path)
    assert "nurseryio monitor" not in [thread.name for thread in threading.enumerate()]


def test_a_socket_that_a_killed_process_has_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / "m"))
    with serve_monitor(tmp_path / "m") as monitor:
        assert ask(monitor.path, command="tree")["pid"] == os.getpid()


def test_a_path_that_is_in_use_is_refused_and_left_alone(monitor: Monitor, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        serve_monitor(monitor.path)
    assert ask(monitor.path, command="tree")["pid"] == os.getpid()
    other = tmp_path / "file"
    other.write_text("mine")
    with pytest.raises(OSError, match=r"in use: .*file"):
        serve_monitor(other)
    assert other.read_text() == "mine"


def test_the_default_path_is_in_a_folder_of_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for _ in range(2):  # the folder may exist
        with serve_monitor() as monitor:
            assert monitor.path == str(default_path(os.getpid()))
            assert stat.S_IMODE(os.stat(os.path.dirname(monitor.path)).st_mode) == 0o700
    default_path(1).parent.chmod(0o755)
    with pytest.raises(PermissionError, match="must be a folder that only this user can enter"):
        serve_monitor()


def test_a_forked_child_leaves_the_monitor_of_its_parent_alone(monitor: Monitor) -> None:
    assert in_child(monitor.close) == 0
    assert ask(monitor.path, command="tree")["pid"] == os.getpid()


def test_a_monitor_whose_thread_cannot_be_started_leaves_no_socket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        serve_monitor(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_monitor_needs_unix_sockets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(RuntimeError, match="no Unix sockets"):
        serve_monitor(tmp_path / "m")


def test_the_monitor_serves_with_descriptors_that_select_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fcntl = pytest.importorskip("fcntl")
    resource = pytest.importorskip("resource")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 1200:
        pytest.skip("no such descriptors here")
    plain = socket.socketpair

    def high() -> list[socket.socket]:
        both = []
        for each in plain():
            with each:
                descriptor = fcntl.fcntl(each.fileno(), fcntl.F_DUPFD_CLOEXEC, 1100)
            both.append(socket.socket(fileno=descriptor))
        return both

    monkeypatch.setattr(monitor_module.socket, "socketpair", high)
    with serve_monitor(tmp_path / "m") as monitor:
        assert ask(monitor.path, command="tree")["pid"] == os.getpid()


def test_the_monitor_pauses_while_no_descriptor_is_free_and_can_be_closed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = threading.Semaphore(0)
    calls = []

    class Full(socket.socket):
        def accept(self) -> Any:
            calls.append(1)
            asked.release()
            raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(monitor_module.socket, "socket", Full)
    monkeypatch.setattr(monitor_module, "PAUSE", 60.0)
    monitor = serve_monitor(tmp_path / "m")
    monkeypatch.undo()
    monkeypatch.setattr(monitor_module, "PAUSE", 60.0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(monitor.path)
        assert asked.acquire(timeout=10)
        assert not asked.acquire(timeout=0.05)  # it does not ask again at once
    monitor.close()
    assert not monitor._thread.is_alive()
    assert len(calls) == 1
