"""Which lines of the C file the tests execute: ``python -m harness.c_coverage [ARGUMENT...]``.

In ``tests``, or ``make coverage-c``. A copy of the package is compiled with gcov's counters. The
programs that compare both builds run on it, and then pytest with the arguments (without any: the
tests of the rooms that have functions in C). What stays is printed with its lines.

Processes that end by ``os._exit`` leave no counts. So the runs of ``call_injection`` are not
counted.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from . import c_build, source

ROOMS = ("tests/nursery", "tests/core", "tests/sync")
LINE = re.compile(r" *(#####|=====|-|\d+\*?): *(\d+):(.*)")


def lines_of(report: str) -> list[tuple[bool, int, str]]:
    """The lines of gcov's report that have code: whether it was executed, number and text."""
    found = [LINE.match(text) for text in report.splitlines()]
    return [
        (match[1] not in ("#####", "====="), int(match[2]), match[3])
        for match in found
        if match and match[1] != "-"
    ]


def main(arguments: list[str]) -> int:
    """The command."""
    reason = c_build.why_not()
    if reason is None and shutil.which("gcov") is None:
        reason = "needs gcov"
    if reason is not None:
        print(f"skipped: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        c_build.copy_into(folder, ["-O0", "-g", "--coverage"])
        environment = {**c_build.in_copy(folder), "NURSERYIO_EXPECT_COMPILED": "1"}
        for module in ("both_blocks", "both_builds", "both_runners", "both_streams", "both_waits"):
            subprocess.run(
                [sys.executable, "-W", "ignore", "-m", f"harness.{module}"],
                env=environment,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        command = [sys.executable, "-m", "pytest", "-q", "--matrix=quick", "-p", "no:cacheprovider"]
        tests = subprocess.run(
            [*command, *(arguments or ROOMS)], env=environment, cwd=source.ROOT
        ).returncode
        package = folder / "nurseryio"
        data = next(package.glob("*.gcda")).name
        subprocess.run(["gcov", data], cwd=package, check=True, stdout=subprocess.DEVNULL)
        report = (package / "_speedups.c.gcov").read_text(encoding="utf-8")
    lines = lines_of(report)
    for executed, number, text in lines:
        if not executed:
            print(f"{number}: {text}")
    executed_lines = sum(executed for executed, _, _ in lines)
    print(f"{executed_lines} of {len(lines)} lines executed ({executed_lines / len(lines):.1%})")
    return tests


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
