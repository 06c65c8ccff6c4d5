"""``provide_trio``: unchanged programs for Trio, whose ``import trio`` gives nurseryio.

This module has the modules that stand in for ``trio`` and its public submodules, and the import
hook that returns them. They exist in this process only. The metadata of the distribution are in
``trio_metadata``, the command line is in ``cli``.

Rule 1: a real ``trio`` that is loaded already is never replaced. Two libraries of one name, each
with its own tasks, could not work.

Rule 2: a stand-in only has the attributes that must differ: its name, the version of Trio that it
follows, ``run``, ``trio_test`` and ``start_guest_run``. Everything else is looked up in nurseryio's
public modules, at the time of access. So a test that patches ``trio.sleep`` patches the stand-in
alone.

Rule 3: Trio's private names are missing, except those that published packages use. They are in
``trio_private``.

Rule 4: in a run that the stand-in's ``run`` has started, ``sniffio.current_async_library()`` is
"trio", as a program for Trio expects. A library with a side for each of the two then uses its Trio
side, on the stand-in. In all other runs and loops it is "asyncio".

Rule 5: anyio's Trio back end gets help when it starts a run or a test runner, see ``anyio_trio``.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._base.forked import process_lock
from .._base.library_name import call_under_name
from . import anyio_trio, trio_private
from .trio_private import LIBRARY as LIBRARY, PRIVATE_MODULES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.metadata import Distribution, DistributionFinder

__all__ = ["provide_trio"]

# The release of Trio whose names and behaviour nurseryio has.
FOLLOWS = "0.35.0"

# Each module of Trio that has a stand-in, and nurseryio's public module behind it.
PUBLIC_MODULES = {
    "trio": LIBRARY,
    **{
        f"trio.{module}": f"{LIBRARY}.{module}"
        for module in ("abc", "from_thread", "lowlevel", "socket", "testing", "to_thread")
    },
}

MODULES = (*PUBLIC_MODULES, *PRIVATE_MODULES)

# Modules with a __path__, without which their submodules could not be imported. A private module
# has one too: then "from trio._core import name" asks the import hook, which says what is wrong.
PACKAGES = ("trio", "trio.testing", *PRIVATE_MODULES)

# Two threads may call provide_trio() at the same time.
_installing = process_lock(globals(), "_installing")


class StandIn(types.ModuleType):
    """A module with Trio's name and the contents of a nurseryio module."""

    def __init__(self, name: str, finder: Finder) -> None:
        behind = importlib.import_module(PUBLIC_MODULES.get(name, LIBRARY))
        super().__init__(name, f"Stands in for {name}: {behind.__doc__}")
        self._behind = behind
        if name == "trio":
            self.__version__ = FOLLOWS
            self.run = _run_on(finder)
        elif name == "trio.lowlevel":
            self.start_guest_run = anyio_trio.guest_run
        elif name == "trio.testing":
            self.trio_test = _trio_test
        if name in PACKAGES:
            self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        full_name = f"{self.__name__}.{name}"
        if full_name in MODULES:
            return importlib.import_module(full_name)
        try:
            if self.__name__ in PRIVATE_MODULES:
                value = trio_private.find(self.__name__, name)
            elif (name.startswith("_") and not name.startswith("__")) or name == "__path__":
                raise AttributeError  # one of nurseryio's private names, or its directory
            else:
                value = getattr(self._behind, name)
        except AttributeError:
            raise AttributeError(
                f"module {self.__name__!r} has no attribute {name!r} "
                f"({trio_private.refusal(full_name)})",
                name=name,
                obj=self,
            ) from None
        if not name.startswith("__"):
            setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *dir(self._behind)} - {"_behind"})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The import hook. It finds the stand-ins, and no other module below ``trio``."""

    # Makes the loop of a ``run`` without a loop factory; None for a new event loop of asyncio.
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a stand-in; None for a module that is not Trio's.

        A package that cannot work on the stand-in is not found, and the error says why.

        Python's lazy imports ask for ``trio.sleep`` before they look at the attribute of ``trio``,
        and expect None then.
        """
        if fullname in MODULES:
            return importlib.machinery.ModuleSpec(
                fullname,
                self,
                origin=PUBLIC_MODULES.get(fullname, LIBRARY),
                is_package=fullname in PACKAGES,
            )
        if fullname in trio_private.REFUSED_PACKAGES:
            raise _not_found(fullname)
        if fullname.startswith("trio.") and not _is_attribute(fullname):
            raise _not_found(fullname)
        return None

    def find_distributions(self, context: DistributionFinder.Context) -> Iterable[Distribution]:
        """Return the metadata of the distribution "trio", for ``importlib.metadata``."""
        # Imported here, because only importlib.metadata calls this method.
        from .trio_metadata import find_stand_in

        return find_stand_in(context, FOLLOWS, LIBRARY)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Make a stand-in."""
        return StandIn(spec.name, self)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing, because a stand-in looks up its contents at the time of access."""


