"""Failure injection in the C file: whatever call fails there, no hang, no crash, no lost error.

A bounded part of the runs of ``harness/call_injection.py``; ``make injection`` makes all of them.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from harness import c_build, source

SKIP = c_build.why_not()
pytestmark = [
    pytest.mark.skipif(SKIP is not None, reason=SKIP or ""),
    pytest.mark.limit(300),
]


def run_harness(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "harness.call_injection", "--quiet", *arguments],
        cwd=source.ROOT / "tests",
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_failing_calls_of_the_c_file_at_a_sample_of_lines_break_nothing() -> None:
    done = run_harness("--sample", "--case", "run-stock", "app-stock")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 with faults" in done.stdout


# A text of the C file, and the program whose runs show that it is missing.
NEEDED = {
    "clean_up(P.scope_exit, arguments, nargs + 1);": "limits",
    "PUT(task, Task_recheck_queued, Py_False);\n            goto finish;": "limits",
}


@pytest.mark.parametrize("text", NEEDED)
def test_call_injection_finds_a_planted_flaw(text: str) -> None:
    done = run_harness("--case", "run-stock", "--program", NEEDED[text], "--without", text)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "lines with faults" in done.stdout
