"""The page on state that threads share names all of it, and nothing that does not exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from harness import source
from harness.shared_state import shared_state

PAGE = (source.ROOT / "docs/internals/threads.md").read_text("utf-8")


def _named_on_the_page() -> dict[str, set[str]]:
    """The variables of each module that the tables name."""
    found: dict[str, set[str]] = {}
    for module, variables in re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", PAGE, re.MULTILINE):
        name = "" if module == "nurseryio" else module
        if name in source.modules():
            names = re.findall(r"`([\w.]+)`", re.sub(r"\(.*?\)", "", variables))
            found.setdefault(name, set()).update(names)
    return found


NAMED = _named_on_the_page()
SHARED = {
    name: found for name, module in source.modules().items() if (found := shared_state(module))
}


@pytest.mark.parametrize("module", SHARED)
def test_the_page_names_each_variable_of_a_module_that_threads_share(module: str) -> None:
    assert SHARED[module] - NAMED.get(module, set()) == set()


def test_the_page_names_no_variable_that_does_not_exist() -> None:
    unknown = {name: found - SHARED.get(name, set()) for name, found in NAMED.items()}
    assert {name: left for name, left in unknown.items() if left} == {}


FOUND = """
import threading, asyncio
from collections import deque
from functools import lru_cache
T = TypeVar("T")
LIMIT = 3
PAIR = (1, 2)
table = {}
names: list[str] = []
seen = {n for n in PAIR}
both = frozenset({1}) | {2}
queue = deque()
one = threading.Lock() if PAIR else None
slot: Any = unset_hook
__all__ = ["table"]
asyncio.hook = len
try:
    late = Own()
except ImportError:
    late = None

class Kept:
    __slots__ = ("field",)
    of_all = set()
    kind = "x"

def count():
    global total
    total = 1

@lru_cache(3)
def cached(): ...
"""


def test_shared_state_is_found_in_every_form(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(FOUND, encoding="utf-8")
    assert shared_state(source.Module("module", file)) == {
        *("table", "names", "seen", "both", "queue", "one", "slot", "hook", "late"),
        *("Kept.of_all", "total", "cached"),
    }


def test_nothing_iterates_a_table_of_the_process_without_a_copy() -> None:
    """``for ... in records`` and ``list(records.items())`` fail if another thread adds an entry."""
    tables = {"records", "_states", "_idle", "_marks", "_prepared", "_functions"}
    wrong = []
    for name, module in source.modules().items():
        # There, records are those of DTLS.
        of_module = tables - {"records"} if name == "_dtls.engine" else tables
        for node in ast.walk(module.tree):
            iterated = getattr(node, "iter", None)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("list", "sorted", "set"):
                iterated = node.args[0] if node.args else None
            if isinstance(iterated, ast.Call) and ast.unparse(iterated.func).endswith(
                (".items", ".values", ".keys")
            ):
                iterated = iterated.func.value  # type: ignore[attr-defined]
            if iterated is not None and ast.unparse(iterated).rpartition(".")[2] in of_module:
                wrong.append(f"{name}, line {iterated.lineno}")
    assert wrong == []
