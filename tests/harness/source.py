"""The library's source as data: its modules, their imports, the private names they touch.

Only the standard library's ``ast`` looks at the files; nothing of the library is imported. The
rules themselves are in ``test_architecture.py``.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "nurseryio"


@dataclass(frozen=True)
class Import:
    """One import of a module of nurseryio by another, by their names below ``nurseryio``."""

    importer: str
    imported: str
    line: int
    type_only: bool
    in_function: bool

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: imports {self.imported}"


@dataclass(frozen=True)
class Module:
    """One file. Its name leaves ``nurseryio`` out: "_asyncio.compat", "_core", "" for the top."""

    name: str
    path: Path

    @property
    def room(self) -> str:
        """The package that the module is in; for a public module, its own name."""
        return self.name.partition(".")[0]

    @functools.cached_property
    def text(self) -> str:
        """The file's text."""
        return self.path.read_text(encoding="utf-8")

    @functools.cached_property
    def tree(self) -> ast.Module:
        """The file's syntax tree."""
        return ast.parse(self.text, str(self.path))


@functools.cache
def modules() -> dict[str, Module]:
    """Every module of the library by its name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path)
    return found


# -- imports --------------------------------------------------------------------


def imports(module: Module) -> list[Import]:
    """The imports of nurseryio's modules by a module, anywhere in the file."""
    found = []
    for node, type_only, in_function in _walk_imports(module.tree, False, False):
        for name in _targets(module, node):
            found.append(Import(module.name, name, node.lineno, type_only, in_function))
    return found


def _walk_imports(
    node: ast.AST, type_only: bool, in_function: bool
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node, type_only, in_function
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _walk_imports(child, True, in_function)
        for child in node.orelse:
            yield from _walk_imports(child, type_only, in_function)
    else:
        below = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for child in ast.iter_child_nodes(node):
            yield from _walk_imports(child, type_only, below)


def _targets(module: Module, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """The modules of nurseryio that an import statement names."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.partition(".")[0] == "nurseryio":
                yield alias.name.partition(".")[2]
        return
    base = node.module or ""
    if node.level:
        is_package = module.path.name == "__init__.py"
        parts = module.name.split(".") if module.name else []
        parts = parts[: len(parts) - node.level + is_package]
        base = ".".join([*parts, *filter(None, [base])])
    elif base.partition(".")[0] == "nurseryio":
        base = base.partition(".")[2]
    else:
        return
    for alias in node.names:
        below = f"{base}.{alias.name}" if base else alias.name
        yield below if below in modules() else base


# -- private names --------------------------------------------------------------


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore or two, and is not one of Python's own."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


@functools.cache
def own_names() -> frozenset[str]:
    """Every private name that the library defines itself."""
    found: set[str] = set()
    for module in modules().values():
        for node in ast.walk(module.tree):
            found.update(_defined(node))
    return frozenset(filter(is_private, found))


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        if _is_self(node.value):
            yield node.attr
    elif isinstance(node, ast.Assign) and "__slots__" in map(ast.unparse, node.targets):
        for constant in ast.walk(node.value):
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                yield constant.value


def private_uses(module: Module) -> Iterator[tuple[int, str, bool]]:
    """The private attributes that a module uses: line, name, whether on ``self`` or ``cls``."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.lineno, node.attr, _is_self(node.value)
        elif isinstance(node, ast.Call) and _called_name(node) in (
            "getattr",
            "setattr",
            "hasattr",
            "delattr",
            "attrgetter",
            "methodcaller",
        ):
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    for name in filter(is_private, argument.value.split(".")):
                        yield node.lineno, name, _is_self(node.args[0])
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                if is_private(alias.name) and (node.module or "").split(".")[0] != "nurseryio":
                    yield node.lineno, alias.name, False


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _called_name(node: ast.Call) -> str:
    return ast.unparse(node.func).rpartition(".")[2]


# -- sizes ----------------------------------------------------------------------


def functions(module: Module) -> Iterator[tuple[str, int]]:
    """The functions of a module, each with its number of lines without its docstring."""
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0]
            documented = ast.get_docstring(node, clean=False) is not None
            docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
            yield node.name, (node.end_lineno or 0) - node.lineno + 1 - docstring
