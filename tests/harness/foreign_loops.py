"""Event loops that neither asyncio nor uvloop wrote, and how each is made.

This module has the table :data:`LOOPS`. The steps that run on each loop are in
``loop_programs/cross_section.py``; loops made up for tests are in ``fake_loops``.

Rule: nothing of a loop's package is imported before the loop is made, because some packages replace
parts of asyncio. So each loop gets a process of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Loop = asyncio.AbstractEventLoop


@dataclass(frozen=True)
class Foreign:
    """One loop.

    Attributes:
        make: makes a fresh loop.
        packages: the packages that it comes in, as the extra ``loops`` names them, each with its
            module.
        before: the first Python version that it does not support, if there is one.
        lacks: the steps of the cross-section that are left out, each with the reason. The fault is
            the loop's: it is the same in programs that use asyncio alone.
    """

    make: Callable[[], Loop]
    packages: dict[str, str]
    before: tuple[int, int] = (9, 0)
    lacks: dict[str, str] = field(default_factory=dict)

    def why_not(self) -> str:
        """The reason why this loop cannot be had here; empty if it can."""
        if sys.version_info >= self.before:
            return f"does not support Python {sys.version_info[0]}.{sys.version_info[1]}"
        missing = [p for p, module in self.packages.items() if not importlib.util.find_spec(module)]
        if missing:
            return f"needs {', '.join(missing)}: python -m pip install '.[loops]'"
        return ""


# Qt allows one application object in a process.
_application: list[Any] = []


def _qt_application() -> Any:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PySide6.QtCore import QCoreApplication

    if not _application:
        _application.append(QCoreApplication([]))
    return _application[0]


def _qasync() -> Loop:
    application = _qt_application()
    import qasync

    loop: Loop = qasync.QEventLoop(application)
    return loop


def _qtinter() -> Loop:
    _qt_application()
    import qtinter

    loop: Loop = qtinter.QiDefaultEventLoop()
    return loop


def _looptime() -> Loop:
    import looptime

    loop: Loop = looptime.new_event_loop()
    return loop


def _nest_asyncio() -> Loop:
    import nest_asyncio

    loop = asyncio.new_event_loop()
    nest_asyncio.apply(loop)
    return loop


def _nest_asyncio2() -> Loop:
    import nest_asyncio2

    loop = asyncio.new_event_loop()
    nest_asyncio2.apply(loop)
    return loop


def _by(module: str, name: str) -> Callable[[], Loop]:
    """A function that calls a name of a module, which makes a loop."""

    def make() -> Loop:
        loop: Loop = getattr(importlib.import_module(module), name)()
        return loop

    return make


_QT = {"PySide6-Essentials": "PySide6"}

LOOPS: dict[str, Foreign] = {
    "rloop": Foreign(_by("rloop", "new_event_loop"), {"rloop": "rloop"}),
    "loopmini": Foreign(_by("loopmini", "new_event_loop"), {"loopmini": "loopmini"}),
    "veloxloop": Foreign(
        _by("veloxloop", "VeloxLoop"),
        {"veloxloop": "veloxloop"},
        lacks={"idle": "it uses CPU time while it waits for run_in_executor()"},
    ),
    "blazio": Foreign(_by("blazio", "new_event_loop"), {"blazio": "blazio"}),
    "qasync": Foreign(_qasync, {"qasync": "qasync", **_QT}),
    "qtinter": Foreign(_qtinter, {"qtinter": "qtinter", **_QT}),
    "nest_asyncio": Foreign(_nest_asyncio, {"nest-asyncio": "nest_asyncio"}, before=(3, 14)),
    "nest_asyncio2": Foreign(_nest_asyncio2, {"nest-asyncio2": "nest_asyncio2"}),
    "looptime": Foreign(_looptime, {"looptime": "looptime"}),
}
