"""The project's docstrings as data, and as the reStructuredText that the reference shows.

This module has the parser of the house format, which CONTRIBUTING.md asks for, and makes the text
of it. It does not need Sphinx: ``api_reference.py`` passes the docstrings to these functions, and
the tests read every docstring on each Python.

The format: paragraphs of reStructuredText; the sections ``Args:``, ``Attributes:``, ``Returns:``
and ``Raises:``; and notes, which are paragraphs that begin with ``Checkpoint:`` or ``Trio:``.
``sphinx.ext.napoleon`` is not used, because it takes the first words of a property's docstring for
a type if a colon follows, and does not know the notes.

Rule: nothing is guessed. An unknown section, and an item of a section without a name, are errors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# The sections whose lines are "name: text".
LISTS = ("Args", "Attributes", "Raises")
SECTIONS = (*LISTS, "Returns")
NOTES = {"Checkpoint": "Checkpoint", "Trio": "In Trio"}

_SECTION = re.compile(rf"^({'|'.join(SECTIONS)}):$")
_UNKNOWN_SECTION = re.compile(r"^[A-Z]\w+:$")
_NOTE = re.compile(rf"^({'|'.join(NOTES)}): ")
_ITEM = re.compile(r"^    (?P<name>\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*): (?P<text>.+)$")


class FormatError(ValueError):
    """A docstring that is not in the house format."""


@dataclass
class Docstring:
    """A docstring in its parts."""

    body: list[str] = field(default_factory=list)  # the lines outside sections and notes
    lists: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # section: names, texts
    returns: str = ""
    notes: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> Docstring:
    """Split a docstring, without its indentation, into its parts.

    Raises:
        FormatError: It is not in the house format; the text says how.
    """
    found = Docstring()
    lines = text.splitlines()
    while lines:
        line = lines.pop(0)
        if section := _SECTION.match(line):
            block = list(_indented(lines))
            if section[1] == "Returns":
                found.returns = _joined(block)
            else:
                found.lists[section[1]] = list(_items(section[1], block))
        elif note := _NOTE.match(line):
            rest = [line[note.end() :]]
            while lines and lines[0].strip():
                rest.append(lines.pop(0).strip())
            found.notes[note[1]] = " ".join(rest)
        elif _UNKNOWN_SECTION.match(line):
            raise FormatError(f"there is no section {line!r}; there are {', '.join(SECTIONS)}")
        else:
            found.body.append(line)
    while found.body and not found.body[-1].strip():
        found.body.pop()
    return found


def _indented(lines: list[str]) -> Iterator[str]:
    """Take the lines of a section: those that are indented, and blank ones between them."""
    while lines and (not lines[0].strip() or lines[0].startswith("    ")):
        yield lines.pop(0)


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())


def _items(section: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    names, text = "", [""]
    for line in lines:
        if not line.strip():
            continue
        if line.startswith("     "):
            if not names:
                raise FormatError(
                    f"{section}: the first item is indented too far: {line.strip()!r}"
                )
            text.append(line.strip())
            continue
        if names:
            yield names, " ".join(text)
        item = _ITEM.match(line)
        if item is None:
            raise FormatError(f"{section}: not a name, a colon and a text: {line.strip()!r}")
        names, text = item["name"], [item["text"]]
    if names:
        yield names, " ".join(text)


# -- the text -------------------------------------------------------------------


def render(doc: Docstring, attributes: dict[str, str], skip: frozenset[str]) -> list[str]:
    """The lines of reStructuredText for a docstring.

    Args:
        doc: the docstring.
        attributes: the types of a class's attributes, as texts. Arguments of these names are kept
            as attributes, so they are shown as both.
        skip: the attributes that have a docstring of their own.
    """
    lines = [*doc.body, ""]
    fields = [f":param {name}: {text}" for name, text in _each(doc, "Args")]
    if doc.returns:
        fields.append(f":returns: {doc.returns}")
    fields += [f":raises {name}: {text}" for name, text in _each(doc, "Raises")]
    fields += [f":{NOTES[name]}: {text}" for name, text in doc.notes.items()]
    lines += [*fields, ""]
    kept = [(name, text) for name, text in _each(doc, "Args") if name in attributes]
    for name, text in [*_each(doc, "Attributes"), *kept]:
        if name not in skip:
            lines += [f".. py:attribute:: {name}"]
            if name in attributes:
                lines += [f"   :type: {attributes[name]}"]
            lines += ["", f"   {_capitalized(text)}", ""]
    return lines


def _each(doc: Docstring, section: str) -> Iterator[tuple[str, str]]:
    """The items of a section, one for each name."""
    for names, text in doc.lists.get(section, ()):
        for name in names.split(", "):
            yield name.replace("*", r"\*"), text


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def summary(doc: Docstring) -> str:
    """The first sentence, in one line."""
    paragraph: list[str] = []
    for line in doc.body:
        if not line.strip():
            break
        paragraph.append(line.strip())
    text = " ".join(paragraph)
    end = re.search(r"(?<=[.:])(?:\s|$)", text)
    return text[: end.start()].rstrip(":") if end else text