def _is_attribute(full_name: str) -> bool:
    """Whether a name below ``trio`` is that of an attribute of a stand-in, not of a module."""
    package, _, name = full_name.rpartition(".")
    # Not looked up in the stand-in itself, which may be importing that very attribute lazily.
    if package in PRIVATE_MODULES:
        try:
            trio_private.find(package, name)
        except (AttributeError, ImportError):
            return False
        return True
    return hasattr(getattr(sys.modules.get(package), "_behind", None), name)


def _not_found(full_name: str) -> ImportError:
    """The error for a module below ``trio`` that has no stand-in."""
    why = trio_private.refusal(full_name)
    if full_name.rpartition(".")[0] in PRIVATE_MODULES:
        # From "from trio._core import name". Python ignores a ModuleNotFoundError there, and raises
        # an error that does not say why.
        return ImportError(why, name=full_name)
    return ModuleNotFoundError(f"No module named {full_name!r} ({why})", name=full_name)


def provide_trio(
    *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> types.ModuleType:
    """Make ``import trio`` give nurseryio, from now on and in this process only.

    This is for an asyncio program that uses libraries for Trio. Call it before the first of them is
    imported. Their async functions can then be called in any asyncio task. A second call only
    changes the loop factory.

    Args:
        loop_factory: makes the event loop if ``trio.run`` is called without a loop factory, for
            example ``uvloop.new_event_loop``.

    Returns:
        The module that stands in for ``trio``.

    Raises:
        RuntimeError: the real Trio has been imported already.

    Checkpoint: no, this is not an async function.
    """
    _refuse_to_replace()
    with _installing:
        found = (finder for finder in list(sys.meta_path) if isinstance(finder, Finder))
        finder = next(found, None) or Finder()
        if loop_factory is not None:
            finder.loop_factory = loop_factory
        if finder not in sys.meta_path:
            sys.meta_path.insert(0, finder)
        trio_private.offer_attributes()
    return importlib.import_module("trio")


def _run_on(finder: Finder) -> Any:
    """Make the stand-in's ``run`` (rule 4), which makes its loop by the finder's loop factory."""

    def make_loop() -> asyncio.AbstractEventLoop:
        anyio_trio.extend_calls()
        make = finder.loop_factory
        return asyncio.new_event_loop() if make is None else make()

    run = importlib.import_module(LIBRARY).run
    with suppress(ImportError):
        # Trio imports it too. Without it no library could ask.
        importlib.import_module("sniffio")
    return functools.update_wrapper(
        functools.partial(call_under_name, anyio_trio.NAME, run, loop_factory=make_loop), run
    )


def _trio_test(fn: Any) -> Any:
    """Turn an async test function into a plain one that runs it in the stand-in's ``run``."""
    # A later room has the function.
    plain_test = importlib.import_module(f"{LIBRARY}.testing.plain_test")

    def run(*args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        return importlib.import_module("trio").run(*args, **options)

    return plain_test.run_by(run, fn)


def _refuse_to_replace() -> None:
    """Raise RuntimeError if a module of the real Trio has been loaded."""
    # A copy, because other threads may import modules meanwhile.
    for name, module in sorted(sys.modules.copy().items()):
        if name.partition(".")[0] == "trio" and not isinstance(module, StandIn):
            raise RuntimeError(
                f"{name!r} has been imported already, from "
                f"{getattr(module, '__file__', 'an unknown place')}: it cannot be replaced. "
                "Call provide_trio() before anything imports Trio, at the start of the program"
            )
