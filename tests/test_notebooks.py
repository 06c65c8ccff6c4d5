"""Notebooks: the cells of the documentation, in a loop that keeps running and in a kernel."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest
from harness import matrix, notebooks, programs, source

PAGE = source.ROOT / "docs" / "notebooks.md"
KERNEL = Path(__file__).with_name("wild_programs") / "with_ipykernel.py"

needs_kernel = pytest.mark.skipif(
    importlib.util.find_spec("ipykernel") is None,
    reason="needs ipykernel: python -m pip install '.[wild]'",
)


@pytest.mark.parametrize("kind", list(matrix.KINDS))
def test_the_notebook_cells_of_the_documentation_print_what_it_says(kind: str) -> None:
    loop = matrix.new_loop(kind)
    try:
        notebook = notebooks.Notebook(loop)
        for cell in notebooks.cells(PAGE):
            assert notebook.run(cell.code) == cell.prints, cell.code
        assert not asyncio.all_tasks(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def test_each_cell_of_the_documentation_is_on_the_page_about_notebooks() -> None:
    marked = {page for page in (source.ROOT / "docs").rglob("*.md") if notebooks.cells(page)}
    assert marked == {PAGE}
    assert len(notebooks.cells(PAGE)) == PAGE.read_text(encoding="utf-8").count("<!-- cell -->")


@needs_kernel
@pytest.mark.limit(120)
def test_a_jupyter_kernel_runs_the_cells_and_survives_their_interruption() -> None:
    ended = programs.run(KERNEL, PAGE, warnings="default")
    steps = "\n".join(ended.lines)
    assert ended.returncode == 0, f"{steps}\n{ended.errors}"
    assert steps.count(": ok") == len(ended.lines) > 0, f"{steps}\n{ended.errors}"
