"""The compiled build: whether it is used, and that it does what the Python functions do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import c_build, pypy
from harness.c_build import MODULE_FILE, SUPPORTED

import nurseryio
from nurseryio import CancelScope, move_on_after, open_nursery, sleep_forever
from nurseryio._nursery import compiled
from nurseryio._nursery.compiled import C_MODULE, SET_BY_C, VARIABLE, put_in_place, why_pure

pytestmark = pytest.mark.limit(300)


# -- whether it is used -------------------------------------------------------------


def test_the_build_is_public_and_the_module_says_why_it_is_pure() -> None:
    assert nurseryio.__compiled__ is (compiled.PURE_BECAUSE is None)
    assert ("method" in type(nurseryio.Nursery.start_soon).__name__) is nurseryio.__compiled__


@pytest.mark.parametrize("value", ["1", "yes"])
def test_the_variable_of_the_environment_chooses_the_pure_build(value: str) -> None:
    assert why_pure({VARIABLE: value}) == "NURSERYIO_PURE is set"
    if SUPPORTED:
        assert why_pure({VARIABLE: "0"}) is why_pure({VARIABLE: ""}) is why_pure({}) is None


def test_other_interpreters_and_versions_are_pure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 11, 9))
    assert why_pure({}) in (
        "Python is older than 3.12",
        f"the interpreter is {sys.implementation.name}",
    )
    monkeypatch.setattr(sys, "implementation", types.SimpleNamespace(name="pypy"))
    assert why_pure({}) == "the interpreter is pypy"


@pytest.mark.skipif(not SUPPORTED, reason="the C file is for CPython 3.12 to 3.15")
@pytest.mark.parametrize("number", range(len(SET_BY_C)))
def test_a_class_with_a_slot_that_the_c_module_does_not_set_keeps_the_build_pure(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = list(SET_BY_C)
    cls, known = classes[number]
    classes[number] = (cls, known - {"_shielded", "_entry", "_strict", "_wakeup"})
    monkeypatch.setattr(compiled, "SET_BY_C", tuple(classes))
    assert why_pure({}) == f"{cls.__name__} has slots that the C module does not know"


@pytest.mark.skipif(not SUPPORTED, reason="the C file is for CPython 3.12 to 3.15")
@pytest.mark.parametrize("error", [LookupError("no slot"), TypeError("no class")])
def test_a_c_module_that_does_not_fit_changes_nothing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(*_args: object) -> None:
        raise error

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, C_MODULE, types.SimpleNamespace(bind=bind))  # type: ignore[arg-type]
    before = nurseryio.Nursery.start_soon
    assert put_in_place() == f"the C module does not fit: {error}"
    assert nurseryio.Nursery.start_soon is before


@pytest.mark.skipif(not SUPPORTED, reason="the C file is for CPython 3.12 to 3.15")
def test_without_the_c_module_the_build_is_pure_and_nothing_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, C_MODULE, None)  # type: ignore[arg-type]
    reason = put_in_place()
    assert reason is not None
    assert reason.startswith("the C module cannot be loaded")


# -- the same behaviour on both builds ----------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a copy of the package with the C module lies, compiled here if this build is pure."""
    if nurseryio.__compiled__:
        return Path(nurseryio.__file__).parents[1]
    reason = c_build.why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("both")
    c_build.copy_into(folder)
    return folder


def run(folder: Path, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env={**c_build.in_copy(folder), **variables},
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("scenarios", "least"),
    [
        *(("both_blocks", 500), ("both_builds", 150), ("both_runners", 100)),
        *(("both_streams", 150), ("both_waits", 40)),
    ],
)
def test_both_builds_do_the_same_in_every_ordinary_and_unusual_case(
    both: Path, scenarios: str, least: int
) -> None:
    outputs = []
    for pure in ("0", "1"):
        told = run(
            both, "-c", "import nurseryio; print(nurseryio.__compiled__)", **{VARIABLE: pure}
        )
        assert told.strip() == str(pure == "0")
        outputs.append(run(both, "-m", f"harness.{scenarios}", **{VARIABLE: pure}).splitlines())
    assert len(outputs[0]) > least
    for compiled_line, pure_line in zip(*outputs, strict=True):
        assert compiled_line == pure_line


