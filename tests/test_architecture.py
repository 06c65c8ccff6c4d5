"""The architecture of the library: which module may import which, and who may use private names.

The order is the data below. A new module is added here, in ``docs/internals/architecture.md``, and
with a test file of the same name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

import pytest
from harness import source
from harness.source import Import, Module

# -- the order, as data ---------------------------------------------------------

# The rooms, floor by floor from the ground up, each with its modules in reading order. A room may
# import from the floors below its own; a module of it also from the modules before it.
FLOORS: tuple[dict[str, tuple[str, ...]], ...] = (
    {
        "_asyncio": (
            "required",
            "compat",
            "browser",
            "loop_parts",
            "epoll",
            "closing",
            "interpreter",
            "display",
        ),
    },
    {
        "_base": (
            "errors",
            "exc_fields",
            "util",
            "forked",
            "watchers",
            "call_stack",
            "outcome",
            "unsupported",
            "library_name",
            "thread_cache",
            "lazy_exports",
            "abcs",
            "instruments",
            "exception_groups",
            "signal_handlers",
            "signal_wakeup",
        ),
    },
    {
        "_core": (
            "scope_tree",
            "deadlines",
            "anyio_hook",
            "task_extra",
            "loop_state",
            "task",
            "cancel_ledger",
            "swallowing",
            "delivery",
            "traps",
            "wait_queue",
            "ki",
        ),
    },
    {
        "_nursery": (
            "origins",
            "stop_requests",
            "scope",
            "task_exit",
            "child_notes",
            "nursery_exit",
            "task_status",
            "nursery",
            "timeouts",
            "stopping",
            "services",
            "compiled",
        ),
    },
    {
        "_loop": (
            "watching",
            "readiness",
            "wait_io",
            "compiled_io",
            "polled_idle",
            "selector_idle",
            "step_hooks",
        ),
        "_observe": (
            "tracer",
            "places",
            "ages",
            "holders",
            "wait_parts",
            "asyncio_waits",
            "waits",
            "drawing",
            "tree_data",
            "open_scopes",
            "task_tree",
            "dump",
            "explain",
        ),
        "_sync": (
            "parking_lot",
            "event",
            "compiled_event",
            "lock",
            "semaphore",
            "condition",
            "limiter",
            "channel",
            "compiled_channel",
            "safe_channel",
            "unbounded_queue",
            "results",
            "children",
            "task_handle",
            "supervisor",
        ),
    },
    {
        "_run": (
            "driving",
            "leftovers",
            "ctrl_c",
            "final_error",
            "asyncgens",
            "runvar",
            "token",
            "system_tasks",
            "introspection",
            "page_run",
            "run",
        ),
    },
    {
        "_telemetry": (
            "backlog",
            "watchdog",
            "reported",
            "trace_file",
            "timeline",
            "step_times",
            "monitor",
            "remote",
            "otel",
        ),
        "_resolver": (
            "hostname",
            "offload",
            "resolver",
        ),
    },
    {
        "_net": (
            "constants",
            "sockettype",
            "sockets",
            "stream",
            "generic",
            "link",
            "linked_socket",
            "socket_makers",
            "fd_stream",
            "listener",
            "serve",
            "tcp_listen",
            "tcp_connect",
            "unix",
        ),
    },
    {
        "_dtls": (
            "codec",
            "cookie",
            "flight",
            "engine",
            "channel",
            "endpoint",
        ),
        "_tls": (
            "engine",
            "state",
            "info",
            "wire",
            "stream",
            "listener",
            "over_tcp",
        ),
        "_system": (
            "thread_call",
            "threads",
            "from_thread",
            "file_types",
            "files",
            "path_methods",
            "path",
            "process_options",
            "process_exit",
            "process",
            "run_process",
            "signals",
            "stop_signals",
        ),
        "_interop": (
            "anyio_bridge",
            "edge_cancellation",
            "entered_context",
            "supervise",
            "asyncio_stream",
            "stream_transport",
            "anyio_stream",
            "trio_util",
            "trio_private",
            "anyio_trio",
            "trio_metadata",
            "as_trio",
            "main_program",
            "commands",
            "cli",
        ),
        "_checks": (
            "checkpoints",
            "support",
            "clogged",
            "one_way",
            "streams",
            "sequencer",
            "network",
            "task_order",
            "schedules",
        ),
    },
    {
        "_bytes": (
            "buffered",
            "file_sending",
            "temporary",
            "standard",
        ),
        "_portal": (
            "call",
            "host",
            "held",
            "portal",
            "line_input",
            "console",
        ),
        "_workers": (
            "packing",
            "spawning",
            "worker_main",
            "worker_process",
            "pool",
            "call",
            "processes",
            "interpreters",
        ),
    },
    {
        "testing": (
            "deadlock",
            "clock",
            "byte_queues",
            "memory_streams",
            "lockstep_streams",
            "time_limit",
            "step_runner",
            "thread_limit",
            "plain_test",
            "unit_test",
            "raises_group",
            "pytest_shared",
            "pytest_task",
            "pytest_plugin",
        ),
    },
)

ROOMS = {room: modules for floor in FLOORS for room, modules in floor.items()}
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}

# The public modules: they re-export, and nothing else. "" is the package itself.
PUBLIC = {
    "",
    "__main__",
    "abc",
    "aio",
    "from_thread",
    "instruments",
    "lowlevel",
    "socket",
    "to_interpreter",
    "to_process",
    "to_thread",
}

# Imports against the order that exist for type checkers alone: (importer, imported).
UPWARD_FOR_TYPES = {
    ("_core.anyio_hook", "_core.task"),
    ("_core.loop_state", "_nursery.nursery"),
    ("_core.task_extra", "_core.task"),
    ("_core.task_extra", "_core.swallowing"),
    ("_base.abcs", "_core.task"),
    ("_core.task_extra", "_nursery.nursery"),
    ("_nursery.child_notes", "_nursery.nursery"),
    ("_nursery.nursery_exit", "_nursery.nursery"),
    ("_core.loop_state", "_core.task"),
    ("_nursery.task_status", "_nursery.nursery"),
    ("_core.task", "_nursery.nursery"),
    ("_dtls.channel", "_dtls.endpoint"),
    ("_observe.drawing", "_observe.tree_data"),
}

# Imports against the order made inside a function, when it is called: (importer, imported).
UPWARD_WHEN_CALLED: set[tuple[str, str]] = {
    ("_interop.cli", "_portal.console"),
}

# The modules that may use private attributes of other libraries, and whose.
FOREIGN_PRIVATES = {
    "_asyncio.required": "asyncio's",
    "_asyncio.compat": "asyncio's",
    "_asyncio.epoll": "asyncio's",
    "_asyncio.browser": "the interpreter's",
    "_asyncio.display": "asyncio's",
    "_asyncio.loop_parts": "asyncio's",
    "_asyncio.interpreter": "threading's",
    "_interop.anyio_bridge": "anyio's",
    "_interop.anyio_trio": "anyio's",
    "_interop.trio_private": "Trio's",
    "_portal.line_input": "the standard library's",
    "_workers.spawning": "multiprocessing's",
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
    "_interrupt_count",
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
    "_current_frames",
    "_async_gen_function",  # how functions of the async_generator package are known
    "_exit",
    "_fields",
    "_getframe",
    "_is_gil_enabled",
    "_make",
    "_replace",
}

# The fields of the cancel ledger, and the modules that write them: the ledger, the code that makes
# a record or ends one, and the check for checkpoints, which sets the flag to see it taken away.
LEDGER_FIELDS = {
    "_deferred_cancel",
    "_owns_cancel_request",
    "propagating_requests",
    "stale_requests",
}
LEDGER_WRITERS = {
    "_checks.checkpoints",
    "_core.cancel_ledger",
    "_core.task",
    "_core.task_extra",
    "_nursery.nursery",
    "_nursery.task_exit",
}

LINES_OF_A_MODULE = 600
LINES_OF_A_FUNCTION = 60
LINES_OF_A_ROOM = 3_600
MODULES_OF_A_ROOM = 16
LINES_OF_A_MAP = 10


# -- what is there --------------------------------------------------------------


def each_module() -> Iterable[Module]:
    return source.modules().values()


def each_import() -> Iterator[Import]:
    for module in each_module():
        yield from source.imports(module)


def is_in_room(module: Module) -> bool:
    return module.room in ROOMS


def stem(name: str) -> str:
    """The name of a module in its room; "" for the room's ``__init__``."""
    return name.partition(".")[2]


