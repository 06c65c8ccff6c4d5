"""Trio's public names beside ours: what is missing, what differs, what is ours alone.

What lives here: the description of a library's public names as plain data, the comparison of two of
them, and the text that ``docs/trio-names.md`` gets from it when the documentation is built.
What does not: Trio's names themselves. They are in ``trio_names.json``, written by
``record_trio_names.py``, so that neither the documentation nor the tests need Trio.

Rule: nothing that differs is passed over in silence. ``REASONS`` says why, and
``tests/test_trio_names.py`` fails if a difference has no reason there, or if a reason has outlived
its difference.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pathlib
import re
import socket as stdlib_socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

RECORD = Path(__file__).with_name("trio_names.json")

# The public modules of Trio, by what follows its name.
MODULES = ("", "abc", "from_thread", "lowlevel", "socket", "testing", "to_thread")

Names = dict[str, dict[str, Any]]

# Why names differ, by patterns of the names as a program writes them, without "trio.".
_OTHER_LOOP = "asyncio's loop decides how it waits for the system"
_DETACHED = "an asyncio task owns its coroutine, nothing else can drive it"
REASONS = {
    "Cancelled.*": "the class is asyncio's `CancelledError`; the same three are attributes of "
    "`exc.args[0]`, a `CancelReason`",
    "*Statistics": "made by the library alone, with fields by name",
    "lowlevel.RunVarToken.*": "the token is for `RunVar.reset` alone",
    "lowlevel.*_coroutine_object": _DETACHED,
    "lowlevel.start_guest_run": "asyncio is the host here; await your function in its loop",
    "lowlevel.reschedule": "the package `outcome` is not needed: None stands for the value None",
    "lowlevel.*iocp": _OTHER_LOOP,
    "lowlevel.*overlapped": _OTHER_LOOP,
    "lowlevel.*kqueue": _OTHER_LOOP,
    "lowlevel.*kevent": _OTHER_LOOP,
    "lowlevel.monitor_completion_key": _OTHER_LOOP,
    "lowlevel.WaitForSingleObject": _OTHER_LOOP,
    "run": "`loop_factory` chooses the loop; `strict_exception_groups` is on unless it is False, "
    "and an explicit True keeps groups around `SystemExit` and `KeyboardInterrupt` too",
}


# -- names as data ---------------------------------------------------------------


def describe(module: ModuleType, library: str) -> Names:
    """What a module offers: each public name with its kind, its signature and its members."""
    names = getattr(module, "__all__", None) or dir(module)
    things = {name: getattr(module, name) for name in sorted(names) if not name.startswith("_")}
    return {n: describe_thing(t, library) for n, t in things.items() if not is_borrowed(t)}


def is_borrowed(thing: object) -> bool:
    """Whether a module has this for its own use, and does not offer it."""
    return inspect.ismodule(thing) or type(thing).__name__ == "_Feature"


def describe_thing(thing: Any, library: str) -> dict[str, Any]:
    """One name: what kind of thing it is, how it is called, and what it has if it is a class."""
    if not inspect.isclass(thing):
        if not callable(thing):
            return {"kind": "value"}
        return describe_function(thing, library)
    if not is_of(thing, library):
        return {"kind": "class"}
    found = {"kind": "class", "members": dict(sorted(members(thing, library)))}
    # Programs make neither members of an enumeration nor things without a public constructor.
    if "NoPublicConstructor" not in type(thing).__name__ and not issubclass(thing, Enum):
        found["signature"] = signature(thing, library)
    return found


def is_of(thing: Any, library: str) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] == library


def members(cls: type, library: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The public members that classes of this library give to ``cls``."""
    for base in reversed(cls.__mro__):
        if not is_of(base, library):
            continue
        fields = [f.name for f in getattr(base, "__attrs_attrs__", ())]
        for name in {*vars(base), *vars(base).get("__annotations__", ()), *fields}:
            if name.startswith("_"):
                continue
            value = inspect.getattr_static(cls, name, None)
            if isinstance(value, (classmethod, staticmethod)):
                value = getattr(cls, name)
            is_method = inspect.isroutine(value)
            yield name, describe_function(value, library) if is_method else {"kind": "attribute"}


def describe_function(function: Any, library: str) -> dict[str, Any]:
    found = {"kind": "function", "signature": signature(function, library)}
    if "NotImplementedError: always" in (inspect.getdoc(function) or ""):
        found["refuses"] = True
    return found


def signature(function: Any, library: str) -> str | None:
    """The parameters with their defaults, without types; None if Python does not tell.

    Where a function of another library is wrapped, the wrapper's own parameters count.
    """
    if not inspect.isclass(function):
        while is_of(getattr(function, "__wrapped__", None), library):
            function = function.__wrapped__
    try:
        found = inspect.signature(function, follow_wrapped=inspect.isclass(function))
    except (TypeError, ValueError):
        return None
    parameters = [plain(p) for p in found.parameters.values() if p.name not in ("self", "cls")]
    # The order of keyword arguments is of no account.
    parameters.sort(key=lambda p: (p.kind, p.name if p.kind is p.KEYWORD_ONLY else ""))
    return str(inspect.Signature(parameters))


