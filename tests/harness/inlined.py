"""Copies of code that are inlined for speed: finding them, and comparing each with its source.

A copy stands under a comment ``# inlined: room.module.function``. It is the statements of that
function, in place, with the function's parameters and local variables replaced by expressions of
the place. After the name there may be:

* ``[1:-2]``: a slice of the function's statements; the copy has these alone.
* ``, unguarded``: the copy leaves out the ``try`` statements around what they protect.
* ``, the ordinary case``: the copy is simplified, so that it cannot be compared. The test holds a
  fingerprint of both sides: a change of one side makes the test ask for a look at the other.

A ``return`` of the source may be an assignment in the copy, the condition of an ``if`` or an
operand in it, also behind ``not``. It may be missing if it is the last statement and returns a
local variable. A call in the source may be the expression that the called function returns.
"""

from __future__ import annotations

import ast
import copy as copy_module
import hashlib
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import source

_MARK = re.compile(r"^ *# inlined: ([\w.]+)(?:\[(-?\d*):(-?\d*)\])?(?:, (.+))?$", re.MULTILINE)

ORDINARY = "the ordinary case"
UNGUARDED = "unguarded"


@dataclass(frozen=True)
class Mark:
    """One comment of a copy."""

    module: source.Module
    line: int
    function: str
    part: slice
    option: str | None

    def __str__(self) -> str:
        return f"{self.module.name}, line {self.line}: {self.function}"


def marks() -> list[Mark]:
    """Every mark of the library."""
    found = []
    for module in source.modules().values():
        for match in _MARK.finditer(module.text):
            line = module.text.count("\n", 0, match.start()) + 1
            first, last = (int(text) if text else None for text in (match[2], match[3]))
            found.append(Mark(module, line, match[1], slice(first, last), match[4]))
    return found


def count_of_comments() -> int:
    """How many comments look like marks, whether they can be read or not."""
    return sum(module.text.count("# inlined") for module in source.modules().values())


# -- both sides -----------------------------------------------------------------


