"""The map of the library holds: who may import whom, and who may touch what.

The order is the data below. Whoever adds a module adds it here, in ``docs/internals/
architecture.md``, and with a test file of the same name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

import pytest
from harness import source
from harness.source import Import, Module

# -- the order, as data ---------------------------------------------------------

# Each room, and the rooms that it may import from besides itself.
ROOMS: dict[str, tuple[str, ...]] = {
    "_core": (),
    "_sync": ("_core",),
    "_net": ("_core", "_sync"),
    "_system": ("_core", "_sync", "_net"),
    "_interop": ("_core", "_sync", "_net"),
    "testing": ("_core", "_sync", "_net", "_system", "_interop"),
}

# The public doors: they re-export, and nothing else. "" is the package itself.
DOORS = {
    "",
    "__main__",
    "abc",
    "aio",
    "from_thread",
    "instruments",
    "lowlevel",
    "socket",
    "to_thread",
}

# Inside ``_core`` each module imports only those before it.
CORE_ORDER = (
    "errors",
    "exc_fields",
    "util",
    "forked",
    "outcome",
    "thread_cache",
    "lazy",
    "impossible",
    "abcs",
    "tree",
    "deadlines",
    "instruments",
    "tracer",
    "host",
    "groups",
    "foreign",
    "extra",
    "loop_state",
    "task",
    "delivery",
    "traps",
    "parking",
    "handlers",
    "wakeup",
    "ki",
    "scope",
    "ending",
    "leaving",
    "status",
    "nursery",
    "timeouts",
    "watching",
    "poller",
    "readiness",
    "waitio",
    "tree_view",
    "driving",
    "leftovers",
    "presses",
    "verdict",
    "asyncgens",
    "turns",
    "idle",
    "gauge",
    "runvar",
    "token",
    "system",
    "run",
)

# Imports against the order that exist for type checkers alone: (importer, imported).
UPWARD_FOR_TYPES = {
    ("_core.abcs", "_core.task"),
    ("_core.extra", "_core.nursery"),
    ("_core.leaving", "_core.nursery"),
    ("_core.loop_state", "_core.task"),
    ("_core.status", "_core.nursery"),
    ("_core.task", "_core.nursery"),
    ("_core.tracer", "_core.task"),
}

# Imports against the order made inside a function, when it is called: (importer, imported).
UPWARD_WHEN_CALLED: set[tuple[str, str]] = set()

# Who may use private attributes that are not ours, and whose.
FOREIGN_PRIVATES = {
    "_core.host": "asyncio's",
    "_interop.anyio_bridge": "anyio's",
    "testing.pytest_plugin": "pytest-asyncio's",
}

# Private names of asyncio's objects that other classes may have as well.
ASYNCIO_PRIVATES = {
    "_asyncgens_shutdown_called",
    "_call_connection_lost",
    "_callbacks",
    "_conn_lost",
    "_current_tasks",
    "_csock",
    "_default_executor",
    "_eager_tasks",
    "_fut_waiter",
    "_make_datagram_transport",
    "_make_read_pipe_transport",
    "_make_socket_transport",
    "_make_ssl_transport",
    "_must_cancel",
    "_num_cancels_requested",
    "_process_events",
    "_ready",
    "_run_once",
    "_scheduled",
    "_scheduled_tasks",
    "_selector",
    "_source_traceback",
    "_ssock",
    "_task_factory",
    "_transports",
}

# Private by their spelling, public by their documentation.
PUBLIC_IN_SPITE_OF_SPELLING = {
    "_asdict",
    "_asyncio_future_blocking",  # how asyncio and others know a future
    "_async_gen_function",  # how functions of the async_generator package are known
    "_exit",
    "_fields",
    "_getframe",
    "_make",
    "_replace",
}

MOST_LINES_OF_A_MODULE = 600
MOST_LINES_OF_A_FUNCTION = 60


# -- what is there --------------------------------------------------------------


def each_module() -> Iterable[Module]:
    return source.modules().values()


def each_import() -> Iterator[Import]:
    for module in each_module():
        yield from source.imports(module)


def is_in_room(module: Module) -> bool:
    return module.room in ROOMS


def test_each_module_stands_in_a_room_or_is_a_door() -> None:
    strays = [m.name for m in each_module() if m.room not in ROOMS and m.name not in DOORS]
    assert not strays


def test_each_module_of_the_core_has_its_place_in_the_order() -> None:
    there = {m.name.partition(".")[2] for m in each_module() if m.room == "_core"} - {""}
    assert there == set(CORE_ORDER)


# -- imports --------------------------------------------------------------------


def breaks_order(edge: Import) -> bool:
    """Whether an import goes to a room, or inside the core to a module, that is not below."""
    importer, imported = edge.importer.partition("."), edge.imported.partition(".")
    if importer[0] not in ROOMS:
        return False
    if importer[0] != imported[0]:
        return imported[0] not in ROOMS[importer[0]]
    if importer[0] != "_core" or not importer[2]:
        return False
    order = {name: place for place, name in enumerate(CORE_ORDER)}
    return order.get(imported[2], len(order)) >= order.get(importer[2], -1)


def test_imports_go_down_only() -> None:
    wrong = [
        str(edge)
        for edge in each_import()
        if breaks_order(edge)
        and not edge.type_only
        and not (edge.in_function and (edge.importer, edge.imported) in UPWARD_WHEN_CALLED)
    ]
    assert not wrong


def test_imports_for_type_checkers_go_down_or_are_on_the_list() -> None:
    wrong = [
        str(edge)
        for edge in each_import()
        if breaks_order(edge)
        and edge.type_only
        and (edge.importer, edge.imported) not in UPWARD_FOR_TYPES | UPWARD_WHEN_CALLED
    ]
    assert not wrong


def test_the_lists_of_exceptions_hold_nothing_that_is_gone() -> None:
    upward = {(e.importer, e.imported) for e in each_import() if breaks_order(e)}
    assert upward >= UPWARD_FOR_TYPES | UPWARD_WHEN_CALLED
    assert source.modules().keys() >= FOREIGN_PRIVATES.keys()


def test_no_modules_import_each_other_in_a_circle() -> None:
    below: dict[str, set[str]] = {m.name: set() for m in each_module()}
    for edge in each_import():
        if not edge.type_only and not edge.in_function:
            below[edge.importer].add(edge.imported)
    while leaves := [name for name, imported in below.items() if not imported & below.keys()]:
        for name in leaves:
            del below[name]
    assert not below, "these import each other, or something that does"


def test_doors_only_re_export() -> None:
    wrong = []
    for module in each_module():
        if module.name in DOORS:
            wrong += [
                f"{module.name or 'nurseryio'}, line {node.lineno}: {ast.unparse(node)[:60]}"
                for node in module.tree.body
                if not may_stand_in_door(node)
            ]
    assert not wrong


def may_stand_in_door(node: ast.stmt) -> bool:
    """Imports, docstring, assignments, loading on first use; a choice between imports."""
    if isinstance(node, ast.With):  # suppressing an ImportError
        return all(may_stand_in_door(child) for child in node.body)
    if isinstance(node, (ast.If, ast.Try, ast.For)):
        return all(may_stand_in_door(child) for child in [*node.body, *node.orelse])
    if isinstance(node, ast.FunctionDef):
        return node.name in ("__getattr__", "__dir__")
    return isinstance(
        node, (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.AnnAssign, ast.Delete)
    )


# -- private names --------------------------------------------------------------


def test_only_the_boundary_touches_what_others_keep_private() -> None:
    wrong = []
    for module in each_module():
        if module.name in FOREIGN_PRIVATES:
            continue
        for line, name, on_self in source.private_uses(module):
            is_ours = name in source.own_names() and (on_self or name not in ASYNCIO_PRIVATES)
            if not is_ours and name not in PUBLIC_IN_SPITE_OF_SPELLING:
                wrong.append(f"{module.name}, line {line}: {name}")
    assert not wrong


def test_the_check_of_private_names_sees_every_way_to_use_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = Module("_net.imagined", source.PACKAGE / "imagined.py")
    text = (
        "from asyncio.base_events import _run_until_complete_cb\n"
        "task._fut_waiter\n"
        "getattr(task, '_must_cancel', None)\n"
        "operator.attrgetter('_loop._selector')\n"
        "self._mine\n"
    )
    monkeypatch.setitem(module.__dict__, "tree", ast.parse(text))
    assert set(source.private_uses(module)) == {
        (1, "_run_until_complete_cb", False),
        (2, "_fut_waiter", False),
        (3, "_must_cancel", False),
        (4, "_loop", False),
        (4, "_selector", False),
        (5, "_mine", True),
    }


# -- sizes and tests ------------------------------------------------------------


def test_no_module_is_too_long() -> None:
    lengths = {m.name: m.text.count("\n") for m in each_module()}
    assert not {n: lines for n, lines in lengths.items() if lines > MOST_LINES_OF_A_MODULE}


def test_no_function_is_too_long() -> None:
    lengths = {f"{m.name}.{f}": lines for m in each_module() for f, lines in source.functions(m)}
    assert not {n: lines for n, lines in lengths.items() if lines > MOST_LINES_OF_A_FUNCTION}


def test_each_module_says_what_lives_in_it() -> None:
    assert not [m.name for m in each_module() if not ast.get_docstring(m.tree)]


def test_each_module_has_a_test_file_of_its_name() -> None:
    tests = {path.stem for path in (source.ROOT / "tests").rglob("test_*.py")}
    needed = {m.name: m.path.stem for m in each_module() if is_in_room(m)}
    assert not {
        name for name, stem in needed.items() if stem != "__init__" and f"test_{stem}" not in tests
    }


def test_no_two_modules_share_the_name_of_a_test_file() -> None:
    stems = [m.path.stem for m in each_module() if is_in_room(m) and m.path.stem != "__init__"]
    assert not {stem for stem in stems if stems.count(stem) > 1}


# -- the map as people read it --------------------------------------------------


def rooms_in(text: str) -> dict[str, tuple[str, ...]]:
    """The rooms and what each may import, from a table in Markdown."""
    rows = re.findall(r"^\| `(\w+)/` \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    return {room: tuple(re.findall(r"`(\w+)`", may)) for room, may in rows}


def test_the_map_in_the_documentation_is_the_map_above() -> None:
    text = (source.ROOT / "docs/internals/architecture.md").read_text(encoding="utf-8")
    assert rooms_in(text) == ROOMS
    ladder = re.search(r"^```text\n(errors.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert ladder
    assert tuple(re.findall(r"\w+", ladder[1])) == CORE_ORDER
    for door in DOORS - {""}:
        assert f"`{door}.py`" in text
    for importer, imported in UPWARD_FOR_TYPES | UPWARD_WHEN_CALLED:
        assert f"`{importer}` → `{imported}`" in text


def test_the_map_in_the_package_is_the_map_above() -> None:
    docstring = ast.get_docstring(source.modules()[""].tree) or ""
    lines = re.findall(r"^ +(\w+) +(-|_\w+(?:, _\w+)*)$", docstring, re.MULTILINE)
    assert {room: tuple(re.findall(r"\w+", may)) for room, may in lines} == ROOMS
