"""Child processes under supervision: results, input and output, cancellation."""

# Covered below 95 %: a child that is gone when it is to be killed is a race that no test can make
# at will.

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import functools
import os
import signal
import subprocess
import sys
import time
from typing import Any, NoReturn

import pytest

import nurseryio
from nurseryio import (
    BrokenResourceError,
    CancelScope,
    Event,
    Process,
    open_nursery,
    run_process,
    terminate_process_group,
)
from nurseryio._system import run_process as module
from nurseryio.lowlevel import FdStream, checkpoint

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses the commands of Unix")

TIMEOUT = 10.0
PIPE = subprocess.PIPE

# "exec" leaves no shell in between; an ignored signal stays ignored across it.
DEAF = ["sh", "-c", "trap '' TERM; echo deaf; exec sleep 1000"]


@pytest.fixture(autouse=True)
def no_child_is_left() -> Any:
    """At the end of each test every child has been reaped."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# -- results --------------------------------------------------------------------


async def test_run_process_returns_a_completed_process_as_subprocess_run_does() -> None:
    done = await run_process(
        ["sh", "-c", "echo out; echo err >&2"], capture_stdout=True, capture_stderr=True
    )
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.args == ["sh", "-c", "echo out; echo err >&2"]
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")


async def test_run_process_output_that_is_not_captured_is_none(
    capfd: pytest.CaptureFixture[str],
) -> None:
    done = await run_process(["sh", "-c", "echo out; echo err >&2"])
    assert done.stdout is done.stderr is None
    assert capfd.readouterr() == ("out\n", "err\n")


async def test_run_process_captures_stdout_and_stderr_in_one() -> None:
    done = await run_process(
        ["sh", "-c", "echo one; echo two >&2; echo three"],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
    )
    assert (done.stdout, done.stderr) == (b"one\ntwo\nthree\n", None)


async def test_run_process_raises_called_process_error_with_the_captured_output() -> None:
    command = ["sh", "-c", "echo out; echo err >&2; exit 3"]
    with pytest.raises(subprocess.CalledProcessError) as caught:
        await run_process(command, capture_stdout=True, capture_stderr=True)
    error = caught.value
    assert (error.cmd, error.returncode) == (command, 3)
    assert (error.stdout, error.stderr) == (b"out\n", b"err\n")


async def test_run_process_with_check_false_returns_the_failure() -> None:
    done = await run_process(["sh", "-c", "kill -USR1 $$"], check=False)
    assert done.returncode == -signal.SIGUSR1


async def test_run_process_of_a_missing_program_raises_file_not_found_error() -> None:
    with pytest.raises(FileNotFoundError):
        await run_process(["/no/such/program"], capture_stdout=True)


async def test_run_process_with_shell_takes_a_string() -> None:
    done = await run_process("echo $((1 + 1))", shell=True, capture_stdout=True)
    assert done.stdout == b"2\n"


# -- input and output -----------------------------------------------------------


async def test_run_process_stdin_is_any_contiguous_buffer() -> None:
    numbers = array.array("I", range(50_000))
    done = await run_process(["cat"], stdin=numbers, capture_stdout=True)
    assert done.stdout == numbers.tobytes()
    with pytest.raises(TypeError, match="contiguous"):
        await run_process(["cat"], stdin=memoryview(b"abcd")[::2])
    with pytest.raises(TypeError, match="takes bytes, not list"):
        await run_process(["cat"], stdin=["a"])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_run_process_sends_stdin_and_closes_it(kind: Any) -> None:
    done = await run_process(["cat"], stdin=kind(b"some words"), capture_stdout=True)
    assert done.stdout == b"some words"


async def test_run_process_stdin_is_devnull_by_default() -> None:
    done = await run_process(["cat"], capture_stdout=True)
    assert done.stdout == b""


async def test_run_process_stdin_may_be_a_file(tmp_path: Any) -> None:
    (tmp_path / "input").write_bytes(b"from a file")
    with open(tmp_path / "input", "rb") as file:
        done = await run_process(["cat"], stdin=file, capture_stdout=True)
    assert done.stdout == b"from a file"


async def test_run_process_feeds_stdin_and_reads_both_pipes_at_once() -> None:
    data = os.urandom(2**20)
    done = await run_process(
        ["tee", "/dev/stderr"], stdin=data, capture_stdout=True, capture_stderr=True
    )
    assert done.stdout == data == done.stderr


async def test_run_process_reads_a_child_that_floods_both_pipes_to_the_end() -> None:
    script = "head -c 3000000 /dev/zero >&2; head -c 3000000 /dev/zero"
    done = await run_process(["sh", "-c", script], capture_stdout=True, capture_stderr=True)
    assert len(done.stdout) == len(done.stderr) == 3000000


async def test_a_child_process_that_exits_before_reading_stdin_is_not_an_error() -> None:
    done = await run_process(["true"], stdin=bytes(2**20))
    assert done.returncode == 0


async def test_a_child_process_that_closes_its_stdin_goes_on() -> None:
    done = await run_process(
        ["sh", "-c", "exec <&-; echo done"], stdin=bytes(2**20), capture_stdout=True
    )
    assert done.stdout == b"done\n"


async def test_run_process_raises_an_error_in_writing_stdin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = os.write

    def fails(fd: int, data: Any) -> int:
        monkeypatch.setattr(os, "write", write)
        raise OSError(errno.EIO, "cannot be written")

    monkeypatch.setattr(os, "write", fails)
    with pytest.raises(ExceptionGroup) as caught:
        await run_process(["cat"], stdin=b"x", capture_stdout=True)
    (error,) = caught.value.exceptions
    assert isinstance(error, BrokenResourceError)
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == errno.EIO


async def test_a_pipe_that_cannot_be_made_a_stream_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(fd: int, blocking: bool) -> None:
        raise PermissionError(errno.EPERM, "not allowed")

    monkeypatch.setattr(os, "set_blocking", fails)
    with pytest.raises(PermissionError):
        await run_process(["cat"], stdin=b"x")  # the end of the test looks for descriptors


async def test_run_process_refuses_text_as_stdin() -> None:
    with pytest.raises(UnicodeError, match="must be bytes, not str"):
        await run_process(["cat"], stdin="text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "instead"),
    [("input", "as stdin"), ("capture_output", "capture_stdout=True"), ("timeout", "fail_after")],
)
async def test_run_process_refuses_options_of_subprocess_run_and_names_its_own(
    option: str, instead: str
) -> None:
    with pytest.raises(TypeError, match=f"no option '{option}': .*{instead}"):
        await run_process(["true"], **{option: 1})


async def test_a_deliver_cancel_that_is_not_an_async_function_is_refused_before_the_start() -> None:
    with pytest.raises(TypeError, match="expecting an async function"):
        await run_process(["no-such-program"], deliver_cancel=5)  # type: ignore[arg-type]


async def test_run_process_refuses_capture_together_with_a_stream() -> None:
    with pytest.raises(ValueError, match="can't specify both stdout and capture_stdout"):
        await run_process(["true"], capture_stdout=True, stdout=subprocess.DEVNULL)
    with pytest.raises(ValueError, match="can't specify both stderr and capture_stderr"):
        await run_process(["true"], capture_stderr=True, stderr=None)


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
async def test_run_process_refuses_pipe_unless_started_in_a_nursery(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}=subprocess\.PIPE is only valid with nursery"):
        await run_process(["true"], **{name: PIPE})


# -- in the background ----------------------------------------------------------


async def test_nursery_start_of_run_process_returns_the_process() -> None:
    async with open_nursery() as nursery:
        process = await nursery.start(
            functools.partial(run_process, ["cat"], stdin=PIPE, stdout=PIPE)
        )
        assert isinstance(process, Process)
        await process.stdio.send_all(b"hello")
        assert await process.stdio.receive_some() == b"hello"
        await process.stdin.aclose()
        assert await process.stdout.receive_some() == b""
        assert await process.wait() == 0
        await process.stdout.aclose()


async def test_nursery_start_of_run_process_hides_the_streams_that_it_handles_itself() -> None:
    async with open_nursery() as nursery:
        process = await nursery.start(
            functools.partial(
                run_process, ["cat"], stdin=b"x", capture_stdout=True, capture_stderr=True
            )
        )
        assert process.stdin is process.stdout is process.stderr is process.stdio is None


async def test_a_failure_of_a_process_started_in_a_nursery_is_an_error_of_the_nursery() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            await nursery.start(run_process, ["false"])
    assert [type(e) for e in caught.value.exceptions] == [subprocess.CalledProcessError]


# -- cancellation ---------------------------------------------------------------


async def cancelled_run(nursery: Any, *command: str, **options: Any) -> Process:
    """Start a child in a nursery, and cancel the nursery once it has said something."""
    process: Process = await nursery.start(
        functools.partial(run_process, command, stdout=PIPE, **options)
    )
    assert process.stdout is not None
    await process.stdout.receive_some()
    await process.stdout.aclose()
    nursery.cancel_scope.cancel()
    return process


async def test_a_cancelled_run_process_terminates_the_child() -> None:
    async with open_nursery() as nursery:
        process = await cancelled_run(nursery, "sh", "-c", "echo up; exec sleep 1000")
    assert nursery.cancel_scope.cancelled_caught
    assert process.returncode == -signal.SIGTERM


async def test_a_native_cancel_of_run_process_terminates_the_child_and_is_re_raised() -> None:
    up = Event()
    processes = []

    async def supervise() -> None:
        async with open_nursery() as nursery:
            processes.append(await nursery.start(run_process, ["sleep", "1000"]))
            up.set()

    task = asyncio.get_running_loop().create_task(supervise())
    await up.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes[0].returncode == -signal.SIGTERM


async def test_run_process_natively_cancelled_again_and_again_still_reaps_the_child() -> None:
    asked, go = Event(), Event()
    processes = []

    async def slowly(process: Process) -> None:
        processes.append(process)
        asked.set()
        await go.wait()
        process.kill()
        await nurseryio.sleep_forever()

    ours, childs = os.pipe()
    output = FdStream(ours)
    task = asyncio.get_running_loop().create_task(
        run_process(["sh", "-c", "echo up; exec sleep 1000"], stdout=childs, deliver_cancel=slowly)
    )
    await output.receive_some()
    task.cancel()
    await asked.wait()
    for _ in range(5):
        task.cancel()
        await checkpoint()
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes[0].returncode == -signal.SIGKILL
    os.close(childs)
    await output.aclose()


async def test_run_process_cancelled_while_it_starts_leaves_no_child() -> None:
    with CancelScope() as scope:
        # Struck while the worker thread is at it, or just after: the child must go either way.
        asyncio.get_running_loop().call_soon(scope.cancel)
        await run_process(["sleep", "1000"])
    assert scope.cancelled_caught


async def test_a_child_that_ignores_sigterm_is_killed_after_5_seconds(autojump_clock: Any) -> None:
    begun = nurseryio.current_time()
    with pytest.warns(RuntimeWarning, match="ignored SIGTERM for 5 seconds"):
        async with open_nursery() as nursery:
            process = await cancelled_run(nursery, *DEAF)
    assert process.returncode == -signal.SIGKILL
    assert nurseryio.current_time() - begun == pytest.approx(5)


async def test_a_child_that_ignores_sigterm_is_killed_although_warnings_are_errors(
    autojump_clock: Any,
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            process = await cancelled_run(nursery, *DEAF)
    assert caught.group_contains(RuntimeWarning, match="ignored SIGTERM")
    assert process.returncode == -signal.SIGKILL


async def test_a_terminated_child_may_use_its_5_seconds() -> None:
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"
    async with open_nursery() as nursery:
        process = await cancelled_run(nursery, "sh", "-c", script)
    assert process.returncode == 7


async def test_deliver_cancel_is_cancelled_when_the_child_has_exited() -> None:
    statuses = []

    async def deliver_cancel(process: Process) -> None:
        process.send_signal(signal.SIGUSR1)
        try:
            await nurseryio.sleep_forever()
        finally:
            statuses.append(process.returncode)

    async with open_nursery() as nursery:
        await cancelled_run(
            nursery, "sh", "-c", "echo up; exec sleep 1000", deliver_cancel=deliver_cancel
        )
    assert statuses == [-signal.SIGUSR1]


async def test_an_error_in_deliver_cancel_is_raised_in_groups() -> None:
    async def deliver_cancel(process: Process) -> NoReturn:
        process.terminate()
        raise ValueError("foo")

    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            await cancelled_run(
                nursery, "sh", "-c", "echo up; exec sleep 1000", deliver_cancel=deliver_cancel
            )
    (inner,) = caught.value.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert [str(e) for e in inner.exceptions] == ["foo"]


async def test_a_sync_deliver_cancel_is_an_error_that_names_it() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            await cancelled_run(
                nursery, "sh", "-c", "echo up; exec sleep 1000", deliver_cancel=Process.terminate
            )
    (inner,) = caught.value.exceptions
    assert isinstance(inner, ExceptionGroup)
    (error,) = inner.exceptions
    assert "'Process.terminate' appears to be synchronous" in str(error)


async def test_a_signal_that_cannot_be_sent_to_a_child_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminate = Process.terminate

    def refuse(self: Process) -> NoReturn:
        terminate(self)
        raise PermissionError("whoops")

    monkeypatch.setattr(Process, "terminate", refuse)
    with pytest.warns(RuntimeWarning, match="failed with: PermissionError.*whoops"):
        async with open_nursery() as nursery:
            await cancelled_run(nursery, "sh", "-c", "echo up; exec sleep 1000")


async def test_deliver_cancel_is_not_called_when_the_child_has_exited() -> None:
    async def deliver_cancel(process: Process) -> NoReturn:
        raise AssertionError("there is nothing to end")

    ended = Event()

    async def supervise() -> None:
        async with open_nursery() as nursery:
            # A grandchild has the pipe, so the run goes on after the child's exit.
            process = await nursery.start(
                functools.partial(
                    run_process,
                    ["sh", "-c", "sleep 1000 & echo $! >&2"],
                    capture_stdout=True,
                    stderr=PIPE,
                    deliver_cancel=deliver_cancel,
                )
            )
            grandchildren.append(int(await process.stderr.receive_some()))
            await process.stderr.aclose()
            await process.wait()
            ended.set()

    grandchildren: list[int] = []
    async with open_nursery() as nursery:
        nursery.start_soon(supervise)
        await ended.wait()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    # nurseryio does not end it, as documented.
    os.kill(grandchildren[0], signal.SIGKILL)


async def test_a_cancelled_run_process_does_not_wait_for_grandchildren() -> None:
    script = "sleep 1000 & echo $! >&2; wait"
    async with open_nursery() as nursery:
        process = await nursery.start(
            functools.partial(run_process, ["sh", "-c", script], capture_stdout=True, stderr=PIPE)
        )
        grandchild = int(await process.stderr.receive_some())
        await process.stderr.aclose()
        nursery.cancel_scope.cancel()
    assert process.returncode == -signal.SIGTERM
    os.kill(grandchild, signal.SIGKILL)


async def test_an_error_in_reading_the_output_terminates_the_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(self: FdStream, max_bytes: int | None = None) -> NoReturn:
        raise OSError("the cable is cut")

    monkeypatch.setattr(FdStream, "receive_some", fail)
    with pytest.raises(ExceptionGroup) as caught:
        await run_process(["sleep", "1000"], capture_stdout=True)
    assert [str(e) for e in caught.value.exceptions] == ["the cable is cut"]


async def test_run_process_that_waits_costs_no_cpu() -> None:
    async with open_nursery() as nursery:
        await nursery.start(run_process, ["sleep", "1000"])
        cpu = time.process_time()
        await nurseryio.sleep(0.3)
        cpu = time.process_time() - cpu
        nursery.cancel_scope.cancel()
    assert cpu < 0.1, "seconds of CPU in 0.3 seconds of waiting"


async def test_fifty_run_process_at_once() -> None:
    results = []

    async def one(number: int) -> None:
        done = await run_process(
            ["sh", "-c", f"cat; exit {number}"],
            stdin=bytes([number]) * 1000,
            capture_stdout=True,
            check=False,
        )
        results.append((done.returncode, done.stdout))

    async with open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(one, number)
    assert sorted(results) == [(number, bytes([number]) * 1000) for number in range(50)]


async def test_the_child_is_killed_if_deliver_cancel_fails() -> None:
    async def deliver_cancel(process: Process) -> NoReturn:
        raise ValueError("foo")

    with pytest.raises(ExceptionGroup):
        async with open_nursery() as nursery:
            process = await cancelled_run(nursery, *DEAF, deliver_cancel=deliver_cancel)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("way", ["default", "own"])
async def test_a_child_process_that_cannot_be_killed_is_left_behind_after_a_time(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Like one that runs as another user, or hangs in a call of the system.
    def refuse(_pid: int, _sig: int) -> NoReturn:
        raise PermissionError(1, "Operation not permitted")

    async def kill_it(process: Process) -> None:
        with contextlib.suppress(PermissionError):
            process.kill()

    monkeypatch.setattr(module, "KILLED_SECONDS", 0.05)
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)
        refused = pytest.warns(RuntimeWarning, match="failed with: PermissionError")
        with (
            refused if way == "default" else contextlib.nullcontext(),
            pytest.warns(RuntimeWarning, match="cannot be ended and is left behind"),
        ):
            async with open_nursery() as nursery:
                process = await cancelled_run(
                    nursery, *DEAF, deliver_cancel=kill_it if way == "own" else None
                )
        assert nursery.cancel_scope.cancelled_caught
        assert process.returncode is None
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_deliver_cancel_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # It has no limit as long as SIGKILL was not sent.
    monkeypatch.setattr(module, "KILLED_SECONDS", 0)
    script = "trap 'sleep 0.1; exit 7' TERM; echo up; while :; do sleep 0.01; done"

    async def deliver_cancel(process: Process) -> None:
        process.terminate()

    async with open_nursery() as nursery:
        process = await cancelled_run(nursery, "sh", "-c", script, deliver_cancel=deliver_cancel)
    assert process.returncode == 7


# -- process groups -------------------------------------------------------------


GROUP: dict[str, Any] = (
    {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
)
# A child with two generations below it, all of which hold the pipe open.
TREE = "sh -c 'sleep 1000 & {} echo up; wait' & wait"


async def end_tree(script: str, **options: Any) -> tuple[Process, bytes]:
    """Run a script in a new process group, and cancel it once it has printed something."""
    with CancelScope() as scope:
        async with open_nursery() as nursery:
            process = await nursery.start(
                functools.partial(
                    run_process,
                    ["sh", "-c", script],
                    **{"stdout": PIPE, "deliver_cancel": terminate_process_group} | GROUP | options,
                )
            )
            output = b""
            while b"up" not in output:
                output += await process.stdout.receive_some()
            scope.cancel()
    # The end of the file: no process with the pipe's write end is left.
    with nurseryio.fail_after(TIMEOUT):
        async with process.stdout:
            async for chunk in process.stdout:
                output += chunk
    return process, output


async def test_a_cancelled_run_process_terminates_its_whole_process_group() -> None:
    process, output = await end_tree(TREE.format(""))
    assert process.returncode == -signal.SIGTERM
    assert output == b"up\n"


async def test_a_process_group_has_time_to_clean_up_although_the_child_has_exited() -> None:
    tidy = 'trap "sleep 0.1; echo tidied; exit" TERM; echo up; while :; do sleep 0.01; done'
    script = f"sh -c '{tidy}' & wait"
    process, output = await end_tree(script)
    assert process.returncode == -signal.SIGTERM
    assert output == b"up\ntidied\n"


async def test_processes_of_a_group_that_ignore_sigterm_are_killed() -> None:
    script = TREE.format('trap "" TERM; sleep 1000 &')
    process, output = await end_tree(
        script, deliver_cancel=functools.partial(terminate_process_group, grace_seconds=0.1)
    )
    assert process.returncode == -signal.SIGTERM
    assert output == b"up\n"


async def test_a_native_cancel_in_the_time_of_grace_kills_the_rest_of_a_process_group() -> None:
    # The child ends at once. The other process says that it ignores the signal.
    deaf = 'trap "echo ignored" TERM; echo up; while :; do sleep 0.01; done'
    process = await nurseryio.lowlevel.open_process(
        ["sh", "-c", f"sh -c '{deaf}' & wait"], stdout=PIPE, **GROUP
    )
    output = b""
    while b"up" not in output:
        output += await process.stdout.receive_some()
    end = terminate_process_group(process, grace_seconds=TIMEOUT)
    task = asyncio.get_running_loop().create_task(end)
    while b"ignored" not in output:
        output += await process.stdout.receive_some()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with nurseryio.fail_after(TIMEOUT):
        async with process.stdout:
            async for _ in process.stdout:
                pass  # until no process with the pipe's write end is left
        await process.wait()


async def test_the_rest_of_a_process_group_is_terminated_although_the_child_has_exited() -> None:
    grandchildren: list[int] = []
    async with open_nursery() as nursery:
        process = await nursery.start(
            functools.partial(
                run_process,
                ["sh", "-c", "sleep 1000 & echo $! >&2"],
                capture_stdout=True,
                stderr=PIPE,
                deliver_cancel=terminate_process_group,
                **GROUP,
            )
        )
        grandchildren.append(int(await process.stderr.receive_some()))
        await process.wait()
        nursery.cancel_scope.cancel()
    async with process.stderr:
        assert await process.stderr.receive_some() == b""


async def test_terminating_a_process_group_needs_process_group_or_start_new_session() -> None:
    for way in (
        terminate_process_group,
        functools.partial(terminate_process_group, grace_seconds=1),
    ):
        with pytest.raises(ValueError, match="process_group=0"):
            await run_process(["true"], deliver_cancel=way)
    # Found out later: the child is ended nevertheless, and we are not.
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            process = await cancelled_run(
                nursery, *DEAF, deliver_cancel=lambda process: terminate_process_group(process)
            )
    assert caught.group_contains(ValueError, match="process_group=0", depth=2)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="there it works")
async def test_on_python_3_10_process_group_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TypeError, match="start_new_session=True"):
        await run_process(["true"], process_group=0)


async def test_a_process_group_that_cannot_be_signalled_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_pid: int, _sig: int) -> NoReturn:
        raise PermissionError(1, "Operation not permitted")

    async with open_nursery() as nursery:
        with pytest.warns(RuntimeWarning, match="failed with: PermissionError"):
            process = await nursery.start(
                functools.partial(run_process, ["sleep", "1000"], check=False, **GROUP)
            )
            with monkeypatch.context() as patch:
                patch.setattr(os, "killpg", refuse)
                await terminate_process_group(process)
        process.kill()
