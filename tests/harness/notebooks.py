"""The cells of a page of the documentation, and a runner that executes them as a kernel does.

A cell is a Python block behind ``<!-- cell -->``. All cells of a page share one namespace and one
loop. A kernel of ipykernel runs the same cells in ``wild_programs/with_ipykernel.py``.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CELL = re.compile(
    r"^<!-- cell -->\n```python\n(?P<code>.*?)^```$"
    r"(?:\n+<!-- prints -->\n```text\n(?P<prints>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Cell:
    """A cell, and what it prints."""

    code: str
    prints: str


def cells(page: Path) -> list[Cell]:
    """The cells of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Cell(found["code"], found["prints"] or "") for found in CELL.finditer(text)]


class Notebook:
    """Runs cells one after another on a loop: each cell with an ``await`` is a task."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def run(self, code: str) -> str:
        """Run a cell to its end, and return what was printed meanwhile."""

        async def cell() -> None:
            # Every cell is run while the loop runs; a coroutine is what a cell with "await" makes.
            result = eval(compiled, self.names)
            if inspect.iscoroutine(result):
                await asyncio.ensure_future(result)

        compiled = compile(code, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            self.loop.run_until_complete(cell())
        return printed.getvalue()
