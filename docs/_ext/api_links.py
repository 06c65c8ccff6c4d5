"""Links from names to the reference, without a role: code in a text that names a public object.

This module has the table of names, the recognition of a name in ``code`` of a text, and the Sphinx
extension that makes links of them. It also finds the targets of short names in docstrings, such as
``:class:`Nursery```, and of the types in signatures, which Sphinx looks for under their full names.
The reference itself is in ``api_reference.py``.

Rule 1: a name is a link if it is one of ours, or one of a project in ``inventories.py`` with the
module in front. ``open_nursery``, ``nurseryio.open_nursery()``, ``await lowlevel.checkpoint()`` and
``nursery.start_soon(f, x)`` are recognised.

Rule 2: a bare name that means something else as often is not a link; ``AMBIGUOUS`` lists them.

Rule 3: a name in a heading, in a link, or in the description of the same object is left as it is.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from docutils import nodes
from inventories import SITES
from sphinx.addnodes import desc, pending_xref
from sphinx.domains.python import PythonDomain
from sphinx.ext.intersphinx import InventoryAdapter
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import make_refnode

LIBRARY = "nurseryio"

# The type of the cross-references that are made of code.
CODE = "nurseryio-code"

# Bare names that, in a text, are as often the names of something else: asyncio's tasks, an
# argument, an English word.
AMBIGUOUS = {"Channel", "Clock", "Listener", "Path", "Process", "Task", "run", "socket"}

# Names that the documentation gives to variables, and the classes of their values.
VARIABLES = {
    "cancel_scope": "CancelScope",
    "limiter": "CapacityLimiter",
    "nursery": "Nursery",
    "receive_channel": "MemoryReceiveChannel",
    "scope": "CancelScope",
    "send_channel": "MemorySendChannel",
    "task_status": "TaskStatus",
}

_CODE = re.compile(
    r"(?:(?:await|async with|with|async for \w+ in|raise|except) )?"
    r"(?P<name>[A-Za-z]\w*(?:\.[A-Za-z_]\w*)*)"
    r"(?:\[[\w, ]*\])?(?:\(.*\))?(?: as \w+)?:?"
)

# Types that are defined under one name and documented under another.
_ALIASES = {
    "asyncio.exceptions.CancelledError": "asyncio.CancelledError",
    "asyncio.streams.StreamReader": "asyncio.StreamReader",
    "asyncio.streams.StreamWriter": "asyncio.StreamWriter",
    "asyncio.transports.Transport": "asyncio.Transport",
    "_ssl.SSLSession": "ssl.SSLSession",
    "pathlib.Path.full_match": "pathlib.PurePath.full_match",
    "AbstractAsyncContextManager": "contextlib.AbstractAsyncContextManager",
    "AbstractContextManager": "contextlib.AbstractContextManager",
    "Buffer": "collections.abc.Buffer",
    "CancelledError": "asyncio.CancelledError",
    "gaierror": "socket.gaierror",
    "stdlib.socket": "socket.socket",
    "unittest.result.TestResult": "unittest.TestResult",
}


def name_in(code: str) -> str | None:
    """The dotted name that a piece of code names, if it is one name or one call."""
    found = _CODE.fullmatch(code)
    return found["name"] if found else None


def candidates(name: str, module: str | None = None, sure: bool = False) -> Iterator[str]:
    """The full names that a name may stand for, most likely first.

    Args:
        name: a dotted name.
        module: the public module whose reference the name is in, if it is in one.
        sure: whether the name is known to be one, because it stands in a role or a signature.
    """
    yield name
    first, dot, rest = name.partition(".")
    if module not in (None, LIBRARY):
        yield f"{module}.{name}"
    # The module socket, and socket.getaddrinfo, are the standard library's.
    if first != "socket" and (dot or sure or name not in AMBIGUOUS):
        yield f"{LIBRARY}.{name}"
        for place in (
            "abc",
            "aio",
            "instruments",
            "lowlevel",
            "testing",
            "to_process",
            "to_thread",
        ):
            yield f"{LIBRARY}.{place}.{name}"
    if rest and first in VARIABLES:
        yield f"{LIBRARY}.{VARIABLES[first]}.{rest}"


def find(
    name: str,
    ours: Mapping[str, Any],
    theirs: Iterable[Mapping[str, Any]],
    module: str | None = None,
    sure: bool = False,
) -> tuple[str, Any] | None:
    """The first candidate that is known, and its entry."""
    for full in candidates(name, module, sure):
        if full in ours:
            return full, ours[full]
    # The constants of nurseryio.socket are the standard library's.
    full = _ALIASES.get(name, name)
    if full.startswith(f"{LIBRARY}.socket."):
        full = full.removeprefix(f"{LIBRARY}.")
    bare_exception = isinstance(getattr(builtins, full, None), type) and full[0].isupper()
    if full.partition(".")[0] in SITES or "." in full or bare_exception:
        for known in theirs:
            if full in known:
                return full, known[full]
    return None


# -- Sphinx ---------------------------------------------------------------------


class LinkCode(SphinxTransform):
    """Wraps each name in code of a text in a cross-reference that may stay unresolved."""

    default_priority = 600

    def apply(self, **_options: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            if _may_be_link(literal) and (name := name_in(literal.astext())):
                link = pending_xref(
                    "",
                    # Of no domain, because intersphinx would link every word that Python knows.
                    refdomain="",
                    reftype=CODE,
                    reftarget=name,
                    refdoc=self.env.docname,
                    refwarn=False,
                )
                inside = [n for d in _descriptions_around(literal) for n in d.get("ids", ())]
                link["py:module"] = next(
                    (d.get("module") for d in _descriptions_around(literal)), None
                )
                link["nurseryio_inside"] = inside
                link["nurseryio_classes"] = inside if literal.astext().endswith("()") else []
                literal.replace_self(link)
                link += literal


def _may_be_link(literal: nodes.literal) -> bool:
    """Whether code stands in a text: not in a heading, in a link or in a role's text."""
    place: Any = literal.parent
    if "xref" in literal.get("classes", ()):
        return False
    while place is not None:
        if isinstance(place, (nodes.title, nodes.reference, pending_xref, nodes.raw)):
            return False
        place = place.parent
    return True


