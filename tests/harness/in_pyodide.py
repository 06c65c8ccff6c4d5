"""Programs in Pyodide: CPython for WebAssembly, under node, on the event loop of a web page.

This module packs the library for Pyodide and runs the program ``loop_programs/in_pyodide.py``.
``docs/_ext/page_bundle.py`` finds the package and its files. Nothing is downloaded. The library's
requirements are those of the running Python, because they are written in Python alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from . import source
from .web_site import page_bundle

PROGRAMS = source.ROOT / "tests" / "loop_programs"

# The options of node with which the engine can switch stacks; newer engines can do so without one.
SWITCHING = ("--experimental-wasm-jspi", "--experimental-wasm-stack-switching")

# The exit code of the program if the engine cannot switch stacks, and seconds that it may take.
CANNOT_SWITCH = 3
PATIENCE = 100.0


def why_not() -> str:
    """The reason why Pyodide cannot be run here; empty if it can."""
    if shutil.which("node") is None:
        return "needs node"
    if not (page_bundle.folder() / "pyodide.mjs").is_file():
        return f"needs the npm package pyodide, in node_modules or {page_bundle.VARIABLE}"
    return ""


def pack(archive: Path) -> Path:
    """Write the library and its requirements into a zip file."""
    page_bundle.pack(archive)
    return archive


def run(archive: Path, asked: str, *, switching: bool = False) -> dict[str, Any] | None:
    """Run the program, and return the values that each of its steps has printed, by its name.

    Returns:
        None if the engine was to switch stacks, and cannot.
    """
    command = ["node"]
    if switching:
        known = subprocess.run(["node", "--v8-options"], capture_output=True, text=True).stdout
        command += [option for option in SWITCHING if f"  {option} " in known][:1]
    command += [
        PROGRAMS / "in_pyodide.mjs",
        page_bundle.folder(),
        archive,
        PROGRAMS / "in_pyodide.py",
        asked,
    ]
    done = subprocess.run(
        [*map(str, command), *(["switching"] if switching else [])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if switching and done.returncode == CANNOT_SWITCH:
        return None
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    lines = [line.partition(": ") for line in done.stdout.splitlines() if ": [" in line]
    return {name: json.loads(said) for name, _, said in lines}
