"""The documentation is true: its Python blocks run, and print what it says they print.

A comment in front of a block can change how it is run: see ``docs/internals/testing.md``.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest
from harness import source
from harness.net import LOCALHOST

# Seconds; a program in the documentation is short.
LIMIT = 30.0

PAGES = [source.ROOT / "README.md", *sorted((source.ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(
    r"^(?:<!-- (?P<rule>[\w-]+)(?:: (?P<value>[^\n]*))? -->\n+)?"
    r"^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
CONTENTS = re.compile(r"^```{toctree}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Program:
    """A Python block of a page, with what the comments around it ask for."""

    page: Path
    line: int
    text: str
    rule: str | None
    value: str | None
    prints: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(source.ROOT)}:{self.line}"


def programs(page: Path, text: str) -> list[Program]:
    """The Python blocks of a page, in order."""
    found: list[Program] = []
    blocks = list(BLOCK.finditer(text))
    for block, after in zip_longest(blocks, blocks[1:]):
        if block["language"] == "python":
            prints = after["text"] if after and after["rule"] == "prints" else None
            line = text.count("\n", 0, block.start("text")) + 1
            program = Program(page, line, block["text"], block["rule"], block["value"], prints)
            found.append(program)
    return found


PROGRAMS = [
    program for page in PAGES for program in programs(page, page.read_text(encoding="utf-8"))
]


def is_too_new(program: Program) -> bool:
    """Whether the program needs a later Python than this one."""
    if program.rule != "needs":
        return False
    return sys.version_info < tuple(map(int, str(program.value).split(".")))


def test_each_code_block_compiles_and_one_that_is_not_run_says_why() -> None:
    for program in PROGRAMS:
        if program.rule in ("no-run", "no-page"):
            assert program.value, f"{program}: write <!-- {program.rule}: reason -->"
        if not is_too_new(program):
            compile(program.text, str(program), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(
    "program",
    [p for p in PROGRAMS if p.rule not in ("no-run", "cell") and not is_too_new(p)],
    ids=str,
)
def test_a_code_block_of_the_documentation_runs(program: Program, tmp_path: Path) -> None:
    if '"localhost"' in program.text and LOCALHOST != "localhost":
        pytest.skip("this machine does not know the name localhost")
    file = tmp_path / "program.py"
    file.write_text(program.text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if program.prints is not None:
        assert done.stdout == program.prints


def test_each_comment_in_front_of_a_code_block_is_a_known_one() -> None:
    rules = {program.rule for program in PROGRAMS}
    assert rules <= {None, "no-run", "no-page", "needs", "cell"}


def test_a_page_is_split_into_code_blocks_as_its_comments_say() -> None:
    page = (
        "```python\nprint(1)\n```\n\n<!-- prints -->\n```text\n1\n```\n"
        "<!-- no-run: takes a server -->\n```python\n2\n```\n"
        "```bash\nls\n```\n<!-- needs: 3.99 -->\n\n```python\n3\n```\n"
    )
    first, second, third = programs(source.ROOT / "README.md", page)
    assert (str(first), first.text, first.prints) == ("README.md:2", "print(1)\n", "1\n")
    assert (second.rule, second.value, second.prints) == ("no-run", "takes a server", None)
    assert third.text == "3\n"
    assert is_too_new(third)


def test_doctest_the_examples_in_docstrings_are_true() -> None:
    failed = {}
    for module in source.modules().values():
        if ">>>" in module.text:
            imported = importlib.import_module(f"nurseryio.{module.name}".rstrip("."))
            failed[module.name] = doctest.testmod(imported).failed
    assert not any(failed.values()), failed


def listed(page: Path) -> Iterator[Path]:
    """The pages that a page lists in its tables of contents."""
    for contents in CONTENTS.findall(page.read_text(encoding="utf-8")):
        for entry in re.findall(r"^[\w/*-]+$", contents, re.MULTILINE):
            yield from page.parent.glob(f"{entry}.md")


def test_each_page_of_the_documentation_can_be_reached() -> None:
    docs = source.ROOT / "docs"
    reached: set[Path] = set()
    ahead = [docs / "index.md"]
    while ahead:
        page = ahead.pop()
        if page not in reached:
            reached.add(page)
            ahead.extend(listed(page))
    assert reached == set(docs.rglob("*.md"))
