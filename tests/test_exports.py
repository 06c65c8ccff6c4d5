"""The public modules: each object is exported by exactly one of them, and is documented.

Static tools are checked in two ways: here by reading the public modules' source, and in ``make
types`` by ``pyright --verifytypes``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
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
        "to_interpreter",
        "to_process",
        "to_thread",
        "from_thread",
        "aio",
        "instruments",
        "testing",
    )
    if name in source.modules()
)

# Objects with a second name in the same public module, kept for programs that use it: name -> the
# first one.
ALIASES = {"TrioToken": "LoopToken", "trio_test": "nurseryio_test"}

# Doors that pass on names of the standard library, as Trio's does.
PASSES_ON_STDLIB = {"socket"}


def module(name: str) -> ModuleType:
    return importlib.import_module(f"nurseryio.{name}".rstrip("."))


def public_names(name: str) -> list[str]:
    return list(module(name).__all__)


def public_things() -> list[tuple[str, str, Any]]:
    """Each class and function of the public modules: the module, its name there, the object."""
    return [
        (where, name, thing)
        for where in PUBLIC
        for name in public_names(where)
        if inspect.isclass(thing := getattr(module(where), name)) or callable(thing)
    ]


def is_ours(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "nurseryio"


@pytest.mark.parametrize("name", PUBLIC)
def test_all_of_a_public_module_lists_each_of_its_names_once(name: str) -> None:
    names = public_names(name)
    assert len(names) == len(set(names))
    assert not [n for n in names if not hasattr(module(name), n)]
    assert not [n for n in names if n.startswith("_") and n != "__version__"]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_has_no_nurseryio_name_that_is_missing_in_all(name: str) -> None:
    unlisted = {n for n, value in vars(module(name)).items() if n[0] != "_" and is_ours(value)}
    assert unlisted - set(public_names(name)) <= {"exports", "lazy_exports"}


def test_each_object_is_exported_by_exactly_one_public_module() -> None:
    ways = defaultdict(list)
    for where, name, thing in public_things():
        if is_ours(thing) and name not in ALIASES:
            ways[id(thing)].append(f"{where or 'nurseryio'}: {name}")
    assert not [names for names in ways.values() if len(names) > 1]


def test_repr_of_each_public_object_shows_its_state() -> None:
    wrong = [
        f"{where or 'nurseryio'}: {name}"
        for where, name, thing in public_things()
        # Not isclass(): an alias like Callable[[], None] passes for a class on 3.10.
        if issubclass(type(thing), type) and thing.__repr__ is object.__repr__
        # Interfaces have no state.
        if where != "abc" and name not in ("TaskStatus", "SocketType")
    ]
    assert not wrong


def test_the_module_attribute_of_each_export_is_its_public_module() -> None:
    wrong = [
        f"{name}: {thing.__module__}"
        for where, name, thing in public_things()
        if is_ours(thing) and thing.__module__ != f"nurseryio.{where}".rstrip(".")
    ]
    assert not wrong


@pytest.mark.parametrize("name", PUBLIC)
def test_dir_of_a_public_module_has_its_public_names_and_modules_alone(name: str) -> None:
    shown = set(dir(module(name)))
    assert set(public_names(name)) - {"__version__"} <= shown
    modules = {n for n in PUBLIC if n} if name == "" else set()
    assert shown == set(public_names(name)) - {"__version__"} | modules


@pytest.mark.parametrize("name", [n for n in PUBLIC if n])
def test_each_public_module_is_an_attribute_of_nurseryio(name: str) -> None:
    program = f"import nurseryio; print(nurseryio.{name}.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"nurseryio.{name}\n"


def test_help_of_nurseryio_begins_with_an_example_for_users() -> None:
    text = inspect.getdoc(nurseryio) or ""
    users, _, readers = text.partition("For people who read the code")
    assert "async with nurseryio.open_nursery()" in users
    assert "_asyncio" not in users and "_asyncio" in readers


def test_aliases_of_exports_exist() -> None:
    for second, first in ALIASES.items():
        modules = [d for d in PUBLIC if second in public_names(d)]
        assert modules
        assert all(getattr(module(d), second) is getattr(module(d), first) for d in modules)


@pytest.mark.parametrize("name", PUBLIC)
def test_static_tools_see_every_export(name: str) -> None:
    seen = names_bound_by(source.modules()[name].tree.body)
    missing = set(public_names(name)) - seen
    if name in PASSES_ON_STDLIB:
        missing = {n for n in missing if is_ours(getattr(module(name), n))}
    assert not missing


def names_bound_by(body: list[ast.stmt]) -> set[str]:
    """The names that a module's source binds in a way that every tool follows: imports,
    assignments."""
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


def test_re_exports_are_explicit_for_type_checkers() -> None:
    assert (source.PACKAGE / "py.typed").is_file()
    wrong = [
        f"{name or 'nurseryio'}, line {node.lineno}: write {alias.name} as {alias.name}"
        for name in PUBLIC
        for node in imports_of(source.modules()[name].tree.body)
        if node.level
        for alias in node.names
        # What a star brings is a re-export by the rules for stubs, which hold for typed packages.
        if alias.asname is None and alias.name not in ("exports", "lazy_exports", "*")
    ]
    assert not wrong


def imports_of(body: list[ast.stmt]) -> Iterator[ast.ImportFrom]:
    """The imports of a module's names, outside functions."""
    for node in body:
        if isinstance(node, ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If):
            yield from imports_of([*node.body, *node.orelse])


def test_static_tools_report_a_wrong_name() -> None:
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
    """The public methods and properties that nurseryio's classes give this class."""
    return [
        name
        for base in cls.__mro__
        if is_ours(base)
        for name, value in vars(base).items()
        # An attribute with a hint (_base.unsupported) looks like a method, and is missing.
        if not name.startswith("_")
        and hasattr(cls, name)
        and (inspect.isroutine(value) or isinstance(value, (property, classmethod, staticmethod)))
    ]


def doc_of(cls: type, name: str) -> str | None:
    return inspect.getdoc(getattr(cls, name))


# -- what libraries do to the objects ----------------------------------------------


async def test_objects_that_accept_new_attributes_in_trio_accept_them_in_nurseryio() -> None:
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


async def test_start_soon_of_a_nursery_may_be_replaced() -> None:
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


def test_importing_nurseryio_does_not_import_optional_modules() -> None:
    # asyncio loads some of these by itself, on some versions: only nurseryio's own imports count.
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
