"""The runner of other packages' tests: its data, and its verdict on a report of pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tomllib")  # Python 3.11 or later

from harness import packages

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_good" />
<testcase classname="tests.a" name="test_skipped"><skipped /></testcase>
<testcase classname="tests.a" name="test_known"><failure /></testcase>
<testcase classname="tests.a" name="test_new"><error /></testcase>
</testsuite></testsuites>"""


def test_the_list_of_packages_names_a_version_and_tests_of_each() -> None:
    found = packages.load([])
    assert found
    for package in found:
        assert package.version[0].isdigit()
        assert package.tests
        assert all(len(reason) > 10 for reason in package.expected.values())


def test_a_name_that_is_not_in_the_list_of_packages_is_refused() -> None:
    [jeepney] = packages.load(["jeepney"])
    assert jeepney.name == "jeepney"
    with pytest.raises(SystemExit, match="no package no-such-package"):
        packages.load(["jeepney", "no-such-package"])


def test_failures_of_a_package_without_a_reason_and_reasons_without_a_failure_are_named(
    tmp_path: Path,
) -> None:
    (tmp_path / "report.xml").write_text(REPORT, encoding="utf-8")
    expected = {"test_known": "looks at a text", "test_gone": "was mended"}
    row = packages.Row(packages.Package("package", "1.0", ["tests"], expected=expected))
    packages._read(tmp_path / "report.xml", row)
    assert (row.passed, row.skipped) == (1, 1)
    assert row.unexpected == ["tests.a.test_new"]
    assert row.unneeded == ["test_gone"]
    assert row.cells() == ["package", "1.0", "1", "2", "1", "looks at a text"]
