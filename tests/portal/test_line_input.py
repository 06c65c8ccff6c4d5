"""Python's editor for consoles, and what is done without it."""

from __future__ import annotations

import site
import sys
import types
from typing import Any

import pytest

from nurseryio._portal import line_input

EDITOR = ("_pyrepl.console", "_pyrepl.main", "_pyrepl.simple_interact")

pytestmark = pytest.mark.usefixtures("_without_variables")


@pytest.fixture
def _without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHON_BASIC_REPL", raising=False)


def set_editor(monkeypatch: pytest.MonkeyPatch, usable: bool = True) -> dict[str, Any]:
    """Put modules in the place of Python's editor, which also older Pythons then seem to have."""
    names = {
        "InteractiveColoredConsole": object(),
        "CAN_USE_PYREPL": usable,
        "run_multiline_interactive_console": object(),
    }
    monkeypatch.setattr(sys, "version_info", (3, 13))
    monkeypatch.setitem(sys.modules, "_pyrepl", types.ModuleType("_pyrepl"))
    for module, name in zip(EDITOR, names, strict=True):
        made = types.ModuleType(module)
        setattr(made, name, names[name])
        monkeypatch.setitem(sys.modules, module, made)
    return names


def test_the_console_uses_the_editor_that_python_has(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set_editor(monkeypatch)
    assert line_input.editor() == (
        names["InteractiveColoredConsole"],
        names["run_multiline_interactive_console"],
    )


@pytest.mark.parametrize("module", EDITOR)
def test_the_console_reads_lines_if_the_editor_lacks_a_private_name(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    set_editor(monkeypatch)
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    assert line_input.editor() is None


def test_the_console_reads_lines_if_python_has_no_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    set_editor(monkeypatch)
    monkeypatch.setitem(sys.modules, "_pyrepl.main", None)
    assert line_input.editor() is None


def test_the_console_reads_lines_if_the_terminal_is_too_simple_for_the_editor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_editor(monkeypatch, usable=False)
    assert line_input.editor() is None


def test_python_basic_repl_turns_the_editor_off(monkeypatch: pytest.MonkeyPatch) -> None:
    set_editor(monkeypatch)
    monkeypatch.setenv("PYTHON_BASIC_REPL", "1")
    assert line_input.editor() is None


def test_python_before_3_13_has_no_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    set_editor(monkeypatch)
    monkeypatch.setattr(sys, "version_info", (3, 12))
    assert line_input.editor() is None


def test_pythons_interactive_hook_is_called_for_the_history(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = []
    monkeypatch.setattr(sys, "__interactivehook__", lambda: called.append(1), raising=False)
    line_input.prepare({})
    assert called == [1]
    monkeypatch.delattr(sys, "__interactivehook__")
    line_input.prepare({})
    assert called == [1]


def test_completion_is_from_the_namespace_of_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    def hook() -> None:
        pass

    hook.__module__ = site.__name__
    completers = []
    readline: Any = types.ModuleType("readline")
    readline.set_completer = completers.append
    monkeypatch.setattr(sys, "__interactivehook__", hook, raising=False)
    monkeypatch.setitem(sys.modules, "readline", readline)
    line_input.prepare({"some_name": 1})
    complete = completers[-1]  # importing rlcompleter may set one as well
    number = len(completers)
    assert complete("some_n", 0).startswith("some_name")
    monkeypatch.setitem(sys.modules, "readline", None)
    line_input.prepare({})
    assert len(completers) == number
