"""Failure injection: whatever is raised at a line of the core, no hang, no spin, no lost error.

A bounded part of the runs of ``harness/injection.py``; ``make injection`` makes all of them. The
harness forks, so it runs in a separate process.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import injection, injection_flaws, injection_lines
from harness.injection_programs import PROGRAMS

import nurseryio

TESTS = Path(__file__).parent
PATHS = [str(TESTS), str(Path(nurseryio.__file__).parents[1])]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run_harness(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m`` with these arguments."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *arguments],
        # The lines are those of the pure build.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), "NURSERYIO_PURE": "1"},
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.limit(300)
def test_exception_injection_at_a_sample_of_lines_breaks_nothing() -> None:
    done = run_harness("harness.injection", "--sample", "--quiet", "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr


@functools.cache
def flaws() -> list[dict[str, Any]]:
    """The result of the harness for the programs with flaws."""
    done = run_harness("harness.injection_flaws")
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", [run.__name__ for run, *_ in injection_flaws.FLAWS])
def test_exception_injection_finds_a_planted_flaw(name: str) -> None:
    found = [result for result in flaws() if result["flaw"] == name]
    if name == "request_is_left" and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 does not count cancel requests")
    assert found
    for result in found:
        assert result["kind"] in result["found"], result


def test_each_entry_of_the_injection_short_list_names_a_line_of_the_core() -> None:
    assert injection.unknown_entries() == []


def test_injected_occurrences_hold_the_first_the_second_and_the_last() -> None:
    chosen = injection.random.Random(1)
    assert injection.occurrences(1, chosen) == [1]
    assert injection.occurrences(2, chosen) == [1, 2]
    assert injection.occurrences(3, chosen) == [1, 2, 3]
    found = injection.occurrences(100, chosen)
    assert found[:2] == [1, 2] and found[-1] == 100 and len(found) in (3, 4)


def test_an_injected_line_is_named_by_its_module_function_and_text() -> None:
    file = "_nursery/scope.py"
    text = "self._entered = True"
    number = next(
        number
        for number, line in enumerate(injection_lines.source_lines(file), 1)
        if line.strip() == text and injection_lines.function_at(file, number)
    )
    line = injection_lines.Line(file, 1, "__enter__", number)
    assert line.key == f"scope:CancelScope.__enter__:{text}"


def test_every_injection_program_has_a_case() -> None:
    assert all(program.cases for program in PROGRAMS.values())
