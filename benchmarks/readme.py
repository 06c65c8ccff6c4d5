"""The lines of README's comparison that are measured: made from the tables of the page."""

from __future__ import annotations

import re
from pathlib import Path

from .harness import ROOT
from .opening import LINES, cells
from .published import Page

README = ROOT / "README.md"
LINK = "https://nurseryio.readthedocs.io/en/latest/benchmarks.html"


def line(page: Page, index: int) -> str:
    """Return one line of the comparison."""
    measured = LINES[index]
    return f"| [{measured.text}]({LINK}) | {' | '.join(cells(page, measured))} |"


def write(text: str) -> Path:
    """Put the figures of a page into README, and return its path."""
    page = Page(text)
    readme = README.read_text(encoding="utf-8")
    for index, measured in enumerate(LINES):
        old = re.compile(rf"^\| \[{re.escape(measured.text)}\].*$", re.MULTILINE)
        readme = old.sub(lambda _, index=index: line(page, index), readme)
    README.write_text(readme, encoding="utf-8")
    return README
