"""The Markdown page: tables with ratios, targets and whether they are met, from the samples of a
run.

Pure text from plain data (what `run` keeps and writes as JSON); nothing is measured here.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from .figures import best_ratio, met, paired_ratio, spread
from .libraries import DEFAULT, STOCK
from .network.measure import BASE as NETWORK_BASE, SERVERS
from .network.rows import ROWS as NETWORK_ROWS
from .reasons import MICRO as MICRO_REASONS, NETWORK as NETWORK_REASONS
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
        ["work", *others, "± nurseryio", "target", ""], lines
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
        + table(["work", "Protocol, µs", *others, "± nurseryio", "target", ""], lines)
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


def missed(data: dict[str, Any]) -> str:
    """Return a list of the rows that miss their target, each with the reason if it is known."""
    lines = []
    for part, rows, base, known in (
        ("micro", MICRO_ROWS, "asyncio", MICRO_REASONS),
        ("network", NETWORK_ROWS, NETWORK_BASE, NETWORK_REASONS),
    ):
        for loop, found in data.get(part, {}).items():
            for row in rows:
                target = row.target_on(loop)
                if row.name not in found or target is None:
                    continue
                clock, samples = getattr(row, "clock", "cpu"), found[row.name]["samples"]
                mine, against = (samples.get(name, {}).get(clock, []) for name in (MEASURED, base))
                ratio = paired_ratio(mine, against)
                if met(ratio, target) == "not met":
                    best = best_ratio(mine, against)
                    lines.append(
                        f"- **{row.title}, {loop}: {ratio:.2f} instead of {target:g}** (the best "
                        f"rounds of both: {best:.2f}). {known.get((row.name, loop), '')}".rstrip()
                    )
    return "### Rows that miss their target\n\n" + "\n".join(lines) if lines else ""


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
    parts += [missed(data), skipped(data)]
    return "\n\n".join(part for part in parts if part) + "\n"


def fairness(data: dict[str, Any]) -> str:
    """Return for each row the sentence that says what is equal and what is not."""
    rows: list[Any] = [*MICRO_ROWS, *NETWORK_ROWS]
    return "\n".join(f"- **{row.title}.** {row.fairness}" for row in rows)


def page(data: dict[str, Any]) -> str:
    """Return the whole page."""
    return f"""# Benchmarks

Written by `make bench`; do not edit. The same work is written the way each library's
documentation teaches it, for asyncio (`TaskGroup`, `timeout`, `Queue`, streams, raw protocols),
anyio, Trio, quattro and nurseryio. Each library runs in a process of its own; rounds are
interleaved, and a ratio is the median over the rounds of one library's time to that of its
neighbour in the same round. Smaller is faster. *floor* is the least asyncio code that does the
work at all, without any of the semantics: what asyncio itself costs. The ± column is half the
distance between the quartiles of nurseryio's ratio. Times are CPU time of the process: waiting
does not count, and a busy machine disturbs it least.

![Ratios to asyncio, smaller is faster](benchmarks.png)

## Figures

{tables(data)}
## What is equal in each row and what is not

{fairness(data)}
"""
