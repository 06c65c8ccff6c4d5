"""The commands ``tree``, ``top`` and ``trace`` of ``python -m nurseryio``.

This module has their options and their output. ``_telemetry`` looks at processes and writes traces.
``cli`` chooses the command, and runs the program that is to be traced.
"""

from __future__ import annotations

import argparse
import errno
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
from .._observe.drawing import plain
from .._telemetry.remote import UnreachableError, ask
from .._telemetry.timeline import write_timeline
from .._telemetry.trace_file import TraceFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._core.loop_state import LoopState

# How long ``top`` looks before it shows something (seconds), unless an option says otherwise.
REFRESH = 2.0
# How many tasks ``top`` shows.
ROWS = 20

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


@contextmanager
def _printing(parser: argparse.ArgumentParser) -> Iterator[None]:
    """The body prints to standard output: an error of that ends the command without a traceback."""
    with suppress(AttributeError):  # another object that programs have put in its place
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        parser.exit(130)
    except OSError as error:
        # Python flushes the file once more at its end.
        with suppress(OSError), open(os.devnull, "w") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the program that reads has seen enough
            parser.exit(1)
        parser.exit(1, f"{parser.prog}: standard output cannot be written: {error}\n")


def tree(arguments: Sequence[str]) -> None:
    """Print the task trees of another process.

    Raises:
        SystemExit: the arguments are wrong, or the process cannot be looked at.
    """
    parser = _parser("tree", description="Print the task trees of a process.")
    _add_process(parser)
    chosen = parser.parse_args(arguments)
    with _printing(parser):
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
    with _printing(parser), suppress(KeyboardInterrupt):
        while True:
            request = {"command": "top", "seconds": chosen.seconds}
            answer = _ask(parser, chosen, request)
            rows = waits.note(answer["tasks"], time.monotonic())
            rows.sort(key=lambda row: row[chosen.sort], reverse=True)
            if chosen.json:
                print(json.dumps({"pid": answer["pid"], "tasks": rows}), flush=True)
            else:
                clear = CLEAR if sys.stdout.isatty() and not chosen.once else ""
                print(clear + _table(answer["pid"], rows), flush=True)
            if chosen.once:
                return


class _Waits:
    """How long each task has waited at one line, as far as was seen."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], tuple[object, float]] = {}

    def note(self, tasks: list[dict[str, Any]], now: float) -> list[dict[str, Any]]:
        """Add ``waiting`` (seconds) to each task, for which it was seen at the same line."""
        before, self._since = self._since, {}
        rows = []
        for task in tasks:
            key = (task["loop"], task["id"])
            at = (task["place"], task["name"], task["running"] > 0)
            since = before[key][1] if key in before and before[key][0] == at else now
            self._since[key] = (at, since)
            rows.append({**task, "waiting": 0.0 if task["running"] else now - since})
        return rows


def _table(pid: int, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"process {pid}: {len(rows):,} tasks",
        f"{'RUNNING':>8}  {'WAITING':>9}  TASK",
    ]
    for row in rows[:ROWS]:
        place = f" at {row['place']}" if row["place"] else ""
        said = plain(f"{row['name']} {row['doing']}{place}")
        lines.append(f"{row['running']:>8.1%}  {row['waiting']:>7.0f} s  {said}")
    if len(rows) > ROWS:
        lines.append(f"... {len(rows) - ROWS:,} more")
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
        # The program may change its directory.
        self._output = os.path.abspath(self._output)
        self._page = None if self._chosen.html is None else os.path.abspath(self._chosen.html)
        # An error in the options is to be seen before the program runs.
        try:
            if self._page is not None and not os.path.isdir(os.path.dirname(self._page)):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._page)
            self._next = self._open(self._output)
        except (OSError, ValueError) as error:
            self._remove_folder()
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

    def _remove_folder(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        """Complete the files, and say what was written. Raises nothing: the program may raise."""
        traces = [*self._traces, self._next]
        failures: dict[str, None] = {}
        for trace in traces:
            with suppress(OSError):
                trace.close()
            if trace.failure is not None:
                failures[f"the trace ends early: {trace.failure}"] = None
        written = [] if self._chosen.output is None and self._page is not None else [self._output]
        if self._page is not None:
            try:
                if not os.path.isfile(self._output):  # reading a device or a pipe may not end
                    raise OSError(f"{self._output!r} is not a file")
                write_timeline(self._output, self._page)
            except OSError as error:
                failures[f"the page was not written: {error}"] = None
            else:
                written.append(self._page)
        self._remove_folder()
        lines = list(failures)
        if written:
            lines.insert(0, f"written: {', '.join(map(_from_here, written))}")
        if not self._traces:
            lines.append("the program has not used nurseryio: the trace is empty")
        with suppress(OSError, ValueError, AttributeError):  # standard error is closed
            print("\n".join(lines), file=sys.stderr)


def _from_here(path: str) -> str:
    """The path as it is shortest: relative, if the file is in this folder or below."""
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        return path
    return os.path.relpath(path, here) if path.startswith(os.path.join(here, "")) else path