def _descriptions_around(node: nodes.Node) -> Iterator[Any]:
    place: Any = node.parent
    while place is not None:
        if isinstance(place, desc) and place.get("domain") == "py":
            yield place[0]
        place = place.parent


def resolve(app: Any, env: Any, node: pending_xref, text: nodes.TextElement) -> Any:
    """The handler of ``missing-reference``: the link of a name, None if it is not known."""
    is_code = node["reftype"] == CODE
    if not is_code and node.get("refdomain") != "py":
        return None
    domain = env.domains["py"]
    assert isinstance(domain, PythonDomain)
    known = InventoryAdapter(env).named_inventory
    theirs = [
        entries
        for project in SITES
        for kind, entries in known.get(project, {}).items()
        if kind[:3] == "py:"
    ]
    target = node["reftarget"]
    # The place of definition is not public: nurseryio._run.runvar.RunVar.
    if target.startswith(f"{LIBRARY}._"):
        target = target.rpartition(".")[2]
    found = None
    for cls in node.get("nurseryio_classes", ()):
        found = found or find(f"{cls}.{target}", domain.objects, [])
    found = found or find(target, domain.objects, theirs, node.get("py:module"), sure=not is_code)
    if found is None:
        return None
    full, entry = found
    if full in node.get("nurseryio_inside", ()):
        return None
    if hasattr(entry, "docname"):
        place, anchor = entry.docname, entry.node_id
        return make_refnode(app.builder, node["refdoc"], place, anchor, [text], full)
    link = nodes.reference("", "", text, internal=False, refuri=entry.uri, reftitle=full)
    link["classes"] += ["external"]
    return link


def is_plain_code(_app: Any, _domain: Any, node: pending_xref) -> bool | None:
    """The handler of ``warn-missing-reference``: code that names nothing is not worth a warning."""
    return True if node["reftype"] == CODE else None


def setup(app: Any) -> dict[str, Any]:
    """Install the transform and the handlers."""
    app.setup_extension("sphinx.ext.intersphinx")
    app.add_transform(LinkCode)
    # Before intersphinx, which does not know short names.
    app.connect("missing-reference", resolve, priority=400)
    app.connect("warn-missing-reference", is_plain_code)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
