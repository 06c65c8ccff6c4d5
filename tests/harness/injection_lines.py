"""Lines of the engine: which ones a run executes, and raising an exception at one of them.

This file holds the names of lines (:class:`Line`), the index of the engine's source, and
:class:`Injector`. ``sys.monitoring`` reports the lines from Python 3.12 on, ``sys.settrace``
before.

Rule 1: an exception is raised once, before the line executes. Raising in the callback of
``sys.monitoring``, or in a trace function, raises in the frame that is about to execute the line.

Rule 2: lines at which nothing can be raised (``try:``) are left out, see :class:`Line`.

Rule 3: lines are counted and armed everywhere except in the bystander's own tasks, which are
marked by a context variable. Callbacks of the loop belong to all tasks, so they are armed.
"""

from __future__ import annotations

import ast
import contextvars
import functools
import gc
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import nurseryio

PACKAGE = Path(nurseryio.__file__).resolve().parent

# The files whose lines are tried, below the package.
ENGINE = (
    "_nursery",
    "_observe",
    "_telemetry",
    "_loop",
    "_run",
    "_base",
    "_asyncio",
    "_core",
    "_sync",
    "_system/thread_call.py",
    "_system/threads.py",
    "_system/from_thread.py",
)

# True in the tasks of the bystander, "victim" in those of the program.
WHOSE: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="loop")

EXCEPTIONS: dict[str, type[BaseException]] = {
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
    "KeyboardInterrupt": KeyboardInterrupt,
}


class Line(NamedTuple):
    """One line of a function of the engine."""

    file: str  # below the package, such as "_nursery/scope.py"
    first: int  # the line at which the code object begins
    name: str  # the code object's name
    line: int

    @property
    def function(self) -> str:
        """The function's qualified name, found in the source, as 3.10 does not store it."""
        return function_at(self.file, self.line)

    @property
    def text(self) -> str:
        """The line without its indentation."""
        return source_lines(self.file)[self.line - 1].strip()

    @property
    def does_nothing(self) -> bool:
        """Whether the line is a mere ``try:``, ``else:``, ``finally:`` or ``break``.

        Nothing is called there, and Python looks for signals elsewhere, so nothing can be raised.
        On 3.12 a ``break`` may be an instruction of its own, outside the block around it.
        """
        return self.text.partition("#")[0].strip() in ("try:", "else:", "finally:", "break")

    @property
    def key(self) -> str:
        """The name of the line in the short list: a change elsewhere, or of a comment, keeps it."""
        code, _, _comment = self.text.partition("  #")
        return f"{Path(self.file).stem}:{self.function}:{code}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.text}"


@functools.cache
def source_lines(file: str) -> list[str]:
    """The lines of a file of the package."""
    return (PACKAGE / file).read_text(encoding="utf-8").splitlines()


