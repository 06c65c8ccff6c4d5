"""The standard library as a later release may have it: one of its private names is another one.

:func:`lose` is called first in a fresh process. The modules of the standard library that have the
name are then imported from changed source, in which another name stands in its place everywhere.
So these modules work as before, and code that uses the old name does not find it.

asyncio's parts that are written in C cannot be changed. ``compiled=False`` leaves them out, and
asyncio uses those written in Python, as it does where C is missing.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from types import CodeType, ModuleType
from typing import Any

SUFFIX = "_of_a_later_release"


def lose(name: str, modules: tuple[str, ...], compiled: bool = True) -> None:
    """Rename ``name`` in these modules, and in the modules of a package among them."""
    if not compiled:
        sys.modules["_asyncio"] = None  # type: ignore[assignment]
    if modules:
        finder = _Finder(name, modules)
        for module in [module for module in sys.modules if finder.concerns(module)]:
            del sys.modules[module]
        sys.meta_path.insert(0, finder)


class _Finder:
    def __init__(self, name: str, modules: tuple[str, ...]) -> None:
        self.name = name
        self.modules = modules

    def concerns(self, fullname: str) -> bool:
        return any(fullname == m or fullname.startswith(f"{m}.") for m in self.modules)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if not self.concerns(fullname):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        assert spec is not None and spec.origin is not None
        loader = _Loader(fullname, spec.origin)
        loader.name_lost = self.name
        spec.loader = loader
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    name_lost: str

    def get_code(self, fullname: str) -> CodeType:
        """The changed code. It is not cached in a file."""
        path = self.get_filename(fullname)
        tree = _Renaming(self.name_lost).visit(ast.parse(self.get_data(path), path))
        return compile(tree, path, "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        # A class may inherit the attribute from one that is written in C.
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == module.__name__:
                inherited = getattr(value, self.name_lost, None)
                if inherited is not None and self.name_lost not in vars(value):
                    setattr(value, self.name_lost + SUFFIX, inherited)
                    setattr(value, self.name_lost, _Missing())


class _Missing:
    """An attribute that neither the class nor its objects have."""

    def __get__(self, obj: object, cls: type) -> object:
        raise AttributeError("lost")


class _Renaming(ast.NodeTransformer):
    """Replaces the name in each kind of node that holds one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for field, value in ast.iter_fields(node):
            if value == self.name:
                setattr(node, field, self.name + SUFFIX)
            elif isinstance(value, list) and self.name in value:  # ``global``
                setattr(node, field, [v + SUFFIX if v == self.name else v for v in value])
        return super().generic_visit(node)
