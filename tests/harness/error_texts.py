"""The texts of the errors that the library raises, found in its source.

A text is a template: a part that is put in at run time is an ellipsis. Texts that are held by a
constant, or chosen by a condition, are found too. A text that a function makes is found if the
function has it in a call of an exception class.
"""

from __future__ import annotations

import ast
import builtins
import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from . import source

GAP = "…"

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# Functions that make an error of a text.
MAKERS = {"misnested", "explained"}


@dataclass(frozen=True)
class ErrorText:
    """One text of an error, and the class and place of it."""

    kind: str
    text: str
    module: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.kind}: {self.text}"


def is_error(name: str) -> bool:
    """Whether a name is that of an exception class, of Python or of the library."""
    known = getattr(builtins, name, None)
    if isinstance(known, type) and issubclass(known, BaseException):
        return not issubclass(known, Warning)
    return name.endswith(("Error", "ExceptionGroup")) or name in {
        "WouldBlock",
        "EndOfChannel",
        "BrokenWorkerProcess",
        "BrokenWorkerInterpreter",
    }


@functools.cache
def constants() -> dict[str, str]:
    """Each name of the library that is set to a text at the top of a module."""
    found = {}
    for module in source.modules().values():
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                values = list(texts(node.value, {}))
                if len(values) == 1 and values[0] != GAP:
                    found[node.targets[0].id] = values[0]
    return found


def texts(node: ast.expr, names: dict[str, str]) -> Iterator[str]:
    """Each text that an expression can be, with gaps."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [list(texts(value, names)) for value in node.values]
        yield from map("".join, itertools.product(*parts))
    elif isinstance(node, ast.FormattedValue):
        yield from texts(node.value, names)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        for left, right in itertools.product(texts(node.left, names), texts(node.right, names)):
            yield left + right
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body, names)
        yield from texts(node.orelse, names)
    elif isinstance(node, ast.Name) and node.id in names:
        yield names[node.id]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "format":
            yield from (re.sub(r"\{[^}]*\}", GAP, text) for text in texts(node.func.value, names))
        else:
            yield GAP
    else:
        yield GAP


@functools.cache
def collected() -> tuple[ErrorText, ...]:
    """Every text of an error in the library, once for each place."""
    found: dict[ErrorText, None] = {}
    for module in source.modules().values():
        functions = [n for n in ast.walk(module.tree) if isinstance(n, FUNCTIONS)]
        # A text in a local variable is a gap for the module, and is found in the function.
        for scope in (module.tree, *functions):
            names = constants() | local_texts(scope)
            for node in ast.walk(scope):
                if isinstance(node, ast.Call):
                    for error in _of_call(node, module, names):
                        found[error] = None
    return tuple(found)


def local_texts(scope: ast.AST) -> dict[str, str]:
    """Each local variable of a function that is set to a text, once."""
    if not isinstance(scope, FUNCTIONS):
        return {}
    found: dict[str, list[str]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).extend(texts(node.value, constants()))
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _of_call(node: ast.Call, module: source.Module, names: dict[str, str]) -> Iterator[ErrorText]:
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    if not (is_error(name) or name in MAKERS):
        return
    for argument in node.args[:2]:
        for text in texts(argument, names):
            first = re.sub(f"{GAP}+", GAP, text.partition("\n")[0]).strip()
            if re.search(r"\w{3}", first):
                yield ErrorText(name, first, module.name, node.lineno)