def test_each_module_is_in_a_subpackage_or_is_public() -> None:
    strays = [m.name for m in each_module() if m.room not in ROOMS and m.name not in PUBLIC]
    assert not strays


@pytest.mark.parametrize("room", ROOMS)
def test_each_module_of_a_room_has_its_place_in_the_import_order(room: str) -> None:
    assert {stem(m.name) for m in each_module() if m.room == room} - {""} == set(ROOMS[room])


# -- imports --------------------------------------------------------------------


def breaks_order(edge: Import) -> bool:
    """Whether an import goes to a room, or inside a room to a module, that is not below."""
    importer, imported = edge.importer.partition(".")[0], edge.imported.partition(".")[0]
    if importer not in ROOMS:
        return False
    if importer != imported:
        return LEVEL.get(imported, len(FLOORS)) >= LEVEL[importer]
    if not stem(edge.importer):
        return False
    place = {name: number for number, name in enumerate(ROOMS[importer])}
    return place.get(stem(edge.imported), len(place)) >= place.get(stem(edge.importer), -1)


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


def test_the_lists_of_exceptions_hold_only_existing_modules() -> None:
    upward = {(e.importer, e.imported) for e in each_import() if breaks_order(e)}
    assert upward >= UPWARD_FOR_TYPES | UPWARD_WHEN_CALLED
    assert source.modules().keys() >= FOREIGN_PRIVATES.keys()


