"""The command line: ``python -m nurseryio`` runs a program written for Trio, on asyncio.

This module parses the arguments. The modules that ``import trio`` gives are in ``as_trio``; running
the program is in ``main_program``, and the console in ``_portal.console``.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from .as_trio import LIBRARY, provide_trio
from .main_program import run_file, run_module, run_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

USAGE = f"""\
usage: python -m {LIBRARY} [--loop asyncio|uvloop] script.py [argument ...]
       python -m {LIBRARY} [--loop asyncio|uvloop] -m module [argument ...]
       python -m {LIBRARY} [--loop asyncio|uvloop] -c text [argument ...]
       python -m {LIBRARY} [--loop asyncio|uvloop] [-i]
       python -m {LIBRARY} tree|top PID
       python -m {LIBRARY} trace [-o FILE] [--html FILE] (script.py | -m module) [argument ...]

Run a program written for Trio on asyncio: 'import trio' gives {LIBRARY}, in this process only.
Without a program, open a console with 'await' at its top level. If standard input is not a
terminal, run the program in it, which may use 'await' in the same way.

options:
  --loop asyncio|uvloop  the event loop that trio.run() makes (default: asyncio)
  -m module              run a module or package, as 'python -m' does
  -c text                run a program that is passed as text, as 'python -c' does
  -i                     open the console, also if standard input is not a terminal
  -h, --help             show this text
  --version              show the version

commands:
  tree PID               print the task trees of a process
  top PID                show which tasks of a process run, and which wait
  trace                  run a program, and write what its tasks do to a file
Each has a --help of its own. A script of such a name is run as ./tree.
"""

LOOPS = ("asyncio", "uvloop")
COMMANDS = ("tree", "top", "trace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program that the command line names.

    Args:
        arguments: the arguments after ``python -m nurseryio``; default: those in ``sys.argv``.

    Raises:
        SystemExit: the arguments are wrong, or the program raises it.
    """
    rest = list(sys.argv[1:] if arguments is None else arguments)
    if rest and rest[0] in COMMANDS:
        _command(*rest)
    else:
        _run(rest)


def _command(name: str, *arguments: str) -> None:
    from . import commands  # only when needed: a program is to start without these modules

    if name == "trace":
        tracing = commands.Tracing(arguments)
        with tracing.running():
            _run(tracing.rest, traced=True)
    else:
        getattr(commands, name)(arguments)


def _run(rest: list[str], traced: bool = False) -> None:
    """Run the program that some arguments name, or the console."""
    loop = "asyncio"
    console = False
    while rest and rest[0].startswith("-"):
        option, joined, value = rest.pop(0).partition("=")
        if option in ("-h", "--help"):
            print(USAGE, end="")
            return
        if option == "--version":
            print(LIBRARY, sys.modules[LIBRARY].__version__)
            return
        if option == "--loop":
            loop = value if joined else _next(rest, option)
            if loop not in LOOPS:
                _refuse(f"--loop must be one of {', '.join(LOOPS)}, not {loop!r}")
        elif option == "-i" and not joined and not traced:
            console = True
        elif option == "-m" and not joined and not console:
            module = _next(rest, option)
            _provide(loop)
            run_module(module, rest)
            return
        elif option == "-c" and not joined and not console:
            text = _next(rest, option)
            _provide(loop)
            run_text(text, rest)
            return
        else:
            _refuse(f"there is no option {option}")
    if not rest and not traced:
        _console(loop, console)
        return
    if console:
        _refuse("-i opens the console, and takes no program")
    if not rest:
        _refuse("name a script, or a module after -m")
    if not os.path.exists(rest[0]):
        _stop(f"there is no file {rest[0]!r}")
    _provide(loop)
    run_file(rest[0], rest[1:])


def _console(loop: str, interactive: bool) -> None:
    """Open the console, or run the program in standard input."""
    from .._portal.console import run_console  # only when needed, as above

    interactive = interactive or (sys.stdin is not None and sys.stdin.isatty())
    run_console(interactive, _provide(loop))


def _next(rest: list[str], option: str) -> str:
    if not rest:
        _refuse(f"{option} needs a value")
    return rest.pop(0)


def _refuse(why: str) -> NoReturn:
    """End the program because of its arguments, and show which there are."""
    print(USAGE, file=sys.stderr)
    _stop(why)


def _stop(why: str) -> NoReturn:
    """End the program with one line."""
    print(f"python -m {LIBRARY}: error: {why}", file=sys.stderr)
    raise SystemExit(2)


def _provide(loop: str) -> Callable[[], Any] | None:
    """Make ``import trio`` give this library. Returns the factory of the loop."""
    factory: Callable[[], Any] | None = None
    if loop == "uvloop":
        try:
            factory = importlib.import_module("uvloop").new_event_loop
        except ImportError:
            _refuse(f"uvloop is not installed: pip install '{LIBRARY}[uvloop]'")
    provide_trio(loop_factory=factory)
    return factory
