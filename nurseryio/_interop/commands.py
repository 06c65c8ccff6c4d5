"""The commands ``tree``, ``top`` and ``trace`` of ``python -m nurseryio``.

This module has their options and their output. ``_telemetry`` looks at processes and writes traces.
``cli`` chooses the command, and runs the program that is to be traced.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .._base.forked import generation
from .._core.loop_state import new_state_hooks
from .._loop.step_hooks import install
from .._telemetry.remote import UnreachableError, ask
from .._telemetry.timeline import write_timeline
from .._telemetry.trace_file import TraceFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._core.loop_state import LoopState

# How long ``top`` looks before it shows something (seconds), unless an option says otherwise.
REFRESH = 2.0
# How many lines of tasks ``top`` shows, and the least share of the time that is not shown as 0.0%.
ROWS = 20
SHOWN = 0.0005

CLEAR = "\x1b[H\x1b[2J"


def _parser(command: str, **options: Any) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"python -m nurseryio {command}", **options)


def _add_process(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pid", type=int, nargs="?", metavar="PID", help="the process")
    parser.add_argument(
        "--socket", metavar="PATH", help="the socket that serve_monitor(PATH) serves, instead"
    )
    parser.add_argument("--json", action="store_true", help="print the data as JSON")


def _ask(parser: argparse.ArgumentParser, chosen: Any, request: dict[str, Any]) -> dict[str, Any]:
    if (chosen.pid is None) == (chosen.socket is None):
        parser.error("give a PID, or --socket with a path")
    try:
        return ask(request, chosen.pid, chosen.socket)
    except UnreachableError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def tree(arguments: Sequence[str]) -> None:
    """Print the task trees of another process.

    Raises:
        SystemExit: the arguments are wrong, or the process cannot be looked at.
    """
    parser = _parser("tree", description="Print the task trees of a process.")
    _add_process(parser)
    chosen = parser.parse_args(arguments)
    answer = _ask(parser, chosen, {"command": "tree"})
    if chosen.json:
        print(json.dumps({"pid": answer["pid"], "loops": answer["loops"]}, indent=2))
    else:
        print(answer["text"], end="")


def top(arguments: Sequence[str]) -> None:
    """Show again and again which tasks of another process run, and for how long others have waited.

    Raises:
        SystemExit: the arguments are wrong, or the process cannot be looked at any more.
    """
    parser = _parser("top", description="Show which tasks of a process run, and which wait.")
    _add_process(parser)
    parser.add_argument(
        "--sort", choices=("running", "waiting"), default="running", help="(default: running)"
    )
    parser.add_argument(
        "--seconds", type=float, default=REFRESH, help=f"between two views (default: {REFRESH:g})"
    )
    parser.add_argument("--once", action="store_true", help="show one view and end")
    chosen = parser.parse_args(arguments)
    if not 0 < chosen.seconds <= 60:
        parser.error("--seconds must be more than 0 and at most 60")
    waits = _Waits()
    with suppress(KeyboardInterrupt):
        while True:
            request = {"command": "top", "seconds": chosen.seconds}
            answer = _ask(parser, chosen, request)
            rows = waits.note(answer["loops"], time.monotonic())
            rows.sort(key=lambda row: row[chosen.sort], reverse=True)
            ended = sum(loop["ended"] for loop in answer["loops"])
            if chosen.json:
                data = {"pid": answer["pid"], "ended": ended, "tasks": rows}
                print(json.dumps(data), flush=True)
            else:
                clear = CLEAR if sys.stdout.isatty() and not chosen.once else ""
                print(clear + _table(answer["pid"], rows, ended), flush=True)
            if chosen.once:
                return


class _Waits:
    """How long each task has waited at one line, as far as was seen."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], tuple[object, float]] = {}

    def note(self, loops: list[dict[str, Any]], now: float) -> list[dict[str, Any]]:
        """The tasks of all loops, each with ``waiting``: the seconds it has waited at least."""
        before, self._since = self._since, {}
        rows = []
        for number, task in [
            (number, t) for number, loop in enumerate(loops) for t in loop["tasks"]
        ]:
            key = (number, task["id"])
            at = (task["place"], task["name"], task["running"] > 0)
            since = now - task["waited"]
            if key in before and before[key][0] == at:
                since = min(since, before[key][1])
            self._since[key] = (at, since)
            waiting = 0.0 if task["running"] else now - since
            rows.append({"loop": number, **task, "waiting": waiting})
        return rows