def test_no_modules_import_each_other_in_a_cycle() -> None:
    below: dict[str, set[str]] = {m.name: set() for m in each_module()}
    for edge in each_import():
        if not edge.type_only and not edge.in_function:
            below[edge.importer].add(edge.imported)
    while leaves := [name for name, imported in below.items() if not imported & below.keys()]:
        for name in leaves:
            del below[name]
    assert not below, "these import each other, or something that does"


def test_public_modules_only_re_export() -> None:
    wrong = []
    for module in each_module():
        if module.name in PUBLIC:
            wrong += [
                f"{module.name or 'nurseryio'}, line {node.lineno}: {ast.unparse(node)[:60]}"
                for node in module.tree.body
                if not may_stand_in_public_module(node)
            ]
    assert not wrong


def may_stand_in_public_module(node: ast.stmt) -> bool:
    """Imports, docstring, assignments, loading on first use; a choice between imports."""
    if isinstance(node, ast.With):  # suppressing an ImportError
        return all(may_stand_in_public_module(child) for child in node.body)
    if isinstance(node, (ast.If, ast.Try, ast.For)):
        return all(may_stand_in_public_module(child) for child in [*node.body, *node.orelse])
    if isinstance(node, ast.FunctionDef):
        return node.name in ("__getattr__", "__dir__")
    return isinstance(
        node, (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.AnnAssign, ast.Delete)
    )


# -- private names --------------------------------------------------------------


def test_only_asyncio_boundary_modules_use_private_names_of_other_libraries() -> None:
    wrong = []
    for module in each_module():
        if module.name in FOREIGN_PRIVATES:
            continue
        for line, name, on_self in source.private_uses(module):
            is_ours = name in source.own_names() and (on_self or name not in ASYNCIO_PRIVATES)
            if not is_ours and name not in PUBLIC_IN_SPITE_OF_SPELLING:
                wrong.append(f"{module.name}, line {line}: {name}")
    assert not wrong


