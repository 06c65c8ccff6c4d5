"""The coverage of each module by its own test file, as a report.

    python tests/harness/coverage_report.py [--all] [MODULE ...]

This module finds a module's test file, measures, and makes the table. The settings of coverage.py
are in ``pyproject.toml``. `make coverage` runs it.

Each test file runs alone, on the quick matrix, and only the lines of its own module count. The rest
of the suite executes nearly every line of the core by the way; that says little about whether the
line was tested deliberately.

A module below :data:`ENOUGH` is named, with the numbers of the lines that were not executed. Its
test file gives the reason, in a comment that begins with "Covered below 95 %:". The report fails
if such a reason is missing, if one is not needed any more, and if a test fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import source
from harness.source import Module

ENOUGH = 95.0  # per cent of a module's lines
REASON = re.compile(r"^# Covered below 95 %: (.*(?:\n# .*)*)", re.MULTILINE)
SECONDS = 600  # that one test file may take


@dataclass(frozen=True)
class Result:
    """The measurement of one module."""

    module: str
    test: Path
    percent: float
    missing: tuple[int, ...]
    reason: str | None
    failure: str | None  # the last lines of what a failed run has written

    @property
    def is_enough(self) -> bool:
        """Whether the module is covered as it has to be."""
        return self.percent >= ENOUGH

    @property
    def problem(self) -> str | None:
        """Why the report fails because of this module, or None."""
        if self.failure is not None:
            return f"the tests did not pass:\n{self.failure}"
        if self.is_enough:
            return "gives a reason that is not needed any more" if self.reason else None
        return None if self.reason else "gives no reason: add '# Covered below 95 %: ...'"


def measured(modules: Iterable[Module]) -> list[Module]:
    """The modules of rooms, which have their own test files by the rules of the project."""
    return [
        module
        for module in modules
        if module.path.parent != source.PACKAGE and module.path.stem != "__init__"
    ]


def test_file(module: Module, tests: Path) -> Path | None:
    """The test file of a module: in the room of the same name below ``tests``, or in ``tests``."""
    name = f"test_{module.path.stem}.py"
    for path in (tests / module.room.lstrip("_") / name, tests / name):
        if path.exists():
            return path
    return None


def reason_in(text: str) -> str | None:
    """The reason that a test file gives for what it leaves out, on one line, or None."""
    found = REASON.search(text)
    return " ".join(found[1].replace("\n# ", " ").split()) if found else None


def ranges(lines: Sequence[int]) -> str:
    """Numbers of lines, those that follow each other joined: "3-5, 9"."""
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][-1] + 1:
            parts[-1].append(line)
        else:
            parts.append([line])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def measure(module: Module, test: Path) -> Result:
    """Run a test file in a separate process, and read which lines of a module it executes."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "coverage"
        # The quick way to measure, where there is one. It knows lines alone, as we do.
        core = {"COVERAGE_CORE": "sysmon"} if sys.version_info >= (3, 12) else {}
        environment = {**os.environ, **core, "COVERAGE_FILE": str(data)}

        def coverage(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "coverage", *arguments],
                cwd=source.ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
                check=False,
            )

        options = ("-q", "--matrix=quick", "--slack=10", "-p", "no:cacheprovider")
        tests = coverage("run", "-m", "pytest", *options, str(test))
        report = Path(folder) / "report.json"
        written = coverage("combine", "--quiet") if not tests.returncode else tests
        if not written.returncode:
            written = coverage("json", "--quiet", f"--include={module.path}", "-o", str(report))
        reason = reason_in(test.read_text(encoding="utf-8"))
        if written.returncode:
            last = "\n".join(
                [*written.stdout.splitlines()[-10:], f"exit code {written.returncode}"]
            )
            return Result(module.name, test, 0.0, (), reason, last)
        (file,) = json.loads(report.read_text(encoding="utf-8"))["files"].values()
        percent = file["summary"]["percent_covered"]
        return Result(module.name, test, percent, tuple(file["missing_lines"]), reason, None)


def table(results: Iterable[Result], everything: bool) -> str:
    """The report: the modules with the least coverage first, those with enough left out."""
    lines = []
    for result in sorted(results, key=lambda r: (r.percent, r.module)):
        if result.problem or everything or not result.is_enough:
            lines.append(f"{result.percent:5.1f} %  {result.module}")
            if not result.is_enough and result.failure is None:
                lines.append(f"         lines not executed: {ranges(result.missing)}")
            if result.reason:
                lines.append(f"         {result.reason}")
            if result.problem:
                lines.append(f"         ! {result.test.relative_to(source.ROOT)} {result.problem}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="The coverage of modules by their own tests.")
    parser.add_argument("modules", nargs="*", help='such as "_nursery.scope"; default: all')
    parser.add_argument("--all", action="store_true", help="show modules with enough as well")
    arguments = parser.parse_args()

    modules = measured(source.modules().values())
    if arguments.modules:
        strangers = set(arguments.modules) - {module.name for module in modules}
        if strangers:
            parser.error(f"there is no module {', '.join(sorted(strangers))}")
        modules = [module for module in modules if module.name in arguments.modules]
    pairs = [(module, test_file(module, source.ROOT / "tests")) for module in modules]
    untested = [module.name for module, test in pairs if test is None]

    with ThreadPoolExecutor(os.cpu_count()) as workers:
        waiting = [workers.submit(measure, m, test) for m, test in pairs if test is not None]
        results = [future.result() for future in waiting]

    everything = arguments.all or bool(arguments.modules)
    print(table(results, everything))
    for name in untested:
        print(f"{name}: has no test file of its own")
    below = sum(not result.is_enough for result in results)
    problems = sum(result.problem is not None for result in results) + len(untested)
    print(f"\n{len(modules)} modules, {below} below {ENOUGH:g} %, {problems} to look at")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
