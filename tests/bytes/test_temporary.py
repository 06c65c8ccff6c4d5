"""Temporary files and directories."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio import CancelScope, NamedTemporaryFile, TemporaryDirectory, TemporaryFile
from nurseryio._checks.schedules import Schedule
from nurseryio._system.files import AsyncIOWrapper
from nurseryio.testing import wait_all_tasks_blocked


async def test_temporary_file_has_no_name_and_is_closed_at_the_end_of_its_block(
    tmp_path: Path,
) -> None:
    async with TemporaryFile(dir=str(tmp_path)) as file:
        assert isinstance(file, AsyncIOWrapper)
        await file.write(b"data")
        await file.seek(0)
        assert await file.read() == b"data"
        if os.name == "posix":
            assert not list(tmp_path.iterdir())
    assert file.closed


async def test_named_temporary_file_is_removed_at_the_end_of_its_block(tmp_path: Path) -> None:
    directory = str(tmp_path)
    async with NamedTemporaryFile("w+", prefix="a", suffix=".z", dir=directory) as file:
        name: str = file.name
        assert os.path.dirname(name) == directory
        assert os.path.basename(name).startswith("a")
        assert name.endswith(".z")
        await file.write("text")
        await file.flush()
        assert Path(name).read_text(encoding="utf-8") == "text"
    assert not os.path.exists(name)
    async with NamedTemporaryFile(dir=directory, delete=False) as kept:
        pass
    assert [str(path) for path in tmp_path.iterdir()] == [kept.name]


async def test_temporary_files_take_the_arguments_of_open(tmp_path: Path) -> None:
    for make in (TemporaryFile, NamedTemporaryFile):
        async with make("w+", 1, "latin-1", "\r\n", dir=str(tmp_path), errors="replace") as file:
            assert (file.encoding, file.errors, file.line_buffering) == ("latin-1", "replace", True)
            await file.write("\u20ac\n")
            await file.seek(0)
            assert await file.read() == "?\r\n"


async def test_a_temporary_file_can_be_awaited_and_closed_later() -> None:
    file = await TemporaryFile()
    await file.write(b"x")
    await file.aclose()
    assert file.closed


async def test_temporary_directory_is_removed_with_everything_in_it(tmp_path: Path) -> None:
    async with TemporaryDirectory("z", "a", str(tmp_path)) as path:
        assert isinstance(path, nurseryio.Path)
        assert path.parent == nurseryio.Path(tmp_path)
        assert path.name[0] + path.name[-1] == "az"
        await (path / "below").mkdir()
        await (path / "below" / "file").write_text("x")
    assert not list(tmp_path.iterdir())


async def test_temporary_directory_is_made_and_removed_in_worker_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    threads = []

    class Noted(tempfile.TemporaryDirectory[str]):
        def __init__(self, *args: Any, **options: Any) -> None:
            threads.append(threading.current_thread())
            super().__init__(*args, **options)

        def cleanup(self) -> None:
            threads.append(threading.current_thread())
            super().cleanup()

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Noted)
    async with TemporaryDirectory(dir=str(tmp_path)):
        pass
    assert len(threads) == 2
    assert threading.current_thread() not in threads


async def test_a_temporary_directory_block_cannot_be_entered_twice(tmp_path: Path) -> None:
    directory = TemporaryDirectory(dir=str(tmp_path))
    assert repr(directory) == "<TemporaryDirectory not entered>"
    async with directory:
        assert str(tmp_path) in repr(directory)
    with pytest.raises(RuntimeError, match="has had its block: make a new one"):
        async with directory:
            pass
    assert not list(tmp_path.iterdir())


async def test_a_temporary_directory_that_is_gone_already_is_no_error(tmp_path: Path) -> None:
    async with TemporaryDirectory(dir=str(tmp_path)) as path:
        await path.rmdir()


async def test_errors_of_removing_a_temporary_directory_are_raised_unless_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck(tempfile.TemporaryDirectory[str]):
        def __init__(self, *args: Any, ignore_cleanup_errors: bool) -> None:
            super().__init__(*args)
            self.ignore = ignore_cleanup_errors

        def cleanup(self) -> None:
            super().cleanup()
            if not self.ignore:
                raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", Stuck)
    async with TemporaryDirectory(dir=str(tmp_path), ignore_cleanup_errors=True):
        pass
    with pytest.raises(PermissionError):
        async with TemporaryDirectory(dir=str(tmp_path)):
            pass


async def test_temporary_files_in_a_missing_directory_raise_file_not_found_error(
    tmp_path: Path,
) -> None:
    missing = str(tmp_path / "missing")
    for make in (TemporaryFile, NamedTemporaryFile, TemporaryDirectory):
        with pytest.raises(FileNotFoundError):
            async with make(dir=missing):
                pass


# -- cancellation ---------------------------------------------------------------


async def test_a_cancelled_task_makes_no_temporary_file_or_directory(tmp_path: Path) -> None:
    for make in (TemporaryFile, NamedTemporaryFile, TemporaryDirectory):
        with CancelScope() as scope:
            scope.cancel()
            async with make(dir=str(tmp_path)):
                pytest.fail("it was made")
        assert scope.cancelled_caught
    assert not list(tmp_path.iterdir())


async def test_temporary_files_and_directories_are_removed_in_a_cancelled_task(
    tmp_path: Path,
) -> None:
    for make in (NamedTemporaryFile, TemporaryDirectory):
        with CancelScope() as scope:
            async with make(dir=str(tmp_path)):
                scope.cancel()
                await nurseryio.sleep_forever()
        assert scope.cancelled_caught
        assert not list(tmp_path.iterdir())


async def test_a_temporary_directory_is_removed_although_the_wait_for_a_thread_is_cancelled(
    tmp_path: Path,
) -> None:
    limiter = nurseryio.to_thread.current_default_thread_limiter()
    before = limiter.total_tokens
    entered = nurseryio.Event()

    async def use() -> None:
        async with TemporaryDirectory(dir=str(tmp_path)):
            limiter.total_tokens = 0
            entered.set()

    task = asyncio.ensure_future(use())
    await entered.wait()
    for _ in range(2):
        await wait_all_tasks_blocked()
        task.cancel()
    await wait_all_tasks_blocked()
    assert list(tmp_path.iterdir())
    limiter.total_tokens = before
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not list(tmp_path.iterdir())


@pytest.mark.costly("many schedules")
async def test_cancel_at_every_await_of_temporary_files_and_directories_none_is_left(
    loop_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_loop(monkeypatch)

    async def scenario(schedule: Schedule) -> None:
        async def use() -> None:
            async with TemporaryDirectory(dir=str(tmp_path)) as path:
                await schedule.pause()
                async with NamedTemporaryFile(dir=str(path)) as file:
                    await file.write(b"x")
                    await schedule.pause()

        await schedule.run(use)
        assert not list(tmp_path.iterdir())

    await stress(scenario, loop_case)


def in_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call functions of worker threads after a few iterations of the loop instead.

    A schedule counts iterations, so it cannot wait for threads.
    """
    from nurseryio._core import cancel_shielded_checkpoint, checkpoint_if_cancelled

    async def run_sync(fn: Any, *args: Any, **options: Any) -> Any:
        await checkpoint_if_cancelled()
        for _ in range(2):
            await cancel_shielded_checkpoint()
        return fn(*args)

    for module in ("_system.files", "_bytes.temporary"):
        monkeypatch.setattr(f"nurseryio.{module}.to_thread_run_sync", run_sync)
