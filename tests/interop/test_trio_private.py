"""Trio's private names under provide_trio: those that are offered, and the errors of the others.

The tables of docs/migration/private-names.md are the data. Every test runs its own program, because
``provide_trio`` is for a whole process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import programs, source

from nurseryio._interop.trio_private import ADVICE, PRIVATE_MODULES, REFUSED_PACKAGES

PAGE = (source.ROOT / "docs/migration/private-names.md").read_text(encoding="utf-8")

PROVIDE = """
import importlib
import nurseryio
from nurseryio._interop.as_trio import provide_trio
trio = provide_trio()

def get(path):
    found, name = trio, "trio"
    for part in path.split(".")[1:]:
        found, name = getattr(found, part), f"{name}.{part}"
    return found

def error_of(action, *args):
    try:
        return action(*args)
    except (ImportError, AttributeError) as exc:
        return f"{type(exc).__name__}: {exc}"
"""

Says = Callable[[str], list[str]]


@pytest.fixture
def says(tmp_path: Path) -> Says:
    """The output of a program for Trio, which must end well and without a warning."""

    def run(text: str) -> list[str]:
        file = tmp_path / "program.py"
        file.write_text(PROVIDE + text, encoding="utf-8")
        program = programs.run(file)
        assert program.returncode == 0, program.errors
        return program.lines

    return run


def rows(heading: str) -> Iterator[list[str]]:
    """The rows of the table below a heading of the page."""
    _, _, text = PAGE.partition(f"## {heading}\n")
    for line in text.partition("\n## ")[0].splitlines():
        if line.startswith("| `"):
            yield [cell.strip(" `") for cell in line.strip("|").split("|")]


def test_the_page_on_trios_private_names_lists_all_private_modules() -> None:
    _, _, text = PAGE.partition("## Private modules\n")
    listed = re.findall(r"`(\w[\w.]*)`", text.partition("\n## ")[0].partition("\n* ")[2])
    full = [name if name.startswith("trio.") else f"trio._core.{name}" for name in listed]
    assert sorted(full) == sorted(PRIVATE_MODULES)


def test_the_page_on_trios_private_names_lists_all_advice() -> None:
    assert dict(rows("Names that raise an error")) == ADVICE
    assert dict(rows("Packages that raise an error")) == REFUSED_PACKAGES


def test_every_private_name_of_trio_on_the_page_is_there(says: Says) -> None:
    names = [name for name, _ in rows("Private names that are there")]
    assert len(names) > 10
    assert says(f"for name in {names}: get(name)\nprint('all')") == ["all"]


def test_a_private_name_of_trio_that_is_refused_raises_an_error_with_advice(says: Says) -> None:
    lines = says(f"for name in {list(ADVICE)}: print(error_of(get, name))")
    for (name, advice), line in zip(ADVICE.items(), lines, strict=True):
        assert line.startswith("AttributeError: module 'trio"), line
        assert f"nurseryio stands in for Trio in this process, without {name}: {advice}" in line


def test_an_import_of_a_refused_private_name_of_trio_raises_an_error_with_advice(
    says: Says,
) -> None:
    text = """
def module():
    import trio._repl
def private_name():
    from trio._core._run import unrolled_run
def unknown_name():
    from trio._core import no_such_name
for action in (module, private_name, unknown_name):
    print(error_of(action))
"""
    module, private_name, unknown_name = says(text)
    assert module.startswith("ModuleNotFoundError: No module named 'trio._repl' (nurseryio stands")
    assert private_name == (
        "ImportError: nurseryio stands in for Trio in this process, without "
        "trio._core._run.unrolled_run: use trio.run"
    )
    assert unknown_name.endswith("without trio._core.no_such_name: use Trio's public names")


def test_private_modules_of_trio_have_trios_public_names(says: Says) -> None:
    text = """
from trio._core import TrioToken, RunVar, MockClock, enable_ki_protection
from trio._core._run import CancelScope, Nursery, Task, current_task, spawn_system_task
from trio._core._traps import RaiseCancelT
from trio._channel import MemoryReceiveChannel, MemorySendChannel
from trio._abc import Clock, SendStream
from trio._timeouts import TooSlowError
from trio.testing._memory_streams import MemorySendStream
import trio._core._run as run
print(TrioToken is trio.lowlevel.TrioToken, Nursery is trio.Nursery is run.Nursery)
print(SendStream is trio.abc.SendStream, MemorySendStream is trio.testing.MemorySendStream)
print(MemorySendChannel[int], run._TaskStatus[int], trio._file_io.AsyncIOWrapper[str])
print(hasattr(trio._core, "abc"))
"""
    first, second, _, last = says(text)
    assert (first, second, last) == ("True True", "True True", "False")


def test_private_modules_of_trio_have_the_run_of_the_stand_in_not_that_of_the_library(
    says: Says,
) -> None:
    text = """
