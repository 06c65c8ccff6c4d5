"""``provide_trio``: unchanged programs for Trio, whose ``import trio`` gives nurseryio.

This module has the modules that stand in for ``trio`` and its public submodules, and the import
hook that returns them. They exist in this process only. The metadata of the distribution are in
``trio_metadata``, the command line is in ``cli``.

Rule 1: a real ``trio`` that is loaded already is never replaced. Two libraries of one name, each
with its own tasks, could not work.

Rule 2: a stand-in only has the attributes that must differ: its name, the version of Trio that it
follows, and ``run``. Everything else is looked up in nurseryio's public module
behind it, at the time of access. So a test that patches ``trio.sleep`` patches the stand-in alone.

Rule 3: Trio's private names are missing, except the few that published tools use. If Trio's own
distribution is installed, hypothesis loads an entry point of it that is in ``trio._core._run``. In
that module pytest-trio makes the order of tasks reproducible, which it always is in nurseryio.
quart-trio uses the type of async files in annotations.

Rule 4: in a run that the stand-in's ``run`` has started, ``sniffio.current_async_library()`` is
"trio", as a program for Trio expects. A library with a side for each of the two then uses its Trio
side, on the stand-in. In all other runs and loops it is "asyncio".
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import random
import sys
import types
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._base.library_name import call_under_name

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence
    from importlib.metadata import Distribution, DistributionFinder

__all__ = ["provide_trio"]

LIBRARY = __name__.partition(".")[0]

# The release of Trio whose names and behaviour nurseryio has.
FOLLOWS = "0.35.0"

# Each module of Trio that has a stand-in, and nurseryio's public module behind it.
PUBLIC_MODULES = {
    "trio": LIBRARY,
    **{
        f"trio.{module}": f"{LIBRARY}.{module}"
        for module in ("abc", "from_thread", "lowlevel", "socket", "testing", "to_thread")
    },
    "trio._core": f"{LIBRARY}.lowlevel",
    "trio._core._run": f"{LIBRARY}.lowlevel",
    "trio._file_io": f"{LIBRARY}._system.files",
}


PACKAGES = ("trio", "trio._core")


def _private_names(module: str) -> dict[str, object]:
    """The attributes of a stand-in that the module behind it does not have (rule 3)."""
    if module != "trio._core._run":
        return {}
    return {
        "_ALLOW_DETERMINISTIC_SCHEDULING": True,
        "_hypothesis_plugin_setup": lambda: None,
        "_r": random.Random(0),
    }


class StandIn(types.ModuleType):
    """A module with Trio's name and the contents of a nurseryio module."""

    def __init__(self, name: str) -> None:
        behind = importlib.import_module(PUBLIC_MODULES[name])
        super().__init__(name, f"Stands in for {name}: {behind.__doc__}")
        self._behind = behind
        vars(self).update(_private_names(name))
        if name == "trio":
            self.__version__ = FOLLOWS
        if name in PACKAGES:
            # Without a __path__ its submodules could not be imported.
            self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if f"{self.__name__}.{name}" in PUBLIC_MODULES:
            return importlib.import_module(f"{self.__name__}.{name}")
        try:
            if name.startswith("_") and not name.startswith("__"):
                raise AttributeError  # one of nurseryio's private names
            value = getattr(self._behind, name)
        except AttributeError:
            raise AttributeError(
                f"module {self.__name__!r} has no attribute {name!r} ({_STANDS_IN})",
                name=name,
                obj=self,
            ) from None
        if not name.startswith("__"):
            setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *dir(self._behind)} - {"_behind"})


_STANDS_IN = f"{LIBRARY} stands in for Trio in this process, with Trio's public names alone"


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The import hook. It finds the stand-ins, and no other module below ``trio``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of a stand-in; None for a module that is not Trio's."""
        if fullname in PUBLIC_MODULES:
            return importlib.machinery.ModuleSpec(
                fullname, self, origin=PUBLIC_MODULES[fullname], is_package=fullname in PACKAGES
            )
        if fullname.startswith("trio."):
            raise ModuleNotFoundError(f"No module named {fullname!r} ({_STANDS_IN})", name=fullname)
        return None

    def find_distributions(self, context: DistributionFinder.Context) -> Iterable[Distribution]:
        """Return the metadata of the distribution "trio", for ``importlib.metadata``."""
        # Imported here, because only importlib.metadata calls this method.
        from .trio_metadata import find_stand_in

        return find_stand_in(context, FOLLOWS, LIBRARY)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Make a stand-in."""
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing, because a stand-in looks up its contents at the time of access."""


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
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
    stand_in = importlib.import_module("trio")
    if loop_factory is not None or "run" not in vars(stand_in):
        stand_in.run = _run_on(loop_factory)  # type: ignore[attr-defined]
    return stand_in


def _run_on(loop_factory: Callable[[], asyncio.AbstractEventLoop] | None) -> Any:
    """Make the stand-in's ``run`` (rule 4), which makes its loop by ``loop_factory``."""
    run = importlib.import_module(LIBRARY).run
    with suppress(ImportError):
        # Trio imports it too. Without it no library could ask.
        importlib.import_module("sniffio")
    return functools.update_wrapper(
        functools.partial(call_under_name, "trio", run, loop_factory=loop_factory), run
    )


def _refuse_to_replace() -> None:
    """Raise RuntimeError if a module of the real Trio has been loaded."""
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] == "trio" and not isinstance(module, StandIn):
            raise RuntimeError(
                f"{name!r} has been imported already, from "
                f"{getattr(module, '__file__', 'an unknown place')}: it cannot be replaced. "
                "Call provide_trio() before anything imports Trio, at the start of the program"
            )
