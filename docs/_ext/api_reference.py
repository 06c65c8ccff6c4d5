"""The reference: how autodoc shows the objects, and the table of all names.

This module is the extension that gives docstrings to ``docstrings.py``, leaves out members that
belong to Python, marks context managers with ``with``, and writes the table of the public names.
Links are in ``api_links.py``.

The pages in ``reference/`` say which object is shown where. ``tests/docs/test_reference.py`` checks
that none is missing.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import docstrings
from sphinx.addnodes import desc_annotation, desc_sig_keyword, desc_sig_space
from sphinx.errors import ExtensionError
from sphinx.util import logging

LIBRARY = "nurseryio"
MODULES = (
    "nurseryio",
    "nurseryio.abc",
    "nurseryio.aio",
    "nurseryio.from_thread",
    "nurseryio.instruments",
    "nurseryio.lowlevel",
    "nurseryio.socket",
    "nurseryio.testing",
    "nurseryio.to_interpreter",
    "nurseryio.to_process",
    "nurseryio.to_thread",
)

# Where the table of names goes.
MARK = "<!-- the table of names is made of the code -->"

logger = logging.getLogger(__name__)


def of_library(thing: object) -> bool:
    """Whether a class or function is defined in this library."""
    return str(getattr(thing, "__module__", "")).partition(".")[0] == LIBRARY


def public_things(module: str) -> Iterator[tuple[str, Any]]:
    """The names of a public module that this library defines, with their objects."""
    found = importlib.import_module(module)
    for name in found.__all__:
        thing = getattr(found, name)
        # The constants and small functions of nurseryio.socket are the standard library's.
        if of_library(thing) or module != "nurseryio.socket":
            yield name, thing


# -- docstrings -----------------------------------------------------------------


def process_docstring(
    _app: Any, what: str, name: str, thing: Any, _options: Any, lines: list[str]
) -> None:
    """Replace a docstring by what the reference shows of it."""
    if not (of_library(thing) or name.startswith(LIBRARY)) or what == "module":
        return
    try:
        doc = docstrings.parse("\n".join(lines))
    except docstrings.FormatError as error:
        logger.warning("the docstring of %s: %s", name, error, type="docstring")
        return
    lines[:] = docstrings.render(doc, types_of(thing), documented(thing))


def types_of(thing: Any) -> dict[str, str]:
    """The types of a class's attributes, as they are written."""
    found: dict[str, str] = {}
    for base in reversed(getattr(thing, "__mro__", ())):
        if of_library(base):
            found |= {n: str(t) for n, t in inspect.get_annotations(base).items() if n[0] != "_"}
    return found


def documented(thing: Any) -> frozenset[str]:
    """The attributes of a class that autodoc shows with a docstring of their own."""
    if not inspect.isclass(thing):
        return frozenset()
    static = {name: inspect.getattr_static(thing, name, None) for name in dir(thing)}
    return frozenset(n for n, v in static.items() if isinstance(v, property) and v.__doc__)


def skip_member(
    _app: Any, _what: str, name: str, thing: Any, skip: bool, _options: Any
) -> bool | None:
    """Leave out members that say nothing: fields of named tuples, methods of Python's classes."""
    doc = getattr(thing, "__doc__", None) or ""
    if doc.startswith("Alias for field number"):
        return True
    if inspect.isroutine(thing) and not of_library(thing) and not name.startswith("_"):
        return True
    return None


# -- signatures -----------------------------------------------------------------


def hide_constructor(
    _app: Any, what: str, _name: str, thing: Any, *_rest: Any
) -> tuple[str, None] | None:
    """Show no signature for a class that programs do not call.

    It is one if its docstring does not explain the arguments, though there are some.
    """
    if what != "class" or not of_library(thing):
        return None
    if "Args" in docstrings.parse(inspect.getdoc(thing) or "").lists:
        return None
    try:
        parameters = inspect.signature(thing).parameters
    except ValueError:
        parameters = {}
    interface = thing.__module__ == "nurseryio.abc"
    return ("", None) if parameters or interface else None


def is_block(thing: Any) -> str | None:
    """How a call is used: "with" or "async with" if it makes a block, None if not."""
    if not inspect.isfunction(thing) or inspect.iscoroutinefunction(thing):
        return None
    made = str(thing.__annotations__.get("return", "")).partition("[")[0]
    if made == "AbstractContextManager":
        return "with"
    if made == "AbstractAsyncContextManager":
        return "async with"
    cls = next((c for n, c in public_classes() if n == made), None)
    # A stream can be the block of an "async with" too. It need not, and is not made for it alone.
    if cls is None or hasattr(cls, "aclose"):
        return None
    # The other of the two pairs of methods may be there to raise an error that helps.
    if hasattr(cls, "__aenter__") and not any(b.__name__ == "OnlyWith" for b in cls.__mro__):
        return "async with"
    return "with" if hasattr(cls, "__enter__") else None


def public_classes() -> Iterator[tuple[str, type]]:
    """The classes that this library exports."""
    for module in MODULES:
        yield from ((n, t) for n, t in public_things(module) if inspect.isclass(t))


def mark_block(app: Any, domain: str, _what: str, content: Any) -> None:
    """Write "with" before the name of a function that makes a block."""
    if domain != "py":
        return
    for signature in content.parent.findall(lambda n: n.tagname == "desc_signature"):
        name = f"{signature.get('module')}.{signature.get('fullname')}"
        if signature.get("nurseryio_marked") or not name.startswith(LIBRARY):
            continue
        block = is_block(found_thing(name))
        if block is not None:
            signature["nurseryio_marked"] = True
            words = desc_annotation("", "")
            for word in block.split():
                words += [desc_sig_keyword("", word), desc_sig_space()]
            signature.insert(0, words)


def found_thing(name: str) -> Any:
    """The object of a full name, None if there is none."""
    module = max((m for m in MODULES if name.startswith(f"{m}.")), key=len, default="")
    thing: Any = sys.modules.get(module)
    for part in name[len(module) + 1 :].split("."):
        thing = getattr(thing, part, None)
    return thing


# -- the table of names -----------------------------------------------------------


def table() -> str:
    """The public names of all modules, with the first sentence of each, as Markdown."""
    lines = []
    for module in MODULES:
        lines += [f"## `{module}`", "", "```{eval-rst}", f".. py:currentmodule:: {module}", ""]
        for name, thing in sorted(public_things(module), key=lambda item: item[0].lower()):
            if name.startswith("__"):
                continue
            lines += [f"* :py:obj:`~{module}.{name}`{of(thing)}"]
        lines += ["```", ""]
    return "\n".join(lines)


def of(thing: Any) -> str:
    """The first sentence of an object's docstring, behind a dash."""
    if not of_library(thing) or isinstance(thing, enum.Enum):
        return ""
    return " – " + docstrings.summary(docstrings.parse(inspect.getdoc(thing) or ""))


def fill_table(_app: Any, _name: str, source: list[str]) -> None:
    """Put the table into the page that has its mark."""
    if MARK in source[0]:
        source[0] = source[0].replace(MARK, table())


def setup(app: Any) -> dict[str, Any]:
    """Install the handlers."""
    if "sphinx.ext.napoleon" in app.extensions:
        raise ExtensionError("sphinx.ext.napoleon would read the docstrings a second time")
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", hide_constructor)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("object-description-transform", mark_block)
    app.connect("source-read", fill_table)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
