"""Failure injection: an exception at each line of the engine in turn, and a look at what it does.

``python -m harness.injection`` in ``tests``, or ``make injection``, tries everything: each line of
the engine that a program executes, at several of its executions, with each exception. ``--sample``
tries a bounded part, as the ordinary tests do. Runs are made in forked processes (see
``injection_trial``), so one that hangs does no harm to the next.

Rule 1: which runs are made depends on the seed and the source alone.

Rule 2: a line at which harm is accepted stands on the short list (``injection_shortlist``) with
its reason. An entry at which no run does harm is a fault too.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import pickle
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .injection_lines import (
    EXCEPTIONS,
    Injector,
    Line,
    engine_code,
    engine_files,
    source_lines,
)
from .injection_programs import CASES, PROGRAMS, Program
from .injection_shortlist import SHORT_LIST
from .injection_trial import Result, run_each

SEED = 1

# How many processes run trials.
JOBS = 2

# How many runs each program makes on each case with ``--sample``.
SAMPLE = 24

# Faults that are shown but do not fail the test: an error that was raised before the injected one
# may have to give way to it.
WEAK = {"original lost", "other error"}
if sys.version_info < (3, 13):
    # uncancel() does not withdraw a request that has not been raised yet. A task that fails between
    # asking for its own cancellation and the await that raises it gets that at its next await.
    WEAK.add("stray cancel")


@dataclass(frozen=True)
class Shot:
    """One exception at one execution of a line, in one program on one case."""

    program: str
    case: str
    line: Line
    occurrence: int
    exception: str
    kind: type[Injector] = Injector

    def injector(self) -> Injector:
        """The injector that makes the run."""
        return self.kind(self.line, self.occurrence, EXCEPTIONS[self.exception])

    def __str__(self) -> str:
        return f"{self.exception} in {self.program} on {self.case}, execution {self.occurrence}"


@dataclass
class Report:
    """The result of many runs."""

    runs: int = 0
    not_reached: int = 0
    lines: set[str] = field(default_factory=set)
    programs: set[tuple[str, str]] = field(default_factory=set)
    # Runs in which something was wrong.
    faults: list[tuple[Shot, Result]] = field(default_factory=list)
    # Programs in which something is wrong without an injected error.
    broken: list[tuple[str, str, Result]] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Report) -> None:
        """Add the runs of another."""
        self.runs += other.runs
        self.not_reached += other.not_reached
        self.lines |= other.lines
        self.programs |= other.programs
        self.faults += other.faults
        self.broken += other.broken

    @property
    def unlisted(self) -> list[tuple[Shot, Result]]:
        """The faults at lines that are not on the short list."""
        return [
            (shot, result)
            for shot, result in self.faults
            if shot.line.key not in SHORT_LIST
            and any(kind not in WEAK for kind, _ in result.faults)
        ]

    def figures(self) -> str:
        """One line of figures."""
        return (
            f"{len(self.lines)} lines, {len(EXCEPTIONS)} exceptions, "
            f"{len({name for name, _ in self.programs})} programs on {len(CASES)} cases, "
            f"{self.runs} runs ({self.not_reached} did not reach their line), "
            f"{len(self.unlisted)} with faults, "
            f"{len({shot.line for shot, _ in self.unlisted})} lines with faults, "
            f"{len(SHORT_LIST)} lines on the short list, {self.seconds:.0f} s"
        )


def warm_up() -> None:
    """Import what any program may import, so that no run differs from the next by it."""
    for file in engine_files().values():
        importlib.import_module("nurseryio." + file[: -len(".py")].replace("/", "."))
    for name in ("anyio", "uvloop"):
        # Not anyio's backend: whether that is loaded matters to the engine.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    engine_code()
    gc.collect()
    gc.freeze()


# -- which runs -----------------------------------------------------------------


def occurrences(count: int, chosen: random.Random) -> list[int]:
    """Which of so many executions of a line are tried."""
    found = {1, min(2, count), count}
    if count > 3:
        found.add(chosen.randint(3, count))
    return sorted(found)


def shots(
    program: str, case: str, counts: dict[Line, int], seed: int, kind: type[Injector] = Injector
) -> Iterator[Shot]:
    """Every run for a program on a case: on uvloop one exception for each execution."""
    chosen = random.Random(f"{seed} {program} {case}")
    for line, count in sorted(counts.items()):
        for occurrence in occurrences(count, chosen):
            exceptions = list(EXCEPTIONS)
            if case.endswith("uvloop"):
                exceptions = [chosen.choice(exceptions)]
            for exception in exceptions:
                yield Shot(program, case, line, occurrence, exception, kind)


def fire(found: list[Shot], expected: Result) -> Iterator[tuple[Shot, Result]]:
    """Make runs for one program on one case."""
    if found:
        program, case = PROGRAMS[found[0].program], found[0].case
        yield from zip(
            found, run_each(program, case, [shot.injector for shot in found], expected), strict=True
        )


def record(program: Program, case: str, kind: type[Injector] = Injector) -> Result:
    """Run a program without an injected error."""
    return next(run_each(program, case, [kind]))


@dataclass(frozen=True)
class Choice:
    """The programs, cases and exceptions to try."""

    programs: tuple[str, ...] = tuple(PROGRAMS)
    cases: tuple[str, ...] = CASES
    exceptions: tuple[str, ...] = tuple(EXCEPTIONS)
    where: str = ""
    sample: int = 0
    seed: int = SEED
    kind: type[Injector] = Injector

    def pairs(self) -> list[tuple[str, str]]:
        """Programs with their cases."""
        return [
            (name, case)
            for name in self.programs
            for case in PROGRAMS[name].cases
            if case in self.cases
        ]


def attempt(choice: Choice, pairs: Iterable[tuple[str, str]], loud: bool = False) -> Report:
    """Make the runs for some programs on some cases."""
    report = Report()
    for name, case in pairs:
        expected = record(PROGRAMS[name], case, choice.kind)
        if expected.faults:
            report.broken.append((name, case, expected))
            continue
        report.programs.add((name, case))
        todo = [
            shot
            for shot in shots(name, case, expected.counts, choice.seed, choice.kind)
            if shot.exception in choice.exceptions and choice.where in str(shot.line)
        ]
        report.lines |= {line.key for line in expected.counts}
        if choice.sample:
            chosen = random.Random(f"{choice.seed} {name} {case}")
            todo = chosen.sample(todo, min(choice.sample, len(todo)))
        before, started = len(report.faults), time.monotonic()
        for shot, result in fire(todo, expected):
            report.runs += 1
            report.not_reached += result.fired is None
            if result.faults:
                report.faults.append((shot, result))
        if loud:
            faults = len(report.faults) - before
            seconds = time.monotonic() - started
            print(
                f"{name} on {case}: {len(todo)} runs, {faults} with faults, {seconds:.1f} s",
                file=sys.stderr,
            )
    return report


def attempt_all(choice: Choice, jobs: int = JOBS, loud: bool = False) -> Report:
    """Make all the runs, in so many processes."""
    warm_up()
    started = time.monotonic()
    pairs = choice.pairs()
    report = Report()
    if jobs <= 1:
        report.add(attempt(choice, pairs, loud))
    else:
        workers = [_worker(choice, pairs[number::jobs], loud) for number in range(jobs)]
        for reading, child in workers:
            with os.fdopen(reading, "rb") as file:
                report.add(pickle.load(file))
            os.waitpid(child, 0)
    report.faults.sort(key=lambda item: (item[0].line, item[0].program, item[0].case))
    report.seconds = time.monotonic() - started
    return report


def _worker(choice: Choice, pairs: list[tuple[str, str]], loud: bool) -> tuple[int, int]:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return reading, child
    os.close(reading)
    code = 1
    try:
        with os.fdopen(writing, "wb") as file:
            pickle.dump(attempt(choice, pairs, loud), file)
        code = 0
    finally:
        os._exit(code)


# -- the short list -------------------------------------------------------------


def unknown_entries() -> list[str]:
    """Entries of the short list that name no line of the engine."""
    known = set()
    for file in engine_files().values():
        for number in range(1, len(source_lines(file)) + 1):
            known.add(Line(file, 0, "", number).key)
    return [key for key in SHORT_LIST if key not in known]


def needless_entries(report: Report) -> list[str]:
    """Entries of the short list at which no run of a report did harm."""
    needed = {shot.line.key for shot, _ in report.faults}
    return [key for key in SHORT_LIST if key not in needed]


# -- output ---------------------------------------------------------------------


def describe(report: Report, faults: list[tuple[Shot, Result]]) -> str:
    """The faults, grouped by line."""
    by_line: dict[Line, list[tuple[Shot, Result]]] = defaultdict(list)
    for shot, result in faults:
        by_line[shot.line].append((shot, result))
    lines = [report.figures(), ""]
    kinds = Counter(kind for _, result in faults for kind in {kind for kind, _ in result.faults})
    lines += [", ".join(f"{kind}: {number}" for kind, number in kinds.most_common()), ""]
    for name, case, result in report.broken:
        lines.append(f"WITHOUT AN INJECTED ERROR: {name} on {case}: {result.faults}")
    lines += _describe_functions(by_line)
    for block in _blocks(by_line):
        lines += _describe_block(block, by_line)
    return "\n".join(lines)


def _describe_functions(by_line: dict[Line, list[tuple[Shot, Result]]]) -> list[str]:
    """One line for each function: its lines with faults, and how many runs had which fault."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    kinds: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for line in sorted(by_line):
        function = (line.file, line.function)
        numbers[function].append(line.line)
        for _, result in by_line[line]:
            kinds[function].update({kind for kind, _ in result.faults})
    lines = []
    for function, found in numbers.items():
        faults = ", ".join(f"{kind} {count}" for kind, count in kinds[function].most_common())
        lines.append(f"{' '.join(function)}, lines {', '.join(map(str, found))}: {faults}")
    return [*lines, ""]