def _table(pid: int, rows: list[dict[str, Any]], ended: float) -> str:
    """The lines of a view. Waiting tasks that do the same at the same line share one."""
    groups: dict[object, list[dict[str, Any]]] = {}
    for row in rows:
        own = row["id"] if row["running"] >= SHOWN else None
        groups.setdefault((row["loop"], row["kind"], row["place"], own), []).append(row)
    busy = sum(row["running"] for row in rows) + ended
    count = f"{len(rows):,} task{'' if len(rows) == 1 else 's'}"
    lines = [
        f"process {pid}: {count}, in steps for {busy:.1%} of the time",
        f"{'RUNNING':>8}  {'WAITING':>9}  TASK",
    ]
    if ended:
        lines.append(f"{ended:>8.1%}  {'':>9}  tasks that have ended meanwhile")
    shown = list(groups.values())[:ROWS]
    for group in shown:
        more = f" (and {len(group) - 1:,} more like this)" if len(group) > 1 else ""
        waiting = max(row["waiting"] for row in group)
        lines.append(f"{group[0]['running']:>8.1%}  {waiting:>7.0f} s  {group[0]['text']}{more}")
    left = len(rows) - sum(map(len, shown))
    if left:
        lines.append(f"... {left:,} more")
    return "\n".join(lines)


# -- trace -------------------------------------------------------------------------


class Tracing:
    """The options of ``trace``, and the files of a program's loops.

    Args:
        arguments: the arguments after ``trace``.

    Attributes:
        rest: the arguments that name the program.

    Raises:
        SystemExit: the arguments are wrong.
    """

    rest: list[str]

    def __init__(self, arguments: Sequence[str]) -> None:
        parser = _parser(
            "trace",
            usage="%(prog)s [options] (script.py | -m module | -c text) [argument ...]",
            description="Run a program, and write what its tasks do to a file for Perfetto.",
            epilog="Open the file at https://ui.perfetto.dev, or the page in a browser.",
        )
        parser.add_argument("-o", "--output", metavar="FILE", help="(default: trace.json)")
        parser.add_argument("--html", metavar="FILE", help="write a page that draws the trace")
        parser.add_argument(
            "--max-bytes", type=int, metavar="N", help="begin a new file at this size"
        )
        parser.add_argument(
            "--no-waits", action="store_true", help="do not name what tasks wait for (faster)"
        )
        options, program = self._split(arguments)
        self._parser = parser
        self._chosen = parser.parse_args(options)
        if not program:
            parser.error("name the program to trace: a script, or a module after -m")
        self.rest = program
        self._traces: list[TraceFile] = []
        # A forked child leaves the files to its parent, and is not traced.
        self._generation = generation()
        # Not a TemporaryDirectory, which a forked child would remove as it ends.
        self._folder: str | None = None
        self._output = self._chosen.output
        if self._output is None and self._chosen.html is not None:
            self._folder = tempfile.mkdtemp(prefix="nurseryio-")
            self._output = os.path.join(self._folder, "trace.json")
        elif self._output is None:
            self._output = "trace.json"
        # An error in the options is to be seen before the program runs.
        try:
            self._next = self._open(self._output)
        except (OSError, ValueError) as error:
            parser.error(str(error))

    @staticmethod
    def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """The options of ``trace``, and what follows: it begins with the program."""
        rest = list(arguments)
        options: list[str] = []
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c", "--loop"):
            option = rest.pop(0)
            options.append(option)
            if option in ("-o", "--output", "--html", "--max-bytes") and rest:
                options.append(rest.pop(0))
        return options, rest

    def _open(self, path: str) -> TraceFile:
        return TraceFile(path, waits=not self._chosen.no_waits, max_bytes=self._chosen.max_bytes)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The body runs the program; afterwards its files are complete."""
        new_state_hooks.append(self._see_loop)
        try:
            yield
        finally:
            new_state_hooks.remove(self._see_loop)
            if self._generation == generation():
                self._finish()

    def _see_loop(self, state: LoopState) -> None:
        if self._generation != generation():
            return
        if self._traces:
            stem, dot, suffix = self._output.rpartition(".")
            number = len(self._traces) + 1
            path = f"{stem}-{number}{dot}{suffix}" if dot else f"{self._output}-{number}"
            self._next = self._open(path)
        self._traces.append(self._next)
        install(state, self._next)

    def _finish(self) -> None:
        try:
            for trace in [*self._traces, self._next]:
                trace.close()
            if self._chosen.html is not None:
                write_timeline(self._output, self._chosen.html)
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
        written = [path for path in (self._chosen.output, self._chosen.html) if path is not None]
        print(f"written: {', '.join(written or [self._output])}", file=sys.stderr)
        if not self._traces:
            print(
                "the program has not used nurseryio, so the trace is empty: call "
                "nurseryio.lowlevel.add_instrument(TraceFile(...)) in its main function",
                file=sys.stderr,
            )
