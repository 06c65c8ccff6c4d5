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
from harness import source

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
    reference = {path.stem for path in (source.ROOT / "docs/reference").glob("*.md")}
    assert set(listed) == reference - {"nurseryio"}