from trio._core import run
from trio._core._run import run as same
from trio._core._run import start_guest_run
from trio.testing._trio_test import trio_test
print(run is same is trio.run, run is not nurseryio.run)
print(start_guest_run is trio.lowlevel.start_guest_run, trio_test is trio.testing.trio_test)
"""
    assert says(text) == ["True True", "True True"]


def test_functions_of_trio_are_there_by_the_names_of_their_definitions(says: Says) -> None:
    text = """
from trio._threads import current_default_thread_limiter, from_thread_check_cancelled
from trio._threads import from_thread_run, from_thread_run_sync, to_thread_run_sync
print(to_thread_run_sync is trio.to_thread.run_sync)
print(current_default_thread_limiter is trio.to_thread.current_default_thread_limiter)
print(from_thread_run is trio.from_thread.run, from_thread_run_sync is trio.from_thread.run_sync)
print(from_thread_check_cancelled is trio.from_thread.check_cancelled)
"""
    assert says(text) == ["True", "True", "True True", "True"]


def test_types_of_trio_that_subclasses_of_its_abstract_classes_use_are_there(says: Says) -> None:
    text = """
from typing import Generic
from trio._abc import ReceiveType, SendChannel, SendType, T_resource
from trio._ssl import T_Stream
from trio._subprocess import HasFileno, StrOrBytesPath
class Nothing(SendChannel[SendType]):
    async def send(self, value: SendType) -> None: ...
    async def aclose(self) -> None: ...
class Pair(Generic[ReceiveType, T_resource, T_Stream]): ...
print(Nothing[int](), HasFileno, StrOrBytesPath)
"""
    [line] = says(text)
    assert "Nothing object" in line


def test_an_import_of_trio_asyncio_says_that_it_is_not_needed(says: Says) -> None:
    text = """
def module():
    import trio_asyncio
print(error_of(module))
"""
    assert says(text) == [
        "ModuleNotFoundError: No module named 'trio_asyncio' (nurseryio stands in for Trio in this "
        "process, without trio_asyncio: asyncio code can be awaited as it is, so leave the package "
        "out)"
    ]


def test_global_run_context_of_trio_shows_the_run_and_the_task_and_cannot_be_changed(
    says: Says,
) -> None:
    text = """
from trio._core._run import GLOBAL_RUN_CONTEXT as context

def ask():
    return hasattr(context, "runner"), hasattr(context, "task")

async def main():
    print(ask(), context.task is trio.lowlevel.current_task(), context.runner.is_guest)
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()
    token.run_sync_soon(lambda: (print(ask()), done.set()))
    await done.wait()
    print(error_of(getattr, context.runner, "clock"))
    print(error_of(lambda: context.__dict__))
    print(error_of(delattr, context, "task"))
    print(error_of(setattr, context, "runner", None))

print(ask())
trio.run(main)
"""
    lines = says(text)
    assert lines[:3] == ["(False, False)", "(True, True) True False", "(True, False)"]
    assert lines[3].startswith("AttributeError: nurseryio stands in for Trio in this process")
    assert "GLOBAL_RUN_CONTEXT has only task and runner, not '__dict__'" in lines[4]
    assert "GLOBAL_RUN_CONTEXT.task cannot be changed" in lines[5]
    assert "GLOBAL_RUN_CONTEXT.runner cannot be changed" in lines[6]


def test_cancel_status_of_a_trio_task_shows_a_cancellation_but_not_behind_a_shield(
    says: Says,
) -> None:
    text = """
async def main():
    status = trio.lowlevel.current_task()._cancel_status
    with trio.CancelScope() as scope:
        print(status.effectively_cancelled)
        scope.cancel()
        print(status.effectively_cancelled)
        with trio.CancelScope(shield=True):
            print(status.effectively_cancelled)
    print(status.effectively_cancelled)
    print(error_of(getattr, status, "_scope"))

trio.run(main)
"""
    lines = says(text)
    assert lines[:4] == ["False", "True", "False", "False"]
    assert "keep the CancelScope in a variable of your own" in lines[4]


def test_a_cancelled_made_by_create_is_caught_by_the_cancelled_scope_of_trio(says: Says) -> None:
    text = """
async def child():
    raise trio.Cancelled._create(source="explicit", reason="enough")

async def main():
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            raise trio.Cancelled._create()
        finally:
            print("raised")
    print(scope.cancelled_caught)
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        nursery.start_soon(child)
    print(nursery.cancel_scope.cancelled_caught)

trio.run(main)
print(trio.Cancelled._create(source="explicit", reason="enough"))
"""
    assert says(text) == [
        "raised",
        "True",
        "True",
        "cancelled due to explicit with reason 'enough'",
    ]


def test_close_on_error_of_trio_closes_after_an_error_only(says: Says) -> None:
    text = """
from trio._highlevel_open_unix_stream import close_on_error, has_unix
import socket
class Resource:
    closed = False
    def close(self):
        self.closed = True
fine, failed = Resource(), Resource()
with close_on_error(fine) as same:
    print(same is fine)
try:
    with close_on_error(failed):
        raise ValueError
except ValueError:
    print(fine.closed, failed.closed, has_unix == hasattr(socket, "AF_UNIX"))
"""
    assert says(text) == ["True", "False True True"]
