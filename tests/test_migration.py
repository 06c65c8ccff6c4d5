"""The guide for those who come from elsewhere names things that are there.

Its programs are run by ``test_docs.py``.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import anyio
import pytest
from harness import source

import nurseryio

FOLDER = source.ROOT / "docs/migration"


def rows(page: str) -> list[list[str]]:
    """The cells of all tables of a page, row by row, without their heads."""
    lines = (FOLDER / f"{page}.md").read_text(encoding="utf-8").splitlines()
    found = [line.strip("|").split(" | ") for line in lines if line.startswith("| ")]
    return [cells for cells in found if "`" in cells[0]]


def names(cell: str, library: str) -> list[str]:
    """The names of this library in a cell of a table."""
    return re.findall(rf"\b{library}((?:\.\w+)+)", cell)


def find(library: str, path: str) -> Any:
    """The object of a dotted name; modules on the way are imported."""
    thing, full = importlib.import_module(library), library
    for part in path.strip(".").split("."):
        full += f".{part}"
        if not hasattr(thing, part):
            importlib.import_module(full)
        thing = getattr(thing, part)
    return thing


ANYIO = [(path, cells) for cells in rows("anyio") for path in names(cells[0], "anyio")]


def test_the_migration_table_of_anyio_is_read() -> None:
    assert len(ANYIO) > 40


# Newer than the oldest anyio that nurseryio works with.
NEW_IN_ANYIO = ("to_interpreter", "BrokenWorkerInterpreter")


@pytest.mark.parametrize(("path", "cells"), ANYIO, ids=[path for path, _ in ANYIO])
def test_the_replacement_of_each_anyio_name_exists(path: str, cells: list[str]) -> None:
    newer = path.strip(".").startswith(NEW_IN_ANYIO)
    if not path.startswith(".mark") and not (newer and not hasattr(anyio, NEW_IN_ANYIO[1])):
        find("anyio", path)
    ours = [path] if cells[1].strip() == "the same" else names(cells[1], "nurseryio")
    assert ours
    for name in ours:
        find("nurseryio", name)


@pytest.mark.parametrize("page", ["asyncio", "asyncio-io"])
def test_the_replacement_of_each_asyncio_name_exists(page: str) -> None:
    table = rows(page)
    assert len(table) > 5
    for cells in table:
        for code in re.findall(r"`([^`]+)`", cells[1]):
            name = re.match(r"(?:await )?([\w.]+)", code)
            assert name is not None
            first = name[1].partition(".")[0]
            assert first in ("nursery", "scope") or hasattr(nurseryio, first), code