@functools.cache
def _functions(file: str) -> list[tuple[int, int, str]]:
    """First line, last line and qualified name of each function, outer before inner."""
    found: list[tuple[int, int, str]] = []

    def walk(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    found.append((child.lineno, child.end_lineno or child.lineno, name))
                walk(child, name + ".")
            else:
                walk(child, prefix)

    walk(ast.parse("\n".join(source_lines(file))), "")
    return found


def function_at(file: str, line: int) -> str:
    """The qualified name of the innermost function around a line."""
    around = [name for first, last, name in _functions(file) if first <= line <= last]
    return around[-1] if around else "<module>"


def engine_files() -> dict[str, str]:
    """The engine's files: the name that their code objects bear, and that below the package."""
    paths: list[Path] = []
    for name in ENGINE:
        path = PACKAGE / name
        paths += sorted(path.glob("*.py")) if path.is_dir() else [path]
    return {str(path): str(path.relative_to(PACKAGE)) for path in paths}


_FILES = engine_files()
# Code objects that are not functions: none of their lines belongs to a program's run.
_NOT_RUN = ("<module>",)


def line_of(code: CodeType, number: int) -> Line | None:
    """The name of a line, None outside the engine."""
    file = _FILES.get(code.co_filename)
    if file is None or code.co_name in _NOT_RUN or code.co_flags & 0x2 == 0:
        return None  # class bodies and modules have no fast locals
    return Line(file, code.co_firstlineno, code.co_name, number)


@functools.cache
def engine_code() -> dict[tuple[str, int, str], CodeType]:
    """The code objects of the engine's functions, nested ones too."""
    found: dict[tuple[str, int, str], CodeType] = {}
    todo = [
        thing.__code__
        for thing in gc.get_objects()
        if type(thing) is FunctionType and thing.__code__.co_filename in _FILES
    ]
    while todo:
        code = todo.pop()
        line = line_of(code, 0)
        if line is not None:
            found[line[:3]] = code
        todo += [const for const in code.co_consts if isinstance(const, CodeType)]
    return found


class Injector:
    """Records lines, or raises at one of them.

    Args:
        target: the line at which to raise, None to record.
        occurrence: which execution of that line is hit, counted from 1.
        exception: the class to raise.
        off: neither.
    """

    def __init__(
        self,
        target: Line | None = None,
        occurrence: int = 1,
        exception: type[BaseException] = RecursionError,
        off: bool = False,
    ) -> None:
        self._off = off
        self.target = target
        self.counts: Counter[Line] = Counter()
        self.active = False
        # Set when the exception has been raised: whose code it hit, and the calls that led there.
        self.fired: str | None = None
        self.stack: list[str] = []
        self.in_main_thread = True
        self.error = exception(f"injected at {target}")
        self._left = occurrence

    def __enter__(self) -> Injector:
        if self._off:
            return self
        if sys.version_info >= (3, 12):
            self._begin_monitoring()
        else:
            threading.settrace(self._trace)
            sys.settrace(self._trace)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.active = False
        if self._off:
            return
        if sys.version_info >= (3, 12):
            if self._code is not None:
                sys.monitoring.set_local_events(self._tool, self._code, 0)
            sys.monitoring.set_events(self._tool, 0)
            sys.monitoring.free_tool_id(self._tool)
        else:
            threading.settrace(None)  # type: ignore[arg-type]
            sys.settrace(None)

    @property
    def may_be_absorbed(self) -> bool:
        """Whether the engine may catch the error, as it does RuntimeError at some lines."""
        return isinstance(self.error, RuntimeError)

    # -- both ways --

    def _hit(self, line: Line) -> None:
        """A line is about to execute."""
        if not self.active or WHOSE.get() == "bystander":
            return
        if self.target is None:
            if not line.does_nothing:
                self.counts[line] += 1
            return
        self._left -= 1
        if self._left == 0:
            self.active = False
            self.fired = WHOSE.get()
            self.stack = _callers()
            self.in_main_thread = threading.current_thread() is threading.main_thread()
            raise self.error

    # -- sys.monitoring --

    _tool = 3
    _code: CodeType | None = None

    def _begin_monitoring(self) -> None:
        monitoring = sys.monitoring
        line = monitoring.events.LINE
        monitoring.use_tool_id(self._tool, "injection")
        monitoring.register_callback(self._tool, line, self._on_line)
        code = None if self.target is None else engine_code().get(self.target[:3])
        self._code = code
        if code is None:
            monitoring.set_events(self._tool, line)
        else:
            # One function alone: that keeps a run in a forked process short.
            monitoring.set_local_events(self._tool, code, line)

    def _on_line(self, code: CodeType, number: int) -> Any:
        line = line_of(code, number)
        if line is None or (self.target is not None and line != self.target):
            return sys.monitoring.DISABLE
        self._hit(line)
        return None

    # -- sys.settrace --

    def _trace(self, frame: FrameType, _event: str, _arg: object) -> Any:
        line = line_of(frame.f_code, 0)
        if line is None or (self.target is not None and line[:3] != self.target[:3]):
            return None
        return self._trace_line

    def _trace_line(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "line":
            line = line_of(frame.f_code, frame.f_lineno)
            if line is not None and (self.target is None or line == self.target):
                self._hit(line)
        return self._trace_line


def _callers() -> list[str]:
    """The calls that led to the line, innermost first; those outside the package are shortened."""
    found: list[str] = []
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and len(found) < 6:
        code = frame.f_code
        if code.co_filename != __file__:
            name = _FILES.get(code.co_filename, Path(code.co_filename).name)
            found.append(f"{name}:{frame.f_lineno} {code.co_name}")
        frame = frame.f_back
    return found
