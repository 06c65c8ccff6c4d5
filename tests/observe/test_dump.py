"""A signal writes the task trees of the process to a file."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness.core import forever
from harness.forks import in_child

import nurseryio
from nurseryio._observe.dump import trees
from nurseryio.instruments import dump_on_signal
from nurseryio.testing import wait_all_tasks_blocked


@pytest.fixture(autouse=True)
def handler_from_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGUSR1)
    yield
    assert signal.getsignal(signal.SIGUSR1) is before


async def test_dump_on_signal_writes_the_tree_and_the_stack_of_the_step(tmp_path: Path) -> None:
    def slow() -> None:
        signal.raise_signal(signal.SIGUSR1)  # here

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(forever, name="waits")
        await wait_all_tasks_blocked()
        with (tmp_path / "dump").open("w+") as file:
            restore = dump_on_signal(file=file)
            try:
                slow()
            finally:
                restore()
            lines = (tmp_path / "dump").read_text().splitlines()
        nursery.cancel_scope.cancel()
    assert lines[0] == f"process {os.getpid()}: 1 running loop"
    assert lines[2].startswith("the loop is in a step of task ")
    assert any(
        line.endswith("in slow(): signal.raise_signal(signal.SIGUSR1)  # here") for line in lines
    )
    assert any("─ waits " in line for line in lines)


def test_dump_on_signal_without_a_loop_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    restore = dump_on_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    restore()
    assert capfd.readouterr().err == f"process {os.getpid()}: 0 running loops\n"


def test_dump_on_signal_writes_to_a_file_object_without_a_descriptor() -> None:
    file = io.StringIO()
    restore = dump_on_signal(file=file)
    signal.raise_signal(signal.SIGUSR1)
    restore()
    assert "0 running loops" in file.getvalue()


def test_dump_on_signal_survives_a_file_that_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = (tmp_path / "closed").open("w")
    file.close()
    restore = dump_on_signal(file=file)
    signal.raise_signal(signal.SIGUSR1)
    restore()
    assert "ValueError" in capsys.readouterr().err


def test_dump_on_signal_in_a_program_without_a_console_does_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    restore = dump_on_signal()
    signal.raise_signal(signal.SIGUSR1)
    restore()


def test_restore_keeps_a_handler_that_was_set_since() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    restore = dump_on_signal()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    restore()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    signal.signal(signal.SIGUSR1, before)


async def test_the_dump_of_a_forked_child_has_no_loop_of_the_parent() -> None:
    nurseryio.lowlevel.current_task()

    def child() -> None:
        assert trees(None).startswith(f"process {os.getpid()}: 0 running loops")

    assert in_child(child) == 0


def test_the_dump_of_a_forked_child_has_no_plain_asyncio_loop_of_the_parent() -> None:
    def child() -> None:
        assert trees(None).startswith(f"process {os.getpid()}: 0 running loops")

    async def main() -> int:
        return in_child(child)

    assert asyncio.run(main()) == 0


def test_the_dump_has_plain_asyncio_loops_of_other_threads() -> None:
    with ThreadPoolExecutor(1) as executor:
        began, stop = threading.Event(), threading.Event()

        async def main() -> None:
            task = asyncio.create_task(asyncio.sleep(0), name="plain")
            began.set()
            stop.wait()
            await task

        run = executor.submit(asyncio.run, main())
        began.wait()
        try:
            text = trees(None)
        finally:
            stop.set()
        run.result()
    assert "1 running loop\n" in text
    assert "asyncio task plain" in text


def test_the_dump_has_the_loops_of_all_threads() -> None:
    with ThreadPoolExecutor(1) as executor:
        began, stop = threading.Event(), threading.Event()

        async def main() -> None:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep, 0, name="elsewhere")
                began.set()
                stop.wait()

        run = executor.submit(nurseryio.run, main)
        began.wait()
        try:
            text = trees(None)
        finally:
            stop.set()
        run.result()
    assert "1 running loop\n" in text
    assert "─ elsewhere has not begun" in text
    assert "in main(): stop.wait()" in text


def test_dump_on_signal_in_another_thread_is_an_error() -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(ValueError, match="only the main thread"):
        executor.submit(dump_on_signal).result()


def test_dump_on_signal_needs_a_signal_where_there_is_no_sigusr1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    number = signal.SIGUSR1
    monkeypatch.delattr(signal, "SIGUSR1")
    with pytest.raises(ValueError, match="no SIGUSR1: give another signal"):
        dump_on_signal()
    monkeypatch.setattr(signal, "SIGUSR1", number, raising=False)
