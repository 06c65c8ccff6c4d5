"""Writes ``trio_names.json`` anew: the public names of the Trio that is installed.

    python docs/_ext/record_trio_names.py

To be run on Linux, with the newest Python that this release of Trio knows: names depend on both.
What Trio has on other systems alone is read from its source.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Iterator
from types import ModuleType

from trio_names import MODULES, RECORD, Names, describe


def main() -> None:
    modules: dict[str, Names] = {}
    for where in MODULES:
        module = importlib.import_module(f"trio.{where}".rstrip("."))
        modules[where] = describe(module, "trio")
        for name, system in names_elsewhere(module):
            modules[where].setdefault(name, {"kind": "value", "only": system})
    RECORD.write_text(
        written(importlib.import_module("trio").__version__, modules), encoding="utf-8"
    )


def written(release: str, modules: dict[str, Names]) -> str:
    """The record as JSON with a line for each name, so that a renewed one can be reviewed."""
    blocks = []
    for where, names in modules.items():
        lines = (f"{json.dumps(n)}: {json.dumps(names[n], sort_keys=True)}" for n in sorted(names))
        blocks.append(f"{json.dumps(where)}: {{\n" + ",\n".join(lines) + "\n}")
    body = ",\n".join(blocks)
    return f'{{"release": {json.dumps(release)}, "modules": {{\n{body}\n}}}}\n'


def names_elsewhere(module: ModuleType) -> Iterator[tuple[str, str]]:
    """The names that a module imports under a condition, and on which system that holds."""
    for block in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(block, ast.If) and "sys.platform" in ast.unparse(block.test):
            system = "Windows" if "== 'win32'" in ast.unparse(block.test) else "macOS and BSD"
            for statement in block.body:
                if isinstance(statement, ast.ImportFrom):
                    yield from ((a.name, system) for a in statement.names if a.asname == a.name)


if __name__ == "__main__":
    main()
