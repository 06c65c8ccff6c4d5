"""The libraries that are compared: how each is found, started on a loop, and where its micro rows
are.

`floor` is no library but the least asyncio code that does the work at all. `nurseryio` runs under
`nurseryio.run`, `nurseryio-inside` runs the same rows in a task that a plain asyncio program
started. Where nurseryio is compiled, `nurseryio-pure` is the same without its C module.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .flavour import VARIABLE

STOCK = "stock"
UVLOOP = "uvloop"
BASE = "asyncio"


@dataclass(frozen=True)
class Library:
    """One thing that is measured. `package` is the distribution whose version is reported."""

    name: str
    package: str | None
    idiom: str
    starter: str
    loops: tuple[str, ...] = (STOCK, UVLOOP)
    pure: bool = False

    def environment(self) -> dict[str, str]:
        """Return the variables that the library's benchmark process needs."""
        variables = {"NURSERYIO_PURE": "1"} if self.pure else {}
        if self.idiom == "trio_idiom" and self.package:
            variables[VARIABLE] = self.package
        return variables


LIBRARIES: dict[str, Library] = {
    library.name: library
    for library in (
        Library(BASE, None, "asyncio_idiom", "asyncio"),
        Library("floor", None, "floor", "asyncio"),
        Library("quattro", "quattro", "quattro_idiom", "asyncio"),
        Library("anyio", "anyio", "anyio_idiom", "anyio"),
        Library("trio", "trio", "trio_idiom", "trio", loops=(STOCK,)),
        Library("nurseryio", "nurseryio", "trio_idiom", "nurseryio"),
        Library("nurseryio-pure", "nurseryio", "trio_idiom", "nurseryio", pure=True),
        Library("nurseryio-inside", "nurseryio", "trio_idiom", "asyncio"),
    )
}

DEFAULT = ("asyncio", "floor", "quattro", "anyio", "trio", "nurseryio-pure", "nurseryio")


def loop_factory(loop: str) -> Callable[[], Any]:
    """Return what makes a new event loop of the given kind."""
    if loop == UVLOOP:
        import uvloop

        return uvloop.new_event_loop
    import asyncio

    return asyncio.new_event_loop


def start(starter: str, loop: str, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run an async function to its end, under the library's own way of starting a program."""
    if starter == "trio":
        import trio

        return trio.run(function, *args)
    if starter == "nurseryio":
        import nurseryio

        return nurseryio.run(function, *args, loop_factory=loop_factory(loop))
    if starter == "anyio":
        import anyio

        return anyio.run(function, *args, backend_options={"loop_factory": loop_factory(loop)})
    import asyncio

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        return runner.run(function(*args))  # type: ignore[arg-type]


def why_missing(library: Library, loop: str) -> str | None:
    """Return why this library cannot be measured on this loop here, or None if it can."""
    if loop not in library.loops:
        return f"{library.name} does not run on {loop}"
    wanted = [library.package] if library.package else []
    if loop == UVLOOP:
        wanted.append("uvloop")
    for package in wanted:
        try:
            importlib.import_module(package)
        except ImportError as error:
            return f"{package} cannot be imported: {error}"
    if library.pure and not importlib.import_module("nurseryio").__compiled__:
        return "nurseryio is not compiled, so this is the same"
    return None


def failure(error: BaseException) -> dict[str, str]:
    """Return what a benchmark process tells of an error: `missing` for a name that is not there.

    Of a group, the first error inside it is told.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    absent = isinstance(error, AttributeError | ImportError | NotImplementedError)
    return {"missing" if absent else "failed": f"{type(error).__name__}: {error}"}


def version(package: str) -> str:
    """Return the version of an installed distribution, or a word that says it has none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        module = importlib.import_module(package)
        return str(getattr(module, "__version__", "working tree"))


def idiom(library: Library) -> ModuleType:
    """Return the module that holds the library's micro rows.

    Call only in a process that serves this library.
    """
    os.environ.update(library.environment())
    return importlib.import_module(f"{__package__}.micro.{library.idiom}")
