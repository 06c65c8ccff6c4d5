"""The public doors: each thing goes through one of them, and everything that does is documented.

Static tools are asked in two ways: here by reading the doors' source, and in ``make types`` by
``pyright --verifytypes``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from harness import source

import nurseryio

PUBLIC = sorted(
    name
    for name in (
        "",
        "abc",
        "lowlevel",
        "socket",
        "to_thread",
        "from_thread",
        "aio",
        "instruments",
        "testing",
    )
    if name in source.modules()
)

# Things with a second name in the same door, kept for programs that use it: name -> the first one.
ALIASES = {"TrioToken": "LoopToken", "trio_test": "nurseryio_test"}

# Doors that pass on names of the standard library, as Trio's does.
PASSES_ON_STDLIB = {"socket"}


def module(name: str) -> ModuleType:
    return importlib.import_module(f"nurseryio.{name}".rstrip("."))


def public_names(name: str) -> list[str]:
    return list(module(name).__all__)


def public_things() -> list[tuple[str, str, Any]]:
    """Each class and function that a door passes on: the door, its name there, the thing."""
    return [
        (where, name, thing)
        for where in PUBLIC
        for name in public_names(where)
        if inspect.isclass(thing := getattr(module(where), name)) or callable(thing)
    ]


def is_ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "nurseryio"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_door_lists_its_names_once_and_has_them_all(name: str) -> None:
    names = public_names(name)
    assert len(names) == len(set(names))
    assert not [n for n in names if not hasattr(module(name), n)]
    assert not [n for n in names if n.startswith("_") and n != "__version__"]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_door_has_nothing_of_ours_that_it_does_not_list(name: str) -> None:
    unlisted = {n for n, value in vars(module(name)).items() if n[0] != "_" and is_ours(value)}
    assert unlisted - set(public_names(name)) <= {"lazy_exports"}


def test_each_thing_goes_through_exactly_one_door() -> None:
    ways = defaultdict(list)
    for where, name, thing in public_things():
        if is_ours(thing) and name not in ALIASES:
            ways[id(thing)].append(f"{where or 'nurseryio'}: {name}")
    assert not [names for names in ways.values() if len(names) > 1]


def test_each_object_shows_its_state() -> None:
    wrong = [
        f"{where or 'nurseryio'}: {name}"
        for where, name, thing in public_things()
        # Not isclass(): an alias like Callable[[], None] passes for a class on 3.10.
        if issubclass(type(thing), type) and thing.__repr__ is object.__repr__
        # Interfaces have no state.
        if where != "abc" and name not in ("TaskStatus", "SocketType")
    ]
    assert not wrong


def test_each_thing_says_that_it_lives_where_it_is_imported_from() -> None:
    wrong = [
        f"{name}: {thing.__module__}"
        for where, name, thing in public_things()
        if is_ours(thing) and thing.__module__ != f"nurseryio.{where}".rstrip(".")
    ]
    assert not wrong


def test_aliases_are_second_names_and_still_there() -> None:
    for second, first in ALIASES.items():
        modules = [d for d in PUBLIC if second in public_names(d)]
        assert modules
        assert all(getattr(module(d), second) is getattr(module(d), first) for d in modules)


@pytest.mark.parametrize("name", PUBLIC)
def test_static_tools_see_every_name(name: str) -> None:
    seen = names_bound_by(source.modules()[name].tree.body)
    missing = set(public_names(name)) - seen
    if name in PASSES_ON_STDLIB:
        missing = {n for n in missing if is_ours(getattr(module(name), n))}
    assert not missing


def names_bound_by(body: list[ast.stmt]) -> set[str]:
    """What a module's source binds in a way that every tool follows: imports and assignments."""
    names = set()
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.If):
            names |= names_bound_by(node.body) | names_bound_by(node.orelse)
    return names


def test_type_checkers_know_that_a_re_export_is_one() -> None:
    assert (source.PACKAGE / "py.typed").is_file()
    wrong = [
        f"{name or 'nurseryio'}, line {node.lineno}: write {alias.name} as {alias.name}"
        for name in PUBLIC
        for node in imports_of(source.modules()[name].tree.body)
        if node.level
        for alias in node.names
        # What a star brings is a re-export by the rules for stubs, which hold for typed packages.
        if alias.asname is None and alias.name not in ("lazy_exports", "*")
    ]
    assert not wrong


