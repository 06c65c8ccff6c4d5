"""The build hook: it compiles ``nurseryio/_speedups.c`` for the wheel, if that is possible here.

nurseryio works without it. So a wheel without the C module, which fits every platform, is built if
something is missing: a compiler, the headers of Python, a version of CPython that the C file
supports. Two variables of the environment decide otherwise:

* ``NURSERYIO_PURE=1``: do not compile.
* ``NURSERYIO_COMPILE=1``: compile, also for an editable installation, and fail if that fails.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "nurseryio._speedups"
SOURCE = "nurseryio/_speedups.c"
VERSIONS = ((3, 12), (3, 13), (3, 14), (3, 15))


def is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def why_not(version: str) -> str | None:
    """Why the C file is not compiled; None if it is to be tried."""
    if is_set("NURSERYIO_PURE"):
        return "NURSERYIO_PURE is set"
    if sys.implementation.name != "cpython" or sys.version_info[:2] not in VERSIONS:
        return "the C file is for CPython 3.12 to 3.15"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "the C file is not for the free-threaded build"
    if version == "editable" and not is_set("NURSERYIO_COMPILE"):
        return "this is an editable installation, and NURSERYIO_COMPILE is not set"
    return None


def compile_into(folder: Path, root: Path) -> Path:
    """Compile the C file; return the path of the module."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    arguments = [] if os.name == "nt" else ["-O2", "-g0", "-fvisibility=hidden"]
    extension = Extension(MODULE, [str(root / SOURCE)], extra_compile_args=arguments)
    command = build_ext(Distribution({"name": "nurseryio", "ext_modules": [extension]}))
    command.build_lib = str(folder)
    command.build_temp = str(folder / "objects")
    command.ensure_finalized()
    command.run()
    return Path(command.get_ext_fullpath(MODULE))


class CompileHook(BuildHookInterface):
    """Adds the compiled module to a wheel."""

    PLUGIN_NAME = "custom"
    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        must = is_set("NURSERYIO_COMPILE")
        reason = why_not(version)
        if reason is not None:
            if must:
                raise RuntimeError(f"nurseryio cannot be compiled as asked: {reason}")
            return
        self._folder = tempfile.TemporaryDirectory()
        root = Path(self.root)
        try:
            made = compile_into(Path(self._folder.name), root)
        except (Exception, SystemExit) as error:
            self._folder.cleanup()
            if must:
                raise
            self.app.display_warning(f"nurseryio is built without its C module: {error}")
            return
        if version == "editable":
            # The package is imported from here.
            (root / "nurseryio" / made.name).write_bytes(made.read_bytes())
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"][str(made)] = f"nurseryio/{made.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._folder is not None:
            self._folder.cleanup()
