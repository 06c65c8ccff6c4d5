"""The support table of ``docs/releases.md``, made of what ``.ci/run`` has run.

    python tests/harness/support_table.py [SUMMARY]

reads the summary of the last run (``.ci-venv/summary``), and replaces the table between the two
marks in the page. A row is an environment whose tests have passed. A part that was skipped or has
failed is an error, so the table never promises what was not run.
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/releases.md"
BEGIN, END = "<!-- support table: made by tests/harness/support_table.py -->", "<!-- end -->"

LINE = re.compile(r"^(?P<name>.+?) +(?P<seconds>\d+) s  (?P<verdict>.+)$")
TESTS = re.compile(r"^(?P<environment>\S+): tests (?P<arguments>.*)$")


def rows(summary: str) -> list[tuple[str, str, str]]:
    """The rows of the table: Python, event loops, tests.

    Args:
        summary: The summary of a run of ``.ci/run``.

    Raises:
        ValueError: A part has failed or was skipped.
    """
    found: dict[tuple[str, str, str], None] = {}
    for line in summary.splitlines():
        parts = LINE.match(line)
        if parts is None:
            raise ValueError(f"not a line of a summary: {line!r}")
        name, verdict = parts["name"], parts["verdict"]
        if verdict != "ok":
            raise ValueError(f"{name}: {verdict}")
        tests = TESTS.match(name)
        if tests is not None:
            found[_row(tests["environment"], tests["arguments"])] = None
        elif name.startswith("Pyodide "):
            found[name, "the page's own", "cross-section"] = None
    return sorted(found, key=_order)


def _row(environment: str, arguments: str) -> tuple[str, str, str]:
    version, _, rest = environment.partition("-")
    if rest == "loops":
        return (f"CPython {version}", "[of other packages](loops.md)", "cross-section")
    if rest == "compiled":
        return (f"CPython {version}", "asyncio's own, uvloop", "the engine, on the compiled build")
    if environment == "pypy":
        return ("PyPy 3.11", "asyncio's own", "those of the engine")
    if rest == "everything":
        rest = ""
    which = "all but the slowest" if "--brief" in arguments else "all"
    extent = "part of the loop matrix"
    if "--matrix=full" in arguments:
        extent = "full loop matrix"
    elif "--matrix=ci" in arguments:
        extent = "full loop matrix, costly ones on part of it"
    anyio = f", with {rest.replace('-', ' ')}" if rest else ""
    return (f"CPython {version}", "asyncio's own, uvloop", f"{which}, {extent}{anyio}")


def _order(row: tuple[str, str, str]) -> tuple[object, ...]:
    name, _, version = row[0].partition(" ")
    numbers = [-int(number) for number in re.findall(r"\d+", version)]
    return (["CPython", "PyPy", "Pyodide"].index(name), numbers, row[1], row[2])


def table(found: list[tuple[str, str, str]], system: str) -> str:
    """The table as Markdown."""
    lines = ["| Python | system | event loops | tests in CI |", "|---|---|---|---|"]
    for python, loops, tests in found:
        where = "WebAssembly, under node" if python.startswith("Pyodide") else system
        lines.append(f"| {python} | {where} | {loops} | {tests} |")
    return "\n".join(lines)


def main() -> None:
    """Replace the table in the page."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".ci-venv/summary"
    made = table(
        rows(path.read_text(encoding="utf-8")), f"{platform.system()} {platform.machine()}"
    )
    page = PAGE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE} does not have the two marks of the table")
    PAGE.write_text(f"{before}{begin}\n\n{made}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