def test_the_check_of_private_names_finds_every_way_to_use_one(
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


def test_only_the_cancel_ledger_writes_its_fields() -> None:
    writers = {
        module.name
        for module in each_module()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and node.attr in LEDGER_FIELDS
    }
    assert writers == LEDGER_WRITERS


# -- sizes and tests ------------------------------------------------------------


def lines_of(module: Module) -> int:
    """The lines of a module, without those of its imports at the top."""
    imports = [
        (node.end_lineno or 0) - node.lineno + 1
        for node in module.tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    return module.text.count("\n") - sum(imports)


def test_no_module_is_too_long() -> None:
    lengths = {m.name: lines_of(m) for m in each_module()}
    assert not {n: lines for n, lines in lengths.items() if lines > LINES_OF_A_MODULE}


def test_no_function_is_too_long() -> None:
    lengths = {f"{m.name}.{f}": lines for m in each_module() for f, lines in source.functions(m)}
    assert not {n: lines for n, lines in lengths.items() if lines > LINES_OF_A_FUNCTION}


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_is_too_large(room: str) -> None:
    assert len(ROOMS[room]) <= MODULES_OF_A_ROOM
    assert sum(lines_of(m) for m in each_module() if m.room == room) <= LINES_OF_A_ROOM


def test_each_module_has_a_docstring_that_says_what_is_in_it() -> None:
    assert not [m.name for m in each_module() if not ast.get_docstring(m.tree)]


@pytest.mark.parametrize("room", ROOMS)
def test_each_module_has_a_test_file_at_the_same_place(room: str) -> None:
    folder = source.ROOT / "tests" / room.strip("_")
    assert not [name for name in ROOMS[room] if not (folder / f"test_{name}.py").is_file()]


# Loaded with the package, before another thread can load a part of it.
LOADED_WITH_THE_PACKAGE = {"_asyncio", "_base", "_core", "_nursery", "_sync"}


@pytest.mark.parametrize("room", sorted(ROOMS.keys() - LOADED_WITH_THE_PACKAGE - {"testing"}))
def test_a_room_that_is_loaded_on_first_use_imports_none_of_its_modules(room: str) -> None:
    # One thread loads the room and waits for a module; another loads the module and waits for the
    # room. Python ends that by handing out a module that is not complete.
    statements = source.modules()[room].tree.body
    imports = [each for each in statements if isinstance(each, ast.ImportFrom) and each.level]
    assert imports == []


# -- the map as people read it --------------------------------------------------


def test_the_map_in_the_documentation_is_the_map_above() -> None:
    text = (source.ROOT / "docs/internals/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)/` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    assert {room: tuple(re.findall(r"`(\w+)`", order)) for _, room, order in rows} == ROOMS
    assert {room: int(floor) - 1 for floor, room, _ in rows} == LEVEL
    for name in PUBLIC - {""}:
        assert f"`{name}.py`" in text
    for importer, imported in UPWARD_FOR_TYPES | UPWARD_WHEN_CALLED:
        assert f"`{importer}` → `{imported}`" in text


def test_the_map_in_the_package_is_the_map_above() -> None:
    docstring = ast.get_docstring(source.modules()[""].tree) or ""
    floors = re.findall(r"^ +(\d+)  +(\w+(?:, \w+)*)(?:  .*)?$", docstring, re.MULTILINE)
    assert [tuple(re.findall(r"\w+", rooms)) for _, rooms in floors] == [*map(tuple, FLOORS)]
    assert [int(number) for number, _ in floors] == [*range(1, len(FLOORS) + 1)]


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_opens_with_a_short_map_of_its_modules_in_reading_order(room: str) -> None:
    docstring = ast.get_docstring(source.modules()[room].tree) or ""
    named = [name for name in re.findall(r"``(\w+)``", docstring) if name in ROOMS[room]]
    assert tuple(dict.fromkeys(named)) == ROOMS[room]
    _title, *lines = filter(None, docstring.splitlines())
    assert len(lines) <= LINES_OF_A_MAP
