"""Files with async methods."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from harness.matrix import Case
from harness.net import is_open
from harness.stress import stress

import nurseryio
from nurseryio import CancelScope, open_file, wrap_file
from nurseryio._checks.schedules import Schedule
from nurseryio._system.files import IN_THREAD, PASSED_THROUGH, AsyncIOWrapper
from nurseryio.testing import wait_all_tasks_blocked


class Noted(io.BytesIO):
    """A file that notes which thread each of its methods ran in."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[threading.Thread] = []

    def write(self, data: Any, /) -> int:
        """Note the thread."""
        self.threads.append(threading.current_thread())
        return super().write(data)

    def fileno(self) -> int:
        """Note the thread."""
        self.threads.append(threading.current_thread())
        return 77

    def close(self) -> None:
        """Note the thread."""
        self.threads.append(threading.current_thread())
        super().close()


# -- opening --------------------------------------------------------------------


async def test_open_file_writes_and_reads_a_file(tmp_path: Path) -> None:
    async with await open_file(tmp_path / "file", "w", encoding="utf-8") as file:
        assert await file.write("first\nsecond\n") == 13
        await file.writelines(["third\n"])
        assert not file.closed
    assert file.closed
    async with await open_file(tmp_path / "file", encoding="utf-8") as file:
        assert await file.readline() == "first\n"
        assert await file.read() == "second\nthird\n"


@pytest.mark.parametrize(
    ("mode", "kwargs", "wrapped"),
    [
        ("r", {"encoding": "utf-8"}, io.TextIOWrapper),
        ("rb", {}, io.BufferedReader),
        ("wb", {}, io.BufferedWriter),
        ("r+b", {}, io.BufferedRandom),
        ("rb", {"buffering": 0}, io.FileIO),
    ],
)
async def test_open_file_opens_what_open_opens(
    tmp_path: Path, mode: str, kwargs: Any, wrapped: type
) -> None:
    (tmp_path / "file").touch()
    async with await open_file(tmp_path / "file", mode, **kwargs) as file:
        assert isinstance(file, AsyncIOWrapper)
        assert type(file.wrapped) is wrapped


async def test_open_file_passes_all_arguments_of_open_on(tmp_path: Path) -> None:
    opened = []

    def opener(name: str, flags: int) -> int:
        opened.append((name, threading.current_thread()))
        return os.open(name, flags, 0o600)

    name = os.fspath(tmp_path / "file")
    file = await open_file(name, "w", 1, "latin-1", "replace", "\r\n", True, opener)
    async with file:
        await file.write("\u20ac\n")
        assert (file.encoding, file.errors, file.line_buffering) == ("latin-1", "replace", True)
        assert file.name == name
        assert file.mode == "w"
    assert Path(name).read_bytes() == b"?\r\n"
    assert opened[0][0] == name
    assert opened[0][1] is not threading.current_thread()


async def test_open_file_without_an_inner_await_closes_the_file_at_the_end_of_the_block(
    tmp_path: Path,
) -> None:
    async with open_file(tmp_path / "file", "w", encoding="utf-8") as file:
        assert await file.write("data") == 4
    assert file.closed
    with pytest.raises(ZeroDivisionError):
        async with nurseryio.Path(tmp_path / "file").open("rb") as opened:
            assert await opened.read() == b"data"
            raise ZeroDivisionError
    assert opened.closed
    with pytest.raises(FileNotFoundError):
        async with open_file(tmp_path / "missing"):
            pass


async def test_open_file_returns_a_coroutine_for_all_other_code(tmp_path: Path) -> None:
    name = tmp_path / "file"
    name.touch()
    opening = open_file(name, encoding="utf-8")
    assert asyncio.iscoroutine(opening)
    assert repr(opening) == "<call of open_file()>"
    # Tasks and tools show the name and the frame of a coroutine.
    assert opening.__name__ == opening.__qualname__ == "open_file"
    assert opening.cr_frame is not None  # type: ignore[attr-defined]
    assert not hasattr(opening, "read")
    async with await opening as file:
        assert not file.closed
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        async with opening:
            pass
    async with await asyncio.create_task(open_file(name, "rb")) as file:
        assert await file.read() == b""
    files = await nurseryio.gather(lambda: open_file(name, "rb"), nurseryio.Path(name).open)
    for file in files:
        await file.aclose()


