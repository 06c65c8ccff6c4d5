"""The tests of packages that were written for Trio, run on nurseryio in Trio's place.

    python tests/harness/packages.py [--trio] [--folder FOLDER] [--markdown] [PACKAGE ...]

This module gets the source of each package from the package index, installs it with its tests'
requirements in an environment, runs the tests by ``python -m nurseryio -m pytest``, and
prints a table. No Trio is installed in that environment. ``--trio`` runs the same tests on the real
Trio, for comparison. The list of packages, and the tests that are expected to fail, each with its
reason, are in ``packages.toml``. `make packages` runs it. It is not a part of the tests or of CI.

A row fails if a test fails that is not expected to, and if one passes that is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tomllib

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).with_suffix(".toml")
TRIO = "trio==0.35.0"
# One run of pytest may take this long, in seconds.
LIMIT = 900


@dataclass
class Package:
    """One entry of the data file."""

    name: str
    version: str
    tests: list[str]
    requires: list[str] = field(default_factory=list)
    expected: dict[str, str] = field(default_factory=dict)
    # The same for tests whose result depends on the machine.
    machine: dict[str, str] = field(default_factory=dict)
    # pytest-trio does not work with pytest 9.
    pytest: str = "pytest>=8.4,<9"

    def reason(self, test: str) -> str | None:
        """The reason why a test is expected to fail; None if it is not."""
        reasons = {**self.expected, **self.machine}
        return next((why for part, why in reasons.items() if part in test), None)


@dataclass
class Row:
    """The result of one package."""

    package: Package
    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def unexpected(self) -> list[str]:
        """The tests that failed without a reason in the data file."""
        return [test for test in self.failed if self.package.reason(test) is None]

    @property
    def unneeded(self) -> list[str]:
        """The entries of the data file that no failure needs."""
        return [part for part in self.package.expected if not any(part in t for t in self.failed)]

    def cells(self) -> list[str]:
        """The row of the table."""
        reasons = dict.fromkeys(filter(None, map(self.package.reason, self.failed)))
        note = self.problem or "; ".join(reasons)
        counts = [str(self.passed), str(len(self.failed)), str(self.skipped)]
        return [self.package.name, self.package.version, *counts, note]


def load(names: Iterable[str]) -> list[Package]:
    """The packages of the data file with these names, or all."""
    data: dict[str, dict[str, Any]] = tomllib.loads(DATA.read_text(encoding="utf-8"))
    unknown = set(names) - set(data)
    if unknown:
        raise SystemExit(f"{DATA.name} has no package {', '.join(sorted(unknown))}")
    wanted = set(names) or set(data)
    return [Package(name, **entry) for name, entry in data.items() if name in wanted]


def test(package: Package, folder: Path, python: Path, on_trio: bool) -> Row:
    """Run the tests of a package. What fails before them is the row's problem."""
    row = Row(package)
    try:
        place = folder / package.name
        place.mkdir(exist_ok=True)
        source = _source(package, place, python)
        report = place / "report.xml"
        report.unlink(missing_ok=True)
        launcher = [] if on_trio else ["-m", "nurseryio"]
        # Each package brings its own way to run async tests.
        options = ["-p", "no:nurseryio", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command = [str(python), *launcher, "-m", "pytest", *options, *package.tests]
        done = _run(command, place / "pytest.log", cwd=source, limit=LIMIT)
        if report.exists():
            _read(report, row)
        if done not in (0, 1) or not report.exists():
            row.problem = f"pytest ended with {done}: see {place / 'pytest.log'}"
    except (subprocess.SubprocessError, OSError) as error:
        row.problem = f"{error}"
    return row


def _run(command: list[str], log: Path, cwd: Path, limit: float) -> int:
    """Run a command with its output in a file. Returns its exit status."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL_ENV"))
    }
    with log.open("w") as output:
        return subprocess.run(
            command,
            cwd=cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=limit,
            check=False,
        ).returncode


def _pip(python: Path, place: Path, *arguments: str) -> None:
    log = place / "pip.log"
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    status = _run(command, log, cwd=place, limit=LIMIT)
    if status:
        lines = log.read_text(errors="replace").strip().splitlines() or [""]
        raise OSError(f"pip {arguments[0]} failed: {lines[-1]}")


def make_environment(pytest: str, packages: list[Package], folder: Path, on_trio: bool) -> Path:
    """Make an environment with packages, a pytest, and the library. Returns its Python."""
    name = "".join(filter(str.isalnum, pytest))
    home = folder / f"{name}-{'trio' if on_trio else 'nurseryio'}"
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not home.exists():
        venv.create(home, with_pip=True)
    wanted = [f"{package.name}=={package.version}" for package in packages]
    needed = sorted({need for package in packages for need in package.requires})
    # The other packages come with Trio, and some rely on that.
    library = [TRIO] if on_trio else [str(ROOT), "sniffio", "outcome", "sortedcontainers", "attrs"]
    _pip(python, folder, "install", pytest, *wanted, *needed, *library)
    if not on_trio:
        _pip(python, folder, "install", "--force-reinstall", "--no-deps", str(ROOT))
        _pip(python, folder, "uninstall", "--yes", "trio")
    return python


def _source(package: Package, place: Path, python: Path) -> Path:
    """Download and unpack the source of a package. Returns its folder."""
    downloads = place / "source"
    if not downloads.exists():
        wanted = f"{package.name}=={package.version}"
        # Not ":all:", which would build the package's build system from source as well.
        options = ["--no-deps", "--no-binary", package.name, "--dest", str(downloads)]
        _pip(python, place, "download", *options, wanted)
        [archive] = downloads.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(downloads, filter="data")
    [source] = (entry for entry in downloads.iterdir() if entry.is_dir())
    return source


def _read(report: Path, row: Row) -> None:
    """Count the results in pytest's report."""
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            row.failed.append(f"{case.get('classname')}.{case.get('name')}")
        elif "skipped" in kinds:
            row.skipped += 1
        else:
            row.passed += 1


def main() -> None:
    """Print the table. The exit status is 1 if a row fails."""
    parser = argparse.ArgumentParser(description="Run the tests of packages written for Trio.")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")
    parser.add_argument("--trio", action="store_true", help="on the real Trio, for comparison")
    parser.add_argument("--folder", type=Path, help="keep environments, sources and logs there")
    parser.add_argument("--markdown", action="store_true", help="print the rows for the docs")
    options = parser.parse_args()
    fails = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        packages = sorted(load(options.packages), key=attrgetter("pytest"))
        pythons = {
            pytest: make_environment(pytest, [*users], folder, options.trio)
            for pytest, users in groupby(packages, attrgetter("pytest"))
        }
        for package in packages:
            row = test(package, folder, pythons[package.pytest], options.trio)
            cells = row.cells()
            if options.markdown:
                print("|", " | ".join(cells), "|", flush=True)
            else:
                counts = "{:16} {:9} {:>5} passed {:>4} failed {:>4} skipped  {}"
                print(counts.format(*cells), flush=True)
            if options.trio:
                continue
            for name in row.unexpected:
                print("    fails:", name)
            for part in [] if row.problem else row.unneeded:
                print("    passes, and is expected to fail:", part)
            fails = fails or bool(row.problem or row.unexpected or row.unneeded)
    sys.exit(fails)


if __name__ == "__main__":
    main()
