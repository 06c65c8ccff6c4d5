"""The glossary holds terms and names that are in use."""

from __future__ import annotations

import functools
import re

import pytest
from harness import source

PAGE = source.ROOT / "docs/internals/glossary.md"
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
ENTRIES = {term: names for term, _meaning, names in ROWS if term != "Term"}


@functools.cache
def package() -> str:
    """All text of the library, with single blanks, in lower case."""
    text = " ".join(module.text for module in source.modules().values())
    return " ".join(text.replace("#", " ").split()).lower()


def test_the_glossary_has_terms() -> None:
    assert len(ENTRIES) > 25
    assert len(ENTRIES) == len(ROWS) - PAGE.read_text("utf-8").count("| Term |")


@pytest.mark.parametrize("term", ENTRIES)
def test_a_term_of_the_glossary_occurs_in_the_code(term: str) -> None:
    words = r"[ _-]".join(map(re.escape, term.lower().split()))
    assert re.search(rf"(?<![a-z]){words}", package())


@pytest.mark.parametrize("term", ENTRIES)
def test_the_names_beside_a_glossary_term_are_names_of_the_code(term: str) -> None:
    names = re.findall(r"`(\w+)`", ENTRIES[term])
    assert names
    rooms = {module.room for module in source.modules().values()}
    assert not [
        n for n in names if n not in rooms and not re.search(rf"\b{n}\b".lower(), package())
    ]