def test_run_takes_open_file_like_any_async_function(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = nurseryio.run(open_file, tmp_path / "file")
    file.wrapped.close()


async def test_open_file_that_is_never_awaited_warns_and_one_that_is_closed_does_not(
    tmp_path: Path,
) -> None:
    with pytest.warns(RuntimeWarning, match="coroutine 'open_file' was never awaited"):
        open_file(tmp_path / "file")
        gc.collect()
    with pytest.warns(RuntimeWarning, match="coroutine 'Path.open' was never awaited"):
        nurseryio.Path(tmp_path / "file").open()
        gc.collect()
    open_file(tmp_path / "file").close()
    gc.collect()


async def test_an_error_thrown_into_an_open_file_call_leaves_it(tmp_path: Path) -> None:
    opening = open_file(tmp_path / "file")
    with pytest.raises(ZeroDivisionError):
        opening.throw(ZeroDivisionError())


async def test_cancel_at_every_await_of_an_open_file_block_leaves_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop_case: Case
) -> None:
    async def run_sync(fn: Any, *args: Any, **options: Any) -> Any:
        # A schedule does not wait for threads.
        await nurseryio.lowlevel.checkpoint_if_cancelled()
        await nurseryio.lowlevel.cancel_shielded_checkpoint()
        return fn(*args)

    monkeypatch.setattr("nurseryio._system.files.to_thread_run_sync", run_sync)
    opened: list[Any] = []

    def opener(name: str, flags: int) -> int:
        opened.append(os.open(name, flags, 0o600))
        return opened[-1]

    async def scenario(schedule: Schedule) -> None:
        async def use() -> None:
            async with open_file(tmp_path / "file", "wb", opener=opener) as file:
                await file.write(b"x")
                await schedule.pause()

        await schedule.run(use)
        for fd in opened:
            assert not is_open(fd)
        opened.clear()

    await stress(scenario, loop_case)


async def test_open_file_of_a_missing_file_raises_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await open_file(tmp_path / "file")


async def test_a_cancelled_open_file_opens_nothing(tmp_path: Path) -> None:
    with CancelScope() as scope:
        scope.cancel()
        await open_file(tmp_path / "file", "w", encoding="utf-8")
    assert scope.cancelled_caught
    assert not (tmp_path / "file").exists()


# -- wrapping -------------------------------------------------------------------


@pytest.mark.parametrize("thing", ["name", b"name", 5, None, io.BytesIO])
def test_wrap_file_refuses_what_is_not_a_file(thing: Any) -> None:
    if thing is io.BytesIO:
        thing = type("Half", (), {"read": None, "close": lambda self: None})()
    with pytest.raises(TypeError, match=r"required duck-file methods: close and \(read or write\)"):
        wrap_file(thing)


def test_wrap_file_refuses_a_path_and_names_open_file() -> None:
    with pytest.raises(TypeError, match="use open_file"):
        wrap_file("name")


async def test_wrap_file_takes_any_object_with_the_methods_of_a_file() -> None:
    class Duck:
        closed = False

        def write(self, data: str) -> int:
            return len(data)

        def close(self) -> None:
            self.closed = True

    duck = Duck()
    file = wrap_file(duck)
    assert file.wrapped is duck
    assert await file.write("quack") == 5
    await file.aclose()
    assert file.closed


async def test_temporary_files_can_be_wrapped() -> None:
    async with wrap_file(tempfile.TemporaryFile()) as file:
        await file.write(b"data")
        await file.seek(0)
        assert await file.read() == b"data"


def test_repr_of_a_file_wrapper_shows_the_wrapped_file() -> None:
    file = io.StringIO()
    assert repr(wrap_file(file)) == f"<nurseryio.AsyncIOWrapper of {file!r}>"


# -- attributes -----------------------------------------------------------------


@pytest.mark.parametrize("file", [io.StringIO(), io.BytesIO()], ids=["text", "binary"])
def test_a_file_wrapper_has_the_known_attributes_that_the_file_has(file: Any) -> None:
    wrapper = wrap_file(file)
    for name in PASSED_THROUGH | IN_THREAD:
        assert (name in dir(wrapper)) == hasattr(wrapper, name) == hasattr(file, name), name


def test_every_attribute_of_the_io_modules_files_is_known() -> None:
    theirs = set()
    for cls in (io.StringIO, io.BytesIO, io.TextIOWrapper, io.FileIO, io.BufferedRandom):
        theirs |= {name for name in dir(cls) if not name.startswith("_")}
    own = {"close", "detach"}
    # Setting something, and a name of 3.11 for one of TextIOWrapper.
    left_out = {"reconfigure", "write_through"}
    assert theirs - own - left_out == PASSED_THROUGH | IN_THREAD


def test_unknown_attributes_of_the_file_are_not_passed_through() -> None:
    class File(io.RawIOBase):
        def shred(self) -> None:
            raise AssertionError

    with pytest.raises(AttributeError, match="'AsyncIOWrapper' object has no attribute 'shred'"):
        _ = wrap_file(File()).shred  # type: ignore[attr-defined]


