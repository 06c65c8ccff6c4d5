"""Copies of the package with the C module, compiled here with chosen flags.

:func:`copy_into` makes one. :func:`in_copy` is the environment of a process that uses it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from nurseryio._nursery.compiled import VARIABLE

from . import source

PACKAGE = source.ROOT / "nurseryio"
MODULE_FILE = f"_speedups{sysconfig.get_config_var('EXT_SUFFIX')}"

# The versions that the C file is for.
SUPPORTED = sys.implementation.name == "cpython" and (3, 12) <= sys.version_info < (3, 16)


def why_not() -> str | None:
    """Why the C file cannot be compiled here; None if it can."""
    if not SUPPORTED:
        return "the C file is for CPython 3.12 to 3.15"
    headers = Path(sysconfig.get_paths()["include"])
    if _compiler() is None or not (headers / "Python.h").exists():
        return "needs a C compiler and the headers of Python"
    if not (PACKAGE / "_speedups.c").exists():
        return "needs the C file"
    return None


def _compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def copy_into(
    folder: Path, flags: Sequence[str] = ("-O1", "-Wall", "-Werror"), without: str = ""
) -> None:
    """Copy the package into a folder and compile its C file there, without some text of it."""
    ignore = shutil.ignore_patterns("__pycache__", "_speedups.*.so", "_speedups.*.pyd")
    copy = folder / "nurseryio"
    shutil.copytree(PACKAGE, copy, ignore=ignore)
    if without:
        text = (copy / "_speedups.c").read_text(encoding="utf-8")
        assert without in text
        (copy / "_speedups.c").write_text(text.replace(without, ""), encoding="utf-8")
    compiler = _compiler()
    assert compiler is not None, why_not()
    command = [compiler, *flags, "-fPIC", "-shared", "-fvisibility=hidden"]
    command += [f"-I{sysconfig.get_paths()['include']}"]
    if sys.platform == "darwin":
        command += ["-undefined", "dynamic_lookup"]
    # In its folder, so that files beside it (for gcov) are there too.
    subprocess.run([*command, "_speedups.c", "-o", MODULE_FILE], check=True, cwd=copy)


def in_copy(folder: Path) -> dict[str, str]:
    """The environment of a process that uses the copy in a folder, and its C module."""
    paths = os.pathsep.join([str(folder), str(source.ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths}
    environment.pop(VARIABLE, None)
    return environment