def imports_of(body: list[ast.stmt]) -> Iterator[ast.ImportFrom]:
    """The imports of a module's names, outside functions."""
    for node in body:
        if isinstance(node, ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If):
            yield from imports_of([*node.body, *node.orelse])


def test_static_tools_see_that_a_wrong_name_is_wrong() -> None:
    # To a type checker a module with a __getattr__ has every name there is.
    for name in PUBLIC:
        body = source.modules()[name].tree.body
        seen = [n for n in body if not ast.unparse(n).startswith("if not TYPE_CHECKING:")]
        assert "__getattr__" not in ast.unparse(ast.Module(seen, [])), name or "nurseryio"


# -- documentation --------------------------------------------------------------


def test_everything_public_has_a_docstring() -> None:
    missing = []
    for where, name, thing in public_things():
        full = ".".join(filter(None, [where, name]))
        if is_ours(thing) and not inspect.getdoc(thing):
            missing.append(full)
        if is_ours(thing) and inspect.isclass(thing):
            missing += [f"{full}.{m}" for m in public_methods(thing) if not doc_of(thing, m)]
    assert not missing


def public_methods(cls: type) -> list[str]:
    """The public methods and properties that classes of ours give this class."""
    return [
        name
        for base in cls.__mro__
        if is_ours(base)
        for name, value in vars(base).items()
        if not name.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, (property, classmethod, staticmethod)))
    ]


def doc_of(cls: type, name: str) -> str | None:
    return inspect.getdoc(getattr(cls, name))


def test_each_door_has_its_page_and_each_page_its_door() -> None:
    pages = (source.ROOT / "docs/reference").glob("*.md")
    shown = {page.stem: re.findall(r"automodule:: ([\w.]+)", page.read_text()) for page in pages}
    assert shown == {name or "nurseryio": [f"nurseryio.{name}".rstrip(".")] for name in PUBLIC}


# -- what libraries do to the objects ----------------------------------------------


async def test_objects_that_trio_lets_one_add_attributes_to_accept_them_here() -> None:
    send, receive = nurseryio.open_memory_channel[None](0)
    (listener,) = await nurseryio.open_tcp_listeners(0, host="127.0.0.1")
    stream = nurseryio.SocketStream(nurseryio.socket.socket())
    with pytest.warns(nurseryio.TrioDeprecationWarning):
        queue = nurseryio.lowlevel.UnboundedQueue[None]()
    async with listener, stream, send, receive, nurseryio.open_nursery() as nursery:
        things: list[Any] = [nursery, send, receive, listener, stream, queue]
        things += [nurseryio.CapacityLimiter(1), nurseryio.Condition(), nurseryio.Lock()]
        things += [nurseryio.Semaphore(1), nurseryio.StrictFIFOLock()]
        for thing in things:
            thing.note = "mine"
            assert thing.note == "mine"


async def test_a_nursery_may_be_given_a_way_to_start_of_its_own() -> None:
    started = []
    async with nurseryio.open_nursery() as nursery:
        original = nursery.start_soon

        def start_soon(fn: Any, *args: Any) -> None:
            started.append(fn)
            original(fn, *args)

        nursery.start_soon = start_soon  # type: ignore[method-assign,assignment]
        nursery.start_soon(nurseryio.sleep, 0)
    assert started == [nurseryio.sleep]


# -- the cost of an import ------------------------------------------------------


def test_importing_the_library_does_not_load_what_it_may_not_need() -> None:
    # asyncio loads some of these by itself, on some versions: what counts is what we add.
    program = (
        "import sys, asyncio; before = set(sys.modules)\n"
        "import nurseryio\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    roots = {name.partition(".")[0] for name in done.stdout.split()}
    assert "nurseryio" in roots
    if sys.version_info < (3, 11):
        roots.discard("typing_extensions")  # the backport of exception groups loads it
    assert not roots & {
        "anyio",
        "hypothesis",
        "multiprocessing",
        "OpenSSL",
        "pytest",
        "sniffio",
        "ssl",
        "subprocess",
        "typing_extensions",
        "uvloop",
    }
