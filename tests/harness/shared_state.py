"""The library's state that threads share, as data: module globals and class attributes.

Only the syntax trees are read. :func:`shared_state` finds each variable that may change after the
import of its module, or may refer to an object that changes. ``docs/internals/threads.md`` has to
name all of them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .source import Module

# Calls that make an object without state, or one of the standard library whose state is its own.
WITHOUT_STATE = {
    *("TypeVar", "TypeVarTuple", "ParamSpec", "StashKey", "get_args", "getLogger", "Struct"),
    *("attrgetter", "methodcaller", "getattr", "hasattr", "vars", "partition", "min", "property"),
    *("frozenset", "tuple", "bytes", "object", "staticmethod", "markcoroutinefunction"),
    *("lazy_exports", "Elsewhere", "NeverHere"),
}

DISPLAYS = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
CACHES = {"cache", "lru_cache", "cached_property"}


def shared_state(module: Module) -> set[str]:
    """The names of a module, with its classes' attributes as ``Class.name``."""
    found = set(_assigned(module.tree.body, ""))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Global):
            found.update(node.names)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and any(
            _last_name(decorator) in CACHES for decorator in node.decorator_list
        ):
            found.add(node.name)
    return found


def _assigned(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _assigned(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            for part in ("body", "orelse", "finalbody"):
                yield from _assigned(getattr(node, part, []), prefix)
            for handler in getattr(node, "handlers", ()):
                yield from _assigned(handler.body, prefix)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Attribute):
                    # A slot of another module or class, filled by this one.
                    name = target.attr
                elif isinstance(target, ast.Name) and _has_state(node.value):
                    name = prefix + target.id
                else:
                    continue
                if not name.rpartition(".")[2].startswith("__"):
                    yield name


def _has_state(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return _last_name(value.func) not in WITHOUT_STATE and not (
            # getattr(...)(): the answer of a function of the interpreter.
            isinstance(value.func, ast.Call) and _last_name(value.func.func) == "getattr"
        )
    if isinstance(value, ast.BinOp):
        return _has_state(value.left) or _has_state(value.right)
    if isinstance(value, ast.IfExp):
        return _has_state(value.body) or _has_state(value.orelse)
    return isinstance(value, DISPLAYS) or (isinstance(value, ast.Name) and value.id == "unset_hook")


def _last_name(function: ast.expr) -> str:
    if isinstance(function, ast.Call):
        function = function.func
    if isinstance(function, ast.Subscript):
        function = function.value
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