def _blocks(by_line: dict[Line, list[tuple[Shot, Result]]]) -> list[list[Line]]:
    """Lines of one function that stand near each other and do the same harm."""
    found: list[list[Line]] = []
    kinds: set[str] = set()
    for line in sorted(by_line):
        now = {kind for _, result in by_line[line] for kind, _ in result.faults}
        last = found[-1][-1] if found else None
        if last and last[:3] == line[:3] and line.line - last.line <= 4 and now == kinds:
            found[-1].append(line)
        else:
            found.append([line])
        kinds = now
    return found


def _describe_block(block: list[Line], by_line: dict[Line, list[tuple[Shot, Result]]]) -> list[str]:
    first, last = block[0], block[-1]
    lines = [f"{first}"] if first == last else [f"{first}", f"    ... to {last.line}: {last.text}"]
    by_kind: dict[str, list[tuple[Shot, Result, str]]] = defaultdict(list)
    for line in block:
        for shot, result in by_line[line]:
            for kind, detail in dict(reversed(result.faults)).items():
                by_kind[kind].append((shot, result, detail))
    for kind, cases in sorted(by_kind.items()):
        exceptions = Counter(shot.exception for shot, _, _ in cases)
        names = ", ".join(f"{name} {number}" for name, number in exceptions.items())
        shot, result, detail = cases[0]
        programs = {shot.program for shot, _, _ in cases}
        hosts = {shot.case for shot, _, _ in cases}
        lines.append(f"    {kind}: {names}; {len(programs)} programs, {' '.join(sorted(hosts))}")
        lines.append(f"        {shot}, in code of the {result.fired}: {detail[:260]}")
        if result.stack:
            lines.append(f"        from {' < '.join(result.stack[1:4])}")
    return lines


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m harness.injection", description=__doc__)
    parser.add_argument("--sample", action="store_true", help="a bounded part of the runs")
    parser.add_argument("--runs", type=int, default=SAMPLE, help="of each program with --sample")
    parser.add_argument("--program", nargs="*", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--exception", nargs="*", default=list(EXCEPTIONS), choices=EXCEPTIONS)
    parser.add_argument("--line", default="", help="only lines whose description holds this text")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--report", type=Path, help="where to write the faults")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    choice = Choice(
        tuple(options.program),
        tuple(options.case),
        tuple(options.exception),
        options.line,
        options.runs if options.sample else 0,
        options.seed,
    )
    report = attempt_all(choice, options.jobs, not options.quiet)
    text = describe(report, report.unlisted)
    stale = unknown_entries()
    if choice == Choice(seed=choice.seed) and not report.broken:
        stale += sorted(set(needless_entries(report)) - set(stale))
    text += "".join(f"\nnot needed on the short list: {key}" for key in stale)
    if options.report:
        options.report.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    print(report.figures())
    return 1 if report.unlisted or report.broken or stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
