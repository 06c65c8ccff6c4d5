"""Looking at another process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import source

from nurseryio._telemetry import remote
from nurseryio._telemetry.monitor import default_path
from nurseryio._telemetry.remote import UnreachableError, ask
from nurseryio.instruments import serve_monitor

PROGRAM = """
import sys
import nurseryio
async def child():
    await nurseryio.sleep_forever()
async def main():
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, name="a child")
        await nurseryio.testing.wait_all_tasks_blocked()
        print("ready", flush=True)
        BLOCK
import nurseryio.testing
nurseryio.run(main)
"""

# The first call through ctypes opens a descriptor for good.
remote._interrupt(0)

needs_remote_exec = pytest.mark.skipif(
    not hasattr(sys, "remote_exec"), reason="sys.remote_exec is new in Python 3.14"
)


@contextmanager
def running(program: str) -> Iterator[int]:
    """The body runs while a process runs the program, which prints "ready"."""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        cwd=source.ROOT,
        stdin=subprocess.DEVNULL,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def test_ask_finds_the_monitor_of_a_process_and_one_by_its_path(tmp_path: Path) -> None:
    with serve_monitor():
        assert ask({"command": "tree"}, os.getpid(), None)["pid"] == os.getpid()
    with serve_monitor(tmp_path / "m"):
        assert ask({"command": "tree"}, None, str(tmp_path / "m"))["pid"] == os.getpid()


@needs_remote_exec
def test_ask_looks_at_a_process_without_a_monitor() -> None:
    try:
        with running(PROGRAM.replace("BLOCK", "")) as pid:
            text = ask({"command": "tree"}, pid, None)["text"]
            assert "─ a child at <string>:5 in child(), sleeps for ever" in text
            rows = ask({"command": "top", "seconds": 0.01}, pid, None)["loops"][0]["tasks"]
            assert "a child" in [row["name"] for row in rows]
        with running(PROGRAM.replace("BLOCK", "while True: pass  # busy")) as pid:
            text = ask({"command": "tree"}, pid, None)["text"]
            assert "in main()" in text
            assert "the loop is in a step of task " in text
    except UnreachableError as error:
        if "does not let you debug" in str(error):
            pytest.skip("this container forbids debugging")
        raise


@needs_remote_exec
def test_ask_of_a_process_without_nurseryio_says_so() -> None:
    program = "import time; print('ready', flush=True)\nwhile True: time.sleep(0.01)"
    with running(program) as pid, pytest.raises(UnreachableError) as caught:
        ask({"command": "tree"}, pid, None)
    assert "has not imported nurseryio" in str(caught.value) or "debug" in str(caught.value)


@needs_remote_exec
def test_ask_of_a_process_that_does_not_return_to_python_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.1)
    monkeypatch.setattr(sys, "remote_exec", lambda _pid, _script: None)
    with pytest.raises(UnreachableError, match=r"has not answered in 0\.1 s: its main thread"):
        ask({"command": "tree"}, os.getpid(), None)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PermissionError(), "does not let you debug process"),
        (RuntimeError("no Python there"), r"cannot be asked \(no Python there\): it must run the"),
    ],
)
def test_ask_says_why_a_process_cannot_be_debugged(
    monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    def refuse(_pid: int, _script: str) -> None:
        raise error

    monkeypatch.setattr(sys, "remote_exec", refuse, raising=False)
    with pytest.raises(UnreachableError, match=text):
        ask({"command": "tree"}, os.getpid(), None)


def test_ask_without_monitor_and_remote_exec_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(sys, "remote_exec", raising=False)
    with pytest.raises(UnreachableError, match=r"needs Python 3\.14 .*serve_monitor\(\)"):
        ask({"command": "tree"}, os.getpid(), None)


def test_ask_of_a_process_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for pid in (child.pid, 10**30):
        with pytest.raises(UnreachableError, match=f"there is no process {pid}"):
            ask({"command": "tree"}, pid, None)

    def refuse(_pid: int, _signum: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(UnreachableError, match="process 1 belongs to another user"):
        ask({"command": "tree"}, 1, None)


def test_ask_of_a_wrong_path_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="there is no socket"):
        ask({"command": "tree"}, None, str(tmp_path / "none"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(tmp_path / "left"))
    with pytest.raises(UnreachableError, match="no process serves the socket"):
        ask({"command": "tree"}, None, str(tmp_path / "left"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        with pytest.raises(UnreachableError, match="does not answer: timed out"):
            ask(
                {"command": "tree", "seconds": 0.01 - remote.PATIENCE},
                None,
                str(tmp_path / "silent"),
            )


def test_an_error_in_the_answer_is_an_error(tmp_path: Path) -> None:
    with serve_monitor(tmp_path / "m"):
        with pytest.raises(UnreachableError, match="there is no command 'fly'"):
            ask({"command": "fly"}, None, str(tmp_path / "m"))
    assert not default_path(os.getpid()).exists()
