"""The Markdown page: tables with ratios, targets and whether they are met, from the samples of a
run.

Pure text from plain data (what `run` keeps and writes as JSON); nothing is measured here.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from .figures import met, paired_ratio, spread
from .libraries import DEFAULT, STOCK
from .network.measure import BASE as NETWORK_BASE, SERVERS
from .network.rows import ROWS as NETWORK_ROWS
from .opening import opening
from .published import Page
from .reasons import MICRO as MICRO_REASONS, NETWORK as NETWORK_REASONS, SCALE as SCALE_REASONS
from .rows import ROWS as MICRO_ROWS
from .scale_report import scale_tables

MEASURED = "nurseryio"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *lines])


def number(value: float, digits: int = 2) -> str:
    """Return a number for a cell, or a dash for none."""
    return "–" if value != value else f"{value:.{digits}f}"


def micro_table(rows: dict[str, Any], loop: str) -> str:
    """Return the table of micro rows on one loop."""
    present = [name for name in DEFAULT if any(name in row["samples"] for row in rows.values())]
    others = [name for name in present if name != "asyncio"]
    lines = []
    for row in MICRO_ROWS:
        if row.name not in rows:
            continue
        samples = rows[row.name]["samples"]
        base = samples.get("asyncio", {}).get(row.clock, [])
        ratios = {
            name: paired_ratio(samples.get(name, {}).get(row.clock, []), base) for name in others
        }
        mine = samples.get(MEASURED, {}).get(row.clock, [])
        ratio = ratios.get(MEASURED, float("nan"))
        lines.append(
            [
                row.title,
                *[number(ratios[name]) for name in others],
                number(spread(mine, base)),
                "" if row.target is None else f"≤ {row.target:g}",
                met(ratio, row.target),
            ]
        )
    return f"### Micro rows, {loop} loop (asyncio = 1)\n\n" + table(
        ["work", *others, "± nurseryio", "goal", "verdict"], lines
    )


def network_table(rows: dict[str, Any], loop: str) -> str:
    """Return the table of the servers' CPU time per operation on one loop."""
    present = [name for name in SERVERS if any(name in row["samples"] for row in rows.values())]
    others = [name for name in present if name != NETWORK_BASE]
    lines = []
    for row in NETWORK_ROWS:
        if row.name not in rows:
            continue
        samples = rows[row.name]["samples"]
        base = samples.get(NETWORK_BASE, {}).get("cpu", [])
        ratios = {name: paired_ratio(samples.get(name, {}).get("cpu", []), base) for name in others}
        operations, _ = row.work(rows[row.name]["times"])
        target = row.target_on(loop)
        each = statistics.median(base) / operations * 1e6 if base else float("nan")
        lines.append(
            [
                row.title,
                number(each, 1),
                *[number(ratios[name]) for name in others],
                number(spread(samples.get(MEASURED, {}).get("cpu", []), base)),
                "" if target is None else f"≤ {target:g}",
                met(ratios.get(MEASURED, float("nan")), target),
            ]
        )
    return (
        f"### Network, {loop} loop: server's CPU time per operation (raw Protocol = 1)\n\n"
        + table(["work", "Protocol, µs", *others, "± nurseryio", "goal", "verdict"], lines)
    )


def throughput_table(rows: dict[str, Any], loop: str) -> str:
    """Return the table of what the client saw.

    Operations per second, or megabytes for large ones.
    """
    present = [name for name in SERVERS if any(name in row["samples"] for row in rows.values())]
    lines = []
    for row in NETWORK_ROWS:
        if row.name not in rows:
            continue
        operations, megabytes = row.work(rows[row.name]["times"])
        in_bytes = row.size >= 16 * 1024
        cells = []
        for name in present:
            wall = rows[row.name]["samples"].get(name, {}).get("wall", [])
            amount = megabytes if in_bytes else operations
            cells.append(f"{amount / statistics.median(wall):,.0f}" if wall else "–")
        lines.append([f"{row.title}, {'MB/s' if in_bytes else 'requests/s'}", *cells])
    return f"### Network, {loop} loop: what one raw client saw\n\n" + table(
        ["work", *present], lines
    )


