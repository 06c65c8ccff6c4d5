"""Fork: a forked child takes over nothing of its parent's runs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pytest
from harness import forks, matrix
from harness.core import settle
from harness.forks import in_child
from harness.net import unix_pair

import nurseryio
from nurseryio import SocketStream, from_thread, lowlevel, socket, to_thread
from nurseryio._base import forked
from nurseryio._loop.readiness import DIRECT_LIMIT
from nurseryio.lowlevel import FdStream

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

KINDS = [kind for kind in ("stock", "uvloop") if kind in matrix.KINDS]

# So many streams that some are watched by the loop, and some by the library.
SEVERAL = DIRECT_LIMIT + 3


async def in_task(function: Callable[[], object]) -> int:
    return in_child(function)


async def in_thread(function: Callable[[], object]) -> int:
    return await to_thread.run_sync(in_child, function)


def test_fork_gives_each_child_process_its_own_generation() -> None:
    here = forked.generation()

    def check_grandchild() -> None:
        assert forked.generation() == here + 2

    def check_child() -> None:
        assert forked.generation() == here + 1
        assert in_child(check_grandchild) == 0

    assert in_child(check_child) == 0
    assert forked.generation() == here


def test_after_fork_a_reset_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[int] = []

    def fail() -> None:
        raise ValueError("expected in the output")

    def check() -> None:
        assert called == [1]

    monkeypatch.setattr(forked, "_resets", [fail, lambda: called.append(1)])
    assert in_child(check) == 0


@pytest.mark.parametrize("where", [in_task, in_thread])
async def test_run_works_in_a_forked_child(
    where: Callable[[Callable[[], object]], object],
) -> None:
    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0.001)
            await to_thread.run_sync(str)
        async with unix_pair() as (a, b):
            await a.send_all(b"x")
            assert await b.receive_some() == b"x"
            with nurseryio.move_on_after(0.001):
                await b.receive_some()
        assert (await nurseryio.run_process(["true"])).returncode == 0

    await to_thread.run_sync(str)
    assert await where(lambda: nurseryio.run(main)) == 0  # type: ignore[misc]


async def several_streams_wait(use: Callable[[list[SocketStream]], None]) -> None:
    """A child uses its copies of streams on which tasks wait; then the tasks get their data."""
    received = []

    async def receive(stream: SocketStream) -> None:
        received.append(await stream.receive_some())

    pairs = [[SocketStream(end) for end in socket.socketpair()] for _ in range(SEVERAL)]
    async with nurseryio.open_nursery() as nursery:
        for a, _b in pairs:
            nursery.start_soon(receive, a)
        await settle()
        assert in_child(lambda: use([a for a, _b in pairs])) == 0
        for _a, b in pairs:
            await b.send_all(b"x")
    assert received == [b"x"] * SEVERAL
    for a, b in pairs:
        a.socket.close()
        b.socket.close()


async def test_a_forked_child_that_closes_its_copies_unregisters_nothing() -> None:
    def close(streams: list[SocketStream]) -> None:
        for stream in streams:
            stream.socket.close()

    await several_streams_wait(close)


async def test_a_forked_child_that_detaches_or_drops_its_copies_unregisters_nothing() -> None:
    def let_go(streams: list[SocketStream]) -> None:
        for stream in streams[::2]:
            stream.socket.detach()
        streams.clear()

    await several_streams_wait(let_go)


async def test_a_forked_child_may_wait_for_its_copies_of_descriptors_on_its_own_loop() -> None:
    async def main(streams: list[SocketStream]) -> None:
        for stream in streams:
            with nurseryio.move_on_after(0.001) as scope:
                await stream.socket.recv(1)
            assert scope.cancelled_caught

    await several_streams_wait(lambda streams: nurseryio.run(main, streams))


async def test_a_forked_child_that_accepts_leaves_the_listener_to_its_parent() -> None:
    (listener,) = await nurseryio.open_tcp_listeners(0, host="127.0.0.1")
    address = listener.socket.getsockname()

    async def accept_for_a_moment() -> None:
        with nurseryio.move_on_after(0.01):
            await listener.accept()

    async def accept() -> None:
        stream = await listener.accept()
        await stream.aclose()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await settle()
        assert in_child(lambda: nurseryio.run(accept_for_a_moment)) == 0
        assert in_child(lambda: listener.socket.close()) == 0
        async with await nurseryio.open_tcp_stream(*address) as client:
            assert await client.receive_some() == b""
    await listener.aclose()


async def test_a_forked_child_that_closes_a_pipe_leaves_it_non_blocking_in_the_parent() -> None:
    reader, writer = (FdStream(fd) for fd in os.pipe())
    assert in_child(lambda: (reader.close(), writer.close())) == 0
    assert not os.get_blocking(reader.fileno())
    assert not os.get_blocking(writer.fileno())
    await reader.aclose()
    await writer.aclose()


async def test_from_thread_cannot_call_the_parents_loop_in_a_forked_child() -> None:
    token = lowlevel.current_trio_token()

    def use_token() -> None:
        with pytest.raises(nurseryio.RunFinishedError):
            token.run_sync_soon(print)

    def use_thread() -> None:
        with pytest.raises(RuntimeError):
            from_thread.run_sync(print)
        with pytest.raises(nurseryio.RunFinishedError):
            from_thread.run_sync(print, trio_token=token)

    with token._lock:
        assert in_child(use_token) == 0
    assert await to_thread.run_sync(in_child, use_thread) == 0
    assert await to_thread.run_sync(from_thread.run_sync, str) == ""


# -- coming back into the parent's run --------------------------------------------------


def run_program(kind: str, body: str) -> tuple[int, str, str]:
    """A program whose child comes back; the exit code of the child, and both outputs."""
    setup = "import uvloop; options = {'loop_factory': uvloop.new_event_loop}"
    program = (
        "import os, sys, warnings, nurseryio\n"
        "warnings.simplefilter('ignore')\n"
        f"{setup if kind == 'uvloop' else 'options = {}'}\n"
        "async def forked():\n"
        "    pid = os.fork()\n"
        "    if pid:\n"
        "        _pid, status = await nurseryio.to_thread.run_sync(os.waitpid, pid, 0)\n"
        "        print(os.waitstatus_to_exitcode(status))\n"
        "    return not pid\n"
        f"{textwrap.dedent(body)}\n"
        "nurseryio.run(main, **options)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=forks.PATIENCE
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout), done.stdout, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_that_calls_sys_exit_in_a_task_ends_with_its_code(kind: str) -> None:
    code, _out, errors = run_program(
        kind,
        """
        async def main():
            await nurseryio.to_thread.run_sync(str)
            if await forked():
                sys.exit(5)
        """,
    )
    assert code == 5
    if sys.version_info < (3, 14):
        assert errors == ""
    else:  # asyncio's tasks report that the fork has taken the running loop away
        assert "is not the running loop" in errors


@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_that_waits_in_its_parents_run_gets_an_error(kind: str) -> None:
    code, _out, errors = run_program(
        kind,
        """
        async def main():
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep, 0.001)
                if await forked():
                    sys.exit(5)
        """,
    )
    assert code == 1
    assert "a forked child has come back into the event loop of its parent" in errors


# -- programs that the parent has started -----------------------------------------------


async def test_a_forked_child_does_not_take_its_parents_process_for_exited() -> None:
    async with nurseryio.open_nursery() as nursery:
        process = await nursery.start(nurseryio.run_process, ["sleep", "1000"])

        def look() -> None:
            assert process.returncode is None
            with pytest.raises(RuntimeError, match="started before this one was forked"):
                process.wait().send(None)

        assert in_child(look) == 0
        assert process.returncode is None
        nursery.cancel_scope.cancel()


LOCKS = [
    ("nurseryio._asyncio.closing", "_replacing"),
    ("nurseryio._base.watchers", "_switching"),
    ("nurseryio._core.anyio_hook", "_making"),
    ("nurseryio._dtls.engine", "_preparing"),
    ("nurseryio._interop.as_trio", "_installing"),
    ("nurseryio._loop.readiness", "_adding"),
    ("nurseryio._portal.portal", "_opening"),
]


@pytest.mark.parametrize(("module", "name"), LOCKS)
def test_after_fork_a_lock_that_another_thread_held_is_free(module: str, name: str) -> None:
    found = importlib.import_module(module)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with getattr(found, name):
            held.set()
            release.wait(10)

    def check_child() -> None:
        assert getattr(found, name).acquire(timeout=5)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(10)
        assert in_child(check_child) == 0
    finally:
        release.set()
        thread.join()


def test_after_fork_the_lock_of_a_loops_end_is_free_in_a_program_without_from_thread() -> None:
    """Its room is below that of the resets, and cannot register one by itself."""
    code = """
import os, sys, threading
import nurseryio
from nurseryio._asyncio import closing

nurseryio.run(nurseryio.sleep, 0)
held, release = threading.Event(), threading.Event()

def hold():
    with closing._replacing:
        held.set()
        release.wait(10)

threading.Thread(target=hold).start()
held.wait(10)
assert "nurseryio._system.from_thread" not in sys.modules
child = os.fork()
if not child:
    os._exit(0 if closing._replacing.acquire(timeout=5) else 3)
status = os.waitpid(child, 0)[1]
release.set()
sys.exit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
