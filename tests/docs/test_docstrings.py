"""Docstrings: the house format is read as it is meant, and each public docstring is in it."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from harness import site, source

docstrings = site.extension("docstrings")

EXAMPLE = """\
Fetch a page. More about it.

A second paragraph::

    fetch("x")

Args:
    url: The address.
        It goes on here.
    headers, cookies: Two with one text.
    *more: The rest.

Returns:
    The page,
    as bytes.

Raises:
    ValueError: wrong: very.

Checkpoint: yes, also
if it is cached.

Trio: none.
"""


def test_a_docstring_is_split_into_its_parts() -> None:
    doc = docstrings.parse(EXAMPLE)
    assert doc.body[0] == "Fetch a page. More about it."
    assert doc.body[-1] == '    fetch("x")'
    assert doc.lists["Args"] == [
        ("url", "The address. It goes on here."),
        ("headers, cookies", "Two with one text."),
        ("*more", "The rest."),
    ]
    assert doc.returns == "The page, as bytes."
    assert doc.lists["Raises"] == [("ValueError", "wrong: very.")]
    assert doc.notes == {"Checkpoint": "yes, also if it is cached.", "Trio": "none."}


def test_the_first_sentence_of_a_docstring_is_its_summary() -> None:
    assert docstrings.summary(docstrings.parse(EXAMPLE)) == "Fetch a page."
    assert docstrings.summary(docstrings.parse("Run ``a.b`` and\nwait.\n\nMore.")) == (
        "Run ``a.b`` and wait."
    )
    assert docstrings.summary(docstrings.parse("For example::\n\n    x")) == "For example"
    assert docstrings.summary(docstrings.parse("")) == ""


def test_a_docstring_becomes_fields_and_attributes_of_the_reference() -> None:
    text = "A class.\n\nArgs:\n    a: one.\n\nAttributes:\n    b: two.\n    c: three."
    doc = docstrings.parse(text)
    lines = docstrings.render(doc, {"b": "int"}, frozenset(["c"]))
    assert ":param a: one." in lines
    at = lines.index(".. py:attribute:: b")
    assert lines[at + 1 : at + 4] == ["   :type: int", "", "   Two."]
    assert ".. py:attribute:: c" not in lines


def test_an_argument_that_is_kept_as_an_attribute_is_shown_as_both() -> None:
    doc = docstrings.parse("A class.\n\nArgs:\n    a: one.")
    lines = docstrings.render(doc, {"a": "int"}, frozenset())
    assert ":param a: one." in lines
    assert ".. py:attribute:: a" in lines


def test_a_property_whose_text_has_a_colon_keeps_it() -> None:
    doc = docstrings.parse("The status: 0 for success.")
    assert docstrings.render(doc, {}, frozenset())[0] == "The status: 0 for success."


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("A.\n\nArgs:\n    no name here", "Args: not a name"),
        ("A.\n\nRaises:\n        X: too far", "Raises: the first item is indented"),
        ("A.\n\nReturn:\n    x", "there is no section 'Return:'"),
    ],
)
def test_a_docstring_in_another_format_is_an_error(text: str, error: str) -> None:
    with pytest.raises(docstrings.FormatError, match=error):
        docstrings.parse(text)


def parts(thing: Any) -> Iterator[Any]:
    """A class or function, and the members of a class."""
    yield thing
    if inspect.isclass(thing):
        yield from vars(thing).values()


def test_each_docstring_of_the_library_is_in_the_house_format() -> None:
    wrong = {}
    for module in source.modules().values():
        if module.name == "testing.raises_group":  # loads pytest's classes
            continue
        imported = importlib.import_module(f"nurseryio.{module.name}".rstrip("."))
        for thing in vars(imported).values():
            if str(getattr(thing, "__module__", "")).partition(".")[0] != "nurseryio":
                continue
            for part in parts(thing):
                try:
                    docstrings.parse(inspect.getdoc(part) or "")
                except docstrings.FormatError as error:
                    wrong[f"{module.name}: {part}"] = str(error)
    assert not wrong
