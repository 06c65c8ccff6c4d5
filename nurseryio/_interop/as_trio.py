"""Programs written for Trio, as they are: ``import trio`` gives nurseryio, in this process only.

What lives here: the modules that stand in for ``trio`` and its public submodules, and the import
hook that hands them out. What does not: the command line (:mod:`command`).

Rule 1: a real ``trio`` that is loaded already is never replaced. Two libraries under one name,
each with tasks of its own, could not work.

Rule 2: a stand-in holds nothing of its own but what must differ: its name, the version of Trio
that it follows, and ``run`` where a loop was chosen. Everything else is looked up in the door
behind it, when it is asked for. So whoever patches ``trio.sleep`` in a test patches
the stand-in alone.

Rule 3: private names of Trio are not there, but for the few that published tools ask for.
Where Trio's own distribution is installed, hypothesis loads an entry point of it that lies in
``trio._core._run``. There pytest-trio too makes the order of tasks reproducible, which ours is
anyway. quart-trio names the type of async files in its annotations.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import random
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

__all__ = ["provide_trio"]

LIBRARY = __name__.partition(".")[0]

# The release of Trio that the names and the behaviour are those of.
FOLLOWS = "0.35.0"

# Each module of Trio's public interface, and the door behind it.
DOORS = {
    "trio": LIBRARY,
    **{
        f"trio.{door}": f"{LIBRARY}.{door}"
        for door in ("abc", "from_thread", "lowlevel", "socket", "testing", "to_thread")
    },
    "trio._core": f"{LIBRARY}.lowlevel",
    "trio._core._run": f"{LIBRARY}.lowlevel",
    "trio._file_io": f"{LIBRARY}._system.files",
}


PACKAGES = ("trio", "trio._core")


def _private_names(module: str) -> dict[str, object]:
    """What a stand-in has that the door behind it lacks: see rule 3."""
    if module != "trio._core._run":
        return {}
    return {
        "_ALLOW_DETERMINISTIC_SCHEDULING": True,
        "_hypothesis_plugin_setup": lambda: None,
        "_r": random.Random(0),
    }


class StandIn(types.ModuleType):
    """A module with Trio's name and the contents of a door of ours."""

    def __init__(self, name: str) -> None:
        behind = importlib.import_module(DOORS[name])
        super().__init__(name, f"Stands in for {name}: {behind.__doc__}")
        self._behind = behind
        vars(self).update(_private_names(name))
        if name == "trio":
            self.__version__ = FOLLOWS
        if name in PACKAGES:
            # Or else its submodules could not be imported.
            self.__path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if f"{self.__name__}.{name}" in DOORS:
            return importlib.import_module(f"{self.__name__}.{name}")
        try:
            if name.startswith("_") and not name.startswith("__"):
                raise AttributeError  # a private name of ours
            value = getattr(self._behind, name)
        except AttributeError:
            raise AttributeError(
                f"module {self.__name__!r} has no attribute {name!r} ({_SAYS_WHO})",
                name=name,
                obj=self,
            ) from None
        if not name.startswith("__"):
            setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *dir(self._behind)} - {"_behind"})


_SAYS_WHO = f"{LIBRARY} stands in for Trio in this process, with Trio's public names alone"


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The import hook: finds the stand-ins, and nothing below ``trio`` but them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Say who makes the module; None for what does not belong to Trio."""
        if fullname in DOORS:
            return importlib.machinery.ModuleSpec(
                fullname, self, origin=DOORS[fullname], is_package=fullname in PACKAGES
            )
        if fullname.startswith("trio."):
            raise ModuleNotFoundError(f"No module named {fullname!r} ({_SAYS_WHO})", name=fullname)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Make the stand-in."""
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing: a stand-in looks up its contents when they are asked for."""


def provide_trio(
    *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> types.ModuleType:
    """Have ``import trio`` give nurseryio, from now on and in this process only.

    For libraries that exist for Trio alone, used in an asyncio program: call it before the first
    of them is imported. What they offer then runs in any asyncio task. Calling it again changes
    nothing but the loop factory.

    Args:
        loop_factory: makes the event loop where ``trio.run`` is called without one,
            ``uvloop.new_event_loop`` for example.

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
    if loop_factory is not None:
        run = importlib.import_module(LIBRARY).run
        stand_in.run = functools.update_wrapper(  # type: ignore[attr-defined]
            functools.partial(run, loop_factory=loop_factory), run
        )
    return stand_in


def _refuse_to_replace() -> None:
    """Complain if anything of the real Trio has been loaded."""
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] == "trio" and not isinstance(module, StandIn):
            raise RuntimeError(
                f"{name!r} has been imported already, from "
                f"{getattr(module, '__file__', 'an unknown place')}: it cannot be replaced. "
                "Call provide_trio() before anything imports Trio, at the start of the program"
            )
