"""The command line: choose rows, libraries and loops, measure, write what was asked for.

A run without any choice measures everything and writes the project's page, its pictures and the
lines of README; a run with one only prints, unless it has `--markdown`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from . import harness, report
from .libraries import DEFAULT, LIBRARIES, STOCK, UVLOOP
from .machine import describe
from .network import measure as network
from .network.rows import BY_NAME as NETWORK_ROWS
from .rows import BY_NAME as MICRO_ROWS
from .scale import measure as scale

PARTS = ("micro", "network", "scale")
DOCS = harness.ROOT / "docs"
PAGE = DOCS / "benchmarks.md"


def say(line: str) -> None:
    """Tell the person at the terminal; the tables go to standard output, this does not."""
    print(line, file=sys.stderr, flush=True)


def names(allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """Return an argument type: comma-separated names out of those allowed."""

    def parse(text: str) -> list[str]:
        chosen = [name for name in text.split(",") if name]
        for name in chosen:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        return chosen

    return parse


def parser() -> argparse.ArgumentParser:
    """Return the description of the command line."""
    rows = [*MICRO_ROWS, *NETWORK_ROWS]
    p = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    p.add_argument("--quick", action="store_true", help="short rounds: minutes instead of an hour")
    p.add_argument("--parts", type=names(PARTS), help=f"of {','.join(PARTS)}")
    p.add_argument(
        "--rows", type=names(rows), help="rows of micro and network, by name; see --list"
    )
    p.add_argument("--libraries", type=names(list(LIBRARIES)), help=f"default {','.join(DEFAULT)}")
    p.add_argument("--servers", type=names(list(network.SERVERS)), help="for the network rows")
    p.add_argument("--loops", type=names([STOCK, UVLOOP]), help="default both")
    p.add_argument("--rounds", type=int, help="rounds for each group of processes")
    p.add_argument("--processes", type=int, help="how many times the processes are made anew")
    p.add_argument("--share", type=float, help="part of the full size of a round")
    p.add_argument("--json", type=Path, help="write all samples here")
    p.add_argument("--merge", type=Path, help="start from samples written before")
    p.add_argument("--markdown", type=Path, help="write the page here")
    p.add_argument(
        "--again",
        action="store_true",
        help="measure nothing: write the documentation's page again around its tables",
    )
    p.add_argument("--list", action="store_true", help="list the rows and what is equal in them")
    return p


def list_rows() -> None:
    """Print every row's name and its sentence of fairness."""
    rows: dict[str, Any] = {**MICRO_ROWS, **NETWORK_ROWS}
    for name, row in rows.items():
        print(f"{name}: {row.title}\n    {row.fairness}")


def plain(value: Any) -> Any:
    """Return measured data as what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return value


class Run:
    """One call of the command line: the choices made and the data gathered so far."""

    def __init__(self, choice: argparse.Namespace) -> None:
        self.choice = choice
        quick = choice.quick
        self.rounds: int = choice.rounds or (5 if quick else 11)
        self.processes: int = choice.processes or (1 if quick else 2)
        self.share: float = choice.share or (0.3 if quick else 1.0)
        self.loops: list[str] = choice.loops or [STOCK, UVLOOP]
        self.data: dict[str, Any] = json.loads(choice.merge.read_text()) if choice.merge else {}
        if choice.merge:
            self.data["merged"] = True

    @property
    def everything(self) -> bool:
        """Whether nothing was left out by choice."""
        c = self.choice
        return not any([c.parts, c.rows, c.libraries, c.servers, c.loops])

    def measure(self) -> None:
        """Measure all that was chosen, part by part, loop by loop."""
        wanted = self.choice.parts or [
            part
            for part, rows in (("micro", MICRO_ROWS), ("network", NETWORK_ROWS), ("scale", None))
            if not self.choice.rows or (rows and set(rows) & set(self.choice.rows))
        ]
        self.data["machine"] = describe()
        for part in wanted:
            for loop in self.loops:
                getattr(self, part)(loop)

    def micro(self, loop: str) -> None:
        """Measure the micro rows on one loop."""
        libraries = harness.usable(self.choice.libraries or DEFAULT, loop, say)
        for row in self._chosen(MICRO_ROWS):
            say(f"micro on {loop}: {row.title}")
            n = row.n if row.fixed else max(row.tiny, round(row.n * self.share))
            samples = harness.measure_row(
                row, loop, libraries, n=n, rounds=self.rounds, processes=self.processes, say=say
            )
            self._keep("micro", loop, row.name, samples)

    def network(self, loop: str) -> None:
        """Measure the network rows on one loop."""
        network.raise_file_limit()
        servers = network.usable(self.choice.servers or list(network.SERVERS), loop, say)
        for row in self._chosen(NETWORK_ROWS):
            say(f"network on {loop}: {row.title}")
            samples = network.measure_row(
                row,
                loop,
                servers,
                share=self.share,
                rounds=self.rounds,
                processes=self.processes,
                say=say,
            )
            self._keep("network", loop, row.name, samples, times=row.scaled(self.share))

    def scale(self, loop: str) -> None:
        """Take the scale tables on one loop."""
        libraries = harness.usable(self.choice.libraries or DEFAULT, loop, say)
        servers = network.usable(self.choice.servers or list(network.SERVERS), loop, say)
        found = scale.measure(loop, libraries, servers, self.choice.quick, self.rounds, say)
        self.data.setdefault("scale", {})[loop] = plain(found)
        self._save()

    def _chosen(self, rows: dict[str, Any]) -> list[Any]:
        return [row for name, row in rows.items() if name in (self.choice.rows or rows)]

    def _keep(self, part: str, loop: str, row: str, samples: Any, **more: Any) -> None:
        rows = self.data.setdefault(part, {}).setdefault(loop, {})
        rows[row] = {"samples": plain(samples), **more}
        self._save()

    def _save(self) -> None:
        if self.choice.json:
            self.choice.json.parent.mkdir(parents=True, exist_ok=True)
            self.choice.json.write_text(json.dumps(self.data))

    def write(self) -> None:
        """Print the tables and write the files that were asked for."""
        page = report.page(self.data)
        print(report.tables(self.data))
        if self.choice.markdown:
            self.choice.markdown.write_text(page, encoding="utf-8")
            say(f"wrote {self.choice.markdown}")
        elif self.everything:
            publish(page)


def publish(page: str) -> None:
    """Write the page of the documentation, its pictures and the lines of README."""
    from . import plot, readme

    PAGE.write_text(page, encoding="utf-8")
    for path in [PAGE, *plot.draw(page, DOCS / "pictures"), readme.write(page)]:
        say(f"wrote {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    if not hasattr(asyncio, "TaskGroup"):
        raise SystemExit("the benchmarks need Python 3.11 or newer: asyncio's idiom does")
    choice = parser().parse_args(arguments)
    if choice.list:
        list_rows()
        return
    if choice.again:
        publish(report.again(PAGE.read_text(encoding="utf-8")))
        return
    run = Run(choice)
    if not (choice.merge and not (choice.rows or choice.parts)):
        run.measure()
    run.write()
