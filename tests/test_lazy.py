"""The doors: names loaded on first use, and things that know where they are imported from."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

import nurseryio
from nurseryio._core.lazy import lazy_door, show_door


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_a_lazy_name_is_loaded_when_it_is_used() -> None:
    output = run_python(
        "import sys, nurseryio\n"
        "print('nurseryio._net.tcp_connect' in sys.modules)\n"
        "print(nurseryio.open_tcp_stream.__name__)\n"
        "print('nurseryio._net.tcp_connect' in sys.modules)\n"
    )
    assert output.split() == ["False", "open_tcp_stream", "True"]


def test_submodules_are_there_without_an_import_of_their_own() -> None:
    assert run_python("import nurseryio; print(nurseryio.lowlevel.checkpoint.__name__)") == (
        "checkpoint\n"
    )


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'nurseryio' has no attribute 'typo'"):
        getattr(nurseryio, "typo")  # noqa: B009


def test_dir_lists_lazy_names_before_they_are_loaded() -> None:
    assert "open_tcp_stream" in run_python("import nurseryio; print(dir(nurseryio))")


def test_a_class_says_that_it_lives_in_its_door() -> None:
    assert repr(nurseryio.CancelScope) == "<class 'nurseryio.CancelScope'>"
    assert nurseryio.CancelScope.cancel.__module__ == "nurseryio"
    assert pickle.loads(pickle.dumps(nurseryio.BrokenResourceError)) is (
        nurseryio.BrokenResourceError
    )


def test_things_of_others_keep_their_home() -> None:
    assert nurseryio.Cancelled.__module__ == "asyncio.exceptions"


def test_a_door_lists_what_is_public_and_no_more() -> None:
    def given() -> None:
        """Public."""

    given.__module__ = "nurseryio._core.somewhere"
    namespace: dict[str, Any] = {
        "__name__": "nurseryio.some_door",
        "given": given,
        "_hidden": given,
        "sys": sys,
    }
    getter, lister = lazy_door(namespace, {"_core.errors": "WouldBlock", "": "abc"})
    assert namespace["__all__"] == ["WouldBlock", "given"]
    assert given.__module__ == "nurseryio.some_door"
    assert {"abc", "given", "WouldBlock"} <= set(lister())
    assert getter("abc") is nurseryio.abc
    with pytest.raises(AttributeError):
        getter("more")


def test_showing_a_door_leaves_plain_values_alone() -> None:
    show_door(5, "five", "nurseryio")
    show_door(sys.exit, "exit", "nurseryio")
    assert sys.exit.__module__ == "sys"
