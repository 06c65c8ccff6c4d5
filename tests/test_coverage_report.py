"""The report of coverage finds each module's test file, and says what is missing in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import coverage_report, source
from harness.coverage_report import Result
from harness.source import Module

REASON = "# Covered below 95 %: the rest runs\n# on 3.10 alone.\n"


def result(percent: float, *, reason: str | None = None, failure: str | None = None) -> Result:
    test = source.ROOT / "tests/test_it.py"
    return Result("_core.it", test, percent, (3, 4, 5, 9), reason, failure)


def test_each_module_of_a_room_is_measured_and_has_a_test_file() -> None:
    modules = coverage_report.measured(source.modules().values())
    names = {module.name for module in modules}
    assert "testing.clock" in names
    assert not {"", "aio", "__main__", "_core"} & names
    tests = source.ROOT / "tests"
    assert not [m.name for m in modules if coverage_report.test_file(m, tests) is None]


def test_a_test_file_in_the_folder_of_its_room_comes_first(tmp_path: Path) -> None:
    module = Module("_tls.stream", source.PACKAGE / "_tls/stream.py")
    assert coverage_report.test_file(module, tmp_path) is None
    flat, mirrored = tmp_path / "test_stream.py", tmp_path / "tls/test_stream.py"
    flat.touch()
    assert coverage_report.test_file(module, tmp_path) == flat
    mirrored.parent.mkdir()
    mirrored.touch()
    assert coverage_report.test_file(module, tmp_path) == mirrored


def test_a_coverage_reason_is_read_from_the_comment_in_the_test_file() -> None:
    assert coverage_report.reason_in(f'"""It."""\n\n{REASON}\nimport x\n') == (
        "the rest runs on 3.10 alone."
    )
    assert coverage_report.reason_in('"""It."""\n# Covered well.\n') is None


def test_a_module_below_the_coverage_threshold_needs_a_reason_and_one_above_does_not() -> None:
    assert "no reason" in str(result(94.9).problem)
    assert result(94.9, reason="3.10").problem is None
    assert result(95.0).problem is None
    assert "not needed" in str(result(95.0, reason="3.10").problem)


def test_failing_tests_are_a_problem_whatever_their_coverage() -> None:
    assert "boom" in str(result(0.0, reason="3.10", failure="boom").problem)


def test_the_coverage_table_names_modules_below_the_threshold_with_lines_and_reason() -> None:
    shown = coverage_report.table([result(90.0, reason="3.10"), result(99.0)], everything=False)
    assert shown == " 90.0 %  _core.it\n         lines not executed: 3-5, 9\n         3.10"
    assert " 99.0 %" in coverage_report.table([result(99.0)], everything=True)


def test_one_module_is_measured_by_its_own_test_file() -> None:
    pytest.importorskip("coverage", reason="comes with the extra dev")
    (module,) = (m for m in source.modules().values() if m.path.stem == "outcome")
    test = coverage_report.test_file(module, source.ROOT / "tests")
    assert test is not None
    measured = coverage_report.measure(module, test)
    assert measured.failure is None
    assert measured.percent > 50