def test_a_second_copy_of_the_package_in_one_process_is_pure(both: Path) -> None:
    program = """
import sys
import nurseryio
first = nurseryio
for name in [name for name in sys.modules if name.partition(".")[0] == "nurseryio"]:
    del sys.modules[name]
import nurseryio
from nurseryio._nursery import PURE_BECAUSE
async def main(nurseryio):
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        with nurseryio.move_on_after(5):
            await nurseryio.sleep(0)
        nursery.cancel_scope.cancel()
    return nursery.cancel_scope.cancelled_caught
print(first.__compiled__, nurseryio.__compiled__, PURE_BECAUSE)
print(first.run(main, first), nurseryio.run(main, nurseryio))
"""
    first, second = run(both, "-c", program).splitlines()
    assert first.startswith("True False the C module does not fit: the module is bound")
    assert second == "True True"


def test_a_function_of_the_c_module_refuses_to_work_before_it_is_bound(both: Path) -> None:
    program = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.ExtensionFileLoader("nurseryio._speedups", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(module)
names = [name for name in dir(module) if not name.startswith("_") and name != "bind"]
for name in names:
    for args in ((), (1,), (1, 2), (1, 2, 3, 4)):
        try:
            getattr(module, name)(*args)
        except (RuntimeError, TypeError):
            continue
        raise AssertionError(name)
for given in ({}, {"CancelScope": 5}, {"CancelScope": type("X", (), {})}):
    try:
        module.bind(given, "")
    except (LookupError, TypeError):
        continue
    raise AssertionError(given)
print(len(names))
"""
    assert int(run(both, "-c", program, str(both / "nurseryio" / MODULE_FILE))) >= 14


def test_a_program_that_runs_in_a_subinterpreter_is_pure_there(both: Path) -> None:
    program = """
import nurseryio
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
assert nurseryio.__compiled__
code = "import nurseryio; assert not nurseryio.__compiled__"
for kind in ("legacy", "isolated"):
    try:
        made = interpreters.create(kind) if hasattr(interpreters, "new_config") else None
    except Exception:
        made = None
    if made is None:
        made = interpreters.create()
    failed = interpreters.run_string(made, code)
    print("no" if failed is None else failed.formatted)
    interpreters.destroy(made)
"""
    assert run(both, "-c", program).split() == ["no", "no"]


# -- memory -------------------------------------------------------------------------


async def many_scopes(number: int) -> None:
    for _ in range(number):
        with CancelScope(), move_on_after(5), move_on_after(3):
            pass


async def many_children(number: int) -> None:
    async with open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(asyncio.sleep, 0)


async def many_cancelled(number: int) -> None:
    async with open_nursery() as nursery:
        event = nurseryio.Event()
        for _ in range(number // 2):
            nursery.start_soon(sleep_forever)
            nursery.start_soon(event.wait)
        await asyncio.sleep(0)
        nursery.cancel_scope.cancel()


async def many_failures(number: int) -> None:
    async def fails() -> None:
        raise ValueError

    for _ in range(number // 10):
        with contextlib.suppress(BaseException):
            async with open_nursery() as nursery:
                nursery.start_soon(fails)
                nursery.start_soon(sleep_forever)


async def many_waits(number: int) -> None:
    lock, limiter = nurseryio.Lock(), nurseryio.CapacityLimiter(1)

    async def waits(event: nurseryio.Event) -> None:
        async with lock, limiter:
            await nurseryio.lowlevel.checkpoint()
        await event.wait()

    for _ in range(number // 10):
        event = nurseryio.Event()
        async with open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(waits, event)
            event.set()


async def many_items(number: int) -> None:
    for size in (0, 5):
        send, receive = nurseryio.open_memory_channel[Any](size)

        async def produce(send: Any = send) -> None:
            async with send:
                for item in range(number // 2):
                    await send.send((item,))

        async with open_nursery() as nursery:
            nursery.start_soon(produce)
            async for item in receive:
                assert len(item) == 1


async def many_dropped(number: int) -> None:
    for _ in range(number // 10):
        send, receive = nurseryio.open_memory_channel[Any](0)
        for coro in (nurseryio.Event().wait(), send.send(1), receive.receive()):
            await nurseryio.lowlevel.checkpoint()
            coro.send(None)
            coro.close()


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pypy.needs_reference_counting
@pytest.mark.parametrize(
    "work",
    [
        *(many_scopes, many_children, many_cancelled, many_failures),
        *(many_waits, many_items, many_dropped),
    ],
)
def test_garbage_collection_finds_nothing_and_memory_does_not_grow(
    work: Callable[[int], Any], without_collector: None
) -> None:
    async def main() -> tuple[int, int]:
        await work(2000)
        gc.collect()
        await work(2000)
        before = sys.getallocatedblocks()
        await work(10_000)
        return gc.collect(), sys.getallocatedblocks() - before

    garbage, growth = nurseryio.run(main)
    assert garbage == 0
    assert growth < 1000
