"""Learning that a child has exited: by a pidfd, and by a thread where there is none."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

import nurseryio
from nurseryio import CancelScope, open_nursery
from nurseryio._system import process_exit
from nurseryio._system.process_exit import ExitWatch
from nurseryio.lowlevel import checkpoint

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses the commands of Unix")

TIMEOUT = 10.0

WAYS = ["pidfd", "waitid in a thread", "waitpid in a thread"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The means that the system has."""
    if request.param != "pidfd":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    elif not hasattr(os, "pidfd_open"):
        pytest.skip("this system has no pidfds")
    if request.param.startswith("waitpid"):
        monkeypatch.delattr(os, "waitid", raising=False)
    return str(request.param)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A child that sleeps until it is killed."""
    popen = subprocess.Popen(["sleep", "1000"])
    yield popen
    popen.kill()
    popen.wait()


async def test_process_exit_wait_ends_when_the_child_exits(
    way: str, child: subprocess.Popen[bytes]
) -> None:
    ended = []

    async def wait() -> None:
        watch = ExitWatch(child)
        await watch.wait()
        ended.append(watch.poll())

    async with open_nursery() as nursery:
        nursery.start_soon(wait)
        for _ in range(5):
            await checkpoint()
        assert not ended
        child.terminate()
    assert ended == [-signal.SIGTERM]


async def test_process_exit_wait_for_a_child_that_has_exited_is_over_at_once(
    way: str, child: subprocess.Popen[bytes]
) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) if hasattr(os, "waitid") else None
    with nurseryio.fail_after(TIMEOUT):
        await ExitWatch(child).wait()


async def test_process_exit_wait_may_be_cancelled_and_begun_again(
    way: str, child: subprocess.Popen[bytes]
) -> None:
    watch = ExitWatch(child)
    threads = threading.active_count()
    for _ in range(5):
        with CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            await watch.wait()
        assert scope.cancelled_caught
    assert threading.active_count() <= threads + 1
    child.kill()
    await watch.wait()


async def test_process_exit_wait_may_be_natively_cancelled(
    way: str, child: subprocess.Popen[bytes]
) -> None:
    watch = ExitWatch(child)
    task = asyncio.get_running_loop().create_task(watch.wait())
    await checkpoint()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    child.kill()
    await watch.wait()


def test_process_exit_wait_may_go_on_in_another_loop(
    way: str, child: subprocess.Popen[bytes]
) -> None:
    watch = ExitWatch(child)

    async def try_for_a_moment() -> None:
        with nurseryio.move_on_after(0.001):
            await watch.wait()

    nurseryio.run(try_for_a_moment)
    child.kill()
    nurseryio.run(watch.wait)


async def test_process_exit_wait_works_in_any_thread(
    way: str, child: subprocess.Popen[bytes]
) -> None:
    child.kill()
    await nurseryio.to_thread.run_sync(nurseryio.run, ExitWatch(child).wait)


async def test_process_exit_uses_a_thread_on_a_system_without_pidfds(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> NoReturn:
        raise OSError("not in this sandbox")

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    child.kill()
    await ExitWatch(child).wait()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfds")
async def test_process_exit_does_not_wait_for_a_child_already_reaped(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanished(*_args: object) -> NoReturn:
        raise ProcessLookupError

    monkeypatch.setattr(os, "pidfd_open", vanished)
    await ExitWatch(child).wait()


@pytest.mark.parametrize("moment", ["before", "while waiting"])
async def test_process_exit_status_reaped_by_other_code_is_reported_as_unknown(
    way: str,
    child: subprocess.Popen[bytes],
    moment: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if (way, moment) == ("waitpid in a thread", "while waiting"):
        pytest.skip("the thread takes it first")
    watch = ExitWatch(child)
    if moment == "before":
        child.kill()
        os.waitpid(child.pid, 0)
        await watch.wait()
    else:
        # Like a handler of SIGCHLD that waits for every child, just as we learn of the exit.
        poll, taken = ExitWatch.poll, []

        def taken_before(self: ExitWatch) -> int | None:
            if not taken:
                taken.append(os.waitpid(child.pid, 0))
            return poll(self)

        async with open_nursery() as nursery:
            nursery.start_soon(watch.wait)
            for _ in range(5):
                await checkpoint()
            monkeypatch.setattr(ExitWatch, "poll", taken_before)
            child.kill()
    assert watch.poll() == watch.poll() == child.returncode == 255
    assert "255" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs waitid")
async def test_process_exit_status_is_kept_before_the_child_is_reaped(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = ExitWatch(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    def interrupted(*_args: object) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "waitpid", interrupted)
        with pytest.raises(KeyboardInterrupt):
            watch.poll()
    assert child.returncode == -signal.SIGKILL
    assert watch.poll() == -signal.SIGKILL
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)  # it is reaped nevertheless


def test_process_exit_poll_inside_a_poll_does_not_deadlock(child: subprocess.Popen[bytes]) -> None:
    # As in the handler of a signal.
    watch = ExitWatch(child)
    with watch._lock:
        assert watch.poll() is None
    assert watch.poll() is None


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfds")
@pytest.mark.parametrize("error", [OSError("no space"), NotImplementedError()])
async def test_process_exit_uses_a_thread_on_a_loop_that_cannot_watch_a_pidfd(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(_fd: int) -> NoReturn:
        raise error

    monkeypatch.setattr(process_exit, "wait_readable", fail)
    watch = ExitWatch(child)
    async with open_nursery() as nursery:
        nursery.start_soon(watch.wait)
        await nurseryio.testing.wait_all_tasks_blocked()
        child.terminate()
    assert watch.poll() == -signal.SIGTERM


@pytest.mark.parametrize(
    ("script", "status"), [("exit 3", 3), ("kill -USR1 $$", -signal.SIGUSR1), ("exit 0", 0)]
)
async def test_process_exit_status_is_that_of_the_standard_library(
    way: str, script: str, status: int
) -> None:
    popen = subprocess.Popen(["sh", "-c", script])
    watch = ExitWatch(popen)
    while watch.poll() is None:
        await watch.wait()
    assert watch.poll() == popen.wait() == status


class Interrupted:
    """A loop that closes just before call_soon_threadsafe() is called."""

    def __init__(self, closed: bool) -> None:
        self.is_closed = lambda: closed

    def call_soon_threadsafe(self, *_args: object) -> NoReturn:
        raise RuntimeError("no more calls")


async def test_process_exit_thread_ignores_a_waiter_whose_loop_has_closed(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_exit, "start_thread_soon", lambda *_args: None)
    thread = process_exit._ExitThread(ExitWatch(child))
    entry: Any = (Interrupted(closed=True), nurseryio.Event())
    thread._waiting.append(entry)
    thread._tell(None)  # type: ignore[arg-type]
    await thread.wait()
    thread._waiting[:] = [(Interrupted(closed=False), nurseryio.Event())]  # type: ignore[list-item]
    with pytest.raises(RuntimeError, match="no more calls"):
        thread._tell(None)  # type: ignore[arg-type]
    # A task of another loop is woken nevertheless.
    seen: list[object] = []

    class Flaky(Interrupted):
        def call_soon_threadsafe(self, *args: object) -> Any:
            seen.append(args)
            if len(seen) == 1:
                raise MemoryError

    thread._waiting[:] = [
        (Interrupted(closed=False), nurseryio.Event()),  # type: ignore[list-item]
        (Flaky(closed=False), nurseryio.Event()),  # type: ignore[list-item]
    ]
    with pytest.raises(RuntimeError, match="no more calls"):
        thread._tell(None)  # type: ignore[arg-type]
    assert len(seen) == 2
