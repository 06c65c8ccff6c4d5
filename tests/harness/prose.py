"""The language of docstrings and comments: ``tests/harness/prose.py``, part of ``make lint``.

CONTRIBUTING.md has five rules of writing. This counts the habits that they warn of, for each
thousand words of the package, against a budget. A habit that is over its budget fails the check and
is shown with the places where it occurs.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "nurseryio"


@dataclass(frozen=True)
class Habit:
    """A pattern, and how often it may occur in a thousand words."""

    name: str
    pattern: re.Pattern[str]
    budget: float


HABITS = (
    Habit(
        "a sentence that begins with What or Who",
        re.compile(r"(?:^|[.;:(] )(?:[Ww]hat|[Ww]ho) (?![^.]*\?)"),
        0.5,
    ),
    Habit(
        "whoever, somebody, nobody",
        re.compile(r"\b(?:whoever|somebody|nobody|anybody|everybody|whichever)\b"),
        0.8,
    ),
    Habit(
        "of ours, of its own",
        re.compile(
            r"\bof (?:ours|theirs|its own|their own|asyncio's|anyio's|somebody else's|yours)\b"
        ),
        0.1,
    ),
    Habit(
        "is no X",
        re.compile(
            r"\b(?:is|are|was|were) no "
            r"(?!longer|more\b|need|other|way|one|such|doubt|reason|point)[a-z`]"
        ),
        0.3,
    ),
    Habit("code that tells or hears", re.compile(r"\b(?:told|tells|hears?)\b"), 0.3),
    Habit("code that strikes", re.compile(r"\b(?:strikes?|struck|striking)\b"), 0.0),
)


@dataclass(frozen=True)
class Text:
    """A docstring, or the comments of consecutive lines, with single blanks between the words."""

    file: Path
    line: int
    text: str


def texts(file: Path) -> Iterator[Text]:
    """The docstrings and comments of a file."""
    source = file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring:
                yield Text(file, node.body[0].lineno, " ".join(docstring.split()))
    first = last = 0
    words: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1:
                yield Text(file, first, " ".join(words))
                first, words = token.start[0], []
            words += token.string.lstrip("# ").split()
            last = token.start[0]
    yield Text(file, first, " ".join(words))


def over_budget(found: list[Text]) -> Iterator[str]:
    """The lines to print for each habit that occurs too often."""
    thousands = sum(len(text.text.split()) for text in found) / 1000
    for habit in HABITS:
        places = [(text, match) for text in found for match in habit.pattern.finditer(text.text)]
        if len(places) > habit.budget * thousands:
            rate = len(places) / thousands
            yield f"{habit.name}: {rate:.2f} in 1,000 words, at most {habit.budget} are allowed"
            for text, match in places:
                piece = text.text[max(0, match.start() - 20) : match.end() + 40]
                yield f"  {text.file}:{text.line}: {piece!r}"


def main(package: Path = PACKAGE) -> int:
    """Check a package: the exit code."""
    found = [text for file in sorted(package.rglob("*.py")) for text in texts(file)]
    lines = list(over_budget(found))
    print("\n".join(lines) if lines else "the language of docstrings and comments is plain")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
