"""The three pictures of the page, as SVG, from the page's own tables."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .libraries import STOCK
from .opening import MEMORY, SERVERS, TASKS
from .published import Page

# The shapes and palettes are those of the other pictures of the documentation.
sys.path.append(str(Path(__file__).parents[1] / "docs"))

COLOURS = {"nurseryio": "work", "asyncio": "line", "trio": "other", "anyio": "cleanup"}
_LEFT, _WIDTH, _BAR = 300, 760, 12

Group = tuple[str, dict[str, float]]


def bars(title: str, groups: Iterable[Group], unit: str, mark: float | None) -> Any:
    """Return a drawing with one group of bars for each row; ``mark`` is where a line is drawn."""
    from _pictures.svg import Drawing

    groups = [
        (text, {name: value for name, value in values.items() if not math.isnan(value)})
        for text, values in groups
    ]
    lines = sum(len(values) for _, values in groups)
    height = 64 + lines * _BAR + len(groups) * 12
    draw = Drawing(title, _WIDTH, height)
    draw.text(14, 22, title, size=13, bold=True)
    at = 14.0
    for name, colour in COLOURS.items():
        draw.box(at, 34, 12, 12, colour, round_by=2)
        draw.text(at + 17, 44, name, size=12, colour="quiet")
        at += 40 + len(name) * 7.5
    most = max((value for _, values in groups for value in values.values()), default=1)
    scale = (_WIDTH - _LEFT - 70) / most
    if mark is not None:  # first, so that the numbers are drawn over it
        x = _LEFT + mark * scale
        draw.line([(x, 54), (x, height - 8)], "grid", width=3)
    y = 58.0
    for text, values in groups:
        middle = y + len(values) * _BAR / 2 + 4
        draw.text(_LEFT - 10, middle, text, size=12, anchor="end")
        for name, value in values.items():
            length = value * scale
            draw.box(_LEFT, y, length, _BAR - 1.5, COLOURS[name], round_by=1)
            draw.text(_LEFT + length + 5, y + 9.5, f"{value:.2f}{unit}", size=10.5, colour="quiet")
            y += _BAR
        y += 12
    return draw


def pictures(page: Page) -> dict[str, Any]:
    """Return the drawings of a page by the names of their files."""
    tasks = [
        (title.replace("`", ""), {name: page.ratio(title, name) for name in COLOURS})
        for title in TASKS
    ]
    servers = [
        (
            title,
            {
                name: page.ratio(title, "streams" if name == "asyncio" else name, part="network")
                for name in COLOURS
            },
        )
        for title in SERVERS
    ]
    memory = [
        (what, {name: page.memory(what, _server(what, name)) / 1024 for name in COLOURS})
        for what in MEMORY
    ]
    loop = f"{STOCK} loop"
    return {
        "speed-tasks": bars(f"Time, asyncio's own form = 1 ({loop})", tasks, "", 1),
        "speed-servers": bars(
            f"CPU time of a server, asyncio's bare Protocol = 1 ({loop})", servers, "", 1
        ),
        "speed-memory": bars(f"Resident memory ({loop})", memory, " KiB", None),
    }


def _server(what: str, library: str) -> str:
    """Return the name under which the table has asyncio: its servers have streams."""
    return "streams" if library == "asyncio" and "connection" in what else library


def draw(text: str, folder: Path) -> list[Path]:
    """Draw the pictures of a page, in both palettes, and return their paths."""
    from _pictures.svg import PALETTES

    written = []
    for name, drawing in pictures(Page(text)).items():
        for palette in PALETTES:
            path = folder / f"{name}-{palette}.svg"
            path.write_text(drawing.render(palette), encoding="utf-8")
            written.append(path)
    return written
