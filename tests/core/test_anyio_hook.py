"""The slot for another library's scopes: empty in a program that has none, filled when needed."""

# Covered below 95 %: code that needs the bridge is covered by test_mixing_levels.py and
# test_anyio_bridge.py.

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from harness.crowd import Doorway, in_threads

import nurseryio
from nurseryio._core import anyio_hook
from nurseryio._core.task_extra import NO_EXTRA


@pytest.fixture
def empty_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyio_hook, "bridge", None)
    monkeypatch.setattr(anyio_hook, "_refused", False)


def modules_after(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


RUN = "import nurseryio\nnurseryio.run(nurseryio.sleep, 0)"


def test_a_program_without_anyio_imports_neither_anyio_nor_the_bridge() -> None:
    loaded = modules_after(RUN)
    assert "anyio" not in loaded
    assert "nurseryio._interop.anyio_bridge" not in loaded


def test_importing_anyio_alone_does_not_import_its_asyncio_backend() -> None:
    loaded = modules_after("import anyio\n" + RUN)
    assert "nurseryio._interop.anyio_bridge" not in loaded


def test_the_anyio_bridge_is_installed_once_anyios_backend_is_imported() -> None:
    program = (
        "import anyio, nurseryio\n"
        "async def main():\n"
        "    await anyio.sleep(0)\n"
        "    with nurseryio.CancelScope() as scope:\n"
        "        scope.cancel()\n"
        "nurseryio.run(main)"
    )
    assert "nurseryio._interop.anyio_bridge" in modules_after(program)


def test_the_anyio_bridge_is_installed_on_entering_the_first_scope_in_an_anyio_scope() -> None:
    program = (
        "import anyio, nurseryio\n"
        "async def child():\n"
        "    with anyio.CancelScope(shield=True):\n"
        "        with nurseryio.move_on_after(0.001) as scope:\n"
        "            await nurseryio.sleep(60)\n"
        "        assert scope.cancelled_caught\n"
        "async def main():\n"
        "    async with nurseryio.open_nursery() as nursery:\n"
        "        nursery.start_soon(child)\n"
        "nurseryio.run(main)"
    )
    assert "nurseryio._interop.anyio_bridge" in modules_after(program)


def test_an_anyio_backend_that_is_still_being_imported_is_not_refused_yet(
    empty_slot: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, anyio_hook.BACKEND, SimpleNamespace())  # type: ignore[arg-type]
    anyio_hook.look()
    assert not anyio_hook._refused


def test_without_anyios_backend_looking_for_it_changes_nothing(
    empty_slot: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, anyio_hook.BACKEND, raising=False)
    anyio_hook.look()
    assert anyio_hook.bridge is None
    assert not anyio_hook._refused
    assert anyio_hook.protects(SimpleNamespace(_extra=NO_EXTRA)) is False


def test_an_anyio_backend_without_the_needed_attributes_is_refused_once(
    empty_slot: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange: Any = SimpleNamespace(backend_class=object)
    monkeypatch.setitem(sys.modules, anyio_hook.BACKEND, strange)
    anyio_hook.look()
    assert anyio_hook.bridge is None
    assert anyio_hook._refused
    anyio_hook.look()
    assert anyio_hook.bridge is None


def test_the_anyio_bridge_decides_whether_an_anyio_shield_protects_a_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def protects(task: Any) -> bool:
        asked.append(task)
        return True

    monkeypatch.setattr(anyio_hook, "bridge", SimpleNamespace(protects=protects))
    task = SimpleNamespace(_extra=NO_EXTRA)
    assert anyio_hook.protects(task) is True
    assert asked == [task]


async def test_everything_works_beside_an_anyio_that_cannot_be_bridged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(anyio_hook, "bridge", None)
    monkeypatch.setattr(anyio_hook, "_refused", True)
    with nurseryio.move_on_after(0.001) as scope:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
    assert scope.cancelled_caught


def test_two_threads_that_need_the_anyio_bridge_first_make_one(
    empty_slot: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("anyio._backends._asyncio")
    doorway = Doorway(lambda _backend: SimpleNamespace())
    monkeypatch.setattr("nurseryio._interop.anyio_bridge.make", doorway)
    in_threads(anyio_hook.look)
    assert doorway.calls == 1
    assert anyio_hook.bridge is not None
