"""Child processes: starting, streams, waiting, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import nurseryio
from nurseryio import CancelScope, Process, open_nursery
from nurseryio.lowlevel import checkpoint, open_process

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses the commands of Unix")

TIMEOUT = 10.0
PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL


@asynccontextmanager
async def child(*command: str, **options: Any) -> AsyncIterator[Process]:
    """A child that is gone when the block is left."""
    process = await open_process(command, **options)
    try:
        yield process
    finally:
        process.kill()
        with CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()


async def read_all(stream: Any) -> bytes:
    got = b""
    async for chunk in stream:
        got += chunk
    return got


# -- starting -------------------------------------------------------------------


async def test_repr_of_a_process_shows_its_args_and_how_it_ended() -> None:
    async with child("sleep", "1000") as process:
        assert process.args == ("sleep", "1000")
        assert process.returncode is None is process.poll()
        assert (
            repr(process)
            == f"<nurseryio.Process ('sleep', '1000'): running with PID {process.pid}>"
        )
        process.terminate()
        assert await process.wait() == -signal.SIGTERM == process.returncode == process.poll()
        assert repr(process) == "<nurseryio.Process ('sleep', '1000'): exited with signal 15>"
    async with child("sh", "-c", "exit 3") as process:
        assert await process.wait() == 3
        assert repr(process).endswith(": exited with status 3>")


async def test_code_written_for_popen_sees_streams_of_bytes() -> None:
    async with child("true") as process:
        assert process.universal_newlines is False
        assert process.encoding is process.errors is None


def test_process_cannot_be_instantiated() -> None:
    with pytest.raises(TypeError, match="no public constructor"):
        Process(None, None, None, None)  # type: ignore[call-arg,arg-type]


async def test_without_pipes_stdin_stdout_and_stderr_are_none() -> None:
    async with child("true", stdin=DEVNULL) as process:
        assert process.stdin is process.stdout is process.stderr is process.stdio is None


async def test_stdio_is_a_stapled_stream_if_stdin_and_stdout_are_pipes() -> None:
    async with child("cat", stdin=PIPE, stdout=PIPE) as process:
        assert process.stdio is not None
        await process.stdio.send_all(b"hello")
        await process.stdio.send_eof()
        assert await read_all(process.stdio) == b"hello"
        assert await process.wait() == 0
    async with child("true", stdin=PIPE) as process:
        assert process.stdio is None


async def test_a_command_string_needs_shell_and_shell_needs_a_string() -> None:
    with pytest.raises(TypeError, match=r"must be a sequence .* if shell=False"):
        await open_process("ls -l")
    with pytest.raises(TypeError, match=r"must be a string or bytes .* if shell=True"):
        await open_process(["ls", "-l"], shell=True)
    with pytest.raises(ValueError, match="command is empty"):
        await open_process([])
    process = await open_process("exit $((3 + 4))", shell=True)
    assert await process.wait() == 7
    process = await open_process(b"exit 8", shell=True)
    assert await process.wait() == 8


async def test_a_path_may_be_the_command() -> None:
    for command in (Path("/bin/true"), [nurseryio.Path("/bin/true")]):
        process = await open_process(command)
        assert await process.wait() == 0


@pytest.mark.parametrize("option", ["universal_newlines", "text", "encoding", "errors", "bufsize"])
async def test_popen_options_for_text_mode_are_refused(option: str) -> None:
    with pytest.raises(TypeError, match=f"the '{option}' option is not supported"):
        await open_process(["true"], **{option: 1})


async def test_other_popen_options_are_passed_on(tmp_path: Path) -> None:
    async with child(
        "sh", "-c", "pwd; echo $WORD", stdout=PIPE, cwd=tmp_path, env={"WORD": "x"}
    ) as (process):
        assert await read_all(process.stdout) == os.fsencode(tmp_path.resolve()) + b"\nx\n"


async def test_open_process_that_fails_leaves_no_pipe_open() -> None:
    # The end of every test looks for descriptors.
    with pytest.raises(FileNotFoundError):
        await open_process(["/no/such/program"], stdin=PIPE, stdout=PIPE, stderr=PIPE)


async def test_a_system_without_non_blocking_pipes_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nurseryio._system.process._HAS_PIPES", False)
    for name in ("stdin", "stdout", "stderr"):
        with pytest.raises(NotImplementedError, match="not available on this system"):
            await open_process(["true"], **{name: PIPE})
    process = await open_process(["true"], stdin=DEVNULL)
    assert await process.wait() == 0


async def test_a_cancelled_open_process_leaves_no_pipe_and_no_child_process() -> None:
    with CancelScope() as scope:
        scope.cancel()
        await open_process(["sleep", "1000"], stdin=PIPE, stdout=PIPE)
    assert scope.cancelled_caught
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# -- streams --------------------------------------------------------------------


async def test_stdin_stdout_and_stderr_of_a_process_are_its_pipes() -> None:
    async with child(
        "sh", "-c", "cat; echo problem >&2", stdin=PIPE, stdout=PIPE, stderr=PIPE
    ) as process:
        assert process.stdin is not None
        await process.stdin.send_all(b"some words")
        await process.stdin.aclose()
        assert await read_all(process.stdout) == b"some words"
        assert await read_all(process.stderr) == b"problem\n"
        assert await process.wait() == 0


async def test_stderr_can_be_redirected_to_the_stdout_pipe() -> None:
    command = ("sh", "-c", "echo one; echo two >&2; echo three")
    async with child(*command, stdout=PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stderr is None
        assert await read_all(process.stdout) == b"one\ntwo\nthree\n"


async def test_stderr_can_be_redirected_to_a_stdout_that_is_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        async with child(
            "sh", "-c", "echo one; echo two >&2", stdout=file, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is process.stderr is None
            await process.wait()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


async def test_stderr_can_be_redirected_to_an_inherited_stdout() -> None:
    async with child("true", stderr=subprocess.STDOUT) as process:
        assert process.stderr is None
        assert await process.wait() == 0


async def test_stdout_of_one_process_can_be_stdin_of_another() -> None:
    async with (
        child("sh", "-c", "read line; echo $line", stdin=PIPE, stdout=PIPE) as first,
        child("cat", stdin=first.stdout, stdout=PIPE) as second,
    ):
        # It has started before there is anything to read.
        await first.stdin.send_all(b"through two pipes\n")
        assert await read_all(second.stdout) == b"through two pipes\n"
        assert (await first.wait(), await second.wait()) == (0, 0)
        # Handed on: while we held it the writer would not see that its reader has gone.
        with pytest.raises(nurseryio.ClosedResourceError):
            await first.stdout.receive_some()
        with pytest.raises(nurseryio.ClosedResourceError):
            await open_process(["cat"], stdin=first.stdout)


async def test_a_process_ends_by_sigpipe_when_the_reader_of_its_stdout_has_closed() -> None:
    async with (
        child("yes", stdout=PIPE) as first,
        child("head", "-n", "1", stdin=first.stdout, stdout=PIPE) as second,
    ):
        assert await read_all(second.stdout) == b"y\n"
        assert await first.wait() == -signal.SIGPIPE


async def test_stdin_of_one_process_can_be_stdout_of_another() -> None:
    async with (
        child("cat", stdin=PIPE, stdout=PIPE) as second,
        child("sh", "-c", "echo out; echo err >&2", stdout=second.stdin, stderr=second.stdin) as _,
    ):
        assert await read_all(second.stdout) == b"out\nerr\n"


async def test_a_stream_given_to_a_process_that_fails_to_start_stays_usable() -> None:
    async with child("cat", stdin=PIPE, stdout=PIPE) as process:
        with pytest.raises(FileNotFoundError):
            await open_process(["/no/such/program"], stdin=process.stdout, stdout=process.stdin)
        assert not os.get_blocking(process.stdout.fileno())
        assert not os.get_blocking(process.stdin.fileno())
        await process.stdin.send_all(b"still ours")
        assert await process.stdout.receive_some() == b"still ours"


async def test_a_stream_in_use_cannot_be_given_to_a_process() -> None:
    async with child("cat", stdin=PIPE, stdout=PIPE) as process:
        async with open_nursery() as nursery:
            nursery.start_soon(process.stdout.receive_some)
            await nurseryio.testing.wait_all_tasks_blocked()
            with pytest.raises(nurseryio.BusyResourceError):
                await open_process(["cat"], stdin=process.stdout)
            await process.stdin.send_all(b"x")


async def test_a_socket_stream_can_be_given_to_a_process() -> None:
    ours, theirs = nurseryio.socket.socketpair()
    with ours, theirs:
        async with child("cat", stdin=theirs, stdout=theirs) as process:
            assert theirs.fileno() == -1
            await ours.send(b"hello")
            assert await ours.recv(10) == b"hello"
            ours.shutdown(nurseryio.socket.SHUT_WR)
            assert await ours.recv(10) == b""
            assert await process.wait() == 0
            with pytest.raises(nurseryio.ClosedResourceError):
                await open_process(["cat"], stdin=theirs)
        with pytest.raises(FileNotFoundError):
            await open_process(["/no/such/program"], stdin=ours)
        assert not os.get_blocking(ours.fileno())


async def test_a_command_may_be_an_iterator() -> None:
    process = await open_process(iter(["sh", "-c", "exit 3"]))  # type: ignore[arg-type]
    assert await process.wait() == 3
    assert process.args == ["sh", "-c", "exit 3"]
    with pytest.raises(ValueError, match="command is empty"):
        await open_process(iter(()))  # type: ignore[arg-type]


async def test_back_pressure_a_process_that_does_not_read_blocks_the_sender() -> None:
    async with child("sleep", "1000", stdin=PIPE) as process:
        assert process.stdin is not None
        with CancelScope() as scope:
            async with open_nursery() as nursery:
                nursery.start_soon(process.stdin.send_all, bytes(2**20))
                for _ in range(5):
                    await checkpoint()
                assert len(nursery.child_tasks) == 1
                scope.cancel()
        assert scope.cancelled_caught


async def test_sending_to_a_process_that_has_exited_raises_broken_resource_error() -> None:
    async with child("true", stdin=PIPE) as process:
        await process.wait()
        assert process.stdin is not None
        with pytest.raises(nurseryio.BrokenResourceError) as caught:
            await process.stdin.send_all(b"hello?")
        assert isinstance(caught.value.__cause__, BrokenPipeError)


async def test_process_wait_returns_although_a_grandchild_keeps_the_pipe_open() -> None:
    script = "sleep 1000 & echo $!"
    async with child("sh", "-c", script, stdout=PIPE) as process:
        assert process.stdout is not None
        grandchild = int(await process.stdout.receive_some())
        try:
            assert await process.wait() == 0
            # The end of file comes when the last one who could write is gone.
            with nurseryio.move_on_after(0.005) as scope:
                await process.stdout.receive_some()
            assert scope.cancelled_caught
        finally:
            os.kill(grandchild, signal.SIGKILL)
        assert await process.stdout.receive_some() == b""


# -- waiting --------------------------------------------------------------------


async def test_many_tasks_may_call_process_wait_and_be_cancelled() -> None:
    async with child("sleep", "1000") as process:
        async with open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(process.wait)
            for _ in range(5):
                await checkpoint()
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        async with open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(process.wait)
            await checkpoint()
            process.kill()
        assert process.returncode == -signal.SIGKILL


async def test_process_wait_is_a_checkpoint_although_the_process_has_exited() -> None:
    async with child("true") as process:
        await process.wait()
        with CancelScope() as scope:
            scope.cancel()
            await process.wait()
        assert scope.cancelled_caught


async def test_process_wait_returns_although_other_code_has_reaped_the_process() -> None:
    async with child("sleep", "1000") as process:
        ended = nurseryio.Event()

        async def wait() -> None:
            await process.wait()
            ended.set()

        async with open_nursery() as nursery:
            nursery.start_soon(wait)
            for _ in range(5):
                await checkpoint()
            process.kill()
            # Without a chance for the loop to notice in between.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert process.poll() == -signal.SIGKILL
            with nurseryio.fail_after(TIMEOUT):
                await ended.wait()


async def test_an_exit_status_lost_to_sigchld_ignored_is_255_and_not_success(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with child("sleep", "1000") as process:
            async with open_nursery() as nursery:
                nursery.start_soon(process.wait)
                for _ in range(5):
                    await checkpoint()
                process.kill()
            assert process.returncode == process.poll() == await process.wait() == 255
            process.kill()  # not sent to a process with the same id
        with pytest.raises(subprocess.CalledProcessError) as caught:
            await nurseryio.run_process(["true"])
        assert caught.value.returncode == 255
    finally:
        signal.signal(signal.SIGCHLD, before)
    # Once for each.
    assert [record.name for record in caplog.records] == ["nurseryio.Process"] * 2
    assert f"status of process {process.pid} is not known" in caplog.text


async def test_returncode_is_up_to_date_without_poll() -> None:
    async with child("sleep", "1000") as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.returncode == -signal.SIGKILL


def test_a_process_can_be_used_on_one_loop_after_another() -> None:
    async def start() -> Process:
        process = await open_process(["sleep", "1000"])
        with nurseryio.move_on_after(0.001):
            await process.wait()
        return process

    process = nurseryio.run(start)
    assert process.returncode is None
    process.kill()
    assert nurseryio.run(process.wait) == -signal.SIGKILL


async def test_processes_work_in_any_thread() -> None:
    async def main() -> int:
        process = await open_process([sys.executable, "-S", "-c", "raise SystemExit(9)"])
        return await process.wait()

    assert await nurseryio.to_thread.run_sync(nurseryio.run, main) == 9


# -- signals --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("send", "number"),
    [
        (Process.kill, signal.SIGKILL),
        (Process.terminate, signal.SIGTERM),
        (lambda process: process.send_signal(signal.SIGUSR1), signal.SIGUSR1),
        (lambda process: process.send_signal(int(signal.SIGUSR2)), signal.SIGUSR2),
    ],
)
async def test_send_signal_terminate_and_kill_reach_the_process(
    send: Any, number: signal.Signals
) -> None:
    async with child("sleep", "1000") as process:
        send(process)
        assert await process.wait() == -number


async def test_a_signal_to_a_process_that_has_exited_does_nothing() -> None:
    async with child("true") as process:
        await process.wait()
        process.terminate()
        process.kill()
        process.send_signal(signal.SIGUSR1)
        assert process.returncode == 0
