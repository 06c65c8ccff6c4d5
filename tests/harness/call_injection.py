"""Failure injection in the C file: each call that can fail does so in turn.

``python -m harness.call_injection`` in ``tests``, or ``make injection``. It is ``injection`` for
the functions in C: the programs, the cases and the verdict are the same. A copy of the package is
compiled with ``failing_calls.h``, which asks a function here before each call.

Rule 1: an error that leads to the Python function is dropped by the C file, because that function
meets it again. An injected one does not come again. So an error may be absorbed if the run is the
same in all else.

Rule 2: a line at which harm is accepted stands in :data:`ACCEPTED` with its reason.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import nurseryio

from . import c_build, injection
from .injection_lines import Injector, Line, source_lines
from .injection_programs import CASES, PROGRAMS

FILE = "_speedups.c"

# How many runs each program makes on each case with ``--sample``.
SAMPLE = 6

# Lines of the C file, named by function and text, at which a failing call may do harm.
ACCEPTED = {
    "scope_exit: return PyObject_Vectorcall(P.scope_exit, arguments, nargs + 1, NULL);": (
        "``with`` calls ``__exit__``, and the call of the Python function fails before its first "
        "line: as where the short list of ``injection`` says BLOCK_NOT_LEFT."
    ),
    "park_over: && PyDict_Contains(self->queue, task) == 0)) {": (
        "Looking up a record runs no Python code, so neither Ctrl-C nor an exit is raised there. "
        "After another error the Python function looks again."
    ),
}


class Call(Line):
    """A line of the C file."""

    @property
    def function(self) -> str:
        """The name of the function."""
        return self.name

    @property
    def key(self) -> str:
        """The name of the line in :data:`ACCEPTED`."""
        return f"{self.name}: {self.text}"

    @property
    def does_nothing(self) -> bool:
        """A call can always fail."""
        return False


class CallInjector(Injector):
    """Records calls, or makes one fail."""

    def __enter__(self) -> CallInjector:
        if not self._off:
            set_hook(self._on_call)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.active = False
        set_hook(None)

    @property
    def may_be_absorbed(self) -> bool:
        """See rule 1."""
        return isinstance(self.error, Exception)

    def _on_call(self, number: int, function: str) -> None:
        if self.active and (self.target is None or self.target.line == number):
            self._hit(Call(FILE, 0, function, number))


@functools.cache
def _c_hook() -> ctypes.py_object[object]:
    library = ctypes.PyDLL(str(Path(nurseryio.__file__).parent / c_build.MODULE_FILE))
    return ctypes.py_object.in_dll(library, "nurseryio_fail_hook")


_kept: list[object] = []


def set_hook(hook: object) -> None:
    """Have the C file ask this function, or none."""
    variable = _c_hook()
    _kept.append(hook)  # The C file holds no reference.
    if hook is None:
        ctypes.memset(ctypes.addressof(variable), 0, ctypes.sizeof(variable))
    else:
        variable.value = hook
    del _kept[:-1]


def calls_in_source() -> set[str]:
    """The keys of all lines of the C file, for each of its functions."""
    found, function = set(), ""
    for text in source_lines(FILE):
        if text[:1].isalpha() and "(" in text:
            function = text.partition("(")[0]
        found.add(f"{function}: {text.strip()}")
    return found


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m harness.call_injection", description=__doc__)
    parser.add_argument("--sample", action="store_true", help="a bounded part of the runs")
    parser.add_argument("--program", nargs="*", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--case", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--seed", type=int, default=injection.SEED)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--without", default="", help="leave this text of the C file out")
    parser.add_argument("--in-copy", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    reason = c_build.why_not()
    if reason is not None:
        print(f"skipped: {reason}")
        return 0
    if not options.in_copy:
        return _in_copy(arguments, options.without)
    choice = injection.Choice(
        tuple(options.program),
        tuple(options.case),
        sample=SAMPLE if options.sample else 0,
        seed=options.seed,
        kind=CallInjector,
    )
    report = injection.attempt_all(choice, jobs=1, loud=not options.quiet)
    report.faults = [item for item in report.unlisted if item[0].line.key not in ACCEPTED]
    print(injection.describe(report, report.faults))
    stale = [key for key in ACCEPTED if key not in calls_in_source()]
    print("".join(f"names no line of the C file: {key}\n" for key in stale), end="")
    return 1 if report.faults or report.broken or stale or not report.runs else 0


def _in_copy(arguments: list[str], without: str) -> int:
    with tempfile.TemporaryDirectory() as name:
        header = Path(__file__).with_name("failing_calls.h")
        c_build.copy_into(Path(name), ["-O1", "-g", "-include", str(header)], without)
        command = [sys.executable, "-W", "ignore", "-m", "harness.call_injection", "--in-copy"]
        return subprocess.run([*command, *arguments], env=c_build.in_copy(Path(name))).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