def plain(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter without its type, and with a default that looks the same everywhere."""
    if parameter.default is not parameter.empty:
        parameter = parameter.replace(default=Shown(parameter.default))
    return parameter.replace(annotation=parameter.empty)


class Shown:
    """A default value as a signature shows it: simple ones as they are, others as three dots."""

    def __init__(self, value: object) -> None:
        if isinstance(value, int) and not isinstance(value, bool):
            value = int(value)
        simple = value is None or isinstance(value, (bool, int, float, str, bytes, tuple))
        self.text = repr(value) if simple else "..."

    def __repr__(self) -> str:
        return self.text


# -- the comparison --------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Difference:
    """A name that is not the same in both libraries."""

    name: str  # as a program writes it, without "trio."
    theirs: str | None = None  # the signature in Trio
    ours: str | None = None  # and here

    @property
    def reason(self) -> str | None:
        """Why; None if nobody has said."""
        return next((why for pattern, why in REASONS.items() if fnmatch(self.name, pattern)), None)


@dataclass
class Comparison:
    """Trio's names, as recorded, beside those of the library that is installed here."""

    release: str  # of Trio
    names: int = 0  # that were compared
    members: int = 0
    missing: list[Difference] = field(default_factory=list)
    refusing: list[Difference] = field(default_factory=list)
    differing: list[Difference] = field(default_factory=list)
    elsewhere: list[Difference] = field(default_factory=list)  # missing on other systems
    ours_alone: list[str] = field(default_factory=list)

    @property
    def differences(self) -> list[Difference]:
        return [*self.missing, *self.refusing, *self.differing, *self.elsewhere]


def compare() -> Comparison:
    """Compare all names, and all members of classes."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    result = Comparison(record["release"])
    for where, theirs in record["modules"].items():
        module = importlib.import_module(f"nurseryio.{where}".rstrip("."))
        ours = describe(module, "nurseryio")
        here = {name: thing for name, thing in theirs.items() if can_exist(where, name, thing)}
        result.elsewhere += [
            Difference(f"{where}.{name}", thing["only"])
            for name, thing in theirs.items()
            if "only" in thing and f"{name} as {name}" not in inspect.getsource(module)
        ]
        result.names += len(here)
        compare_names(result, where, here, ours)
        new = ours.keys() - theirs.keys() - vars(stdlib_socket).keys()
        result.ours_alone += [f"{where}.{name}".lstrip(".") for name in new]
        for name, thing in here.items():
            cls = getattr(module, name, None)
            if "members" in thing and inspect.isclass(cls):
                compare_members(result, where, name, thing["members"], cls)
    for found in (result.missing, result.refusing, result.differing, result.elsewhere):
        found.sort()
    result.ours_alone.sort()
    return result


def can_exist(where: str, name: str, thing: dict[str, Any]) -> bool:
    """Whether this system can have the name: Trio has what the standard library's socket has."""
    if "only" in thing:
        return False
    return where != "socket" or thing["kind"] != "value" or hasattr(stdlib_socket, name)


def compare_members(result: Comparison, where: str, name: str, theirs: Names, cls: type) -> None:
    """Compare what a class has with what Trio's has.

    What ours has beyond it is left to the reference: much of it are attributes that Trio's class
    has as well, without declaring them.
    """
    ours = dict(members(cls, "nurseryio"))
    if name.endswith("Path"):
        # These methods are pathlib's, and differ with the version of Python.
        theirs = {n: {"kind": "attribute"} for n in theirs if hasattr(pathlib.Path, n)}
    result.members += len(theirs)
    inherited = {n: {"kind": "attribute"} for n in theirs if hasattr(cls, n)}
    compare_names(result, f"{where}.{name}", theirs, inherited | ours)


def compare_names(result: Comparison, prefix: str, theirs: Names, ours: Names) -> None:
    """Add to ``result`` what is missing, refuses to work, or is called in another way."""
    for name, thing in theirs.items():
        full = f"{prefix}.{name}".lstrip(".")
        mine = ours.get(name)
        if mine is None:
            result.missing.append(Difference(full))
            continue
        difference = Difference(full, thing.get("signature"), mine.get("signature"))
        if mine.get("refuses"):
            result.refusing.append(difference)
        elif None not in (difference.theirs, difference.ours) and (
            as_called(difference.theirs) != as_called(difference.ours)
        ):
            result.differing.append(difference)


def as_called(signature: str) -> str:
    """A signature without the names of its positional-only parameters.

    No caller can write these names. Python 3.14 renames some of them in the standard library.
    """
    head, slash, tail = signature.rpartition(", /")
    return re.sub(r"(?<![=\w])\w+(?=[,=]|$)", "_", head) + slash + tail


# -- the lists -------------------------------------------------------------------

# Where the lists go.
MARK = "<!-- made of the code when the documentation is built -->"


def render(result: Comparison) -> str:
    """The lists, in Markdown."""
    there = [*result.missing, *result.refusing, *result.differing]
    same = result.names + result.members - len(there)
    return "\n".join(
        [
            f"Compared with Trio {result.release}: {result.names} names of modules and "
            f"{result.members} methods and attributes of classes. {same} are there and are called "
            "in the same way.",
            "",
            "## Missing",
            "",
            *table(result.missing),
            "",
            "## There, and raising `NotImplementedError`",
            "",
            *table(result.refusing),
            "",
            "## Called in another way",
            "",
            *table(result.differing, signatures=True),
            "",
            "## Missing on other systems",
            "",
            "Names that Trio has on one system alone, and that are missing there:",
            "",
            *(f"* `{d.name}` ({d.theirs}): {d.reason}" for d in result.elsewhere),
            "",
            "## Only in nurseryio",
            "",
            *(f"* `{name}`" for name in result.ours_alone),
            "",
        ]
    )


def table(differences: list[Difference], signatures: bool = False) -> list[str]:
    """A table with a line for each difference."""
    if not differences:
        return ["Nothing."]
    if not signatures:
        rows = [f"| `{d.name}` | {d.reason} |" for d in differences]
        return ["| name | why |", "|---|---|", *rows]
    rows = [f"| `{d.name}` | `{d.theirs}` | `{d.ours}` | {d.reason} |" for d in differences]
    return ["| name | in Trio | here | why |", "|---|---|---|---|", *rows]
