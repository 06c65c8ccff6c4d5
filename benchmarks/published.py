"""Reads the tables of the written page: its opening, its pictures and README are made from them.

So text and pictures can be written again without measuring, and never say anything else than the
tables do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .libraries import STOCK

PARTS = {
    "Micro rows": "micro",
    "Network, ": "network",
    "Scale": "scale",
}
_HEADING = re.compile(r"^### (?P<title>.*)$|^\*\*(?P<table>.+?)\*\*", re.MULTILINE)
_LOOP = re.compile(r"(\w+) loop")


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        part: ``"micro"``, ``"network"`` or ``"scale"``.
        table: The heading of the table: the server's or the client's side, or a table of scale.
        loop: The event loop.
        title: The text of the first cell.
        cells: The other cells, by the text above them.
    """

    part: str
    table: str
    loop: str
    title: str
    cells: dict[str, str]

    @property
    def met(self) -> bool | None:
        """Whether the row reaches its goal; None if it has none."""
        verdict = self.cells.get("verdict", "")
        return None if not verdict else verdict == "met"


def rows(page: str) -> list[Row]:
    """Return every line of every table of the page."""
    found: list[Row] = []
    part = loop = table = ""
    head: list[str] = []
    for line in page.splitlines():
        heading = _HEADING.match(line)
        if heading:
            table = heading["title"] or heading["table"]
            if heading["title"]:
                part = next((p for begin, p in PARTS.items() if table.startswith(begin)), "")
                named = _LOOP.search(table)
                loop = named[1] if named else ""
            head = []
        elif not line.startswith("|"):
            head = []
        elif part and not head:
            head = _cells(line)
        elif part and not line.startswith("| ---"):
            title, *values = _cells(line)
            cells = dict(zip(head[1:], values, strict=True))
            found.append(Row(part, table, loop, title, cells))
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


class Page:
    """The figures of a page, by part, title and loop."""

    def __init__(self, text: str) -> None:
        self.rows = rows(text)

    def row(self, title: str, *, part: str = "micro", loop: str = STOCK) -> Row:
        """Return one row; of the network, the server's side.

        Raises:
            LookupError: The page does not have it.
        """
        for row in self.rows:
            if (row.part, row.loop, row.title) == (part, loop, title):
                return row
        raise LookupError(f"the page has no row {title!r} on {loop}")

    def ratio(self, title: str, library: str, *, part: str = "micro", loop: str = STOCK) -> float:
        """Return a ratio; NaN if it was not measured."""
        if library == ("asyncio" if part == "micro" else "protocol"):
            return 1.0
        text = self.cell(title, library, part=part, loop=loop)
        return float("nan") if text == "–" else float(text)

    def cell(self, title: str, column: str, *, part: str, loop: str = STOCK) -> str:
        """Return the text of a cell; a dash if the page does not have it."""
        try:
            return self.row(title, part=part, loop=loop).cells.get(column, "–")
        except LookupError:
            return "–"

    def memory(self, what: str, library: str, *, loop: str = STOCK) -> float:
        """Return bytes of the table of resident memory; NaN if they were not measured."""
        text = self.cell(f"{what}, {library}", "bytes", part="scale", loop=loop)
        return float("nan") if text == "–" else float(text.replace(",", ""))
