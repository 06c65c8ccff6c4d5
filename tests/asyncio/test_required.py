"""The loss of each private part of the standard library is noticed, or has a working fallback."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import boundary_program, fake_loops, source
from harness.source import Module

import nurseryio
from nurseryio._asyncio import required

PROGRAM = Path(boundary_program.__file__)
STEPS = [step.__name__ for step in boundary_program.STEPS]

# The modules that have a name of the fallbacks.
FALLBACK_MODULES = {
    "_asyncio": "",  # a module itself: asyncio's parts that are written in C
    "_asyncio_awaited_by": "asyncio",
    "_children": "asyncio",
    "_coro": "asyncio",
    "_exception": "asyncio",
    "_exit_callbacks": "contextlib",
    "_idle_semaphore": "concurrent.futures.thread",
    "_interrupt_count": "asyncio.runners",
    "_loop": "asyncio.runners",
    "_source_traceback": "asyncio",
    "_tasks": "asyncio",
    "_thread_id": "asyncio",
    "_threads": "concurrent.futures.thread",
    "_transport": "asyncio.streams",
    "_unfinished_tasks": "asyncio.queues",
    "_value": "threading",
    "_work_queue": "concurrent.futures.thread",
}


def required_names(table: list[tuple[str, Any, tuple[str, ...]]]) -> list[tuple[str, str]]:
    return [(shown, name) for shown, _, names in table for name in names]


def run_without(name: str, modules: str, tasks: str) -> dict[str, Any]:
    """Run the program without a name, on asyncio's tasks in C ("compiled") or in "python"."""
    done = subprocess.run(
        [sys.executable, "-W", "error", PROGRAM, name, modules, tasks],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=boundary_program.PATIENCE + 10,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    report["stderr"] = done.stderr
    return report


def is_noticed(report: dict[str, Any], error: type[Exception], shown: str, name: str) -> bool:
    kind, message = report["error"]
    assert message.startswith(f"{shown.partition('.')[0]} has changed: {shown} has no {name} in ")
    assert f"this release of nurseryio supports Python {required.SUPPORTED}" in message
    return bool(kind == error.__name__)


# -- the loss of each name ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tasks"), [("", "compiled"), ("", "python"), ("_closed", "python")]
)
def test_the_program_runs_where_no_name_is_lost_that_compat_uses(name: str, tasks: str) -> None:
    report = run_without(name, "asyncio" if name else "", tasks)
    assert report["done"] == STEPS, report["stderr"]
    assert report["error"] is None
    assert report["threads"] == 1


@pytest.mark.parametrize(("shown", "name"), required_names(required.AT_IMPORT))
def test_import_fails_without_a_private_part_of_a_module_or_class(shown: str, name: str) -> None:
    report = run_without(name, shown.partition(".")[0], "python")
    assert report["done"] == []
    assert is_noticed(report, ImportError, shown, name)


@pytest.mark.parametrize(("shown", "name"), required_names(required.OF_OBJECTS))
def test_the_first_use_of_a_loop_fails_without_a_private_part_of_it(shown: str, name: str) -> None:
    report = run_without(name, shown.partition(".")[0], "compiled")
    assert report["done"] == ["import_nurseryio"]
    assert is_noticed(report, RuntimeError, shown, name)


@pytest.mark.parametrize("name", required.FALLBACKS)
def test_the_fallback_works_without_a_name_that_need_not_exist(name: str) -> None:
    report = run_without(name, FALLBACK_MODULES[name], "python")
    assert report["done"] == STEPS, report["stderr"]
    assert report["error"] is None
    if name in ("_idle_semaphore", "_threads", "_value"):
        assert report["threads"] == (name != "_threads")
        assert report["idle"] == 0


# -- the check itself ---------------------------------------------------------------------


def test_a_part_that_a_class_in_c_lacks_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    required.check_import()
    table = [("asyncio.Task", asyncio.Task, ("_fut_waiter", "_no_such_part"))]
    monkeypatch.setattr(required, "AT_IMPORT", table)
    with pytest.raises(ImportError, match=r"asyncio\.Task has no _no_such_part"):
        required.check_import()


def test_a_loop_of_another_kind_needs_no_private_part_of_asyncio() -> None:
    class Other(asyncio.AbstractEventLoop):
        pass

    required.check_loop(Other())


