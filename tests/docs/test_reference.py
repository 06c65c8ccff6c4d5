"""The reference as it is built: it is complete, each name has its target, each link its page."""

from __future__ import annotations

import importlib
import inspect
import shutil
import socket as stdlib_socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
from harness import site

import nurseryio

pytest.importorskip("furo", reason="comes with the extra docs")
pytest.importorskip("myst_parser", reason="comes with the extra docs")

# Whichever test comes first waits for the build.
pytestmark = pytest.mark.limit(300)

MODULES = site.extension("api_reference").MODULES


@pytest.fixture(scope="module")
def built() -> Iterator[site.Site]:
    found = site.build()
    yield found
    site.build.cache_clear()
    shutil.rmtree(found.folder.parent)


def names() -> Iterator[tuple[str, Any]]:
    """The public names with their objects. What nurseryio.socket passes on is Python's."""
    for module in MODULES:
        found = importlib.import_module(module)
        for name in found.__all__:
            thing = getattr(found, name)
            if module != "nurseryio.socket" or thing is not getattr(stdlib_socket, name, None):
                yield f"{module}.{name}", thing


def is_ours(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "nurseryio"


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods, properties and attributes that classes of nurseryio give a class."""
    for base in cls.__mro__:
        # The scope tree's nodes are not public: CancelScope has its own forms of their methods.
        if is_ours(base) and base.__name__ != "Node":
            annotated = dict.fromkeys(inspect.get_annotations(base))
            for name, value in {**annotated, **vars(base)}.items():
                is_routine = inspect.isroutine(value) or isinstance(value, property)
                # An attribute with a hint is one that the class does not have.
                here = name in annotated or hasattr(cls, name)
                if not name.startswith("_") and here and (is_routine or name in annotated):
                    yield name, value


def test_the_documentation_builds_without_network_and_without_a_warning(built: site.Site) -> None:
    assert built.errors == ""
    assert "index.html" in built.pages


def test_each_public_name_is_on_the_reference_with_a_text(built: site.Site) -> None:
    assert not [name for name, _ in names() if not built.text(name)]


def test_each_public_member_is_on_the_reference_with_a_text(built: site.Site) -> None:
    missing = {
        f"{name}.{member}"
        for name, thing in names()
        # The two other paths are Path. An alias has the members of its class.
        if inspect.isclass(thing) and thing.__name__ not in ("PosixPath", "WindowsPath")
        if is_ours(thing) and thing.__name__ == name.rpartition(".")[2]
        for member, _ in members(thing)
        if not built.text(f"{name}.{member}")
    }
    # The engine's own field, which has no underscore because it is read on the hottest paths.
    assert missing == {"nurseryio.lowlevel.Task.scope"}


def test_the_reference_says_of_each_async_function_whether_it_is_a_checkpoint(
    built: site.Site,
) -> None:
    functions = {name: thing for name, thing in names() if inspect.isfunction(thing)}
    for name, thing in names():
        if inspect.isclass(thing) and is_ours(thing):
            functions |= {f"{name}.{m}": v for m, v in members(thing) if inspect.isfunction(v)}
    silent = [
        name
        for name, function in functions.items()
        if inspect.iscoroutinefunction(function) and name in built.names
        if "Checkpoint:" not in built.text(name)
    ]
    assert not silent


def test_a_function_that_makes_a_block_is_shown_with_its_keyword(built: site.Site) -> None:
    assert built.signature("nurseryio.fail_after").startswith("with nurseryio.fail_after(")
    assert "AbstractContextManager[CancelScope]" in built.signature("nurseryio.fail_after")
    shown = built.signature("nurseryio.open_nursery")
    assert shown.startswith("async with nurseryio.open_nursery(")
    assert built.signature("nurseryio.sleep").startswith("async nurseryio.sleep(")
    assert built.signature("nurseryio.current_time").startswith("nurseryio.current_time(")


def test_a_class_that_programs_do_not_call_is_shown_without_arguments(built: site.Site) -> None:
    assert "(" not in built.signature("nurseryio.Nursery")
    assert "(" not in built.signature("nurseryio.LockStatistics")
    assert "initial_value: int" in built.signature("nurseryio.Semaphore")


def test_attributes_and_properties_keep_their_text_in_the_reference(built: site.Site) -> None:
    assert built.text("nurseryio.Process.returncode").startswith("The exit status: 0 for success")
    assert "bool" in built.signature("nurseryio.CancelScope.cancelled_caught")
    assert built.text("nurseryio.Process.pid") == "The process id."


def test_each_internal_link_and_anchor_of_the_documentation_exists(built: site.Site) -> None:
    dead = []
    for path, page in built.pages.items():
        for link in page.links:
            target, anchor = urldefrag(unquote(link))
            if "://" in target or target.startswith("mailto:"):
                continue
            found = (built.folder / path).parent.joinpath(target).resolve() if target else None
            place = path if found is None else found.relative_to(built.folder.resolve()).as_posix()
            if place not in built.pages:
                if not (built.folder / place).exists():
                    dead.append(f"{path}: {link}")
            elif anchor and anchor not in built.pages[place].anchors:
                dead.append(f"{path}: {link}")
    assert not dead


def test_each_public_name_in_a_guide_is_a_link_to_the_reference(built: site.Site) -> None:
    public = {name for name, _ in names()}
    plain = [
        f"{path}: {code.text}"
        for path, page in built.pages.items()
        if not path.startswith("reference/")
        for code in page.codes
        if code.text.removesuffix("()") in public and not code.link and not code.in_heading
    ]
    # The loggers of these classes have their names.
    loggers = ("nurseryio.Watchdog", "nurseryio.Process")
    assert not [code for code in plain if not code.endswith(loggers)]


def test_names_of_python_and_trio_are_links_to_their_documentation(built: site.Site) -> None:
    links = {link for page in built.pages.values() for link in page.links}
    assert "https://docs.python.org/3/library/asyncio-task.html#asyncio.TaskGroup" in links
    assert "https://trio.readthedocs.io/en/stable/reference-core.html#trio.open_nursery" in links
    assert "https://anyio.readthedocs.io/en/stable/api.html#anyio.abc.ByteStream" in links


def test_the_version_is_on_the_reference(built: site.Site) -> None:
    assert built.text("nurseryio.__version__")
    assert nurseryio.__version__