def missed(page: Page) -> str:
    """Return the rows above their goal, and the reasons for it where they are known."""
    names = {("micro", row.title): row.name for row in MICRO_ROWS}
    names |= {("network", row.title): row.name for row in NETWORK_ROWS}
    known = {"micro": MICRO_REASONS, "network": NETWORK_REASONS}
    lines: dict[str, list[str]] = {}
    titles: dict[str, dict[str, None]] = {}
    for row in page.rows:
        if row.met is not False:
            continue
        if row.part == "scale":
            title, reason = f"{row.table}: {row.title}", SCALE_REASONS.get(row.table)
        else:
            title = row.title
            reason = known[row.part].get((names.get((row.part, title), ""), row.loop))
        cells = lines.setdefault(title, [title, "", "", row.cells["goal"]])
        # A table of one library in each line has no column for this one.
        figure = row.cells.get(MEASURED) or next(iter(row.cells.values()))
        cells[1 if row.loop == STOCK else 2] = figure
        titles.setdefault(reason or "The reason is not known.", {})[title] = None
    if not lines:
        return ""
    reasons = [f"* **{'; '.join(rows)}.** {reason}" for reason, rows in titles.items()]
    return "\n\n".join([ABOVE, GOALS, table(ABOVE_HEAD, lines.values()), "The reasons:", *reasons])


def skipped(data: dict[str, Any]) -> str:
    """Return a list of what could not be measured, if anything."""
    lines = []
    for part in ("micro", "network"):
        for loop, rows in data.get(part, {}).items():
            for row, measured in rows.items():
                for name, samples in measured["samples"].items():
                    if samples["note"] and not samples["note"].startswith("absent"):
                        lines.append(f"- {row} on {loop}, {name}: {samples['note']}")
    return "### Not measured\n\n" + "\n".join(lines) if lines else ""


def machine_line(data: dict[str, Any]) -> str:
    """Return one sentence on what the figures were taken on."""
    machine = data.get("machine")
    if not machine:
        return ""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = machine.get("load", 0.0)
    merged = " Put together from runs of parts, one after the other." if "merged" in data else ""
    busy = (
        " The machine was busy, or had been shortly before, which may widen the ±."
        if load > 1
        else ""
    )
    return (
        f"{machine['date']}: {machine['processor']}, {machine['cores']} cores, {machine['system']},"
        f" {machine['python']}; {versions}. Load average when the run began: {load:.1f}."
        f"{busy}{merged}"
    )


def tables(data: dict[str, Any]) -> str:
    """Return all tables of a run."""
    parts = [machine_line(data)]
    for loop, rows in data.get("micro", {}).items():
        parts.append(micro_table(rows, loop))
    for loop, rows in data.get("network", {}).items():
        parts += [network_table(rows, loop), throughput_table(rows, loop)]
    for loop, found in data.get("scale", {}).items():
        parts.append(scale_tables(found, loop, with_imports=loop == STOCK))
    parts.append(skipped(data))
    return "\n\n".join(part for part in parts if part) + "\n"


def fairness(data: dict[str, Any]) -> str:
    """Return for each row the sentence that says what is equal and what is not."""
    rows: list[Any] = [*MICRO_ROWS, *NETWORK_ROWS]
    return "\n".join(f"- **{row.title}.** {row.fairness}" for row in rows)


INTRODUCTION = """# Performance

This page says what nurseryio costs beside asyncio, anyio and Trio. Figures are ratios, so you can
read them without knowing the machine."""

METHOD = """## How it is measured

The same work is written the way each library's documentation teaches it, for asyncio
(`TaskGroup`, `timeout`, `Queue`, streams, raw protocols), anyio, Trio, quattro and nurseryio.
Each library runs in a process of its own. Rounds are interleaved, and a ratio is the median over
the rounds of one library's time to that of its neighbour in the same round. *floor* is the least
asyncio code that does the work at all, without any of the semantics: what asyncio itself costs.
The ± column is half the distance between the quartiles of nurseryio's ratio. Times are CPU time
of the process: waiting does not count, and a busy machine disturbs it least. `make bench` repeats
the measurement in a short form. `make bench` also writes this page, so do not edit it."""

GOALS = """A goal is a bound that the project has set for itself. Most goals are 1 or less: as fast
as asyncio, or faster. So a row above its goal works as promised, and takes longer than the project
wants it to. A loop on which the row reaches its goal has an empty cell. On uvloop the same Python
code weighs more, because uvloop itself is compiled."""
ABOVE_HEAD = ("work", "asyncio's loop", "uvloop", "goal")

FIGURES, ABOVE, EQUAL = (
    "## All figures",
    "## Rows above their goal",
    "## What is equal in each row and what is not",
)


def page(data: dict[str, Any]) -> str:
    """Return the whole page."""
    return around(tables(data), fairness(data))


def again(text: str) -> str:
    """Return a page with the tables of another one, and today's words around them."""
    kept = text.partition(FIGURES)[2].partition("\n## ")[0].strip("\n")
    return around(f"{kept}\n", fairness({}))


def around(figures: str, equal: str) -> str:
    """Return the page around its tables."""
    found = Page(figures)
    parts = [
        INTRODUCTION,
        opening(found).strip(),
        METHOD,
        f"{FIGURES}\n\n{figures.strip()}",
        missed(found),
        f"{EQUAL}\n\n{equal}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
