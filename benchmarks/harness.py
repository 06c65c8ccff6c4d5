"""Fresh processes and interleaved rounds: the machinery that every table of micro rows goes
through.

One row on one loop is measured by a group of processes, one for each library, all alive at once and
all but one asleep: round by round, in an order shuffled each time, each gets its turn. The group is
then thrown away and made anew (`processes` times), because the layout of a process's memory alone
moves a ratio by some percent.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .libraries import LIBRARIES, Library
from .rows import Row

PATIENCE = 120.0
"""Seconds a process may take for one answer before it is given up."""

ROOT = Path(__file__).resolve().parent.parent


class WorkerFailed(Exception):
    """A benchmark process gave no usable answer."""


@dataclass
class Samples:
    """What one library did in one row: a list of rounds, or the reason why there is none."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    note: str = ""

    def seconds(self, clock: str) -> list[float]:
        """Return the rounds by the clock that counts for the row."""
        return self.cpu if clock == "cpu" else self.wall


class Worker:
    """A process that answers numbers by measurements, one line each way."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        launcher: Sequence[str] = (),
    ) -> None:
        self._process = subprocess.Popen(
            [*launcher, sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": python_path(), **environment},
            text=True,
            bufsize=1,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout

    def answer(self) -> dict[str, Any]:
        """Return the next line of the process.

        Raises:
            WorkerFailed: It ended or said nothing for `PATIENCE` seconds.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            if not selector.select(PATIENCE):
                raise WorkerFailed(f"no answer for {PATIENCE:.0f} s")
        line = self._stdout.readline()
        if not line:
            raise WorkerFailed(f"process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, request: object) -> dict[str, Any]:
        """Send one request and return its answer."""
        self._stdin.write(f"{request}\n")
        return self.answer()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def close(self) -> None:
        """End the process, gently first."""
        try:
            self._stdin.close()
            self._process.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._stdout.close()


def python_path() -> str:
    """Return this process's import path for its children, with the project's root in front."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def measure_row(
    row: Row,
    loop: str,
    libraries: Sequence[str],
    *,
    n: int,
    rounds: int,
    processes: int,
    say: Callable[[str], None],
) -> dict[str, Samples]:
    """Measure one row on one loop for all libraries.

    Args:
        row: The row.
        loop: "stock" or "uvloop".
        libraries: Names from `LIBRARIES`; those that do not run on the loop must be left out by the
            caller.
        n: Work units in a round.
        rounds: Rounds for each group of processes.
        processes: How many times the group of processes is made anew.
        say: Gets a line for everything that is left out.

    Returns:
        Samples for each library, in the order given.
    """
    results = {name: Samples() for name in libraries}
    for _ in range(processes):
        workers = {
            name: Worker(
                ["-m", "benchmarks.worker", name, loop, row.name], LIBRARIES[name].environment()
            )
            for name in libraries
            if not results[name].note
        }
        try:
            _serve_rounds(workers, results, row, n, rounds, say)
        finally:
            for worker in workers.values():
                worker.close()
    return results


def _serve_rounds(
    workers: dict[str, Worker],
    results: dict[str, Samples],
    row: Row,
    n: int,
    rounds: int,
    say: Callable[[str], None],
) -> None:
    def ask(name: str, request: int | None) -> dict[str, Any] | None:
        try:
            answer = workers[name].answer() if request is None else workers[name].ask(request)
        except (WorkerFailed, OSError, ValueError) as error:
            answer = {"failed": str(error)}
        for reason in ("absent", "missing", "failed"):
            if reason in answer:
                results[name] = Samples(note=f"{reason}: {answer[reason]}")
                if reason != "absent":
                    say(f"SKIPPED {row.name} for {name}: {answer[reason]}")
                return None
        return answer

    alive = [name for name in workers if ask(name, None) is not None]
    alive = [name for name in alive if ask(name, max(row.tiny, n // 5)) is not None]
    for _ in range(rounds):
        random.shuffle(alive)
        for name in list(alive):
            answer = ask(name, n)
            if answer is None:
                alive.remove(name)
                continue
            results[name].cpu.append(answer["cpu"])
            results[name].wall.append(answer["wall"])


def usable(names: Sequence[str], loop: str, say: Callable[[str], None]) -> list[str]:
    """Return those that can be measured on a loop, after a visible line for each that cannot."""
    from .libraries import why_missing

    def wanted(library: Library) -> bool:
        reason = why_missing(library, loop)
        if reason and loop in library.loops:
            say(f"SKIPPED {library.name} on {loop}: {reason}")
        return reason is None

    return [name for name in names if wanted(LIBRARIES[name])]
