"""README's comparison of asyncio, anyio, Trio and nurseryio is true, cell by cell.

The lines on behaviour are found by `comparison_program.py`, in a process for each library. Those
with figures are made from the tables of the page on performance. The others are looked up in the
metadata of the packages.

Trio is not needed by any other test. Where it is not installed, its cells are not checked.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import source
from packaging.requirements import Requirement

if sys.version_info < (3, 11):
    pytest.skip("asyncio has no TaskGroup here", allow_module_level=True)
if str(source.ROOT) not in sys.path:
    sys.path.insert(0, str(source.ROOT))

from benchmarks import opening, readme
from benchmarks.published import Page

LIBRARIES = ("asyncio", "anyio", "trio", "nurseryio")
PROGRAM = Path(__file__).with_name("comparison_program.py")
LINE = re.compile(
    r"^\| \[(?P<title>[^\]]+)\]\((?P<link>[^)]+)\) \| (?P<cells>.+) \|$", re.MULTILINE
)

README = (source.ROOT / "README.md").read_text(encoding="utf-8")
COMPARISON = README.partition("## Why this one")[2].partition("\n## ")[0]
LINES = {found["title"]: found["cells"].split(" | ") for found in LINE.finditer(COMPARISON)}

each_library = pytest.mark.parametrize(
    "library",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                importlib.util.find_spec(name) is None, reason=f"needs {name}"
            ),
        )
        for name in LIBRARIES
    ],
)


def cell(title: str, library: str) -> str:
    return LINES[title][LIBRARIES.index(library)]


# -- what happens ---------------------------------------------------------------------


@functools.cache
def behaviour(library: str) -> dict[str, str]:
    """What the probes have found for one library."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), library],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@each_library
def test_the_comparison_says_what_the_probes_of_a_library_find(library: str) -> None:
    found = behaviour(library)
    assert found
    for title, text in found.items():
        if not text.startswith("not checked"):
            assert (title, text) == (title, cell(title, library))


EXIT = {
    "asyncio": """
import asyncio as lib, sys
async def main():
    async with lib.TaskGroup() as tasks:
        tasks.create_task(sibling())
        await lib.sleep(0)
        tasks.create_task(leave())
""",
    "anyio": """
import anyio as lib, sys
async def main():
    async with lib.create_task_group() as tasks:
        tasks.start_soon(sibling)
        await lib.sleep(0)
        tasks.start_soon(leave)
""",
    "trio": """
import trio as lib, sys
async def main():
    async with lib.open_nursery() as tasks:
        tasks.start_soon(sibling)
        await lib.sleep(0)
        tasks.start_soon(leave)
""",
}
EXIT["nurseryio"] = EXIT["trio"].replace("trio", "nurseryio")
EXIT_END = """
async def leave():
    sys.exit(3)
async def sibling():
    await lib.sleep(60)
lib.run(main() if lib.__name__ == "asyncio" else main)
"""


@each_library
def test_sys_exit_in_a_task_has_the_exit_code_that_the_comparison_says(library: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXIT[library] + EXIT_END],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    traceback = ", a traceback" if done.stderr else ""
    assert cell("`sys.exit(3)` in a task", library) == f"code {done.returncode}{traceback}"


# -- what it costs --------------------------------------------------------------------


def test_the_figures_of_the_comparison_are_those_of_the_page_on_performance() -> None:
    page = Page((source.ROOT / "docs/benchmarks.md").read_text(encoding="utf-8"))
    for index in range(len(opening.LINES)):
        line = readme.line(page, index)
        assert line in README, f"not in README; run `python -m benchmarks --again`: {line}"


@each_library
def test_the_comparison_counts_the_packages_that_a_library_brings(library: str) -> None:
    here = {"python_version": "3.13", "extra": "", "os_name": "posix"}
    needs = [] if library == "asyncio" else importlib.metadata.requires(library) or []
    wanted = [Requirement(text) for text in needs]
    count = sum(each.marker is None or each.marker.evaluate(here) for each in wanted)
    assert cell("Packages that it brings", library) == (str(count) if count else "none")


@each_library
def test_the_comparison_names_the_oldest_python_of_a_library(library: str) -> None:
    oldest = ">=3.11"  # the first one with TaskGroup
    if library != "asyncio":
        oldest = importlib.metadata.metadata(library)["Requires-Python"]
    assert cell("Python", library) == f"{oldest.removeprefix('>=')} and later"


def classifiers(library: str) -> list[str]:
    return importlib.metadata.metadata(library).get_all("Classifier") or []


@each_library
def test_the_comparison_says_which_library_supports_windows(library: str) -> None:
    if library == "asyncio":
        supported = importlib.util.find_spec("asyncio.windows_events") is not None
    elif library == "anyio":  # no classifier, but code for it
        backend = importlib.util.find_spec("anyio._core._sockets")
        assert backend is not None and backend.origin is not None
        supported = 'sys.platform == "win32"' in Path(backend.origin).read_text(encoding="utf-8")
    else:
        supported = any("Windows" in each for each in classifiers(library))
    assert cell("Windows", library) == ("yes" if supported else "not yet")


@each_library
def test_the_comparison_has_the_status_that_a_library_gives_itself(library: str) -> None:
    if library == "asyncio":
        assert library in sys.stdlib_module_names
        assert cell("Status", library) == "standard library"
        return
    (status,) = [each for each in classifiers(library) if each.startswith("Development Status")]
    words = status.rpartition(" - ")[2].partition("/")[0].lower()
    assert cell("Status", library) == words


# -- the table itself -------------------------------------------------------------------


def test_each_line_of_the_comparison_is_checked_here() -> None:
    checked = {line.text for line in opening.LINES} | set(behaviour("nurseryio"))
    checked |= {"`sys.exit(3)` in a task", "Packages that it brings", "Python", "Windows", "Status"}
    assert set(LINES) == checked
    assert all(len(cells) == len(LIBRARIES) for cells in LINES.values())
