"""Programs of the documentation that run in its pages: which ones, and the files that they need.

``docs/_ext/page_bundle.py`` and ``docs/_ext/run_in_page.py`` are tested without a browser here.
``test_site.py`` presses the buttons.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from harness import source, web_site

import nurseryio

page_bundle = web_site.page_bundle

needs_sphinx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in web_site.NEEDED),
    reason="needs Sphinx: python -m pip install '.[docs]'",
)

RUNS = "async def main():\n    await nurseryio.sleep(0)\n\nnurseryio.run(main)\n"


def test_a_program_without_anything_that_a_page_lacks_runs_in_a_page() -> None:
    assert page_bundle.lacking(f"import nurseryio\n{RUNS}") == ""
    assert page_bundle.lacking("import asyncio\nawait asyncio.sleep(0)\n") == ""


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("import threading\n" + RUNS, "threads"),
        ("from nurseryio import to_thread\n" + RUNS, "threads"),
        ("stream = await nurseryio.open_tcp_stream('a', 1)\n", "sockets"),
        ("nurseryio.run(main, clock=MyClock())\n", "a loop of the program's own"),
        ("anyio.run(main)\n", "a loop of the program's own"),
        ("import httpx.mock\nprint(httpx)\n", "packages"),
        ("await open_process(['ls'])\n", "processes"),
    ],
)
def test_a_program_that_needs_what_a_page_lacks_has_no_run_button(text: str, part: str) -> None:
    assert page_bundle.lacking(text) == part


def test_a_program_that_only_defines_things_has_no_run_button() -> None:
    text = '"""A module."""\nimport nurseryio\n\nLIMIT = 3\n\nasync def test_it():\n    pass\n'
    assert page_bundle.lacking(text) == "anything to run"


def test_each_function_that_the_page_on_browsers_says_to_be_refused_takes_the_run_button() -> None:
    page = (source.ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
    table = page.partition("| A page has no |")[2].partition("\n\n")[0]
    rows = [row.split("|")[2] for row in table.splitlines()[2:]]
    names = {name for row in rows for name in re.findall(r"`([\w.]+)`", row)}
    names -= {"nurseryio.socket", "tcp", "unix"}  # parts of descriptions
    assert len(names) > 10
    assert not [name for name in names if page_bundle.NAMES.keys().isdisjoint(name.split("."))]


def test_each_function_that_refuses_to_work_without_a_part_takes_the_run_button() -> None:
    public = {name for name in dir(nurseryio) if not name.startswith("_")}
    names = set()
    for file in sorted((source.ROOT / "nurseryio").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                marks = [ast.unparse(mark) for mark in node.decorator_list]
                if any(mark.startswith("needs(") for mark in marks):
                    names.add(node.name)
    assert len(names & public) > 10
    assert names & public <= page_bundle.NAMES.keys()


def test_makefile_and_ci_install_the_release_of_pyodide_that_the_pages_run() -> None:
    makefile = (source.ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"PYODIDE ?= {page_bundle.PYODIDE}\n" in makefile
    runner = source.ROOT / ".ci" / "run"
    assert f'PYODIDES="{page_bundle.PYODIDE} ' in runner.read_text(encoding="utf-8")
    hosted = (source.ROOT / ".readthedocs.yaml").read_text(encoding="utf-8")
    assert f"pyodide@{page_bundle.PYODIDE}" in hosted


def package(folder: Path, version: str) -> None:
    folder.mkdir()
    for name in page_bundle.FILES:
        (folder / name).write_text(f"the file {name}")
    (folder / "package.json").write_text(json.dumps({"version": version}))


def test_another_release_of_pyodide_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(page_bundle.VARIABLE, str(tmp_path / "pyodide"))
    assert "npm package" in page_bundle.why_not()
    package(tmp_path / "pyodide", "0.0.1")
    assert page_bundle.why_not().endswith("has 0.0.1")


def test_the_archive_of_packages_is_the_same_each_time_and_has_the_version() -> None:
    archives = [io.BytesIO(), io.BytesIO()]
    for archive in archives:
        page_bundle.pack(archive)
    assert archives[0].getvalue() == archives[1].getvalue()
    names = zipfile.ZipFile(archives[0]).namelist()
    assert {"nurseryio/_run/page_run.py", "anyio/__init__.py", "idna/core.py"} <= set(names)
    assert "nurseryio/_telemetry/timeline.html" in names
    assert [name for name in names if re.fullmatch(r"nurseryio-[\d.]+\.dist-info/METADATA", name)]


PAGE = """\
# A page

```{playground}
```

```python
print("runs")
```

<!-- no-page: says why -->
```python
print("does not")
```

```python
import threading
print("cannot")
```

<!-- page-run: print(greet("you & me")) -->
```{literalinclude} program.py
:pyobject: greet
```

```{only} run_in_page
with buttons
```
"""
FILE = """\
import sys


def greet(name):
    return f"hello {name}"


if __name__ == "__main__":
    print(greet("<world>"))
"""


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """The source of a small site with these extensions."""
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "index.md").write_text(PAGE)
    (folder / "program.py").write_text(FILE)
    path = str(source.ROOT / "docs" / "_ext")
    (folder / "conf.py").write_text(
        f"import sys; sys.path.append({path!r})\nextensions = ['myst_parser', 'run_in_page']\n"
    )
    return folder


@needs_sphinx
def test_a_program_that_can_run_in_a_page_gets_a_run_button_and_its_files(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path / "pyodide", page_bundle.PYODIDE)
    monkeypatch.setenv(page_bundle.VARIABLE, str(tmp_path / "pyodide"))
    web_site.build(tmp_path, pages, "-q", "-W")
    page = (tmp_path / "html" / "index.html").read_text()
    assert re.findall(r'<div class="runnable"([^>]*)>', page) == [
        ' data-file="program.py"',
        ' data-file="program.py" data-before="import sys\n\n\n" data-after="\n\n\n'
        "if __name__ == &quot;__main__&quot;:\n    print(greet(&quot;&lt;world&gt;&quot;))\n"
        '" data-call="print(greet(&quot;you &amp; me&quot;))"',
    ]
    assert page.count('class="playground"') == 1
    assert "with buttons" in page
    assert "run/run.mjs" in page and "run/run.css" in page
    files = tmp_path / "html" / "_static" / "run"
    names = json.loads((files / "bundle.json").read_text())
    assert (files / names["pyodide"] / "pyodide.mjs").read_text() == "the file pyodide.mjs"
    assert "examples/tasks_intro.py" in zipfile.ZipFile(files / names["packages"]).namelist()


@needs_sphinx
def test_without_pyodide_the_page_is_as_it_would_be_without_run_buttons(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(page_bundle.VARIABLE, str(tmp_path / "nowhere"))
    said = web_site.build(tmp_path, pages, "-W")
    assert [line for line in said.splitlines() if "Run button" in line] == [
        f"The pages have no Run buttons: this {page_bundle.why_not()}"
    ]
    page = (tmp_path / "html" / "index.html").read_text()
    for word in ("runnable", "playground", "with buttons", "run.mjs"):
        assert word not in page
    assert not (tmp_path / "html" / "_static" / "run").exists()


@needs_sphinx
def test_all_pages_are_written_again_when_pyodide_appears(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(page_bundle.VARIABLE, str(tmp_path / "pyodide"))
    web_site.build(tmp_path, pages, "-q", "-W")
    package(tmp_path / "pyodide", page_bundle.PYODIDE)
    web_site.build(tmp_path, pages, "-q", "-W")
    assert 'class="runnable"' in (tmp_path / "html" / "index.html").read_text()
