"""Programs in Pyodide: CPython for WebAssembly, under node, on the event loop of a web page.

This module finds Pyodide, packs the library for it, and runs the program
``loop_programs/in_pyodide.py``. Nothing is downloaded. The library's requirements are those of the
running Python, because they are written in Python alone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from . import source

PROGRAMS = source.ROOT / "tests" / "loop_programs"

# The variable that names the folder of the npm package, and the folder if it is not set.
VARIABLE = "NURSERYIO_PYODIDE"
USUAL = source.ROOT / "node_modules" / "pyodide"

# The packages that nurseryio needs there. Not all are needed on each Python.
REQUIREMENTS = ("anyio", "idna", "exceptiongroup", "typing_extensions", "sniffio")

# The options of node with which the engine can switch stacks; newer engines can do so without one.
SWITCHING = ("--experimental-wasm-jspi", "--experimental-wasm-stack-switching")

# The exit code of the program if the engine cannot switch stacks, and seconds that it may take.
CANNOT_SWITCH = 3
PATIENCE = 100.0


def folder() -> Path:
    """The folder of the npm package."""
    return Path(os.environ.get(VARIABLE) or USUAL)


def why_not() -> str:
    """The reason why Pyodide cannot be run here; empty if it can."""
    if shutil.which("node") is None:
        return "needs node"
    if not (folder() / "pyodide.mjs").is_file():
        return f"needs the npm package pyodide: `npm install pyodide`, or its folder in {VARIABLE}"
    return ""


def pack(archive: Path) -> Path:
    """Write the library and its requirements into a zip file."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        _add(packed, source.PACKAGE)
        for name in REQUIREMENTS:
            found = importlib.util.find_spec(name)
            if found is not None and found.origin is not None:
                origin = Path(found.origin)
                _add(packed, origin.parent if origin.name == "__init__.py" else origin)
    return archive


def _add(packed: zipfile.ZipFile, path: Path) -> None:
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        packed.write(file, file.relative_to(path.parent))


def run(archive: Path, asked: str, *, switching: bool = False) -> dict[str, Any] | None:
    """Run the program, and return the values that each of its steps has printed, by its name.

    Returns:
        None if the engine was to switch stacks, and cannot.
    """
    command = ["node"]
    if switching:
        known = subprocess.run(["node", "--v8-options"], capture_output=True, text=True).stdout
        command += [option for option in SWITCHING if f"  {option} " in known][:1]
    command += [PROGRAMS / "in_pyodide.mjs", folder(), archive, PROGRAMS / "in_pyodide.py", asked]
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