@pytest.fixture
def later_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio has lost a part of its loops that nurseryio needs."""
    table = [("asyncio.BaseEventLoop", asyncio.BaseEventLoop, ("_ready", "_no_such_part"))]
    monkeypatch.setattr(required, "OF_OBJECTS", table)


@pytest.mark.usefixtures("later_asyncio")
def test_a_loop_made_from_asyncios_needs_the_parts_of_its_base_class_alone() -> None:
    with contextlib.closing(asyncio.BaseEventLoop()) as loop:
        with pytest.raises(RuntimeError, match=r"asyncio\.BaseEventLoop has no _no_such_part"):
            required.check_loop(loop)
        loop._no_such_part = None  # type: ignore[attr-defined]
        required.check_loop(loop)


def test_a_loop_class_that_does_not_set_a_part_of_asyncios_is_another_loop() -> None:
    """asyncio has not changed. Such classes are in async-solipsism and in some test suites."""
    with contextlib.closing(fake_loops.WithoutSelfPipe()) as loop:
        assert not hasattr(loop, "_csock")
        required.check_loop(loop)
        del loop._scheduled  # type: ignore[attr-defined]
        required.check_loop(loop)
        loop._scheduled = []  # type: ignore[attr-defined]


def test_a_part_that_cannot_be_read_counts_as_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(fake_loops.WithFailingProperties()) as loop:
        required.check_loop(loop)

    def exhausted(_loop: object) -> None:
        raise MemoryError

    with contextlib.closing(fake_loops.WithFailingProperties()) as loop:
        monkeypatch.setattr(type(loop), "_task_factory", property(exhausted), raising=False)
        with pytest.raises(MemoryError):
            required.check_loop(loop)


@pytest.mark.usefixtures("later_asyncio")
def test_run_closes_a_loop_without_a_required_part() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop()
        loops.append(loop)
        return loop

    for _ in range(2):
        with pytest.raises(RuntimeError, match="BaseEventLoop has no _no_such_part"):
            nurseryio.run(nurseryio.sleep, 0, loop_factory=factory)
    assert [loop.is_closed() for loop in loops] == [True, True]


# -- the tables ---------------------------------------------------------------------------


def private_names(module: Module) -> Iterator[str]:
    """Private names of others in a module: attributes, strings, overridden attributes."""
    for _, name, on_self in source.private_uses(module):
        if not on_self:
            yield name
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # "_" alone is the beginning of private names.
            if source.is_private(node.value) and node.value.strip("_").isidentifier():
                yield node.value
        elif isinstance(node, ast.ClassDef):
            for statement in node.body:
                for target in getattr(statement, "targets", ()):
                    if source.is_private(ast.unparse(target)):
                        yield ast.unparse(target)


def own_strings(module: Module) -> set[str]:
    """The names in ``__slots__``."""
    return {
        constant.value
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__"
        for constant in ast.walk(node.value)
        if isinstance(constant, ast.Constant)
    }


def listed() -> set[str]:
    tables = [*required.AT_IMPORT, *required.OF_OBJECTS]
    return {name for _, _, names in tables for name in names} | {*required.FALLBACKS}


def used(module_name: str) -> set[str]:
    module = source.modules()[module_name]
    return {*private_names(module)} - own_strings(module)


def boundary() -> set[str]:
    modules = ("compat", "loop_parts", "epoll", "display")
    return {name for module in modules for name in used(f"_asyncio.{module}")}


def test_each_private_name_that_the_boundary_uses_is_in_a_table() -> None:
    before_3_12 = {"_current_tasks"}  # in the table of these versions alone
    assert boundary() <= listed() | before_3_12


def test_each_name_in_a_table_is_used() -> None:
    assert listed() <= boundary()


def test_no_name_is_both_required_and_has_a_fallback() -> None:
    required_parts = {n for _, n in required_names([*required.AT_IMPORT, *required.OF_OBJECTS])}
    assert not required_parts & {*required.FALLBACKS}
    assert {*FALLBACK_MODULES} == {*required.FALLBACKS}


def test_a_new_use_of_a_private_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = Module("_asyncio.imagined", source.PACKAGE / "imagined.py")
    text = (
        "loop._new_attribute\n"
        "getattr(loop, '_new_default', None)\n"
        "vars(loop).get('_new_string')\n"
        "class Task(asyncio.Task):\n"
        "    __slots__ = ('_mine',)\n"
        "    _new_override = property(f)\n"
        "    def f(self): self._mine\n"
    )
    monkeypatch.setitem(module.__dict__, "tree", ast.parse(text))
    assert {*private_names(module)} - own_strings(module) == {
        "_new_attribute",
        "_new_default",
        "_new_string",
        "_new_override",
    }


def test_the_error_states_the_pythons_that_the_project_declares() -> None:
    text = (source.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = [line.split(":: ")[-1].rstrip('",') for line in text.splitlines() if ":: 3." in line]
    assert f"{declared[0]} to {declared[-1]}" == required.SUPPORTED
