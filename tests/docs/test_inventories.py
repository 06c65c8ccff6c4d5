"""The lists of other projects' names: written as intersphinx reads them, and renewed from it."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
from harness import site

inventories = site.extension("inventories")

FULL = b"# Sphinx inventory version 2\n# Project: x\n# Version: 1.2\n# compressed by zlib\n"


def full(*lines: str) -> bytes:
    return FULL + zlib.compress(("\n".join(lines) + "\n").encode())


def test_an_inventory_is_renewed_with_the_names_to_keep() -> None:
    content = full(
        "asyncio.run py:function 1 library/asyncio-runner.html#$ -",
        "zipfile.ZipFile py:class 1 library/zipfile.html#$ -",
        "glossary std:doc -1 glossary.html Glossary",
    )
    assert inventories.unpacked(content, "python") == (
        "1.2",
        ["asyncio.run py:function 1 library/asyncio-runner.html#$ -"],
    )
    # There is no choice for the others.
    assert len(inventories.unpacked(content, "trio")[1]) == 2


def test_a_list_is_renewed_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventories, "FOLDER", tmp_path)
    source = tmp_path / "objects.inv"
    source.write_bytes(full("trio.run py:function 1 a.html#$ -"))
    inventories.main("trio", str(source))
    assert inventories.read("trio") == ("1.2", ["trio.run py:function 1 a.html#$ -"])
    assert list(inventories.names("trio")) == [("trio.run", "function")]


def test_the_lists_are_written_once_in_the_form_of_intersphinx(tmp_path: Path) -> None:
    mapping = inventories.mapping(tmp_path / "new")
    assert set(mapping) == {"anyio", "python", "trio"}
    site_of_trio, file = mapping["trio"]
    assert site_of_trio == "https://trio.readthedocs.io/en/stable/"
    version, lines = inventories.unpacked(Path(file).read_bytes(), "trio")
    assert (version, lines) == inventories.read("trio")
    before = Path(file).stat().st_mtime_ns
    inventories.mapping(tmp_path / "new")
    assert Path(file).stat().st_mtime_ns == before


@pytest.mark.parametrize("project", ["anyio", "python", "trio"])
def test_sphinx_reads_the_list_of_a_project(project: str, tmp_path: Path) -> None:
    inventory = pytest.importorskip("sphinx.util.inventory", reason="comes with the extra docs")
    address, file = inventories.mapping(tmp_path)[project]
    known = inventory.InventoryFile.loads(Path(file).read_bytes(), uri=address).data
    known_names = {name for kind, names in known.items() for name in names}
    assert known_names == {name for name, _ in inventories.names(project)}
