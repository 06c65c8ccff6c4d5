"""Trio's names for what pytest has taken over."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nurseryio.testing
from nurseryio import TrioDeprecationWarning
from nurseryio.testing.raises_group import of_pytest


@pytest.mark.parametrize(
    ("name", "theirs"), [("RaisesGroup", "RaisesGroup"), ("Matcher", "RaisesExc")]
)
def test_raises_group_and_matcher_are_pytests_own_and_deprecated(name: str, theirs: str) -> None:
    with pytest.warns(TrioDeprecationWarning, match=rf"use pytest\.{theirs}") as caught:
        assert getattr(nurseryio.testing, name) is getattr(pytest, theirs)
    assert caught[0].filename == __file__


def test_raises_group_with_an_old_pytest_is_an_error_that_names_the_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(pytest, "RaisesGroup")
    with pytest.raises(AttributeError, match=r"needs pytest >= 8\.4"):
        of_pytest("RaisesGroup")


def test_raises_group_without_pytest_is_an_error_that_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(AttributeError, match="needs pytest"):
        of_pytest("Matcher")


def test_star_import_of_nurseryio_testing_does_not_import_pytest() -> None:
    program = "import sys; from nurseryio.testing import *; print('pytest' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "False"
