"""The command line: ``python -m nurseryio`` runs a program written for Trio, on asyncio.

This module parses the arguments, and runs a script or module as Python itself would. The modules
that ``import trio`` gives are in ``as_trio``.
"""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from .as_trio import LIBRARY, provide_trio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

USAGE = f"""\
usage: python -m {LIBRARY} [--loop asyncio|uvloop] script.py [argument ...]
       python -m {LIBRARY} [--loop asyncio|uvloop] -m module [argument ...]

Run a program written for Trio on asyncio: 'import trio' gives {LIBRARY}, in this process only.

options:
  --loop asyncio|uvloop  the event loop that trio.run() makes (default: asyncio)
  -m module              run a module or package, as 'python -m' does
  -h, --help             show this text
"""

LOOPS = ("asyncio", "uvloop")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program that the command line names.

    Args:
        arguments: the arguments after ``python -m nurseryio``; default: those in ``sys.argv``.

    Raises:
        SystemExit: the arguments are wrong, or the program raises it.
    """
    rest = list(sys.argv[1:] if arguments is None else arguments)
    loop = "asyncio"
    while rest and rest[0].startswith("-"):
        option, joined, value = rest.pop(0).partition("=")
        if option in ("-h", "--help"):
            print(USAGE, end="")
            return
        if option == "--loop":
            loop = value if joined else _next(rest, option)
            if loop not in LOOPS:
                _refuse(f"--loop must be one of {', '.join(LOOPS)}, not {loop!r}")
        elif option == "-m" and not joined:
            module = _next(rest, option)
            _provide(loop)
            _run_module(module, rest)
            return
        else:
            _refuse(f"there is no option {option}")
    if not rest:
        _refuse("name a script, or a module after -m")
    if not os.path.exists(rest[0]):
        _refuse(f"there is no file {rest[0]!r}")
    _provide(loop)
    _run_script(rest[0], rest[1:])


def _next(rest: list[str], option: str) -> str:
    if not rest:
        _refuse(f"{option} needs a value")
    return rest.pop(0)


def _refuse(why: str) -> NoReturn:
    print(f"{USAGE}\nerror: {why}", file=sys.stderr)
    raise SystemExit(2)


def _provide(loop: str) -> None:
    factory: Callable[[], Any] | None = None
    if loop == "uvloop":
        try:
            factory = importlib.import_module("uvloop").new_event_loop
        except ImportError:
            _refuse(f"uvloop is not installed: pip install '{LIBRARY}[uvloop]'")
    provide_trio(loop_factory=factory)


def _run_script(script: str, arguments: list[str]) -> None:
    sys.argv[:] = [script, *arguments]
    if not getattr(sys.flags, "safe_path", False):
        # ``python -m`` put the current directory there. A script needs its own directory there.
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    runpy.run_path(script, run_name="__main__")


def _run_module(module: str, arguments: list[str]) -> None:
    # runpy replaces the first argument by the module's file.
    sys.argv[:] = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