def function(name: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """The function of the library with this dotted name.

    Raises:
        LookupError: There is none.
    """
    parts = name.split(".")
    module = source.modules().get(".".join(parts[:2]))
    if module is None:
        raise LookupError(f"no module of the name {'.'.join(parts[:2])}")
    node: ast.AST = module.tree
    for part in parts[2:]:
        for child in ast.iter_child_nodes(node):
            if getattr(child, "name", None) == part:
                node = child
                break
        else:
            raise LookupError(f"{name}: no {part}")
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        raise LookupError(f"{name} is not a function")
    return node


def body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    """The statements of a function without its docstring."""
    return node.body[1:] if ast.get_docstring(node) is not None else node.body


def copy(mark: Mark) -> list[ast.stmt]:
    """The statements from a mark to the end of its block, or the operand below a mark."""
    for block in _blocks(mark.module.tree):
        for place, statement in enumerate(block):
            before = block[place - 1].end_lineno or 0 if place else 0
            if before < mark.line < statement.lineno and _is_next(mark, statement):
                return block[place:]
    operand = _operand(mark)
    if operand is None:
        raise LookupError(f"{mark}: neither a statement nor an operand follows")
    return [ast.Expr(operand)]


def _operand(mark: Mark) -> ast.expr | None:
    """The operand of ``and`` or ``or`` in the line below a mark, without ``not``."""
    for node in ast.walk(mark.module.tree):
        for value in node.values if isinstance(node, ast.BoolOp) else ():
            if value.lineno == mark.line + 1:
                return value.operand if isinstance(value, ast.UnaryOp) else value
    return None


def _is_next(mark: Mark, statement: ast.stmt) -> bool:
    """Whether nothing but comments stands between a mark and a statement."""
    lines = mark.module.text.splitlines()[mark.line : statement.lineno - 1]
    return all(line.lstrip().startswith("#") for line in lines)


def _blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                yield block


def fingerprint(mark: Mark) -> tuple[str, str]:
    """A short hash of the source, and one of the copy with the rest of its block."""
    module = source.modules()[".".join(mark.function.split(".")[:2])]
    sides = (module, body(function(mark.function))), (mark.module, copy(mark))
    first, second = (hashlib.sha256(_code(*side).encode()).hexdigest()[:8] for side in sides)
    return first, second


def _code(module: source.Module, statements: Sequence[ast.stmt]) -> str:
    """The text of statements without comments and white space, alike on every Python."""
    first, last = statements[0].lineno, statements[-1].end_lineno or 0
    lines = module.text.splitlines(keepends=True)
    for token in tokenize.generate_tokens(iter(lines).__next__):
        if token.type == tokenize.COMMENT:
            number, column = token.start
            lines[number - 1] = lines[number - 1][:column]
    return "".join("".join(lines[first - 1 : last]).split())


# -- comparing ------------------------------------------------------------------


def difference(mark: Mark) -> str | None:
    """How a copy differs from its source; None if it does not."""
    node = function(mark.function)
    wanted = body(node)[mark.part]
    if mark.option == UNGUARDED:
        wanted = list(_unguarded(wanted))
    elif mark.option is not None:
        return f"{mark}: unknown option {mark.option!r}"
    comparison = _Comparison(_variables(node))
    return comparison.statements(wanted, copy(mark))


def _variables(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Parameters and local variables: the expression in a copy that replaces each."""
    arguments = [n.arg for n in ast.walk(node.args) if isinstance(n, ast.arg)]
    stored = [n.id for n in ast.walk(node) if _is_name(n) and isinstance(n.ctx, ast.Store)]
    caught = [n.name for n in ast.walk(node) if isinstance(n, ast.ExceptHandler) and n.name]
    return {*arguments, *stored, *caught}


def _is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


def _unguarded(statements: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in statements:
        if isinstance(statement, ast.Try):
            yield from _unguarded(statement.body)
        else:
            if isinstance(statement, ast.If):
                statement = ast.If(statement.test, list(_unguarded(statement.body)), [])
            yield statement


class _Comparison:
    """Finds which expression of the copy each variable of the source stands for."""

    def __init__(self, variables: set[str]) -> None:
        self._variables = variables
        self._meaning: dict[str, str] = {}

    def statements(self, wanted: Sequence[ast.stmt], found: Sequence[ast.stmt]) -> str | None:
        if wanted and self._may_be_left_out(wanted[-1]) and len(wanted) > 1:
            wanted = wanted[:-1]
        if len(found) < len(wanted):
            return f"the copy ends before {ast.unparse(wanted[len(found)])!r}"
        for expected, actual in zip(wanted, found, strict=False):
            if not self._statement(expected, actual):
                return f"{ast.unparse(expected)!r} has become {ast.unparse(actual)!r}"
        return None

    def _may_be_left_out(self, statement: ast.stmt) -> bool:
        return (
            isinstance(statement, ast.Return)
            and isinstance(statement.value, ast.Name)
            and statement.value.id in self._variables
        )

    def _statement(self, expected: ast.stmt, actual: ast.stmt) -> bool:
        if isinstance(expected, ast.Return) and expected.value is not None:
            if isinstance(actual, ast.Assign):
                return self._same(expected.value, actual.value)
            if isinstance(actual, ast.If):
                return self._same(expected.value, actual.test)
            if isinstance(actual, ast.Expr):
                return self._same(expected.value, actual.value)
        if isinstance(expected, (ast.Assign, ast.AnnAssign)) and isinstance(
            actual, (ast.Assign, ast.AnnAssign)
        ):
            return self._assignment(expected, actual)
        return self._same(expected, actual)

    def _assignment(
        self, expected: ast.Assign | ast.AnnAssign, actual: ast.Assign | ast.AnnAssign
    ) -> bool:
        """An assignment of the copy may have further targets."""
        if expected.value is None or actual.value is None:
            return False
        left = list(_targets(actual))
        for target in _targets(expected):
            match = next((t for t in left if self._same_target(target, t)), None)
            if match is None:
                return False
            left.remove(match)
        return self._same(expected.value, actual.value)

    def _same_target(self, expected: ast.expr, actual: ast.expr) -> bool:
        """A local variable of the source is one in the copy as well."""
        if isinstance(expected, ast.Name) and not isinstance(actual, ast.Name):
            return False
        return self._same(expected, actual)

    def _same(self, expected: object, actual: object) -> bool:
        if isinstance(expected, ast.Name) and expected.id in self._variables:
            if not isinstance(actual, ast.expr):
                return False
            # As read, so that a target means the same as its later uses.
            text = ast.unparse(actual)
            return self._meaning.setdefault(expected.id, text) == text
        if isinstance(expected, list) and isinstance(actual, list):
            return len(expected) == len(actual) and all(
                map(self._same_or_statement, expected, actual)
            )
        if isinstance(expected, ast.AST) and isinstance(actual, ast.AST):
            if isinstance(expected, ast.Call) and not isinstance(actual, ast.Call):
                expression = _expanded(expected)
                return expression is not None and self._same(expression, actual)
            if isinstance(expected, ast.BoolOp) and isinstance(actual, ast.BoolOp):
                expected = _flat(expected, len(actual.values))
            if type(expected) is not type(actual):
                return False
            return all(
                self._field(expected, actual, name)
                for name in expected._fields
                if name not in ("ctx", "type_comment")
            )
        return expected == actual

    def _same_or_statement(self, expected: object, actual: object) -> bool:
        if isinstance(expected, ast.stmt) and isinstance(actual, ast.stmt):
            return self._statement(expected, actual)
        return self._same(expected, actual)

    def _field(self, expected: ast.AST, actual: ast.AST, name: str) -> bool:
        wanted, found = getattr(expected, name), getattr(actual, name)
        if isinstance(expected, ast.ExceptHandler) and name == "name" and wanted and found:
            return self._meaning.setdefault(wanted, found) == found
        return self._same(wanted, found)


def _expanded(call: ast.Call) -> ast.expr | None:
    """The expression that a called function returns, if it does nothing else."""
    if not isinstance(call.func, ast.Name):
        return None
    for module in source.modules().values():
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == call.func.id:
                statements = body(node)
                only = statements[0]
                if len(statements) != 1 or not isinstance(only, ast.Return) or only.value is None:
                    return None
                names = [argument.arg for argument in node.args.args]
                return _Substitute(dict(zip(names, call.args, strict=True))).of(only.value)
    return None


class _Substitute(ast.NodeTransformer):
    """Puts arguments in the place of parameters."""

    def __init__(self, arguments: dict[str, ast.expr]) -> None:
        self._arguments = arguments

    def of(self, expression: ast.expr) -> ast.expr:
        result: ast.expr = self.visit(copy_module.deepcopy(expression))
        return result

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._arguments.get(node.id, node)


def _flat(operation: ast.BoolOp, length: int) -> ast.BoolOp:
    """The same with calls among its operands expanded, if that makes it as long as the copy's."""
    if len(operation.values) == length:
        return operation
    values: list[ast.expr] = []
    for value in operation.values:
        inner = _expanded(value) if isinstance(value, ast.Call) else None
        if isinstance(inner, ast.BoolOp) and type(inner.op) is type(operation.op):
            values += inner.values
        else:
            values.append(value)
    return ast.BoolOp(operation.op, values)


def _targets(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]
