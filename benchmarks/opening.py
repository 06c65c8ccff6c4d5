"""The opening of the page: what to expect, in sentences and one table, from the page's own tables.

The sentences state figures and do not judge them, because the next run may bring others.
"""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .libraries import STOCK, UVLOOP
from .published import Page

LIBRARIES = ("asyncio", "anyio", "trio", "nurseryio")
SLOWER = 1.25
"""From this ratio on a row is named as slower than asyncio."""


@dataclass(frozen=True)
class Line:
    """One line of the table of the opening, and of README's."""

    text: str
    cell: Callable[[Page, str], str]


def times(title: str) -> Callable[[Page, str], str]:
    """Return what makes the cells of a micro row."""
    return lambda page, library: (
        "1" if library == "asyncio" else _number(page.ratio(title, library))
    )


def server(title: str, loop: str = STOCK) -> Callable[[Page, str], str]:
    """Return what makes the cells of a network row; asyncio's are those of its streams."""

    def cell(page: Page, library: str) -> str:
        column = "streams" if library == "asyncio" else library
        return _number(page.ratio(title, column, part="network", loop=loop))

    return cell


def memory(what: str) -> Callable[[Page, str], str]:
    """Return what makes the cells of a row of resident memory, in KiB."""
    return lambda page, library: _number(page.memory(what, library) / 1024)


def swallowing(page: Page, library: str) -> str:
    """Return the CPU use while a cancelled task swallows its cancellation."""
    title = "an asyncio task that swallows cancellation"
    text = page.cell(title, library, part="scale").partition(" %")[0]
    return text if text == "–" else f"{float(text):.0f} %"


LINES = (
    Line("A nursery with one child, asyncio = 1", times("nursery, 1 no-op child")),
    Line(
        "A timeout that is not reached, asyncio = 1",
        times("`move_on_after`, not fired, body blocks once"),
    ),
    Line(
        "Cancelling 10,000 tasks, asyncio = 1",
        times("cancel 10,000 sleeping tasks and join"),
    ),
    Line(
        "An item through a channel for 100 items, asyncio = 1",
        times("memory channel 100, against Queue(100)"),
    ),
    Line(
        "An echo server's CPU time, bare `Protocol` = 1",
        server("echo 64 B, 100 connections"),
    ),
    Line(
        "The same on uvloop, bare `Protocol` = 1",
        server("echo 64 B, 100 connections", UVLOOP),
    ),
    Line("Memory of one waiting task, KiB", memory("one of 100,000 sleeping tasks")),
    Line("CPU of asyncio code that swallows a cancellation", swallowing),
)
"""The lines of README's comparison that are measured."""


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def summary(page: Page) -> str:
    """Return the table of the opening."""
    head = "| work | asyncio | anyio | Trio | nurseryio |\n| --- | ---: | ---: | ---: | ---: |"
    found = [(line.text, cells(page, line)) for line in LINES]
    lines = [f"| {text} | {' | '.join(row)} |" for text, row in found if row[-1] != "–"]
    return "\n".join([head, *lines])


def cells(page: Page, line: Line) -> list[str]:
    """Return the cells of one line, for `LIBRARIES` in order."""
    return [line.cell(page, library) for library in LIBRARIES]


def _ratios(page: Page, loop: str) -> dict[str, float]:
    found = {
        row.title: page.ratio(row.title, "nurseryio", loop=loop)
        for row in page.rows
        if row.part == "micro" and row.loop == loop
    }
    return {title: ratio for title, ratio in found.items() if not math.isnan(ratio)}


def _median(page: Page, loop: str) -> str:
    ratios = _ratios(page, loop)
    return f"{statistics.median(ratios.values()):.2f}" if ratios else "–"


def _slower(page: Page) -> Iterable[str]:
    ratios = sorted(_ratios(page, STOCK).items(), key=lambda pair: -pair[1])
    return (f"{title} ({ratio:.1f})" for title, ratio in ratios if ratio >= SLOWER)


def picture(name: str, alternative: str) -> str:
    """Return the directive for a picture of ``docs/pictures``."""
    return f"```{{picture}} {name}\n{alternative}\n```"


def opening(page: Page) -> str:
    """Return the part of the page in front of the tables."""
    points = [
        f"**Tasks, scopes and synchronization** take {_median(page, STOCK)} times what asyncio's "
        "own forms take: this is the median of all rows below. On uvloop it is "
        f"{_median(page, UVLOOP)}, because uvloop makes the loop faster and not nurseryio. The "
        "figures are those with the part in C. `nurseryio-pure` in the tables is without it.",
        "**Sockets** are read and written directly by the task, without a protocol and buffers in "
        "between.",
        "**A cancelled task that does not end** uses next to no CPU time, because nothing is "
        "retried on a timer.",
        "**What is switched off costs nothing:** instruments, traces and the watchdog.",
    ]
    slower = list(_slower(page))
    if slower:
        points.insert(
            1,
            f"**Slower than asyncio by a quarter or more:** {'; '.join(slower)}. Acquiring a lock, "
            "`send` and `receive` are checkpoints. They let other tasks run, and notice a "
            "cancellation. asyncio's forms do neither if they do not have to wait.",
        )
    return f"""## What to expect

{summary(page)}

The first four lines are times, and the next two the CPU time of a server; asyncio's server has
streams. The figures are for asyncio's own loop if the line does not say otherwise. Smaller is
better everywhere.

{_list(points)}

The figures of one machine say little about another one. The ratios between libraries are more
stable. Measure your own program before you decide on speed alone.

{picture("speed-tasks", _alternative(page, TASKS, times))}

{picture("speed-servers", _alternative(page, SERVERS, server))}

{picture("speed-memory", _memory_alternative(page))}
"""


def _list(points: Iterable[str]) -> str:
    """Return an unordered list, wrapped as the other text of the page."""
    wrapper = textwrap.TextWrapper(
        98,
        initial_indent="* ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(map(wrapper.fill, points))


TASKS = (
    "nursery, 1 no-op child",
    "nursery, 100 children",
    "child raises, group caught",
    "cancel 10,000 sleeping tasks and join",
    "enter and leave a scope (`timeout(None)`)",
    "`move_on_after`, not fired, body blocks once",
    "checkpoint (`sleep(0)`)",
    "memory channel 0, against Queue(1)",
    "worker-thread hop",
)
"""The rows of the first picture."""

SERVERS = (
    "echo 64 B, 100 connections",
    "echo 16 KiB, 50 connections",
    "echo 1 MiB, 50 connections",
    "accept, one echo, close",
    "TLS echo 64 B, 50 connections",
)
"""The rows of the second picture."""

MEMORY = (
    "one of 100,000 sleeping tasks",
    "one idle connection of an echo server",
)
"""The rows of the third picture."""


def _alternative(
    page: Page, titles: Iterable[str], cell: Callable[[str], Callable[[Page, str], str]]
) -> str:
    """Return the text for readers who do not see a picture: its figures for nurseryio."""
    figures = ", ".join(
        f"{title.replace('`', '')}: {cell(title)(page, 'nurseryio')}" for title in titles
    )
    return f"Bars for nurseryio, Trio, anyio and asyncio; those of nurseryio are {figures}"


def _memory_alternative(page: Page) -> str:
    figures = ", ".join(f"{what}: {memory(what)(page, 'nurseryio')} KiB" for what in MEMORY)
    return f"Bars for nurseryio, Trio, anyio and asyncio; those of nurseryio are {figures}"