def test_a_method_that_the_file_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="peek"):
        _ = wrap_file(io.StringIO()).peek  # type: ignore[misc]


def test_plain_attributes_are_those_of_the_file() -> None:
    file = io.BytesIO(b"data")
    wrapper = wrap_file(file)
    assert wrapper.getvalue() == b"data"
    assert wrapper.seekable()
    assert wrapper.readable == file.readable


def test_an_async_file_method_is_made_once_and_has_the_wrappers_qualname() -> None:
    wrapper = wrap_file(io.StringIO())
    assert wrapper.read is wrapper.read
    assert wrapper.read.__name__ == "read"
    assert wrapper.read.__qualname__ == "AsyncIOWrapper.read"
    assert "io.StringIO.read" in str(wrapper.read.__doc__)


# -- use ------------------------------------------------------------------------


async def test_file_methods_that_may_block_run_in_a_thread_and_the_others_do_not() -> None:
    file = Noted()
    wrapper = wrap_file(file)
    await wrapper.write(b"data")
    assert wrapper.fileno() == 77
    await wrapper.aclose()
    writing, asking, closing = file.threads
    assert asking is threading.current_thread()
    assert writing is not asking
    assert closing is not asking


async def test_file_methods_pass_arguments_and_errors_on() -> None:
    wrapper = wrap_file(io.BytesIO(b"data"))
    assert await wrapper.read(2) == b"da"
    assert await wrapper.seek(-1, io.SEEK_END) == 3
    assert await wrapper.tell() == 3
    buffer = bytearray(5)
    assert await wrapper.readinto(buffer) == 1
    with pytest.raises(ValueError, match="negative seek"):
        await wrapper.seek(-1)


async def test_async_for_over_a_file_gives_its_lines() -> None:
    lines = []
    async for line in wrap_file(io.StringIO("one\ntwo\nthree")):
        lines.append(line)
    assert lines == ["one\n", "two\n", "three"]


async def test_detach_of_a_file_returns_a_wrapper_too(tmp_path: Path) -> None:
    file = await open_file(tmp_path / "file", "w+", encoding="utf-8")
    text = file.wrapped
    buffered = await file.detach()
    async with buffered:
        assert isinstance(buffered, AsyncIOWrapper)
        assert isinstance(buffered.wrapped, io.BufferedRandom)
    with pytest.raises(ValueError, match="detached"):
        text.fileno()


async def test_aclose_closes_a_file_although_the_task_is_cancelled(tmp_path: Path) -> None:
    with CancelScope() as scope:
        file = await open_file(tmp_path / "file", "w", encoding="utf-8")
        await file.write("data")
        scope.cancel()
        with pytest.raises(nurseryio.Cancelled):
            await file.write("more")
        with pytest.raises(nurseryio.Cancelled):
            await file.aclose()
    assert file.closed
    assert (tmp_path / "file").read_text() == "data"


async def test_aclose_closes_a_file_although_a_native_cancel_is_pending() -> None:
    class Slow(Noted):
        def write(self, data: Any, /) -> int:
            nurseryio.from_thread.run_sync(task.cancel)
            return super().write(data)

    async def use() -> None:
        async with wrap_file(raw) as file:
            # The data is written, so this returns. The cancellation is raised later: in the
            # close.
            await file.write(b"data")

    raw = Slow()
    task = asyncio.ensure_future(use())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert raw.closed
    assert threading.current_thread() not in raw.threads


async def test_aclose_closes_a_file_although_its_wait_for_a_thread_is_natively_cancelled() -> None:
    raw = Noted()
    limiter = nurseryio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 0
    task = asyncio.ensure_future(wrap_file(raw).aclose())
    for _ in range(2):
        await wait_all_tasks_blocked()
        task.cancel()
    await wait_all_tasks_blocked()
    limiter.total_tokens = before
    with pytest.raises(asyncio.CancelledError):
        await task
    assert raw.closed


async def test_files_and_directories_are_cleaned_up_although_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    file = await open_file(tmp_path / "file", "w")
    async with nurseryio.TemporaryDirectory(dir=tmp_path) as folder:
        monkeypatch.setattr("nurseryio._system.threads.start_thread_soon", refusing)
        await file.aclose()
        assert file.closed
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await file.flush()
    monkeypatch.undo()
    assert not await folder.exists()


async def test_an_error_of_closing_a_file_is_raised_once() -> None:
    class Failing(io.StringIO):
        closings = 0

        def close(self) -> None:
            Failing.closings += 1
            super().close()
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await nurseryio.wrap_file(Failing()).aclose()
    assert Failing.closings == 1


async def test_aclose_of_a_closed_file_does_nothing() -> None:
    file = wrap_file(io.StringIO())
    await file.aclose()
    await file.aclose()
    assert file.closed
