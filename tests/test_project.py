"""The files for people who work on the project hold: commands, paths, versions, settings.

They are CONTRIBUTING.md, the page on releases, the Makefile, and the settings of the forge and of
the documentation's host.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import source, support_table

CONTRIBUTING = source.ROOT / "CONTRIBUTING.md"
RELEASES = source.ROOT / "docs/releases.md"
TEMPLATE = source.ROOT / ".github/ISSUE_TEMPLATE/problem.yml"
WORKFLOW = source.ROOT / ".github/workflows/ci.yml"


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def loaded(path: Path) -> Any:
    yaml = pytest.importorskip("yaml", reason="comes with the extra docs")
    return yaml.safe_load(text(path))


def each_step() -> list[dict[str, Any]]:
    return [step for job in loaded(WORKFLOW)["jobs"].values() for step in job["steps"]]


def test_each_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^(\w+):", text(source.ROOT / "Makefile"), re.MULTILINE))
    pages = [CONTRIBUTING, source.ROOT / "README.md", *(source.ROOT / "docs").rglob("*.md")]
    named = {name for page in pages for name in re.findall(r"`make (\w+)[` ]", text(page))}
    assert named <= targets
    shown = set(re.findall(r'@echo "make (\w+)', text(source.ROOT / "Makefile")))
    assert shown == targets - {"help"}


def executable(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_says_what_to_install_where_no_python_can_make_environments(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    executable(tmp_path / ".ci/pythons", "true")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(source.ROOT / name, tmp_path)
    done = subprocess.run(["make", "demo"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "with the modules venv and ensurepip" in done.stderr
    assert "apt install python3-venv" in done.stderr


@pytest.mark.parametrize(
    "program, answer, reason",
    [
        ("uname", "echo Plan9", "not on this system"),
        ("id", "echo 1000", "it is not here, and only root can get it"),
        ("unshare", "exit 1", "it is not here, and this container cannot mount"),
        ("debootstrap", "exit 1", "no Debian unstable can be had"),
    ],
)
def test_a_python_that_ci_cannot_fetch_is_skipped_with_one_line(
    tmp_path: Path, program: str, answer: str, reason: str
) -> None:
    able = {"uname": "echo Linux", "id": "echo 0", "unshare": "true"}
    for name, script in {**able, program: answer}.items():
        executable(tmp_path / name, script)
    done = subprocess.run(
        [source.ROOT / ".ci/debian", "get", "3.15", tmp_path / "root"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, f"{reason}\n")
    assert not (tmp_path / "root").exists()


def test_the_issue_template_has_a_field_for_all_that_a_bug_depends_on() -> None:
    asked = {field.get("id") for field in loaded(TEMPLATE)["body"]}
    assert {"program", "outcome", "loop", "host", "versions"} <= asked


def test_the_command_of_the_issue_template_prints_the_versions() -> None:
    block = re.search(r"^ +python -c \"(.*?)\"$", text(TEMPLATE), re.MULTILINE | re.DOTALL)
    assert block
    program = re.sub(r"\n +", "\n", block[1])
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    ).stdout
    assert sys.version in shown
    assert re.search(r"\banyio \d", shown) and re.search(r"\bnurseryio \d", shown)


def test_ci_runs_the_same_checks_as_a_developer() -> None:
    assert {"run": ".ci/run"} in each_step()


def test_ci_runs_on_each_supported_python() -> None:
    declared = set(re.findall(r'Python :: (3\.\d+)"', text(source.ROOT / "pyproject.toml")))
    listed = [step["with"]["python-version"] for step in each_step() if "with" in step]
    assert set(listed[0].split()) == declared
    # A version without quotes is a number, and 3.10 is 3.1 then.
    jobs = loaded(WORKFLOW)["jobs"].values()
    for cell in [
        c for j in jobs for c in j.get("strategy", {}).get("matrix", {}).get("include", [])
    ]:
        assert cell["python"] in declared


def test_readthedocs_builds_the_documentation_with_the_same_settings() -> None:
    settings = loaded(source.ROOT / ".readthedocs.yaml")
    assert (source.ROOT / settings["sphinx"]["configuration"]).exists()
    assert settings["sphinx"]["fail_on_warning"]
    assert settings["python"]["install"][0]["extra_requirements"] == ["docs"]


def test_the_release_of_trio_that_is_followed_is_the_recorded_one() -> None:
    record = json.loads(text(source.ROOT / "docs/_ext/trio_names.json"))["release"]
    named = set(re.findall(r"Trio (\d+\.\d+)", text(RELEASES)))
    assert named == {record.removesuffix(".0")}


def test_the_page_of_releases_lists_the_public_modules() -> None:
    listed = re.findall(r"`nurseryio\.(\w+)`", text(RELEASES).partition("## Version")[0])
    public = {name.partition(".")[0] for name in source.modules() if not name.startswith("_")}
    assert set(listed) == public - {""}


# -- the support table ---------------------------------------------------------------

SUMMARY = """\
3.14: install                      9 s  ok
3.14-everything: tests --matrix=ci --part=1/4  300 s  ok
3.14-everything: tests --matrix=ci --part=2/4  300 s  ok
3.10-anyio-4.4: tests --matrix=quick --brief  280 s  ok
3.9: tests --matrix=quick          280 s  ok
pypy: tests --matrix=quick tests/core   90 s  ok
3.13-loops: tests tests/test_foreign_loops.py   40 s  ok
3.13-compiled: tests --matrix=quick --brief tests/core   60 s  ok
Pyodide 314.0.7                     15 s  ok
"""


def test_the_support_table_has_a_row_for_each_environment_that_ci_has_tested() -> None:
    assert support_table.rows(SUMMARY) == [
        (
            "CPython 3.14",
            "asyncio's own, uvloop",
            "all, full loop matrix, costly ones on part of it",
        ),
        ("CPython 3.13", "[of other packages](loops.md)", "cross-section"),
        ("CPython 3.13", "asyncio's own, uvloop", "the engine, on the compiled build"),
        (
            "CPython 3.10",
            "asyncio's own, uvloop",
            "all but the slowest, part of the loop matrix, with anyio 4.4",
        ),
        ("CPython 3.9", "asyncio's own, uvloop", "all, part of the loop matrix"),
        ("PyPy 3.11", "asyncio's own", "those of the engine"),
        ("Pyodide 314.0.7", "the page's own", "cross-section"),
    ]


@pytest.mark.parametrize("verdict", ["FAILED (exit 1)", "skipped: it is not here"])
def test_the_support_table_refuses_a_run_in_which_something_failed_or_was_skipped(
    verdict: str,
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"3.14: {verdict}")):
        support_table.rows(f"3.14                     1 s  {verdict}\n")


def test_the_support_table_of_the_page_has_each_environment_of_ci() -> None:
    page = support_table.PAGE.read_text(encoding="utf-8")
    made = page.partition(support_table.BEGIN)[2].partition(support_table.END)[0]
    shown = {row.strip("| ").split(" | ")[0] for row in made.splitlines() if row.startswith("| ")}
    script = (source.ROOT / ".ci/run").read_text(encoding="utf-8")
    named = {
        variable: re.search(rf'^{variable}="([^"]+)"', script, re.MULTILINE)
        for variable in ("SUPPORTED", "PYODIDES")
    }
    assert named["SUPPORTED"] is not None
    assert named["PYODIDES"] is not None
    expected = {f"CPython {version}" for version in named["SUPPORTED"][1].split()}
    expected |= {f"Pyodide {release}" for release in named["PYODIDES"][1].split()}
    assert shown - {"Python"} == expected | {"PyPy 3.11"}


def test_the_python_that_gets_everything_in_ci_builds_the_published_documentation() -> None:
    script = (source.ROOT / ".ci/run").read_text(encoding="utf-8")
    everything = re.search(r"^EVERYTHING=(\S+)$", script, re.MULTILINE)
    assert everything is not None
    tools = loaded(source.ROOT / ".readthedocs.yaml")["build"]["tools"]
    assert tools["python"] == everything[1]
    page = support_table.PAGE.read_text(encoding="utf-8")
    assert re.search(rf"\| CPython {re.escape(everything[1])} \|.*\| all, full loop matrix,", page)
