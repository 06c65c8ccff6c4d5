"""Reading the inputs of the console from a terminal, with history, completion and colours.

From 3.13 on Python has an editor for this, ``_pyrepl``, which its own console and asyncio's use. It
is private. All private names that nurseryio's console uses are in :func:`editor`.

Rule 1: if a name is missing, or the terminal is too simple, the console reads lines by ``input()``.
``readline`` then gives history and completion, if Python has it.

Rule 2: ``PYTHON_BASIC_REPL`` turns the editor off, as in Python's console. Python's options ``-E``
and ``-I`` turn these variables off.
"""

from __future__ import annotations

import os
import site
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import code
    from collections.abc import Callable

    Interact = Callable[[code.InteractiveConsole], None]


def variable(name: str) -> str:
    """A variable of the environment for Python; empty if it is not set, or is to be ignored."""
    return "" if sys.flags.ignore_environment else os.environ.get(name, "")


def editor() -> tuple[type[code.InteractiveConsole], Interact] | None:
    """Python's own editor for consoles.

    Returns:
        The class of its console, and the function that reads and runs the inputs of one. None if
        there is no editor for this terminal.
    """
    if sys.version_info < (3, 13) or variable("PYTHON_BASIC_REPL"):
        return None
    try:
        if not import_module("_pyrepl.main").CAN_USE_PYREPL:
            return None
        console = import_module("_pyrepl.console").InteractiveColoredConsole
        interact = import_module("_pyrepl.simple_interact").run_multiline_interactive_console
    except (ImportError, AttributeError):
        return None
    return console, interact


def prepare(namespace: dict[str, Any]) -> None:
    """Load the history, and complete names of ``namespace`` at the Tab key, as Python does.

    Python's own hook does nearly all of this. A program may have replaced or removed it. An error
    in the hook is raised.
    """
    hook = getattr(sys, "__interactivehook__", None)
    if hook is None:
        return
    sys.audit("cpython.run_interactivehook", hook)
    hook()
    if getattr(hook, "__module__", None) == site.__name__:
        with suppress(ImportError):
            import readline
            import rlcompleter

            readline.set_completer(rlcompleter.Completer(namespace).complete)
