"""The page of Trio's names says what the code does, and nothing differs without a reason."""

from __future__ import annotations

import importlib.util
import json
import sys
from fnmatch import fnmatch
from types import ModuleType

import pytest
from harness import source

import nurseryio
from nurseryio._interop import as_trio

EXTENSIONS = source.ROOT / "docs/_ext"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXTENSIONS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


trio_names = load("trio_names")


@pytest.fixture(scope="module")
def found() -> object:
    return trio_names.compare()


def test_each_trio_name_that_is_missing_or_differs_has_a_reason(found) -> None:
    assert not [d.name for d in found.differences if d.reason is None]


def test_each_reason_for_a_trio_name_still_has_its_difference(found) -> None:
    names = [d.name for d in found.differences]
    assert not [p for p in trio_names.REASONS if not any(fnmatch(n, p) for n in names)]


def test_unsupported_trio_names_are_those_that_the_page_of_differences_lists(found) -> None:
    text = (source.ROOT / "docs/differences.md").read_text(encoding="utf-8")
    section = text.partition("## What cannot exist")[2].partition("\n## ")[0]
    assert found.refusing
    assert not [d.name for d in found.refusing if d.name.removeprefix("lowlevel.") not in section]


def test_the_recorded_trio_names_are_of_the_release_that_nurseryio_follows(found) -> None:
    assert found.release == as_trio.FOLLOWS


def test_every_public_module_of_trio_is_compared() -> None:
    record = json.loads(trio_names.RECORD.read_text(encoding="utf-8"))
    public = {name.partition(".")[2] for name in as_trio.PUBLIC_MODULES if "._" not in name}
    assert set(record["modules"]) == public


def test_the_page_of_trio_names_has_a_place_for_the_lists() -> None:
    page = (source.ROOT / "docs/trio-names.md").read_text(encoding="utf-8")
    assert page.count(trio_names.MARK) == 1


def test_the_lists_of_trio_names_show_every_difference(found) -> None:
    lists = trio_names.render(found)
    assert not [d.name for d in found.differences if f"`{d.name}`" not in lists]
    assert "| `Cancelled.reason` | the class is asyncio's" in lists
    assert "| `lowlevel.reschedule` | `(task, next_send=...)` | `(task, next_send=None)` |" in lists
    assert "* `lowlevel.wait_kevent` (macOS and BSD): " in lists
    assert "* `race`" in lists


def test_a_missing_trio_name_is_found(monkeypatch) -> None:
    monkeypatch.setattr(nurseryio, "__all__", [n for n in nurseryio.__all__ if n != "Event"])
    missing = trio_names.compare().missing
    assert [d.name for d in missing if d.reason is None] == ["Event"]


def test_a_changed_parameter_of_a_trio_name_is_found(monkeypatch) -> None:
    async def sleep(duration: float) -> None: ...

    monkeypatch.setattr(nurseryio, "sleep", sleep)
    differing = [d for d in trio_names.compare().differing if d.reason is None]
    assert differing == [trio_names.Difference("sleep", "(seconds)", "(duration)")]


@pytest.mark.parametrize(
    "signature, shown",
    [
        ("(object, /)", "(_, /)"),
        ("(a, b=None, /, c=1, *, d=2)", "(_, _=None, /, c=1, *, d=2)"),
        ("(a, b=None)", "(a, b=None)"),
        ("()", "()"),
    ],
)
def test_the_name_of_a_positional_only_parameter_does_not_count(signature, shown) -> None:
    assert trio_names.as_called(signature) == shown


def test_a_missing_method_of_a_trio_class_is_found(monkeypatch) -> None:
    monkeypatch.delattr(nurseryio.Event, "is_set")
    assert "Event.is_set" in [d.name for d in trio_names.compare().missing]
