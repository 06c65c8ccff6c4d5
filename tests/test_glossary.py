"""The glossary speaks of what is there: each of its terms, names and places is in the code."""

from __future__ import annotations

import re

from harness import source

PAGE = (source.ROOT / "docs/internals/glossary.md").read_text(encoding="utf-8")
ENTRIES = PAGE.partition("\n## ")[2]
CODE = "\n".join(module.text for module in source.modules().values())


def terms() -> list[str]:
    """What the page defines: the bold words at the beginning of a paragraph."""
    begun = re.findall(r"^\*\*.*$", ENTRIES, re.MULTILINE)
    return [term for line in begun for term in re.findall(r"\*\*(.+?)\*\*", line)]


def test_each_term_occurs_in_the_code() -> None:
    # In prose, broken over lines or not, or as a name: "yield credit", "_yield_credit".
    text = re.sub(r"[\s#_*]+", " ", CODE).casefold()
    assert len(terms()) > 20
    assert not [term for term in terms() if term.casefold() not in text]


def test_each_name_occurs_in_the_code() -> None:
    names = re.findall(r"`(\w+)`", ENTRIES)
    assert names
    assert not [name for name in names if not re.search(rf"\b{name}\b", CODE)]


def test_each_place_is_there() -> None:
    places = set(re.findall(r"`(\w+/\w+)`", ENTRIES))
    assert places
    assert not [place for place in places if not (source.PACKAGE / f"{place}.py").exists()]


def test_the_terms_are_defined_once() -> None:
    assert len(terms()) == len(set(terms()))
