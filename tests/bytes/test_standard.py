"""The program's standard input, output and error as streams, over pipes, terminals and files."""

from __future__ import annotations

import contextlib
import gc
import os
import pty
import re
import select
import signal
import socket as stdlib
import subprocess
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import forks, source
from harness.core import cut_short, settle
from harness.matrix import Case
from harness.net import is_open
from harness.stress import stress

import nurseryio
from nurseryio import (
    BrokenResourceError,
    BufferedReceiveStream,
    BusyResourceError,
    CancelScope,
    ClosedResourceError,
    StandardReceiveStream,
    StandardSendStream,
)
from nurseryio._bytes import standard
from nurseryio._checks.schedules import Schedule
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked

if sys.platform == "win32":
    pytest.skip("the tests use pipes and terminals of Unix", allow_module_level=True)

FLAGS = re.MULTILINE | re.DOTALL
WAYS = ("private", "shared", "threads")


def use_way(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have descriptors opened in this way, although a better one would be possible."""
    if way != "private":
        monkeypatch.setattr(standard, "_open_again", lambda fd, flags: None)
    if way == "threads":
        monkeypatch.setattr(standard, "can_watch", lambda state: False)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way in turn; private ones are possible on Linux."""
    if request.param == "private" and sys.platform != "linux":
        pytest.skip("a pipe can be opened again on Linux only")
    use_way(request.param, monkeypatch)
    return str(request.param)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The reading and the writing end of a pipe, in blocking mode."""
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: the end of the user, and that of programs."""
    try:
        user, program = pty.openpty()
    except OSError:  # without /dev/pts
        pytest.skip("this machine has no pseudo-terminals")
    yield user, program
    for fd in (user, program):
        with contextlib.suppress(OSError):
            os.close(fd)


def reading(fd: int) -> StandardReceiveStream:
    return StandardReceiveStream._create("standard input", fd)


def writing(fd: int) -> StandardSendStream:
    return StandardSendStream._create("standard output", fd)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that a thread does."""
    while not condition():
        await nurseryio.sleep(0.001)


# -- reading --------------------------------------------------------------------


async def test_standard_input_over_a_pipe_is_read_up_to_the_end(
    way: str, pipe: tuple[int, int]
) -> None:
    async with reading(pipe[0]) as stream:
        assert not stream.isatty()
        os.write(pipe[1], b"some data")
        assert await stream.receive_some(4) == b"some"
        assert await stream.receive_some() == b" data"
        os.write(pipe[1], b"more")
        os.close(pipe[1])
        assert await stream.receive_some() == b"more"
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""
    assert is_open(pipe[0])


async def test_standard_input_never_changes_the_mode_of_a_shared_file(
    way: str, pipe: tuple[int, int], terminal: tuple[int, int]
) -> None:
    for fd, other in (pipe, terminal[::-1]):
        async with reading(fd) as stream:
            os.write(other, b"x\n")
            await stream.receive_some()
            assert os.get_blocking(fd)
        assert os.get_blocking(fd)


async def test_a_cancelled_reading_of_standard_input_loses_nothing(
    way: str, pipe: tuple[int, int]
) -> None:
    async with reading(pipe[0]) as stream:
        for number in range(3):
            with cut_short() as scope:
                await stream.receive_some()
            assert scope.cancelled_caught
            os.write(pipe[1], b"line %d" % number)
            assert await stream.receive_some() == b"line %d" % number


async def test_bytes_that_a_thread_has_read_for_a_cancelled_call_are_returned_later(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    use_way("threads", monkeypatch)
    async with reading(pipe[0]) as stream:
        with cut_short():
            await stream.receive_some()
        os.write(pipe[1], b"abcdef")
        assert await stream.receive_some(2) == b"ab"
        with assert_checkpoints():
            assert await stream.receive_some(3) == b"cde"
        with CancelScope() as scope:
            scope.cancel()
            await stream.receive_some()
        assert await stream.receive_some() == b"f"


async def test_a_terminal_is_read_by_lines_and_goes_on_after_its_end(
    way: str, terminal: tuple[int, int]
) -> None:
    user, program = terminal
    async with reading(program) as stream:
        assert stream.isatty()
        lines = BufferedReceiveStream(stream).lines("utf-8")
        with cut_short() as scope:
            await lines.__anext__()
        assert scope.cancelled_caught
        os.write(user, b"typed\n")
        assert await lines.__anext__() == "typed"
        os.write(user, b"\x04")  # Ctrl-D
        assert await stream.receive_some() == b""
        os.write(user, b"again\n")
        assert await lines.__anext__() == "again"


async def test_standard_input_from_a_file_on_disk_is_read_from_its_position(
    tmp_path: Path,
) -> None:
    (tmp_path / "input").write_bytes(b"head\nfirst\nsecond\n")
    with (tmp_path / "input").open("rb", buffering=0) as file:
        assert os.read(file.fileno(), 5) == b"head\n"
        async with reading(file.fileno()) as stream:
            assert "in threads" in repr(stream)
            lines = BufferedReceiveStream(stream).lines()
            assert [line async for line in lines] == [b"first", b"second"]
        # The position is that of the open file, which the shell shares.
        assert file.tell() == 18


async def test_a_cancelled_reading_of_a_file_leaves_the_bytes_to_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "input").write_bytes(b"first\nsecond\n")
    began, may_read, has_read = threading.Event(), threading.Event(), threading.Event()
    real = os.pread

    def slow(*args: int) -> bytes:
        began.set()
        may_read.wait()
        data = real(*args)
        has_read.set()
        return data

    with (tmp_path / "input").open("rb", buffering=0) as file:
        async with reading(file.fileno()) as stream:
            assert await stream.receive_some(6) == b"first\n"
            monkeypatch.setattr(os, "pread", slow)
            with CancelScope() as scope:
                async with nurseryio.open_nursery() as nursery:

                    @nursery.start_soon
                    async def cancel() -> None:
                        await until(began.is_set)
                        scope.cancel()

                    await stream.receive_some()
            assert scope.cancelled_caught
            may_read.set()
            await until(has_read.is_set)
            await until(lambda: all(t.name != "reader" for t in threading.enumerate()))
        assert os.read(file.fileno(), 100) == b"second\n"


async def test_standard_input_from_the_null_device_is_at_its_end() -> None:
    with open(os.devnull, "rb") as null:
        async with reading(null.fileno()) as stream:
            assert await stream.receive_some() == b""


async def test_standard_input_over_a_socket_in_blocking_mode_does_not_block() -> None:
    left, right = stdlib.socketpair()
    with left, right:
        async with reading(left.fileno()) as stream, writing(left.fileno()) as answer:
            with cut_short() as scope:
                await stream.receive_some()
            assert scope.cancelled_caught
            right.sendall(b"x")
            assert await stream.receive_some() == b"x"
            with cut_short() as scope:
                await answer.send_all(bytes(10_000_000))
            assert scope.cancelled_caught
            assert left.getblocking()


@pytest.mark.parametrize("blocking", [True, False])
async def test_the_default_timeout_of_sockets_does_not_change_the_mode_of_a_shared_socket(
    blocking: bool,
) -> None:
    ours, theirs = stdlib.socketpair()
    with ours, theirs:
        ours.setblocking(blocking)
        stdlib.setdefaulttimeout(30)
        try:
            stream = reading(ours.fileno())
        finally:
            stdlib.setdefaulttimeout(None)
        async with stream:
            assert os.get_blocking(ours.fileno()) is blocking
            theirs.send(b"x")
            assert await stream.receive_some() == b"x"
            with cut_short() as scope:
                await stream.receive_some()
            assert scope.cancelled_caught
        assert os.get_blocking(ours.fileno()) is blocking


async def test_a_program_that_takes_the_input_first_does_not_make_a_shared_reading_block(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    use_way("shared", monkeypatch)
    ready = standard.wait_readable

    async def wait_readable(fd: Any) -> None:
        await ready(fd)
        if not taken:
            taken.append(os.read(pipe[0], 100))

    taken: list[bytes] = []
    monkeypatch.setattr(standard, "wait_readable", wait_readable)
    async with reading(pipe[0]) as stream:
        os.write(pipe[1], b"for the other")

        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                assert await stream.receive_some() == b"for us"

            await settle()
            assert taken == [b"for the other"]
            os.write(pipe[1], b"for us")


@pytest.mark.blind_only
async def test_on_a_loop_that_cannot_watch_descriptors_threads_read_and_write(
    pipe: tuple[int, int],
) -> None:
    async with reading(pipe[0]) as source, writing(pipe[1]) as target:
        assert "in threads" in repr(source)
        assert "in threads" in repr(target)
        with cut_short() as scope:
            await source.receive_some()
        assert scope.cancelled_caught
        await target.send_all(b"data")
        assert await source.receive_some() == b"data"


async def test_reading_of_a_directory_is_a_broken_resource_error(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        async with reading(fd) as stream:
            with pytest.raises(BrokenResourceError, match="file descriptor broken") as caught:
                await stream.receive_some()
            assert isinstance(caught.value.__cause__, IsADirectoryError)
    finally:
        os.close(fd)


async def test_arguments_of_receive_some_of_standard_input_are_checked(
    way: str, pipe: tuple[int, int]
) -> None:
    async with reading(pipe[0]) as stream:
        with pytest.raises(ValueError, match="max_bytes must be"):
            await stream.receive_some(0)
        with pytest.raises(TypeError, match="max_bytes must be"):
            await stream.receive_some(1.5)  # type: ignore[arg-type]


# -- writing --------------------------------------------------------------------


async def test_standard_output_to_a_pipe_waits_for_its_reader(
    way: str, pipe: tuple[int, int]
) -> None:
    data = os.urandom(300_000)
    got = b""
    async with writing(pipe[1]) as stream, nurseryio.open_nursery() as nursery:
        await stream.wait_send_all_might_not_block()
        nursery.start_soon(stream.send_all, data)
        await settle()
        while len(got) < len(data):
            got += await nurseryio.to_thread.run_sync(os.read, pipe[0], 65536)
        assert os.get_blocking(pipe[1])
    assert got == data


async def test_a_cancelled_send_all_on_standard_output_ends_at_once(
    way: str, pipe: tuple[int, int]
) -> None:
    async with writing(pipe[1]) as stream:
        with cut_short() as scope:
            await stream.send_all(bytes(1_000_000))
        assert scope.cancelled_caught
        # In a thread, the write that has begun goes on. Its end ends the thread.
        os.set_blocking(pipe[0], False)
        while any(thread.name == "writer" for thread in threading.enumerate()):
            with contextlib.suppress(BlockingIOError):
                os.read(pipe[0], 65536)
            await settle()


async def test_a_terminal_that_cannot_be_opened_again_and_is_full_does_not_block_the_loop(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_way("shared", monkeypatch)
    user, program = terminal
    tty.setraw(program)
    async with writing(program) as stream:
        with cut_short() as scope:
            await stream.send_all(bytes(1_000_000))
        assert scope.cancelled_caught
        os.set_blocking(user, False)
        while any(thread.name == "writer" for thread in threading.enumerate()):
            with contextlib.suppress(BlockingIOError):
                os.read(user, 65536)
            await settle()


async def test_standard_output_to_a_file_is_written_completely_and_in_order(
    tmp_path: Path,
) -> None:
    with (tmp_path / "output").open("wb", buffering=0) as file:
        async with writing(file.fileno()) as stream:
            await stream.send_all(b"first ")
            await stream.send_all(bytearray(b"second "))
            await stream.send_all(b"")
            await stream.send_all(memoryview(b"third" * standard.WRITE_PIECE))
            await stream.wait_send_all_might_not_block()
    data = (tmp_path / "output").read_bytes()
    assert data == b"first second " + b"third" * standard.WRITE_PIECE


async def test_standard_output_whose_reader_is_gone_is_broken(
    way: str, pipe: tuple[int, int]
) -> None:
    async with writing(pipe[1]) as stream:
        os.close(pipe[0])
        with pytest.raises(BrokenResourceError):
            await stream.send_all(b"x")


async def test_standard_output_whose_reader_is_gone_before_it_is_opened_is_broken(
    pipe: tuple[int, int],
) -> None:
    os.close(pipe[0])
    async with writing(pipe[1]) as stream:
        with pytest.raises(BrokenResourceError):
            await stream.send_all(b"x")


# -- closing, two tasks, garbage ------------------------------------------------


async def test_closing_standard_input_wakes_its_reader(way: str, pipe: tuple[int, int]) -> None:
    stream = reading(pipe[0])

    async def read() -> None:
        with pytest.raises(ClosedResourceError):
            await stream.receive_some()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await stream.aclose()
    assert stream.fileno() == -1
    await stream.aclose()
    with pytest.raises(ClosedResourceError):
        await stream.receive_some()
    assert is_open(pipe[0])


async def test_a_closed_standard_output_raises_closed_resource_error(
    way: str, pipe: tuple[int, int]
) -> None:
    stream = writing(pipe[1])
    await stream.aclose()
    for call in (
        stream.send_all(b"x"),
        stream.send_all(b""),
        stream.wait_send_all_might_not_block(),
    ):
        with pytest.raises(ClosedResourceError):
            await call


async def test_two_tasks_that_use_one_standard_stream_are_refused(
    way: str, pipe: tuple[int, int]
) -> None:
    async with reading(pipe[0]) as source, nurseryio.open_nursery() as nursery:
        nursery.start_soon(source.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(BusyResourceError):
            await source.receive_some()
        os.write(pipe[1], b"x")


async def test_standard_streams_are_checkpoints(way: str, pipe: tuple[int, int]) -> None:
    async with reading(pipe[0]) as source, writing(pipe[1]) as target:
        for data in (b"x", b""):
            with assert_checkpoints():
                await target.send_all(data)
        with assert_checkpoints():
            await source.receive_some()
        with assert_checkpoints():
            await target.wait_send_all_might_not_block()
        with assert_checkpoints():
            await target.aclose()


async def test_a_forgotten_standard_stream_is_closed_by_the_garbage_collector(
    way: str, pipe: tuple[int, int]
) -> None:
    number = reading(pipe[0]).fileno()
    gc.collect()
    assert not is_open(number)
    assert is_open(pipe[0])


async def test_repr_of_a_standard_stream_shows_what_it_is(way: str, pipe: tuple[int, int]) -> None:
    async with reading(pipe[0]) as stream:
        shown = {"private": "FdStream", "shared": "shared", "threads": "in threads"}[way]
        assert repr(stream).startswith("<the program's standard input: ")
        assert shown in repr(stream)


def test_standard_streams_have_no_public_constructor() -> None:
    with pytest.raises(TypeError, match="no public constructor"):
        StandardReceiveStream("standard input", 0)
    with pytest.raises(TypeError, match="no public constructor"):
        StandardSendStream("standard output", 1)


def test_the_device_that_makes_new_terminals_is_not_opened_again(terminal: tuple[int, int]) -> None:
    if sys.platform == "linux":
        assert standard._open_again(terminal[0], os.O_RDWR) is None


def test_a_reading_in_a_thread_goes_on_in_the_next_run(pipe: tuple[int, int]) -> None:
    kept: list[StandardReceiveStream] = []

    async def first() -> None:
        with pytest.MonkeyPatch.context() as patch:
            use_way("threads", patch)
            kept.append(reading(pipe[0]))
        with cut_short():
            await kept[0].receive_some()

    async def second() -> None:
        async with nurseryio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                assert await kept[0].receive_some() == b"for the second run"

            await wait_all_tasks_blocked()
            os.write(pipe[1], b"for the second run")
        with cut_short():
            await kept[0].receive_some()
        os.write(pipe[1], b"between the runs")
        reading_of = kept[0]._way._reading  # type: ignore[union-attr]
        assert reading_of is not None
        await until(lambda: reading_of.outcome is not None)

    async def third() -> None:
        async with kept[0] as stream:
            assert await stream.receive_some() == b"between the runs"

    for run in (first, second, third):
        nurseryio.run(run)


@pytest.mark.costly("many schedules")
async def test_cancel_at_every_await_of_standard_input_nothing_is_lost(
    way: str, loop_case: Case
) -> None:
    if way == "threads":
        pytest.skip("a schedule does not wait for threads")

    async def scenario(schedule: Schedule) -> None:
        reader, writer = os.pipe()
        source, target = reading(reader), writing(writer)
        os.close(reader)
        os.close(writer)
        got: list[bytes] = []

        async def write() -> None:
            try:
                for data in (b"one", b"two", b"three"):
                    await target.send_all(data)
                    await schedule.pause()
            finally:
                with CancelScope(shield=True):
                    await nurseryio.aclose_forcefully(target)

        async def read() -> None:
            while data := await source.receive_some():
                got.append(data)

        await schedule.run(write, read)
        await nurseryio.aclose_forcefully(target)
        async with source:
            while data := await source.receive_some():
                got.append(data)
        assert b"onetwothree".startswith(b"".join(got))

    await stress(scenario, loop_case)


# -- real programs --------------------------------------------------------------

LINES = """
import nurseryio

async def main():
    async with nurseryio.open_stdin() as stdin, nurseryio.open_stdout() as stdout:
        lines = nurseryio.BufferedReceiveStream(stdin).lines("utf-8")
        line = None
        with nurseryio.move_on_after(0.01):
            line = await lines.__anext__()
        print("ready", flush=True)
        while True:
            if line is not None:
                await stdout.send_all(f"{line.upper()} {stdin.isatty()}\\n".encode())
            try:
                line = await lines.__anext__()
            except StopAsyncIteration:
                break

nurseryio.run(main)
"""


def start(program: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program], **options)


def read_until(fd: int, wanted: bytes) -> bytes:
    """Read from the user's end of a terminal until a text has come."""
    got = b""
    while wanted not in got:
        ready, _, _ = select.select([fd], [], [], 30)
        assert ready, got
        got += os.read(fd, 1000)
    return got


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_terminal_is_as_before_after_a_program_that_was_reading_has_ended_or_crashed(
    terminal: tuple[int, int], signum: int
) -> None:
    user, program = terminal
    tty.setcbreak(program)
    with start(LINES, stdin=program, stdout=program, stderr=program) as process:
        read_until(user, b"ready")
        os.write(user, b"gr\xc3\xbc\xc3\x9fe\n")
        assert "GRÜSSE True" in read_until(user, b"True").decode()
        assert os.get_blocking(program)
        process.send_signal(signum)
    # The shell, which has the same open file, still waits for input instead of getting an error.
    assert os.get_blocking(program)


def test_the_progress_bar_of_the_documentation_does_not_tear(terminal: tuple[int, int]) -> None:
    user, program = terminal
    modes = termios.tcgetattr(program)
    modes[3] &= ~termios.ECHO  # what a user types would be shown in the bar
    termios.tcsetattr(program, termios.TCSANOW, modes)
    page = (source.ROOT / "docs/terminal.md").read_text(encoding="utf-8")
    (example,) = re.findall(
        r"^```python\n(import nurseryio\n\n\nclass Display.*?)^```", page, FLAGS
    )
    with start(example, stdin=program, stdout=program, stderr=program) as process:
        os.write(user, b"hm\n")
        shown = read_until(user, b"jobs are done")
        assert process.wait(60) == 0
    rows = shown.replace(b"\r\n", b"\n").decode().split("\n")
    # A row shows what comes after the last erasure of the line.
    rows = [row.rpartition("\x1b[K")[2] for row in rows]
    assert rows[:-1].count("there is no command 'hm'") == 1
    assert [row for row in rows if row.startswith("job ")] == [
        f"job {number} is done" for number in range(1, 6)
    ]
    assert all(re.fullmatch(r"job \d is done|there .*'hm'|5 jobs are done|", row) for row in rows)
    assert "[##   ] 2 of 5" in shown.decode()


def test_the_user_stops_the_program_of_the_documentation(terminal: tuple[int, int]) -> None:
    user, program = terminal
    page = (source.ROOT / "docs/terminal.md").read_text(encoding="utf-8")
    (example,) = re.findall(
        r"^```python\n(import nurseryio\n\n\nclass Display.*?)^```", page, FLAGS
    )
    example = example.replace("0.02 * number", "3600 * (number > 1)")
    with start(example, stdin=program, stdout=program, stderr=program) as process:
        read_until(user, b"1 of 5")
        os.write(user, b"q\n")
        read_until(user, b"1 jobs are done")
        assert process.wait(60) == 0


def test_a_shell_pipeline_passes_through_a_program_with_standard_streams() -> None:
    with start(LINES, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        output, _ = process.communicate(b"one\r\ntwo", timeout=60)
    assert output.split(b"\n") == [b"ready", b"ONE False", b"TWO False", b""]
    assert process.returncode == 0


def test_a_file_as_standard_input_and_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"one\ntwo\n")
    with (tmp_path / "in").open("rb") as source, (tmp_path / "out").open("wb") as target:
        with start(LINES, stdin=source, stdout=target) as process:
            assert process.wait(60) == 0
    assert (tmp_path / "out").read_bytes() == b"ready\nONE False\nTWO False\n"


def test_a_forked_child_leaves_the_standard_input_of_its_parent_alone(
    pipe: tuple[int, int],
) -> None:
    async def main() -> None:
        async with reading(pipe[0]) as stream:

            def child() -> None:
                gc.collect()
                assert os.get_blocking(pipe[0])

            assert forks.in_child(child) == 0
            os.write(pipe[1], b"x")
            assert await stream.receive_some() == b"x"

    nurseryio.run(main)


async def test_a_stream_of_the_other_direction_is_refused_although_it_could_be_opened_again(
    pipe: tuple[int, int], terminal: tuple[int, int], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="standard output is not open for writing"):
        writing(pipe[0])
    with pytest.raises(OSError, match="standard input is not open for reading"):
        reading(pipe[1])
    with open(os.devnull, "wb") as null, pytest.raises(OSError, match="not open for reading"):
        reading(null.fileno())
    write_only = os.open(os.ttyname(terminal[1]), os.O_WRONLY | os.O_NOCTTY)
    with pytest.raises(OSError, match="not open for reading"):
        reading(write_only)
    async with writing(write_only) as stream:
        await stream.send_all(b"text")
    os.close(write_only)
    assert os.read(terminal[0], 100) == b"text"


async def test_a_terminal_opened_again_is_closed_if_no_stream_can_be_made_of_it(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def failing(fd: int) -> Any:
        opened.append(fd)
        raise MemoryError

    monkeypatch.setattr(standard, "FdStream", failing)
    if sys.platform != "linux":
        monkeypatch.setattr(standard, "_open_again", lambda fd, flags: os.dup(fd))
    with pytest.raises(MemoryError):
        reading(pipe[0])
    assert len(opened) == 1
    assert not is_open(opened[0])


def test_a_program_without_standard_streams_gets_an_os_error() -> None:
    program = """
import nurseryio

async def main():
    failed = []
    for opens in (nurseryio.open_stdin, nurseryio.open_stdout):
        try:
            opens()
        except OSError as error:
            failed.append(error.strerror)
    async with nurseryio.open_stderr() as stderr:
        await stderr.send_all(", ".join(failed).encode())

nurseryio.run(main)
"""
    command = 'exec "$0" -c "$1" <&- >&-'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, program],
        stderr=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    assert done.stderr == b"Bad file descriptor, Bad file descriptor"
